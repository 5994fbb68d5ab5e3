//! Writing to tables so that it can be taken back.
//!
//! Every step that a program could notice goes through here and leaves its inverse in the
//! journal. Places that nobody reads yet are filled without one.

use super::names::{Exhausted, Named, Names, Space};
use super::pool::Pool;
use crate::plan::Digest;
use crate::sys::{
    BACKENDS, HASHES, Kernel, KernelError, LISTS, NAMES, NAT_POOL, NAT_RULES, PORTS, Put, SERVICE_RANGES,
    SERVICES, Table, Typed, VERSIONS, VRFS, Word, bytes,
};
use loxi_ebpf_layout::l2::Port;
use loxi_ebpf_layout::lb::{Backend, HASHES_PER_WORD};
use loxi_ebpf_layout::tunnel::PATH_CHANGES;
use loxi_ebpf_layout::{Plain, pair::Pair};
use std::collections::{BTreeMap, BTreeSet};

/// Why a row can't be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No number is left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// No room is left in an array.
    #[error("no room is left in {} for {count} entries side by side", table.name())]
    NoRoom {
        /// The array.
        table: Table,
        /// How many entries are wanted.
        count: u32,
    },
    /// The plan contradicts itself.
    #[error("{0} is no row of the plan")]
    Missing(String),
}

/// How to take a step back.
#[derive(Debug)]
pub(crate) enum Inverse {
    /// A key had this value, or none.
    Key { table: Table, key: Vec<u8>, was: Option<Vec<u8>> },
    /// An entity in halves was this.
    Half { table: Table, index: u32, was: Vec<u8> },
    /// A word had this value.
    Word { table: Table, offset: usize, was: u64 },
}

/// Free places of the arrays that have no names.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) versions: Pool,
    pub(crate) lists: Pool,
    pub(crate) hashes: Pool,
    pub(crate) nat_rules: Pool,
    pub(crate) nat_pool: Pool,
}

/// Everything that is needed to write.
pub(crate) struct Writer {
    pub(crate) kernel: Box<dyn Kernel>,
    pub(crate) names: Names,
    pub(crate) pools: Pools,
    /// Entities of which the half that isn't read was read until a moment ago.
    unsettled: BTreeSet<(Table, u32)>,
    pub(crate) journal: Vec<Inverse>,
    /// Places that are free once the installation stands.
    pub(crate) freed: Vec<(Table, u32, u32)>,
    /// Generation of the endpoint that changed last.
    pub(crate) generation: u32,
    /// Endpoints that are written beside what they are, for services that go with them as they will be.
    coming: BTreeMap<u32, Backend>,
    /// Places of paths towards ends of tunnels that change.
    changing: Vec<u32>,
    retiring: Vec<Retire>,
    /// Groups of rules whose numbers are retired too, unless they come again in the same installation.
    pub(crate) going: BTreeSet<Digest>,
    /// What is in use could not be read after an installation was taken back.
    unread: bool,
}

/// Retires one name's number.
type Retire = Box<dyn FnOnce(&mut Writer) -> Result<(), KernelError> + Send>;

impl Pools {
    /// What is free is what no service and no VRF refers to.
    pub(crate) fn load(kernel: &dyn Kernel) -> Result<Self, KernelError> {
        let mut versions: BTreeSet<u32> = kernel.all(SERVICES)?.into_iter().map(|(_, place)| place).collect();
        versions.extend(kernel.all(SERVICE_RANGES)?.into_iter().map(|(_, place)| place));
        let (mut lists, mut hashes, mut rules, mut pool) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for place in &versions {
            let service = kernel.at(VERSIONS, *place);
            lists.push((service.list, service.count.saturating_add(service.idle)));
            hashes.push((service.table, service.size.div_ceil(HASHES_PER_WORD)));
        }
        for number in 1..kernel.length(VRFS) {
            let vrf = *kernel.at(VRFS, number).current();
            rules.push((vrf.nat_base, vrf.nat_count));
            for place in vrf.nat_base..vrf.nat_base.saturating_add(vrf.nat_count) {
                let rule = kernel.at(NAT_RULES, place);
                pool.push((rule.pool, rule.pool_v4.saturating_add(rule.pool_v6)));
            }
        }
        Ok(Self {
            versions: Pool::new(kernel.length(VERSIONS), versions.into_iter().map(|place| (place, 1))),
            lists: Pool::new(kernel.length(LISTS), lists),
            hashes: Pool::new(kernel.length(HASHES), hashes),
            nat_rules: Pool::new(kernel.length(NAT_RULES), rules),
            nat_pool: Pool::new(kernel.length(NAT_POOL), pool),
        })
    }

    fn of(&mut self, table: Table) -> &mut Pool {
        match table {
            Table::Versions => &mut self.versions,
            Table::Lists => &mut self.lists,
            Table::Hashes => &mut self.hashes,
            Table::NatRules => &mut self.nat_rules,
            _ => &mut self.nat_pool,
        }
    }

    fn all(&mut self) -> [&mut Pool; 5] {
        [&mut self.versions, &mut self.lists, &mut self.hashes, &mut self.nat_rules, &mut self.nat_pool]
    }
}

impl Writer {
    /// Takes over tables.
    pub(crate) fn new(kernel: Box<dyn Kernel>) -> Result<Self, KernelError> {
        let names = Names::load(&*kernel)?;
        let pools = Pools::load(&*kernel)?;
        // One that was taken back counts too: flows may have it.
        let halves = (1..kernel.length(BACKENDS)).flat_map(|slot| kernel.at(BACKENDS, slot).halves);
        let generation = halves.map(|half| half.generation).max().unwrap_or(0);
        let (unsettled, journal, freed, retiring) = (BTreeSet::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            kernel,
            names,
            pools,
            unsettled,
            journal,
            freed,
            generation,
            coming: BTreeMap::new(),
            changing: Vec::new(),
            retiring,
            going: BTreeSet::new(),
            unread: false,
        })
    }

    /// Waits until nobody reads what was replaced.
    pub(crate) fn settle(&mut self) -> Result<(), KernelError> {
        if !self.unsettled.is_empty() || self.pools.all().iter().any(|pool| pool.rests()) {
            self.kernel.grace()?;
            self.unsettled.clear();
            self.pools.all().into_iter().for_each(Pool::settle);
        }
        Ok(())
    }

    /// Puts a value.
    pub(crate) fn put<K: Plain, V: Plain>(
        &mut self,
        table: Typed<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), KernelError> {
        let was = self.kernel.get(table.table, bytes(key))?;
        if was.as_deref() == Some(bytes(value)) {
            return Ok(());
        }
        self.kernel.put(table.table, bytes(key), bytes(value), Put::Any)?;
        self.journal.push(Inverse::Key { table: table.table, key: bytes(key).to_vec(), was });
        Ok(())
    }

    /// Takes a key out.
    pub(crate) fn unset<K: Plain, V: Plain>(
        &mut self,
        table: Typed<K, V>,
        key: &K,
    ) -> Result<(), KernelError> {
        let Some(was) = self.kernel.get(table.table, bytes(key))? else { return Ok(()) };
        self.kernel.remove(table.table, bytes(key))?;
        self.journal.push(Inverse::Key { table: table.table, key: bytes(key).to_vec(), was: Some(was) });
        Ok(())
    }

    /// Takes a key out, by its bytes.
    pub(crate) fn unset_bytes(&mut self, table: Table, key: &[u8]) -> Result<(), KernelError> {
        let Some(was) = self.kernel.get(table, key)? else { return Ok(()) };
        self.kernel.remove(table, key)?;
        self.journal.push(Inverse::Key { table, key: key.to_vec(), was: Some(was) });
        Ok(())
    }

    /// Makes an element of an array nothing: the half that is read where it has halves, else its first word.
    pub(crate) fn clear_element(&mut self, table: Table, key: &[u8]) -> Result<(), KernelError> {
        let index = crate::sys::value::<u32>(key).unwrap_or(0);
        match table.half() {
            Some(size) => self.flip_bytes(table, index, &vec![0; size]),
            None => self.kernel.publish(table, index as usize * table.sizes().1, 0),
        }
    }

    /// The half of an entity that is read.
    pub(crate) fn current<T: Plain>(&self, table: Typed<u32, Pair<T>>, index: u32) -> T {
        *self.kernel.at(table, index).current()
    }

    /// Writes the half that isn't read, then lets it be the one that is.
    pub(crate) fn flip<T: Plain + PartialEq>(
        &mut self,
        table: Typed<u32, Pair<T>>,
        index: u32,
        value: &T,
    ) -> Result<(), KernelError> {
        let was = self.current(table, index);
        if was == *value {
            return Ok(());
        }
        self.flip_bytes(table.table, index, bytes(value))?;
        self.note_half(table.table, index, bytes(&was));
        Ok(())
    }

    /// [`Writer::flip`] of a port, whose two halves have more room than they need.
    pub(crate) fn flip_port(&mut self, index: u32, value: &Port) -> Result<(), KernelError> {
        let was = *self.kernel.at(PORTS, index).pair.current();
        if was == *value {
            return Ok(());
        }
        self.flip_bytes(Table::Ports, index, bytes(value))?;
        self.note_half(Table::Ports, index, bytes(&was));
        Ok(())
    }

    /// Writes an endpoint beside what it is. It comes with [`Writer::endpoints_come`].
    pub(crate) fn prepare(&mut self, slot: u32, value: &Backend) -> Result<(), KernelError> {
        if self.current(BACKENDS, slot) != *value {
            self.fill_other(Table::Backends, slot, bytes(value))?;
            self.coming.insert(slot, *value);
        }
        Ok(())
    }

    /// The generation of an endpoint as it will be.
    pub(crate) fn generation_of(&self, slot: u32) -> u32 {
        let coming = self.coming.get(&slot).map(|value| value.generation);
        coming.unwrap_or_else(|| self.current(BACKENDS, slot).generation)
    }

    /// Every service goes with endpoints as they will be: now they are that, and flows of others are stale.
    pub(crate) fn endpoints_come(&mut self) -> Result<(), KernelError> {
        for slot in std::mem::take(&mut self.coming).into_keys() {
            let was = self.current(BACKENDS, slot);
            self.turn(Table::Backends, slot)?;
            self.note_half(Table::Backends, slot, bytes(&was));
        }
        Ok(())
    }

    /// Flows keep the link layer below a tunnel, and take all else from the tunnel: while one changes, packets
    /// towards its ends go the long way.
    pub(crate) fn leave_short_ways(&mut self, place: u32) {
        let word = self.path_mtu(place);
        // Where a path got narrower they go it anyway.
        if word.replace(0, PATH_CHANGES) {
            self.changing.push(place);
        }
    }

    /// Every flow's way is decided anew by now.
    pub(crate) fn return_to_short_ways(&mut self) {
        let places = std::mem::take(&mut self.changing);
        if places.is_empty() {
            return;
        }
        // A packet that was believed before may be under way.
        if let Err(error) = self.kernel.grace() {
            tracing::warn!(%error, "tunnels' packets go the long way until the sweeper has passed");
            return;
        }
        for place in places {
            // What was learned meanwhile stays.
            let _ = self.path_mtu(place).replace(PATH_CHANGES, 0);
        }
    }

    fn path_mtu(&self, place: u32) -> Word<'_> {
        self.kernel.memory(Table::PathMtus).word(place as usize * size_of::<u64>())
    }

    /// Notes what the half was that is read no more.
    fn note_half(&mut self, table: Table, index: u32, was: &[u8]) {
        self.journal.push(Inverse::Half { table, index, was: was.to_vec() });
    }

    fn flip_bytes(&mut self, table: Table, index: u32, value: &[u8]) -> Result<(), KernelError> {
        self.fill_other(table, index, value)?;
        self.turn(table, index)
    }

    /// Writes the half that isn't read.
    fn fill_other(&mut self, table: Table, index: u32, value: &[u8]) -> Result<(), KernelError> {
        if self.unsettled.contains(&(table, index)) {
            self.settle()?;
        }
        let start = index as usize * table.sizes().1;
        let memory = self.kernel.memory(table);
        let other = 1 - (memory.word(start).load() & 1);
        memory.write_bytes(start + 8 + other as usize * value.len(), value);
        Ok(())
    }

    /// Lets the half be read that wasn't.
    fn turn(&mut self, table: Table, index: u32) -> Result<(), KernelError> {
        let start = index as usize * table.sizes().1;
        let other = 1 - (self.kernel.memory(table).word(start).load() & 1);
        self.kernel.publish(table, start, other)?;
        self.unsettled.insert((table, index));
        Ok(())
    }

    /// Writes a word.
    pub(crate) fn word(&mut self, table: Table, offset: usize, value: u64) -> Result<(), KernelError> {
        let was = self.kernel.memory(table).word(offset).load();
        if was == value {
            return Ok(());
        }
        self.kernel.publish(table, offset, value)?;
        self.journal.push(Inverse::Word { table, offset, was });
        Ok(())
    }

    /// Takes places of an array.
    pub(crate) fn take(&mut self, table: Table, count: u32) -> Result<u32, WriteError> {
        if let Some(start) = self.pools.of(table).take(count) {
            return Ok(start);
        }
        self.settle()?;
        self.pools.of(table).take(count).ok_or(WriteError::NoRoom { table, count })
    }

    /// Gives places of an array back when the installation stands.
    pub(crate) fn give(&mut self, table: Table, start: u32, count: u32) {
        if count > 0 {
            self.freed.push((table, start, count));
        }
    }

    /// The number of a name; a new one where it has none.
    pub(crate) fn number<T: Named>(
        &mut self,
        space: fn(&mut Names) -> &mut Space<T>,
        name: &T,
    ) -> Result<u32, WriteError> {
        let (number, known) = space(&mut self.names).choose(name)?;
        if !known {
            let (key, value) = space(&mut self.names).row(name, number, true);
            self.put(NAMES, &key, &value)?;
            space(&mut self.names).give(name, number);
        }
        Ok(number)
    }

    /// Gives a name that has a number a new one: what stands under the old one may go on for a while.
    /// Returns the old one.
    pub(crate) fn renew<T: Named>(
        &mut self,
        space: fn(&mut Names) -> &mut Space<T>,
        name: &T,
    ) -> Result<Option<u32>, WriteError> {
        let Some(old) = space(&mut self.names).number(name) else { return Ok(None) };
        let number = space(&mut self.names).fresh(name)?;
        for (number, live) in [(number, true), (old, false)] {
            let (key, value) = space(&mut self.names).row(name, number, live);
            self.put(NAMES, &key, &value)?;
        }
        space(&mut self.names).give(name, number);
        Ok(Some(old))
    }

    /// Retires a name's number when the installation is through: until then others find what they
    /// have under it.
    pub(crate) fn retire_later<T: Named + Send + 'static>(
        &mut self,
        space: fn(&mut Names) -> &mut Space<T>,
        name: &T,
    ) {
        let name = name.clone();
        self.retiring.push(Box::new(move |w: &mut Self| w.retire(space, &name)));
    }

    /// Retires what is to be retired.
    pub(crate) fn retire_all(&mut self) -> Result<(), KernelError> {
        for digest in std::mem::take(&mut self.going) {
            self.retire(|names| &mut names.rules, &digest)?;
        }
        std::mem::take(&mut self.retiring).into_iter().try_for_each(|retire| retire(self))
    }

    /// Retires a name's number.
    pub(crate) fn retire<T: Named>(
        &mut self,
        space: fn(&mut Names) -> &mut Space<T>,
        name: &T,
    ) -> Result<(), KernelError> {
        let Some(number) = space(&mut self.names).number(name) else { return Ok(()) };
        let (key, value) = space(&mut self.names).row(name, number, false);
        self.put(NAMES, &key, &value)?;
        space(&mut self.names).retire(name);
        Ok(())
    }

    /// The installation stands: what it replaced rests. Returns how to take it back.
    pub(crate) fn stand(&mut self) -> Vec<Inverse> {
        for (table, start, count) in std::mem::take(&mut self.freed) {
            self.pools.of(table).give(start, count);
        }
        std::mem::take(&mut self.journal)
    }

    /// Takes steps back, the last one first. Goes on after a failure and returns the first.
    pub(crate) fn back(&mut self, journal: Vec<Inverse>) -> Result<(), KernelError> {
        let mut result = Ok(());
        for inverse in journal.into_iter().rev() {
            let done = match inverse {
                Inverse::Key { table, key, was: Some(was) } => self.kernel.put(table, &key, &was, Put::Any),
                Inverse::Key { table, key, was: None } => self.kernel.remove(table, &key).map(drop),
                Inverse::Half { table, index, was } => self.flip_bytes(table, index, &was),
                Inverse::Word { table, offset, was } => self.kernel.publish(table, offset, was),
            };
            if result.is_ok() {
                result = done;
            }
        }
        self.freed.clear();
        self.coming.clear();
        self.retiring.clear();
        self.going.clear();
        self.unread = true;
        result.and(self.reload())
    }

    /// Reads again what numbers and places are in use, where that is not known: a place that was believed to be
    /// free would be written under its readers.
    pub(crate) fn reload(&mut self) -> Result<(), KernelError> {
        if !self.unread {
            return Ok(());
        }
        self.names = Names::load(&*self.kernel)?;
        // What was taken for the installation may still be read.
        self.kernel.grace()?;
        self.unsettled.clear();
        self.pools = Pools::load(&*self.kernel)?;
        self.unread = false;
        Ok(())
    }
}

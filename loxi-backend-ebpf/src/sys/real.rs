//! The running kernel.

use super::raw::{self, Map};
use super::{Entries, Kernel, KernelError, MAPPED, Memory, PREFIXES, Put, Table};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io;

/// Tables of the running kernel.
#[derive(Debug)]
pub struct RealKernel {
    maps: BTreeMap<Table, Map>,
    memory: BTreeMap<Table, Memory>,
    /// The keys in tables of prefixes: of those the kernel tells the longest one that covers a key, never whether
    /// the key itself is there.
    prefixes: BTreeMap<Table, RefCell<HashSet<Vec<u8>>>>,
    quiet: bool,
}

/// Bytes of the kernel's memory, as near as kinds of tables tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Taken from the start.
    pub reserved: u64,
    /// Taken when every table is full.
    pub most: u64,
}

fn failed(call: &'static str, table: Table) -> impl FnOnce(io::Error) -> KernelError {
    move |source| KernelError { call, object: table.name().to_owned(), source }
}

impl RealKernel {
    /// Takes over maps, and maps the arrays among them into this process. One that is missing
    /// is asked for by mistake only.
    ///
    /// # Errors
    /// [`KernelError`] if a map is missing, is not of the layout's sizes, or can't be mapped.
    pub(crate) fn new(maps: BTreeMap<Table, Map>) -> Result<Self, KernelError> {
        let mut memory = BTreeMap::new();
        for table in Table::ALL {
            let map =
                maps.get(table).ok_or_else(|| failed("find", *table)(io::ErrorKind::NotFound.into()))?;
            if (map.key, map.value) != table.sizes() {
                let message = format!("keys of {} and values of {} bytes", map.key, map.value);
                return Err(failed("check", *table)(io::Error::other(message)));
            }
        }
        for table in MAPPED {
            if let Some(map) = maps.get(table) {
                let len = map.value.next_multiple_of(8) * map.entries as usize;
                memory.insert(*table, Memory::map(map.fd(), len).map_err(failed("map", *table))?);
            }
        }
        let prefixes = PREFIXES.iter().map(|table| (*table, RefCell::default())).collect();
        let kernel = Self { maps, memory, prefixes, quiet: false };
        for table in PREFIXES {
            kernel.entries(*table)?;
        }
        Ok(kernel)
    }

    fn map(&self, table: Table) -> &Map {
        // `new` admits no instance without one of each.
        &self.maps[&table]
    }

    /// Memory of all tables.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let sum = |maps: &mut dyn Iterator<Item = &Map>| maps.map(Map::footprint).sum();
        Footprint {
            reserved: sum(&mut self.maps.values().filter(|map| map.is_reserved())),
            most: sum(&mut self.maps.values()),
        }
    }

    /// The kernel's number of a table.
    #[must_use]
    pub fn id(&self, table: Table) -> u32 {
        self.map(table).id
    }
}

impl Kernel for RealKernel {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8], how: Put) -> Result<(), KernelError> {
        self.map(table).put(key, value, how as u64).map_err(failed("put into", table))?;
        if let Some(keys) = self.prefixes.get_mut(&table) {
            keys.get_mut().insert(key.to_vec());
        }
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, KernelError> {
        let was = self.map(table).remove(key).map_err(failed("remove from", table))?;
        if let Some(keys) = self.prefixes.get_mut(&table) {
            keys.get_mut().remove(key);
        }
        Ok(was)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        if self.prefixes.get(&table).is_some_and(|keys| !keys.borrow().contains(key)) {
            return Ok(None);
        }
        self.longest(table, key)
    }

    fn longest(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.map(table).get(key).map_err(failed("look up in", table))
    }

    fn entries(&self, table: Table) -> Result<Entries, KernelError> {
        let found = self.map(table).entries().map_err(failed("read", table))?;
        if let Some(keys) = self.prefixes.get(&table) {
            keys.replace(found.iter().map(|(key, _)| key.clone()).collect());
        }
        Ok(found)
    }

    fn capacity(&self, table: Table) -> u32 {
        self.map(table).entries
    }

    fn memory(&self, table: Table) -> &Memory {
        // `new` has mapped each of MAPPED; asking for another is a mistake of this crate.
        &self.memory[&table]
    }

    fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    fn grace(&mut self) -> Result<(), KernelError> {
        if self.quiet {
            return Ok(());
        }
        raw::grace().map_err(failed("grace period of", Table::Globals))
    }
}

#[cfg(test)]
mod tests {
    use crate::load::{self, Kinds, LoadOptions, Objects, Sizes};
    use crate::sys::{Kernel, ROUTES};
    use loxi_ebpf_layout::Addr;
    use loxi_ebpf_layout::l3::Route;

    /// A prefix of 10.0.0.0.
    fn route(bits: u32) -> Route {
        Route { bits: 64 + bits, vrf: 1, family: 4, addr: Addr::v4([10, 0, 0, 0]) }
    }

    #[test]
    fn a_prefix_is_not_there_because_a_shorter_one_is() {
        let options = LoadOptions {
            objects: Objects::new().unwrap(),
            kinds: Kinds { tc: true, xdp: false },
            sizes: Sizes { flows_v4: 16, flows_v6: 16 },
            seed: None,
            pins: None,
            discard: false,
        };
        let mut loaded = load::open(&options).unwrap();
        let kernel: &mut dyn Kernel = &mut loaded.kernel;
        kernel.set(ROUTES, &route(8), &7).unwrap();
        assert_eq!(kernel.look(ROUTES, &route(8)).unwrap(), Some(7));
        assert_eq!(kernel.look(ROUTES, &route(24)).unwrap(), None);
        let longest = kernel.longest(ROUTES.table, crate::sys::bytes(&route(24))).unwrap();
        assert_eq!(longest, Some(7u32.to_ne_bytes().to_vec()));
        kernel.set(ROUTES, &route(24), &7).unwrap();
        assert!(kernel.unset(ROUTES, &route(8)).unwrap());
        assert_eq!(kernel.look(ROUTES, &route(24)).unwrap(), Some(7));
        assert_eq!(kernel.all(ROUTES).unwrap(), [(route(24), 7)]);
    }
}

//! A model of the kernel's tables in memory: for tests, which need neither rights nor a kernel.
//!
//! # Contract
//! - Tables have the room that the programs give them, but the flow tables, whose size is given;
//!   a full one refuses a new key as the kernel does.
//! - [`Put`] is honoured, with the kernel's error numbers.
//! - [`Kernel::get`] is exact in every table; whoever wants the longest prefix says so.
//! - Clones share the tables and the memory, as processes share those of the kernel.

use super::{Entries, Kernel, KernelError, MAPPED, Memory, Put, Table};
use loxi_ebpf_layout::{code, count, limits};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Processors that the model has: tables with a value for each have this many.
const PROCESSORS: usize = 2;

type Hash = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug)]
struct Shared {
    hashes: Mutex<BTreeMap<Table, Hash>>,
    memory: BTreeMap<Table, Memory>,
    capacity: BTreeMap<Table, u32>,
}

/// Tables in memory.
#[derive(Debug, Clone)]
pub struct SimulatedKernel {
    shared: Arc<Shared>,
}

/// How many entries a table has room for, as the programs and their loader say.
fn room(table: Table, buckets: [u32; 2]) -> u32 {
    match table {
        Table::Globals | Table::Meta | Table::Answers | Table::Question => 1,
        Table::Ports | Table::PortPolicy | Table::Counters => limits::PORTS,
        Table::Fates | Table::Told => limits::PORTS * code::FATES,
        Table::PortVlans | Table::GuardMacs | Table::Links => limits::LINK_THINGS,
        Table::Admits | Table::LinkAddrs | Table::LocalAddrs => limits::LINK_THINGS,
        Table::Bridges | Table::StationCount => limits::BRIDGES,
        Table::Kept => count::kept::COUNT,
        Table::Stations => limits::STATIONS,
        Table::Proxies | Table::Neighbors => limits::NEIGHBORS,
        Table::Interfaces => limits::INTERFACES,
        Table::Vrfs => limits::VRFS,
        Table::Sets => limits::SET_MEMBERS,
        Table::Routes => limits::ROUTES,
        Table::NextHops => limits::NEXT_HOPS,
        Table::Groups => limits::GROUPS,
        Table::NatRules => limits::NAT_PLACES,
        Table::NatPool => limits::NAT_POOL,
        Table::Zones | Table::ZoneCount => limits::ZONES + 1,
        Table::Sources => 65_536,
        Table::Fragments => 2 * limits::FRAGMENTS,
        Table::Vips => limits::VIPS,
        Table::Services | Table::Versions | Table::Turns => limits::SERVICES,
        Table::ServiceRanges => 16 * limits::SERVICES,
        Table::Lists => limits::LIST_PLACES,
        Table::Hashes => limits::HASH_PLACES,
        Table::Backends | Table::BackendFlows => limits::BACKENDS,
        Table::Affinity => limits::CLIENTS,
        Table::Peers => limits::PEERS,
        Table::PeerRules | Table::PortRules => limits::POLICY_PAIRS,
        Table::Policies => limits::POLICIES,
        Table::Tunnels => limits::TUNNELS,
        Table::Endings | Table::Backs | Table::Outers => 2 * limits::TUNNELS,
        Table::Endpoints | Table::PathMtus => limits::ENDPOINTS,
        Table::BareUdp => limits::BARE_UDP,
        Table::FlowsV4 | Table::ColdV4 => buckets[0],
        Table::FlowsV6 | Table::ColdV6 => buckets[1],
        Table::Names => 1 << 20,
    }
}

/// Arrays that are not mapped, with the values that an element has.
fn values_of(table: Table) -> Option<usize> {
    match table {
        Table::Meta => Some(1),
        Table::Answers | Table::Counters | Table::Fates => Some(PROCESSORS),
        _ => None,
    }
}

fn failed(call: &'static str, table: Table, errno: i32) -> KernelError {
    KernelError { call, object: table.name().to_owned(), source: io::Error::from_raw_os_error(errno) }
}

impl SimulatedKernel {
    /// Empty tables. The flow tables have `buckets` for IPv4 and IPv6: powers of two.
    ///
    /// # Errors
    /// [`KernelError`] if there is no memory for them, or a number of buckets is no power of two.
    pub fn new(buckets: [u32; 2]) -> Result<Self, KernelError> {
        if !buckets.iter().all(|count| count.is_power_of_two()) {
            return Err(failed("make", Table::FlowsV4, libc::EINVAL));
        }
        let capacity: BTreeMap<_, _> =
            Table::ALL.iter().map(|table| (*table, room(*table, buckets))).collect();
        let mut memory = BTreeMap::new();
        for table in MAPPED {
            let len = table.sizes().1.next_multiple_of(8) * capacity[table] as usize;
            let mapped = Memory::anonymous(len).map_err(|source| KernelError {
                call: "map",
                object: table.name().to_owned(),
                source,
            })?;
            memory.insert(*table, mapped);
        }
        let hashes = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { hashes, memory, capacity }) })
    }

    fn hashes(&self) -> MutexGuard<'_, BTreeMap<Table, Hash>> {
        // Whoever panicked with it held has left every table whole.
        self.shared.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(
        &self,
        call: &'static str,
        table: Table,
        key: &[u8],
        value: Option<usize>,
    ) -> Result<(), KernelError> {
        let (key_size, value_size) = table.sizes();
        let width =
            values_of(table).filter(|n| *n > 1).map_or(value_size, |n| value_size.next_multiple_of(8) * n);
        if key.len() == key_size && value.is_none_or(|len| len == width) {
            Ok(())
        } else {
            Err(failed(call, table, libc::EINVAL))
        }
    }

    /// An array's element; `None`: it is no array, or has no such element.
    fn element(&self, table: Table, key: &[u8]) -> Option<Result<usize, i32>> {
        if !self.is_array(table) {
            return None;
        }
        let index = key.try_into().map_or(u32::MAX, u32::from_ne_bytes);
        Some(if index < self.capacity(table) { Ok(index as usize) } else { Err(libc::E2BIG) })
    }

    fn is_array(&self, table: Table) -> bool {
        self.shared.memory.contains_key(&table) || values_of(table).is_some()
    }

    fn read_mapped(&self, table: Table, index: usize) -> Vec<u8> {
        let (memory, size) = (self.memory(table), table.sizes().1);
        let start = index * size.next_multiple_of(8);
        let words = (0..size.div_ceil(8)).flat_map(|n| memory.word(start + 8 * n).load().to_ne_bytes());
        words.take(size).collect()
    }

    fn write_mapped(&self, table: Table, index: usize, value: &[u8]) {
        let memory = self.memory(table);
        let start = index * value.len().next_multiple_of(8);
        for (n, chunk) in value.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            memory.word(start + 8 * n).store(u64::from_ne_bytes(word));
        }
    }
}

impl Kernel for SimulatedKernel {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8], how: Put) -> Result<(), KernelError> {
        const CALL: &str = "put into";
        self.fits(CALL, table, key, Some(value.len()))?;
        if let Some(element) = self.element(table, key) {
            let index = element.map_err(|errno| failed(CALL, table, errno))?;
            if how == Put::New {
                return Err(failed(CALL, table, libc::EEXIST));
            }
            if self.shared.memory.contains_key(&table) {
                self.write_mapped(table, index, value);
            } else {
                self.hashes().entry(table).or_default().insert(key.to_vec(), value.to_vec());
            }
            return Ok(());
        }
        let most = self.capacity(table) as usize;
        let mut hashes = self.hashes();
        let entries = hashes.entry(table).or_default();
        let errno = match (how, entries.contains_key(key)) {
            (Put::New, true) => Some(libc::EEXIST),
            (Put::Old, false) => Some(libc::ENOENT),
            (Put::New | Put::Any, false) if entries.len() >= most => Some(libc::E2BIG),
            _ => None,
        };
        if let Some(errno) = errno {
            return Err(failed(CALL, table, errno));
        }
        entries.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, KernelError> {
        const CALL: &str = "remove from";
        self.fits(CALL, table, key, None)?;
        if self.is_array(table) {
            return Err(failed(CALL, table, libc::EINVAL));
        }
        Ok(self.hashes().get_mut(&table).is_some_and(|entries| entries.remove(key).is_some()))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.fits("look up in", table, key, None)?;
        match self.element(table, key) {
            Some(Err(_)) => Ok(None),
            Some(Ok(index)) if self.shared.memory.contains_key(&table) => {
                Ok(Some(self.read_mapped(table, index)))
            }
            found => {
                let known = self.hashes().get(&table).and_then(|entries| entries.get(key).cloned());
                let width = table.sizes().1.next_multiple_of(8);
                // An array's element is there from the start, all zeroes.
                let zero = || {
                    found.is_some().then(|| match values_of(table) {
                        Some(n) if n > 1 => vec![0; width * n],
                        _ => vec![0; table.sizes().1],
                    })
                };
                Ok(known.or_else(zero))
            }
        }
    }

    fn longest(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.fits("look up in", table, key, None)?;
        let hashes = self.hashes();
        let all = hashes.get(&table).into_iter().flatten();
        let matching = all.filter_map(|(prefix, value)| Some((common(prefix, key)?, value)));
        Ok(matching.max_by_key(|(bits, _)| *bits).map(|(_, value)| value.clone()))
    }

    fn entries(&self, table: Table) -> Result<Entries, KernelError> {
        if !self.is_array(table) {
            let hashes = self.hashes();
            let all = hashes.get(&table).into_iter().flatten();
            return Ok(all.map(|(key, value)| (key.clone(), value.clone())).collect());
        }
        let keys = (0..self.capacity(table)).map(|index| index.to_ne_bytes().to_vec());
        keys.map(|key| {
            let value = self.get(table, &key)?.unwrap_or_default();
            Ok((key, value))
        })
        .collect()
    }

    fn capacity(&self, table: Table) -> u32 {
        // `new` has put every table in.
        self.shared.capacity[&table]
    }

    fn memory(&self, table: Table) -> &Memory {
        // `new` has mapped each of MAPPED; asking for another is a mistake of this crate.
        &self.shared.memory[&table]
    }

    fn grace(&mut self) -> Result<(), KernelError> {
        Ok(())
    }
}

/// Bits of a prefix that covers a key. Both begin with their number of bits.
fn common(prefix: &[u8], key: &[u8]) -> Option<u32> {
    let split = |bytes: &[u8]| {
        let (bits, data) = bytes.split_first_chunk()?;
        Some((u32::from_ne_bytes(*bits), data.to_vec()))
    };
    let ((bits, prefix), (most, key)) = (split(prefix)?, split(key)?);
    let whole = (bits / 8) as usize;
    if bits > most || bits as usize > 8 * prefix.len() || prefix.get(..whole) != key.get(..whole) {
        return None;
    }
    let mask = !(0xff_u16 >> (bits % 8)) as u8;
    let same = prefix.get(whole).zip(key.get(whole)).is_none_or(|(a, b)| (a ^ b) & mask == 0);
    same.then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::super::{AFFINITY, COUNTERS, KEPT, META, NAMES, ROUTES, TURNS, bytes};
    use super::*;
    use loxi_ebpf_layout::l3::{FIXED_BITS, Route};
    use loxi_ebpf_layout::lb::{Affinity, AffinityKey};
    use loxi_ebpf_layout::{Addr, meta};

    fn kernel() -> SimulatedKernel {
        SimulatedKernel::new([4, 2]).unwrap()
    }

    fn errno(result: Result<(), KernelError>) -> Option<i32> {
        result.unwrap_err().source.raw_os_error()
    }

    #[test]
    fn flags_are_honoured() {
        let mut kernel = kernel();
        let (key, value) = ([7u8; 8], [1u8; 256]);
        assert_eq!(errno(kernel.put(Table::Names, &key, &value, Put::Old)), Some(libc::ENOENT));
        kernel.put(Table::Names, &key, &value, Put::New).unwrap();
        assert_eq!(errno(kernel.put(Table::Names, &key, &value, Put::New)), Some(libc::EEXIST));
        kernel.put(Table::Names, &key, &[2; 256], Put::Old).unwrap();
        assert_eq!(kernel.get(Table::Names, &key).unwrap().unwrap(), [2; 256]);
        assert!(kernel.remove(Table::Names, &key).unwrap());
        assert!(!kernel.remove(Table::Names, &key).unwrap());
        assert_eq!(kernel.get(Table::Names, &key).unwrap(), None);
        assert_eq!(errno(kernel.put(Table::Names, &key, &[0; 255], Put::Any)), Some(libc::EINVAL));
    }

    #[test]
    fn a_full_table_takes_no_new_key_and_still_changes_old_ones() {
        let mut kernel = kernel();
        let kernel: &mut dyn Kernel = &mut kernel;
        let key = |n: u32| AffinityKey { service: n, family: 4, client: Addr::v4([10, 0, 0, 1]) };
        for n in 0..limits::CLIENTS {
            kernel.set(AFFINITY, &key(n), &Affinity::default()).unwrap();
        }
        let refused = kernel.set(AFFINITY, &key(u32::MAX), &Affinity::default());
        assert_eq!(refused.unwrap_err().source.raw_os_error(), Some(libc::E2BIG));
        let changed = Affinity { backend: 9, ..Affinity::default() };
        kernel.set(AFFINITY, &key(3), &changed).unwrap();
        assert_eq!(kernel.look(AFFINITY, &key(3)).unwrap(), Some(changed));
        assert_eq!(kernel.all(AFFINITY).unwrap().len(), limits::CLIENTS as usize);
    }

    #[test]
    fn calls_and_memory_see_the_same_array() {
        let mut kernel = kernel();
        kernel.put(Table::Turns, &5u32.to_ne_bytes(), &77u64.to_ne_bytes(), Put::Any).unwrap();
        let kernel: &mut dyn Kernel = &mut kernel;
        assert_eq!(kernel.at(TURNS, 5), 77);
        kernel.fill(KEPT, 2, &9);
        assert_eq!(kernel.get(Table::Kept, &2u32.to_ne_bytes()).unwrap().unwrap(), 9u64.to_ne_bytes());
        assert_eq!(kernel.get(Table::Kept, &99u32.to_ne_bytes()).unwrap(), None);
        assert!(kernel.remove(Table::Kept, &2u32.to_ne_bytes()).is_err());
    }

    #[test]
    fn arrays_that_are_not_mapped_are_there_from_the_start() {
        let mut kernel = kernel();
        let counters = kernel.get(COUNTERS.table, &3u32.to_ne_bytes()).unwrap().unwrap();
        assert_eq!(counters, vec![0; 64 * PROCESSORS]);
        let told = meta::Meta { magic: meta::MAGIC, ..meta::Meta::default() };
        let kernel: &mut dyn Kernel = &mut kernel;
        assert_eq!(kernel.look(META, &0).unwrap(), Some(meta::Meta::default()));
        kernel.set(META, &0, &told).unwrap();
        assert_eq!(kernel.look(META, &0).unwrap(), Some(told));
    }

    #[test]
    fn the_longest_prefix_is_found() {
        let mut kernel = kernel();
        let route = |bits, addr| Route { bits: FIXED_BITS + bits, vrf: 1, family: 4, addr: Addr::v4(addr) };
        for (bits, addr, to) in [(0, [0; 4], 1u32), (8, [10, 0, 0, 0], 2), (23, [10, 1, 2, 0], 3)] {
            (&mut kernel as &mut dyn Kernel).set(ROUTES, &route(bits, addr), &to).unwrap();
        }
        for (addr, to) in [([10, 1, 3, 9], 3), ([10, 1, 4, 9], 2), ([11, 1, 3, 9], 1)] {
            let found = kernel.longest(Table::Routes, bytes(&route(32, addr))).unwrap();
            assert_eq!(found, Some(u32::to_ne_bytes(to).to_vec()), "{addr:?}");
        }
        let other = Route { vrf: 2, ..route(32, [10, 1, 3, 9]) };
        assert_eq!(kernel.longest(Table::Routes, bytes(&other)).unwrap(), None);
    }

    #[test]
    fn clones_share_everything() {
        let mut one = kernel();
        let other = one.clone();
        one.put(Table::Names, bytes(&[1u32, 2]), &[3; 256], Put::New).unwrap();
        one.memory(Table::Turns).word(8).store(4);
        let other: &dyn Kernel = &other;
        assert_eq!(other.look(NAMES, &[1, 2]).unwrap(), Some([3; 256]));
        assert_eq!(other.at(TURNS, 1), 4);
        assert!(SimulatedKernel::new([3, 2]).is_err());
    }
}

//! What happens between two calls of ours: a kernel that lets programs run there, and one that fails.

use super::fixture::*;
use super::learning::{endpoint, fragment, lowered, neighbor, station};
use crate::state::flow::accounts::Sources;
use crate::state::flow::{Key, Seat};
use crate::state::{Store, export, import, recount, recover, sweep};
use crate::sys::{
    Faults, FaultyKernel, Kernel, KernelError, Memory, Put, STATIONS, SimulatedKernel, Table, ZONE_COUNT,
};
use loxi_core::dataplane::{DataplaneError, FlowStore, StateStore};
use loxi_core::packet::{FdbEntry, State};
use loxi_ebpf_layout::flow::{Cold, REPLY, Seen, state};
use loxi_ebpf_layout::l2::{Link, Station, StationAt};

type Hook = Box<dyn Fn() + Send>;

/// A kernel in which something happens during a grace period, and after a table was listed.
struct Interrupted {
    inner: SimulatedKernel,
    grace: Hook,
    listed: Hook,
}

impl Kernel for Interrupted {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8], how: Put) -> Result<(), KernelError> {
        self.inner.put(table, key, value, how)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, KernelError> {
        self.inner.remove(table, key)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.inner.get(table, key)
    }

    fn entries(&self, table: Table) -> Result<Vec<(Vec<u8>, Vec<u8>)>, KernelError> {
        let entries = self.inner.entries(table);
        (self.listed)();
        entries
    }

    fn capacity(&self, table: Table) -> u32 {
        self.inner.capacity(table)
    }

    fn memory(&self, table: Table) -> &Memory {
        self.inner.memory(table)
    }

    fn grace(&mut self) -> Result<(), KernelError> {
        (self.grace)();
        self.inner.grace()
    }
}

#[test]
fn what_a_program_is_at_is_left_alone() {
    let mut node = Node::new([4, 4]);
    let (_, key) = Key::of(1, &nth(1).id.tuple).unwrap();
    let seen = Seen { seen: crate::state::flow::times::tick(NOW), ..Seen::default() };
    let seat = Seat { key, new: key, state: state::SYN_SENT, flags: 0, seen };
    let (original, reply) = {
        let store = node.store();
        let table = store.table(4);
        let original = table.claim(&seat).unwrap();
        let reply = table.claim(&Seat { key: key.reversed(), flags: REPLY, ..seat }).unwrap();
        (original, reply)
    };
    // As the programs do it: the reply is there for all to see before the original is.
    let finish = node.kernel.clone();
    let grace = move || {
        let mut kernel = finish.clone();
        let names = crate::install::Names::default();
        let store = Store::new(&mut kernel, &names, SEED);
        let table = store.table(4);
        table.set_cold(reply, &Cold { partner: original.number(), ..Cold::default() });
        table.publish(reply, &key.reversed());
        table.set_cold(
            original,
            &Cold { created: NOW.0, partner: reply.number(), in_port: 1, ..Cold::default() },
        );
        table.publish(original, &key);
    };
    let inner = node.kernel.clone();
    let mut kernel = Interrupted { inner, grace: Box::new(grace), listed: Box::new(|| ()) };
    let mut store = Store::new(&mut kernel, &node.names, SEED);
    let recovered = recover(&mut store).unwrap();
    assert_eq!((recovered.unfinished, recovered.broken, recovered.counts.flows), (0, 0, 1));
    assert!(store.get(&nth(1).id).is_some());
}

#[test]
fn a_packet_between_the_look_and_the_removal_keeps_a_flow() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    store.insert(nth(1), NOW).unwrap();
    let (_, key) = Key::of(1, &nth(1).id.tuple).unwrap();
    let later = NOW.plus_s(130);
    for direction in [0, 1] {
        let table = store.table(4);
        let (_, record) = table.record(table.find(&key).unwrap()).unwrap();
        assert!(store.is_over(&record, later));
        let word = table.seen_word([record.original, record.partner][direction], 0);
        let before = word.load();
        word.store(u64::from(crate::state::flow::times::tick(NOW.plus_s(125))) << 32);
        let mut sources = Sources::default();
        assert!(!store.end_expired(&record, later, &mut sources));
        store.table(4).seen_word([record.original, record.partner][direction], 0).store(before);
    }
    assert_eq!(sweep(&mut store, later).flows, 1);
}

#[test]
fn a_station_heard_between_the_list_and_the_removal_stays() {
    let mut node = Node::new([4, 4]);
    node.store().put_station(station(1));
    node.store().put_station(station(2));
    let heard = node.kernel.clone();
    let listed = move || {
        let mut kernel = heard.clone();
        let kernel: &mut dyn Kernel = &mut kernel;
        let mac = super::learning::mac(1).octets();
        let key = Station { link: Link { id: 1, vlan: 1 }, mac, reserved: 0 };
        let at = StationAt { port: 1, tunnel: 0, fixed: 0, expires: NOW.plus_s(99).0 };
        kernel.set(STATIONS, &key, &at).unwrap();
    };
    let inner = node.kernel.clone();
    let mut kernel = Interrupted { inner, grace: Box::new(|| ()), listed: Box::new(listed) };
    let mut store = Store::new(&mut kernel, &node.names, SEED);
    assert_eq!(sweep(&mut store, NOW.plus_s(10)).others, 1);
    assert_eq!(store.station(&station(1).key), Some(FdbEntry { expires: NOW.plus_s(99), ..station(1) }));
    assert_eq!(store.station(&station(2).key), None);
    assert_eq!(recount(&mut node.store()).unwrap().corrected, 0);
}

#[test]
fn a_kernel_that_refuses_is_an_error_or_as_if_there_were_no_room() {
    let mut node = Node::new([4, 4]);
    endpoint(&mut node, "192.0.2.50", 3);
    let state = State {
        flows: vec![nth(1)],
        fdb: vec![station(1)],
        neighbors: vec![neighbor(1)],
        path_mtus: vec![lowered("192.0.2.50", 1400)],
        fragments: vec![fragment()],
        ..State::default()
    };
    let faults = Faults::default();
    let mut kernel = FaultyKernel::new(Box::new(node.kernel.clone()), faults.clone());
    let mut store = Store::new(&mut kernel, &node.names, SEED);
    // Three things go into the kernel's tables.
    for call in 0..3 {
        faults.fail_at(Some(call));
        let result = import(&mut store, state.clone(), NOW);
        assert!(matches!(result, Err(DataplaneError::Internal(_))), "call {call}: {result:?}");
        faults.fail_at(None);
        assert_eq!(recount(&mut store).unwrap().corrected, 0, "call {call}");
        import(&mut store, State::default(), NOW).unwrap();
    }
    faults.fail_at(None);
    import(&mut store, state.clone(), NOW).unwrap();
    assert_eq!(faults.calls(), 3);
    assert_eq!(export(&store).unwrap().fdb, state.fdb);
    faults.fail_at(Some(0));
    store.put_station(station(2));
    assert_eq!(store.station(&station(2).key), None);
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 1);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

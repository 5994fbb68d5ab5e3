//! The reference's own store of what was learned, in memory.

use super::FlowTable;
use loxi_core::dataplane::{FlowInsertError, FlowStore, StateStore};
use loxi_core::ir::{CtZone, FdbKey, NeighborKey, ServiceKey};
use loxi_core::net::{BackendName, BridgeName, PortName, ZoneName};
use loxi_core::packet::{
    AffinityEntry, FdbEntry, Flow, FlowDirection, FlowId, FlowTotals, FlowTuple, FragmentEntry, FragmentKey,
    NeighborEntry, PathMtuEntry, Timestamp,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Seconds for which an expired record of a first fragment is kept: a fragment that comes too late is
/// told from one that came without a first.
const LATE_S: u32 = 30;

/// Records of first fragments from which on stale ones are looked for at each new one.
const SWEEP_AT: usize = 4096;

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryState {
    pub(crate) flows: FlowTable,
    pub(crate) fdb: BTreeMap<FdbKey, FdbEntry>,
    pub(crate) neighbors: BTreeMap<NeighborKey, NeighborEntry>,
    pub(crate) affinity: BTreeMap<(ServiceKey, IpAddr), AffinityEntry>,
    pub(crate) path_mtus: BTreeMap<IpAddr, PathMtuEntry>,
    pub(crate) fragments: BTreeMap<FragmentKey, FragmentEntry>,
    pub(crate) slots: BTreeMap<BackendName, u64>,
    pub(crate) round_robin: BTreeMap<ServiceKey, u64>,
    pub(crate) policy_generations: BTreeMap<PortName, u64>,
}

/// Whether the record of a first fragment still tells anything.
fn tells(entry: &FragmentEntry, now: Timestamp) -> bool {
    entry.expires.plus_s(LATE_S) > now
}

impl MemoryState {
    /// Forgets everything that has expired, not flows alone. Cost grows with what is stored.
    pub(crate) fn expire_all(&mut self, now: Timestamp) {
        self.flows.expire(now);
        self.fdb.retain(|_, entry| entry.expires > now);
        self.neighbors.retain(|_, entry| entry.expires > now);
        self.affinity.retain(|_, entry| entry.expires > now);
        self.path_mtus.retain(|_, entry| entry.expires > now);
        self.fragments.retain(|_, entry| tells(entry, now));
    }
}

impl FlowStore for MemoryState {
    fn lookup(&self, zone: &ZoneName, tuple: &FlowTuple, now: Timestamp) -> Option<(FlowDirection, Flow)> {
        self.flows.lookup(zone, tuple, now)
    }

    fn get(&self, id: &FlowId) -> Option<Flow> {
        self.flows.get(id)
    }

    fn insert(&mut self, flow: Flow, now: Timestamp) -> Result<(), FlowInsertError> {
        self.flows.insert(flow, now)
    }

    fn update(&mut self, id: &FlowId, change: &mut dyn FnMut(&mut Flow)) {
        self.flows.update(id, change);
    }

    fn remove(&mut self, id: &FlowId) -> Option<Flow> {
        self.flows.remove(id)
    }

    fn totals(&self, zone: &CtZone) -> FlowTotals {
        self.flows.totals(zone)
    }

    fn of_source(&self, zone: &ZoneName, source: IpAddr) -> u64 {
        self.flows.of_source(zone, source)
    }

    fn of_backend(&self, backend: &BackendName, now: Timestamp) -> u64 {
        self.flows.of_backend(backend, now)
    }

    fn expire(&mut self, now: Timestamp) {
        self.flows.expire(now);
    }
}

impl StateStore for MemoryState {
    fn station(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.fdb.get(key).cloned()
    }

    fn put_station(&mut self, entry: FdbEntry) {
        self.fdb.insert(entry.key.clone(), entry);
    }

    fn stations(&mut self, bridge: &BridgeName, now: Timestamp) -> u64 {
        self.fdb.retain(|_, entry| entry.expires > now);
        self.fdb.keys().filter(|key| key.bridge == *bridge).count() as u64
    }

    fn neighbor(&self, key: &NeighborKey) -> Option<NeighborEntry> {
        self.neighbors.get(key).cloned()
    }

    fn put_neighbor(&mut self, entry: NeighborEntry) {
        self.neighbors.insert(entry.key.clone(), entry);
    }

    fn affinity(&self, service: &ServiceKey, client: IpAddr) -> Option<AffinityEntry> {
        self.affinity.get(&(service.clone(), client)).cloned()
    }

    fn put_affinity(&mut self, entry: AffinityEntry) {
        self.affinity.insert((entry.service.clone(), entry.client), entry);
    }

    fn path_mtu(&self, remote: IpAddr) -> Option<PathMtuEntry> {
        self.path_mtus.get(&remote).cloned()
    }

    fn put_path_mtu(&mut self, entry: PathMtuEntry) {
        self.path_mtus.insert(entry.remote, entry);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        self.fragments.get(key).cloned()
    }

    fn put_fragment(&mut self, entry: FragmentEntry) {
        self.fragments.insert(entry.key(), entry);
    }

    fn fragments(&mut self, now: Timestamp) -> usize {
        if self.fragments.len() >= SWEEP_AT {
            self.fragments.retain(|_, entry| tells(entry, now));
        }
        self.fragments.values().filter(|entry| tells(entry, now)).count()
    }

    fn slot(&self, backend: &BackendName) -> u64 {
        self.slots.get(backend).copied().unwrap_or(0)
    }

    fn turn(&mut self, service: &ServiceKey) -> u64 {
        let position = self.round_robin.entry(service.clone()).or_default();
        let turn = *position;
        *position = position.wrapping_add(1);
        turn
    }

    fn policy_generation(&self, port: &PortName) -> u64 {
        self.policy_generations.get(port).copied().unwrap_or(0)
    }
}

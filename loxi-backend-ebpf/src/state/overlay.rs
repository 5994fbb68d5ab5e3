//! What would become of the state: changes beside it, which nobody else sees.
//!
//! # Contract
//! - Reads see the changes first, then the store below; nothing is ever written there.
//! - Counts are those below, more or less by what was changed here.

use loxi_core::dataplane::{FlowInsertError, FlowStore, StateStore};
use loxi_core::ir::{CtZone, FdbKey, NeighborKey, ServiceKey};
use loxi_core::net::{BackendName, BridgeName, PortName, ZoneName};
use loxi_core::packet::{
    AffinityEntry, FdbEntry, Flow, FlowDirection, FlowId, FlowTotals, FlowTuple, FragmentEntry, FragmentKey,
    NeighborEntry, PathMtuEntry, Timestamp,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A store with changes beside it.
pub struct Overlay<'a> {
    below: &'a dyn StateStore,
    /// Flows that are new or changed; none: taken out.
    flows: BTreeMap<FlowId, Option<Flow>>,
    stations: BTreeMap<FdbKey, FdbEntry>,
    neighbors: BTreeMap<NeighborKey, NeighborEntry>,
    affinity: BTreeMap<(ServiceKey, IpAddr), AffinityEntry>,
    path_mtus: BTreeMap<IpAddr, PathMtuEntry>,
    fragments: BTreeMap<FragmentKey, FragmentEntry>,
    turns: BTreeMap<ServiceKey, u64>,
    /// How many learned things there are below, where that can be known without changing them.
    learned: Learned,
}

/// Counts below, taken before anything is changed here.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    /// Learned stations by bridge.
    pub stations: BTreeMap<BridgeName, u64>,
    /// Records of fragments.
    pub fragments: usize,
    /// Turns of services.
    pub turns: BTreeMap<ServiceKey, u64>,
}

impl<'a> Overlay<'a> {
    /// Nothing is changed yet.
    #[must_use]
    pub fn new(below: &'a dyn StateStore, learned: Learned) -> Self {
        Self {
            below,
            flows: BTreeMap::new(),
            stations: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            affinity: BTreeMap::new(),
            path_mtus: BTreeMap::new(),
            fragments: BTreeMap::new(),
            turns: BTreeMap::new(),
            learned,
        }
    }

    /// What was done here to a flow that is below too.
    fn gone_below(&self, wanted: impl Fn(&Flow) -> bool) -> u64 {
        let gone = self.flows.iter().filter(|(_, now)| now.is_none());
        gone.filter(|(id, _)| self.below.get(id).is_some_and(|flow| wanted(&flow))).count() as u64
    }

    /// Flows that are here and not below.
    fn new_here(&self, wanted: impl Fn(&Flow) -> bool) -> u64 {
        let here = self.flows.iter().filter_map(|(id, now)| Some((id, now.as_ref()?)));
        here.filter(|(id, flow)| wanted(flow) && self.below.get(id).is_none()).count() as u64
    }
}

impl FlowStore for Overlay<'_> {
    fn lookup(&self, zone: &ZoneName, tuple: &FlowTuple, now: Timestamp) -> Option<(FlowDirection, Flow)> {
        let here = self.flows.values().flatten().filter(|flow| flow.id.zone == *zone && flow.expires > now);
        for flow in here {
            if flow.id.tuple == *tuple {
                return Some((FlowDirection::Original, flow.clone()));
            }
            if flow.reply == *tuple {
                return Some((FlowDirection::Reply, flow.clone()));
            }
        }
        // One that was changed here would have been found above, or has ended here.
        self.below.lookup(zone, tuple, now).filter(|(_, flow)| !self.flows.contains_key(&flow.id))
    }

    fn get(&self, id: &FlowId) -> Option<Flow> {
        match self.flows.get(id) {
            Some(here) => here.clone(),
            None => self.below.get(id),
        }
    }

    fn insert(&mut self, flow: Flow, now: Timestamp) -> Result<(), FlowInsertError> {
        for tuple in [flow.id.tuple, flow.reply] {
            if self.lookup(&flow.id.zone, &tuple, now).is_some() {
                return Err(FlowInsertError::Occupied);
            }
        }
        self.flows.insert(flow.id.clone(), Some(flow));
        Ok(())
    }

    fn update(&mut self, id: &FlowId, change: &mut dyn FnMut(&mut Flow)) {
        if let Some(mut flow) = self.get(id) {
            change(&mut flow);
            self.flows.insert(id.clone(), Some(flow));
        }
    }

    fn remove(&mut self, id: &FlowId) -> Option<Flow> {
        let flow = self.get(id)?;
        self.flows.insert(id.clone(), None);
        Some(flow)
    }

    fn totals(&self, zone: &CtZone) -> FlowTotals {
        let below = self.below.totals(zone);
        let here = |flow: &Flow| flow.id.zone == zone.name;
        let open = |flow: &Flow| here(flow) && flow.state.is_half_open();
        let new = self.new_here(here);
        FlowTotals {
            flows: (below.flows + new).saturating_sub(self.gone_below(here)),
            half_open: (below.half_open + self.new_here(open)).saturating_sub(self.gone_below(open)),
            capacity: below.capacity,
            created: below.created + new,
        }
    }

    fn of_source(&self, zone: &ZoneName, source: IpAddr) -> u64 {
        let its = |flow: &Flow| flow.id.zone == *zone && flow.id.tuple.src == source;
        (self.below.of_source(zone, source) + self.new_here(its)).saturating_sub(self.gone_below(its))
    }

    fn of_backend(&self, backend: &BackendName, now: Timestamp) -> u64 {
        let its = |flow: &Flow| {
            flow.expires > now && flow.backend.as_ref().is_some_and(|(name, _)| name == backend)
        };
        (self.below.of_backend(backend, now) + self.new_here(its)).saturating_sub(self.gone_below(its))
    }

    fn expire(&mut self, now: Timestamp) {
        let over: Vec<FlowId> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.as_ref().is_some_and(|flow| flow.expires <= now))
            .map(|(id, _)| FlowId { zone: id.zone.clone(), tuple: id.tuple })
            .collect();
        for id in over {
            self.flows.insert(id, None);
        }
    }
}

impl StateStore for Overlay<'_> {
    fn station(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.stations.get(key).cloned().or_else(|| self.below.station(key))
    }

    fn put_station(&mut self, entry: FdbEntry) {
        self.stations.insert(entry.key.clone(), entry);
    }

    fn stations(&mut self, bridge: &BridgeName, _now: Timestamp) -> u64 {
        let new = |key: &&FdbKey| key.bridge == *bridge && self.below.station(key).is_none();
        let below = self.learned.stations.get(bridge).copied().unwrap_or(0);
        below + self.stations.keys().filter(new).count() as u64
    }

    fn neighbor(&self, key: &NeighborKey) -> Option<NeighborEntry> {
        self.neighbors.get(key).cloned().or_else(|| self.below.neighbor(key))
    }

    fn put_neighbor(&mut self, entry: NeighborEntry) {
        self.neighbors.insert(entry.key.clone(), entry);
    }

    fn affinity(&self, service: &ServiceKey, client: IpAddr) -> Option<AffinityEntry> {
        let here = self.affinity.get(&(service.clone(), client)).cloned();
        here.or_else(|| self.below.affinity(service, client))
    }

    fn put_affinity(&mut self, entry: AffinityEntry) {
        self.affinity.insert((entry.service.clone(), entry.client), entry);
    }

    fn path_mtu(&self, remote: IpAddr) -> Option<PathMtuEntry> {
        self.path_mtus.get(&remote).cloned().or_else(|| self.below.path_mtu(remote))
    }

    fn put_path_mtu(&mut self, entry: PathMtuEntry) {
        self.path_mtus.insert(entry.remote, entry);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        self.fragments.get(key).cloned().or_else(|| self.below.fragment(key))
    }

    fn put_fragment(&mut self, entry: FragmentEntry) {
        self.fragments.insert(entry.key(), entry);
    }

    fn fragments(&mut self, _now: Timestamp) -> usize {
        let new = self.fragments.keys().filter(|key| self.below.fragment(key).is_none());
        self.learned.fragments + new.count()
    }

    fn slot(&self, backend: &BackendName) -> u64 {
        self.below.slot(backend)
    }

    fn turn(&mut self, service: &ServiceKey) -> u64 {
        let below = self.learned.turns.get(service).copied().unwrap_or(0);
        let turn = self.turns.entry(service.clone()).or_insert(below);
        let now = *turn;
        *turn = turn.wrapping_add(1);
        now
    }

    fn policy_generation(&self, port: &PortName) -> u64 {
        self.below.policy_generation(port)
    }
}

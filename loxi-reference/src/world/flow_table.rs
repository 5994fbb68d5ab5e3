//! Flows by both of their tuples, with the counts that limits need.

use loxi_core::dataplane::{FlowFilter, FlowInsertError, FlowStore};
use loxi_core::ir::CtZone;
use loxi_core::net::{BackendName, PortName, ZoneName};
use loxi_core::packet::{Flow, FlowDirection, FlowId, FlowTotals, FlowTuple, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Bound;

#[derive(Debug, Clone, Copy, Default)]
struct ZoneCount {
    flows: u64,
    half_open: u64,
    created: u64,
}

/// Every flow. Invariant: `index` holds both tuples of every flow of `flows`
/// and nothing else; the counts are those of `flows`.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlowTable {
    flows: BTreeMap<FlowId, Flow>,
    index: HashMap<FlowId, (FlowTuple, FlowDirection)>,
    zones: BTreeMap<ZoneName, ZoneCount>,
    sources: HashMap<(ZoneName, IpAddr), u64>,
}

fn id(zone: &ZoneName, tuple: FlowTuple) -> FlowId {
    FlowId { zone: zone.clone(), tuple }
}

impl FlowTable {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    /// Flows after `cursor`, in order.
    pub(crate) fn after<'a>(
        &'a self,
        cursor: Option<&FlowId>,
        filter: &'a FlowFilter,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Flow> {
        let start = cursor.map_or(Bound::Unbounded, |cursor| Bound::Excluded(cursor.clone()));
        let range = self.flows.range((start, Bound::Unbounded)).map(|(_, flow)| flow);
        range.filter(move |flow| flow.expires > now && filter.admits(flow))
    }

    /// The flow that a packet of this tuple belongs to.
    fn find(&self, zone: &ZoneName, tuple: FlowTuple, now: Timestamp) -> Option<(FlowDirection, &Flow)> {
        let (original, direction) = self.index.get(&id(zone, tuple))?;
        let flow = self.flows.get(&id(zone, *original))?;
        (flow.expires > now).then_some((*direction, flow))
    }

    /// Takes out the flows that have anything to do with a port, and returns them.
    pub(crate) fn remove_port(&mut self, port: &PortName) -> Vec<Flow> {
        let stamped = |stamp: &Option<(PortName, u64)>| stamp.as_ref().is_some_and(|(name, _)| name == port);
        let gone: Vec<FlowId> = self
            .flows
            .iter()
            .filter(|(_, flow)| {
                flow.ingress.port == *port
                    || stamped(&flow.policy.source)
                    || stamped(&flow.policy.destination)
            })
            .map(|(id, _)| id.clone())
            .collect();
        gone.iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Takes out the flows of a zone, and returns them.
    pub(crate) fn remove_zone(&mut self, zone: &ZoneName) -> Vec<Flow> {
        let gone: Vec<FlowId> = self.flows.keys().filter(|id| id.zone == *zone).cloned().collect();
        gone.iter().filter_map(|id| self.remove(id)).collect()
    }
}

impl FlowStore for FlowTable {
    fn lookup(&self, zone: &ZoneName, tuple: &FlowTuple, now: Timestamp) -> Option<(FlowDirection, Flow)> {
        self.find(zone, *tuple, now).map(|(direction, flow)| (direction, flow.clone()))
    }

    fn get(&self, flow: &FlowId) -> Option<Flow> {
        self.flows.get(flow).cloned()
    }

    fn insert(&mut self, flow: Flow, now: Timestamp) -> Result<(), FlowInsertError> {
        for tuple in [flow.id.tuple, flow.reply] {
            if self.find(&flow.id.zone, tuple, now).is_some() {
                return Err(FlowInsertError::Occupied);
            }
            // Expired, or it would have been found.
            if let Some((original, _)) = self.index.get(&id(&flow.id.zone, tuple)).copied() {
                self.remove(&id(&flow.id.zone, original));
            }
        }
        let zone = &flow.id.zone;
        let count = self.zones.entry(zone.clone()).or_default();
        count.flows += 1;
        count.created += 1;
        count.half_open += u64::from(flow.state.is_half_open());
        *self.sources.entry((zone.clone(), flow.id.tuple.src)).or_default() += 1;
        self.index.insert(id(zone, flow.reply), (flow.id.tuple, FlowDirection::Reply));
        self.index.insert(flow.id.clone(), (flow.id.tuple, FlowDirection::Original));
        self.flows.insert(flow.id.clone(), flow);
        Ok(())
    }

    fn update(&mut self, flow: &FlowId, change: &mut dyn FnMut(&mut Flow)) {
        let Some(flow) = self.flows.get_mut(flow) else { return };
        let before = flow.state.is_half_open();
        change(flow);
        let after = flow.state.is_half_open();
        let count = self.zones.entry(flow.id.zone.clone()).or_default();
        count.half_open = count.half_open + u64::from(after) - u64::from(before);
    }

    fn remove(&mut self, flow: &FlowId) -> Option<Flow> {
        let flow = self.flows.remove(flow)?;
        let zone = &flow.id.zone;
        self.index.remove(&flow.id);
        // A flow from a host to itself has one tuple for both directions.
        self.index.remove(&id(zone, flow.reply));
        let count = self.zones.entry(zone.clone()).or_default();
        count.flows -= 1;
        count.half_open -= u64::from(flow.state.is_half_open());
        let source = (zone.clone(), flow.id.tuple.src);
        if let Some(left) = self.sources.get_mut(&source) {
            *left -= 1;
            if *left == 0 {
                self.sources.remove(&source);
            }
        }
        Some(flow)
    }

    fn totals(&self, zone: &CtZone) -> FlowTotals {
        let count = self.zones.get(&zone.name).copied().unwrap_or_default();
        FlowTotals {
            flows: count.flows,
            half_open: count.half_open,
            capacity: zone.max_flows.into(),
            created: count.created,
        }
    }

    fn of_source(&self, zone: &ZoneName, source: IpAddr) -> u64 {
        self.sources.get(&(zone.clone(), source)).copied().unwrap_or(0)
    }

    fn of_backend(&self, backend: &BackendName, now: Timestamp) -> u64 {
        let its = |flow: &&Flow| {
            flow.expires > now && flow.backend.as_ref().is_some_and(|(name, _)| name == backend)
        };
        self.flows.values().filter(its).count() as u64
    }

    fn expire(&mut self, now: Timestamp) {
        let gone: Vec<FlowId> =
            self.flows.iter().filter(|(_, flow)| flow.expires <= now).map(|(id, _)| id.clone()).collect();
        for flow in gone {
            self.remove(&flow);
        }
    }
}

//! Flows under the core's trait.

use super::{Search, Store};
use crate::state::flow::times::Timeouts;
use crate::state::flow::{FAMILIES, Key, accounts, codec};
use crate::state::sweep::sweep_flows;
use crate::sys::SOURCES;
use loxi_core::dataplane::{FlowInsertError, FlowStore};
use loxi_core::ir::CtZone;
use loxi_core::net::{BackendName, ZoneName};
use loxi_core::packet::{Flow, FlowDirection, FlowId, FlowTotals, FlowTuple, Timestamp};
use loxi_ebpf_layout::flow::{REPLY, rest};
use loxi_ebpf_layout::l3::Source;
use std::net::IpAddr;

impl FlowStore for Store<'_> {
    fn lookup(&self, zone: &ZoneName, tuple: &FlowTuple, now: Timestamp) -> Option<(FlowDirection, Flow)> {
        let zone = codec::number(&self.names.zones, zone);
        let (family, key) = Key::of(zone, tuple).filter(|_| zone != 0)?;
        let table = self.table(family);
        let (direction, record) = table.record(table.find(&key)?).ok()?;
        let own = if direction == FlowDirection::Original { record.key } else { record.reply() };
        if own != key || self.is_over(&record, now) {
            return None;
        }
        Some((direction, self.flow(&record)?))
    }

    fn get(&self, id: &FlowId) -> Option<Flow> {
        self.flow(&self.record(id)?)
    }

    /// Stores a new flow. A zone or an ingress port without a number, tuples of two families, two
    /// full buckets, and buckets that somebody holds for long: all of them are
    /// [`FlowInsertError::Full`].
    fn insert(&mut self, flow: Flow, now: Timestamp) -> Result<(), FlowInsertError> {
        self.put_flow(&flow, now)
    }

    /// Changes a flow in place. Counters change by what `change` has added to them; a state that a
    /// packet has changed meanwhile stays.
    fn update(&mut self, id: &FlowId, change: &mut dyn FnMut(&mut Flow)) {
        let Some(record) = self.record(id) else { return };
        let Some(before) = self.flow(&record) else { return };
        let mut after = before.clone();
        change(&mut after);
        self.rewrite(&record, &before, &after);
    }

    fn remove(&mut self, id: &FlowId) -> Option<Flow> {
        let record = self.record(id)?;
        let flow = self.flow(&record)?;
        let mut sources = accounts::Sources::default();
        let ended = self.end(&record, &mut sources, |_| true);
        self.settle(sources);
        ended.then_some(flow)
    }

    fn totals(&self, zone: &CtZone) -> FlowTotals {
        let number: u8 = codec::number(&self.names.zones, &zone.name);
        // Nothing is ever counted for zone 0.
        let word = |offset| accounts::zone_word(&*self.kernel, number, offset).load();
        FlowTotals {
            flows: word(accounts::FLOWS),
            half_open: word(accounts::HALF_OPEN),
            capacity: zone.max_flows.into(),
            created: word(accounts::CREATED),
        }
    }

    /// Flows of a source. In a zone that limits none they aren't counted by anybody: then the
    /// table is searched.
    fn of_source(&self, zone: &ZoneName, source: IpAddr) -> u64 {
        let zone: u8 = codec::number(&self.names.zones, zone);
        let (family, addr) = crate::state::flow::key::wire(source);
        if accounts::counts_sources(&*self.kernel, zone) {
            let key = Source { zone: zone.into(), family: family.into(), addr };
            return super::noted(self.kernel.look(SOURCES, &key)).unwrap_or(0);
        }
        let (table, mut count) = (self.table(family), 0);
        table.scan(0..table.buckets(), |place, word| {
            let counts = rest::zone(word) == zone
                && rest::flags(word) & REPLY == 0
                && table.key(place, word).src == addr;
            count += u64::from(counts);
        });
        count
    }

    /// Flows of an endpoint as they are counted: those that have expired and were not yet taken
    /// out are among them, as where the programs compare endpoints.
    fn of_backend(&self, backend: &BackendName, _now: Timestamp) -> u64 {
        let number = codec::number(&self.names.backends, backend);
        accounts::backend_word(&*self.kernel, number).map_or(0, |word| word.load())
    }

    fn expire(&mut self, now: Timestamp) {
        if !self.is_due(|pace| &mut pace.flows, now) {
            return;
        }
        let timeouts = Timeouts::all(&*self.kernel);
        let mut first = Timestamp(u64::MAX);
        for family in FAMILIES {
            let buckets = 0..self.table(family).buckets();
            first = first.min(sweep_flows(self, family, buckets, &timeouts, now).first);
        }
        self.searched(|pace| &mut pace.flows, Search::done(now, first));
    }
}

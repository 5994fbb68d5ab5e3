//! The installed plan, and what leads from an entity to the rows that it decides.

use super::compile::policy::way;
use super::compile::{Source, compile_for, rows_of};
use super::room::{Room, Taken, check_way};
use super::{Plan, PlanDelta, Row, RowKey, Rows, Unit, UnitDelta, change, difference};
use loxi_core::capability::Capabilities;
use loxi_core::change::Change;
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{FdbKey, Pipeline, ServiceKey};
use loxi_core::net::{BackendName, PortName, TunnelName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A plan that is kept up to date by its changes. Everything beside the plan follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanIndex {
    plan: Plan,
    services: BTreeMap<BackendName, BTreeSet<ServiceKey>>,
    stations: BTreeMap<TunnelName, BTreeSet<FdbKey>>,
    tunnels: BTreeMap<PortName, BTreeSet<TunnelName>>,
    taken: Taken,
    room: Room,
}

impl PlanIndex {
    /// Looks through a plan once, for the tables as they are made.
    #[must_use]
    pub fn from_plan(plan: Plan) -> Self {
        Self::for_room(plan, Room::default())
    }

    /// Looks through a plan once, for tables of any size.
    #[must_use]
    pub fn for_room(plan: Plan, room: Room) -> Self {
        let mut index = Self { room, ..Self::default() };
        for rows in plan.units.values() {
            index.note(rows);
        }
        Self { plan, ..index }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Compiles what a change makes of the plan. `new` already has the change; the plan is that of
    /// the pipeline before it, under the same capabilities. Cost grows with the change; beyond it
    /// ports, interfaces, tunnels and terminations are looked through where it concerns such, and
    /// policies are compiled as a whole.
    ///
    /// # Errors
    /// [`CompileError`] for what the capabilities don't have, and for what the tables have no room for.
    pub fn compile_change(
        &self,
        new: &Pipeline,
        change: &Change,
        capabilities: &Capabilities,
    ) -> Result<PlanDelta, CompileError> {
        change::check(new, change, capabilities)?;
        let source = Source::new(new);
        let mut taken = self.taken;
        let mut delta = PlanDelta::default();
        for unit in self.affected(new, change) {
            let old = self.plan.units.get(&unit).map(Arc::clone).unwrap_or_default();
            let new = rows_of(&source, &unit)?;
            if *old == new {
                continue;
            }
            taken.take(&old);
            taken.add(&new);
            delta.units.push(UnitDelta { unit, old, new: Arc::new(new) });
        }
        // Of several units the last one is named, as it is where the whole is compiled.
        for unit in delta.units.iter().rev() {
            taken.check(&self.taken, &self.room, &unit.new, new)?;
        }
        delta.stale_ports = change::stale_ports(new, change);
        delta.passage = self.passage(&delta.units, new)?;
        Ok(delta)
    }

    /// The units that a change may alter: those that [`PlanIndex::compile_change`] compiles again.
    #[must_use]
    pub fn affected(&self, new: &Pipeline, change: &Change) -> BTreeSet<Unit> {
        change::affected(self, new, change)
    }

    /// Makes the plan what a delta says.
    pub fn apply(&mut self, delta: &PlanDelta) {
        // Two steps: what moves from one unit to another is in the old rows of one and in the new
        // ones of the other.
        for unit in &delta.units {
            self.forget(&unit.old);
        }
        for unit in &delta.units {
            self.note(&unit.new);
        }
        self.plan.apply(delta);
    }

    /// Services that have an endpoint, used or not.
    pub(super) fn services_of(&self, backend: &BackendName) -> impl Iterator<Item = &ServiceKey> {
        self.services.get(backend).into_iter().flatten()
    }

    /// Static stations behind a tunnel.
    pub(super) fn stations_of(&self, tunnel: &TunnelName) -> impl Iterator<Item = &FdbKey> {
        self.stations.get(tunnel).into_iter().flatten()
    }

    /// Tunnels of a tunnel port.
    pub(super) fn tunnels_of(&self, port: &PortName) -> impl Iterator<Item = &TunnelName> {
        self.tunnels.get(port).into_iter().flatten()
    }

    fn note(&mut self, rows: &Rows) {
        self.taken.add(rows);
        for (key, row) in rows {
            match (key, row) {
                (RowKey::Service(key), Row::Service(service)) => {
                    for backend in service.backends() {
                        self.services.entry(backend.clone()).or_default().insert(key.clone());
                    }
                }
                (RowKey::Station(key), Row::At(_, Some(tunnel))) => {
                    self.stations.entry(tunnel.clone()).or_default().insert(key.clone());
                }
                (RowKey::Tunnel(key), Row::Tunnel(tunnel)) => {
                    self.tunnels.entry(tunnel.port.clone()).or_default().insert(key.clone());
                }
                _ => {}
            }
        }
    }

    fn forget(&mut self, rows: &Rows) {
        self.taken.take(rows);
        for (key, row) in rows {
            match (key, row) {
                (RowKey::Service(key), Row::Service(service)) => {
                    for backend in service.backends() {
                        forget_one(&mut self.services, backend, key);
                    }
                }
                (RowKey::Station(key), Row::At(_, Some(tunnel))) => {
                    forget_one(&mut self.stations, tunnel, key);
                }
                (RowKey::Tunnel(key), Row::Tunnel(tunnel)) => {
                    forget_one(&mut self.tunnels, &tunnel.port, key);
                }
                _ => {}
            }
        }
    }

    /// What makes of the plan that of a pipeline, whatever it is now: it may be what another process left
    /// half-way. Every flow is judged again.
    ///
    /// # Errors
    /// As [`PlanIndex::compile_change`].
    pub fn mend(&self, new: &Pipeline, capabilities: &Capabilities) -> Result<PlanDelta, CompileError> {
        let units = difference(&self.plan, &compile_for(new, capabilities, &self.room)?);
        let stale_ports = new.ports().map(|port| port.name.clone()).collect();
        let passage = self.passage(&units, new)?;
        Ok(PlanDelta { units, stale_ports, passage })
    }

    /// The way of the policies, where classes of peers change under groups that stay in use.
    fn passage(&self, units: &[UnitDelta], new: &Pipeline) -> Result<Vec<Rows>, CompileError> {
        let Some(policies) = units.iter().find(|delta| delta.unit == Unit::Policy) else {
            return Ok(Vec::new());
        };
        let way = way(&policies.old, &policies.new);
        let ends = [&*policies.old, &*policies.new];
        check_way([ends[0]].into_iter().chain(&way).chain([ends[1]]), &self.room, new)?;
        Ok(way)
    }
}

fn forget_one<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

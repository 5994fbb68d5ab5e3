//! The backend as the core knows it.
//!
//! # Contract
//! - One value is one node's dataplane, and the only process that writes to its tables.
//! - Without [`Options::pins`] everything goes with the value: tables, programs, hooks. With it
//!   the node forwards on, and the next one goes on from there.
//! - Nothing here panics on what comes from outside.

mod counters;
mod events;
mod explain;
mod inject;
mod open;
mod options;
mod ports;
mod rehearsal;
mod send;
mod slow;
#[cfg(test)]
mod traffic;

pub use open::OpenError;
pub use options::{Devices, Mode, Options};
pub use slow::SlowPathCounters;

use crate::capabilities::capabilities;
use crate::hook::{Hooks, Namespaces};
use crate::install::{Installer, UndoInstall};
use crate::load::{Loaded, Sizes, place::Place};
use crate::plan::{Plan, PlanDelta, PlanIndex, RowKey, compile};
use crate::run::{Asker, Choices};
use crate::state::{self, Gone, Pace, Sweeper};
use crate::sys::Map;
use loxi_core::capability::Capabilities;
use loxi_core::change::Change;
use loxi_core::dataplane::{
    Backend, CompileError, DataplaneError, Event, FlowPage, FlowQuery, InjectRequest, Injected, InstallError,
    PacketIn, Placement, PlacementAt, SlowPath,
};
use loxi_core::ir::{EntityKey, Pipeline};
use loxi_core::net::{PortName, ZoneName};
use loxi_core::packet::{ChoiceSource, Counters, PortCounters, State, Timestamp, Trace};
use loxi_core::reason::PuntReason;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The eBPF dataplane of a node.
pub struct Ebpf {
    /// The core asks some things of a shared reference that need the tables; nobody asks twice at a time.
    inner: RefCell<Inner>,
}

struct Inner {
    installer: Installer,
    index: PlanIndex,
    /// An installation was left half-done: the tables may hold something else than the index.
    astray: bool,
    pipeline: Arc<Pipeline>,
    attached_names: BTreeSet<PortName>,
    mode: Mode,
    sizes: Sizes,
    seed: u64,
    place: Place,
    hooks: Hooks,
    namespaces: Option<Namespaces>,
    slow_path_device: Option<String>,
    tc: Option<Loaded>,
    xdp: Option<Loaded>,
    beside: Map,
    devices: Map,
    asker: Asker,
    slow_path: Option<Box<dyn SlowPath>>,
    slow_counters: BTreeMap<PortName, PortCounters>,
    /// Frames that the slow path has finished.
    finished: BTreeMap<PortName, BTreeMap<PuntReason, u64>>,
    events: events::Events,
    pace: Pace,
    sweeper: Sweeper,
    swept: Timestamp,
    full_zones: BTreeSet<ZoneName>,
    /// What goes with entities that have gone: done once nobody can want the change undone.
    gone: Gone,
    /// Ports whose devices are let go then.
    closing: BTreeSet<PortName>,
    /// The copy for questions of several packets, if there is one.
    rehearsal: Option<rehearsal::Rehearsal>,
    /// It is such a copy.
    rehearses: bool,
}

/// What differs between two plans, and the change that makes it so.
#[derive(Debug)]
pub struct Delta {
    plan: PlanDelta,
    change: Change,
}

/// How to take an installation back.
#[derive(Debug)]
pub struct Undo {
    install: UndoInstall,
    change: Change,
    attached: BTreeSet<PortName>,
}

impl Inner {
    /// Forgets what was learned of things that have gone.
    fn forget_gone(&mut self) {
        if self.gone == Gone::default() && self.closing.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        for name in std::mem::take(&mut self.closing) {
            if let Err(error) = self.hooks.unbind(&self.place, name.as_str()) {
                tracing::warn!(port = %name, %error, "letting go of its device");
            }
        }
        // Packets that were under way could bring things back.
        let done = self.installer.w.kernel.grace().and_then(|()| {
            for port in &gone.ports {
                counters::clear(&mut *self.installer.w.kernel, *port)?;
            }
            let mut store = self.installer.store(self.seed, &mut self.pace);
            state::forget(&mut store, &gone)
        });
        if let Err(error) = done {
            tracing::error!(%error, "forgetting what was learned of entities that are gone");
        }
    }

    /// Reads what stands in the tables where that is in doubt.
    fn read_astray(&mut self) -> Result<(), crate::sys::KernelError> {
        if self.astray {
            self.index = PlanIndex::from_plan(self.installer.reread()?);
            self.astray = false;
        }
        Ok(())
    }

    fn install(&mut self, delta: Delta) -> Result<Undo, InstallError> {
        if self.astray {
            let message = "what the last installation left could not be read".to_owned();
            return Err(InstallError { step: 0, what: "tables".to_owned(), message });
        }
        self.forget_gone();
        let attached = self.attached_names.clone();
        let installed = self.installer.install(delta.plan);
        self.astray = installed.is_err() && self.installer.is_doubtful();
        let mut install = installed?;
        self.index.apply(&install.delta);
        apply(&delta.change, &mut self.pipeline);
        self.gone = std::mem::take(&mut install.gone);
        for changed in &delta.change.entities {
            if let (EntityKey::Port(name), None) = (&changed.key, &changed.new) {
                self.installer.attached.remove(name);
                self.attached_names.remove(name);
                self.slow_counters.remove(name);
                self.finished.remove(name);
                if let Some(path) = &mut self.slow_path {
                    path.forget_port(name);
                }
                self.closing.insert(name.clone());
            }
        }
        Ok(Undo { install, change: delta.change, attached })
    }

    fn undo(&mut self, undo: Undo) {
        self.gone = Gone::default();
        self.closing.clear();
        let back = self.installer.undo(undo.install);
        self.astray = self.installer.is_doubtful();
        self.index.apply(&back);
        apply(&undo.change.inverse(), &mut self.pipeline);
        for name in undo.attached.difference(&self.attached_names.clone()) {
            match self.attach_port(name) {
                Ok(()) => {
                    self.attached_names.insert(name.clone());
                }
                // A device that has gone in the meantime leaves its port detached.
                Err(error) => tracing::warn!(port = %name, %error, "attaching again"),
            }
        }
    }
}

/// Makes the pipeline what a change says. Cost grows with the change.
fn apply(change: &Change, pipeline: &mut Arc<Pipeline>) {
    change.apply_to(Arc::make_mut(pipeline));
}

impl Backend for Ebpf {
    type Plan = Plan;
    type PlanDelta = Delta;
    type Undo = Undo;

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn compile(pipeline: &Pipeline, capabilities: &Capabilities) -> Result<Plan, CompileError> {
        compile(pipeline, capabilities)
    }

    fn compile_change(
        &self,
        new: &Pipeline,
        change: &Change,
        capabilities: &Capabilities,
    ) -> Result<Delta, CompileError> {
        let mut inner = self.inner.borrow_mut();
        if let Err(error) = inner.read_astray() {
            // The installation refuses.
            tracing::error!(%error, "reading the tables");
        }
        let plan = if inner.installer.is_doubtful() {
            // What stands in the tables was put there by another process, or by halves.
            inner.index.mend(new, capabilities)?
        } else {
            inner.index.compile_change(new, change, capabilities)?
        };
        Ok(Delta { plan, change: change.clone() })
    }

    fn install(&mut self, delta: Delta, _now: Timestamp) -> Result<Undo, InstallError> {
        self.inner.get_mut().install(delta)
    }

    fn undo(&mut self, undo: Undo) {
        self.inner.get_mut().undo(undo);
    }

    fn read_back(&self) -> Result<Plan, DataplaneError> {
        let internal = |message: String| DataplaneError::Internal(message);
        let read = self.inner.borrow().installer.read();
        let (plan, strays) = read.map_err(|error| internal(error.to_string()))?;
        match strays.first() {
            None => Ok(plan),
            Some(stray) => Err(internal(format!("an entry of {} is no row of any plan", stray.table.name()))),
        }
    }

    fn placements(plan: &Plan) -> Vec<Placement> {
        plan.rows().filter_map(|(key, row)| placement(key, row)).collect()
    }

    fn attach_port(&mut self, port: &PortName) -> Result<(), DataplaneError> {
        let inner = self.inner.get_mut();
        inner.forget_gone();
        inner.attach_port(port)?;
        inner.attached_names.insert(port.clone());
        Ok(())
    }

    fn detach_port(&mut self, port: &PortName) -> Result<(), DataplaneError> {
        let inner = self.inner.get_mut();
        inner.detach_port(port)?;
        inner.attached_names.remove(port);
        Ok(())
    }

    fn attached(&self) -> Vec<PortName> {
        self.inner.borrow().attached_names.iter().cloned().collect()
    }

    fn flows(&self, query: &FlowQuery, now: Timestamp) -> Result<FlowPage, DataplaneError> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        Ok(state::flows(&inner.installer.store(inner.seed, &mut inner.pace), query, now))
    }

    fn counters(&self) -> Counters {
        self.inner.borrow().counters().unwrap_or_else(|error| {
            tracing::error!(%error, "reading counters");
            Counters::default()
        })
    }

    fn poll_events(&mut self) -> Vec<Event> {
        let inner = self.inner.get_mut();
        inner.events.drain(&inner.installer.w.names)
    }

    fn export_state(&self) -> State {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let store = inner.installer.store(inner.seed, &mut inner.pace);
        state::export(&store).unwrap_or_else(|error| {
            tracing::error!(%error, "reading what was learned");
            State::default()
        })
    }

    fn keeps_state(&self) -> bool {
        self.inner.borrow().place.outlives()
    }

    fn import_state(&mut self, state: State, now: Timestamp) -> Result<(), DataplaneError> {
        let inner = self.inner.get_mut();
        inner.forget_gone();
        let mut store = inner.installer.store(inner.seed, &mut inner.pace);
        state::import(&mut store, state, now)?;
        inner.installer.move_on();
        Ok(())
    }

    fn explain(&self, packet: &PacketIn, now: Timestamp) -> Result<Trace, DataplaneError> {
        self.inner.borrow_mut().explain(packet, now)
    }

    fn test_packet(
        &self,
        packet: &PacketIn,
        now: Timestamp,
        _choices: &mut dyn ChoiceSource,
    ) -> Result<Injected, DataplaneError> {
        let mut choices = Choices::new(&loxi_core::dataplane::ChoiceMode::First);
        let now = packet.at.unwrap_or(now);
        self.inner.borrow_mut().run(packet, now, &mut choices, false)
    }

    fn inject(&mut self, request: &InjectRequest, now: Timestamp) -> Result<Vec<Injected>, DataplaneError> {
        let inner = self.inner.get_mut();
        inner.forget_gone();
        inner.inject(request, now)
    }
}

/// Where the entity of a row landed; none for rows that are no entity by themselves.
fn placement(key: &RowKey, row: &crate::plan::Row) -> Option<Placement> {
    use crate::plan::Row;
    use loxi_ebpf_layout::tunnel::flag;
    let entity = match key.clone() {
        RowKey::Zone(name) => EntityKey::Zone(name),
        RowKey::Vrf(name) => EntityKey::Vrf(name),
        RowKey::Bridge(name) => EntityKey::Bridge(name),
        RowKey::Port(name) => EntityKey::Port(name),
        RowKey::Interface(name) => EntityKey::Interface(name),
        RowKey::Neighbor(key) => EntityKey::Neighbor(key),
        RowKey::Tunnel(name) => EntityKey::Tunnel(name),
        RowKey::Station(key) => EntityKey::Fdb(key),
        RowKey::NextHop(name) => EntityKey::NextHop(name),
        RowKey::Group(name) => EntityKey::NextHopGroup(name),
        RowKey::Route(key) => EntityKey::Route(key),
        RowKey::Vip(key) => EntityKey::Vip(key),
        RowKey::Backend(name) => EntityKey::Backend(name),
        RowKey::Service(key) => EntityKey::Service(key),
        _ => return None,
    };
    let (at, reason) = match row {
        Row::Tunnel(tunnel) if tunnel.flags & flag::CHECKSUM != 0 => {
            (PlacementAt::SlowPath, "the outer checksum covers the whole inner packet")
        }
        _ => (PlacementAt::FastPath, ""),
    };
    Some(Placement { entity, at, reason: reason.to_owned() })
}

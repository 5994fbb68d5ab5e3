//! The backend that the daemon holds: one of those that it knows, chosen at start.

use loxi_backend_ebpf::{self as ebpf, Ebpf};
use loxi_core::capability::Capabilities;
use loxi_core::change::Change;
use loxi_core::dataplane::{
    Backend, CompileError, DataplaneError, Event, FlowPage, FlowQuery, InjectRequest, Injected, InstallError,
    PacketIn, Placement,
};
use loxi_core::ir::Pipeline;
use loxi_core::net::PortName;
use loxi_core::packet::{ChoiceSource, Counters, State, Timestamp, Trace};
use loxi_reference::{Reference, ReferencePath};

/// A backend of the daemon.
pub enum Node {
    /// The reference interpreter, with devices of its own.
    Reference(Box<Reference>),
    /// Programs in the kernel.
    Ebpf(Box<Ebpf>),
}

/// A thing of each backend.
#[derive(Debug, Clone, PartialEq)]
pub enum Of<R, E> {
    /// The reference's.
    Reference(R),
    /// That of the programs.
    Ebpf(E),
}

type Plans = Of<<Reference as Backend>::Plan, <Ebpf as Backend>::Plan>;
type Deltas = Of<<Reference as Backend>::PlanDelta, <Ebpf as Backend>::PlanDelta>;
type Undos = Of<<Reference as Backend>::Undo, <Ebpf as Backend>::Undo>;

macro_rules! ask {
    ($self:ident, $backend:ident => $what:expr) => {
        match $self {
            Node::Reference($backend) => $what,
            Node::Ebpf($backend) => $what,
        }
    };
}

impl Node {
    /// What the reference makes of a packet on what the backend has learned; none where the backend is
    /// the reference itself.
    ///
    /// # Errors
    /// [`DataplaneError::NoSuchPort`].
    pub fn reference(&self, packet: &PacketIn, now: Timestamp) -> Result<Option<Injected>, DataplaneError> {
        match self {
            Self::Reference(_) => Ok(None),
            Self::Ebpf(backend) => {
                let mut reference = ReferencePath::assuming(&backend.capabilities());
                backend.explain_by(&mut reference, packet, now).map(Some)
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Timestamp) {
        ask!(self, backend => backend.tick(now));
    }
}

/// A delta or an undo never meets another backend than the one that made it.
fn foreign() -> InstallError {
    InstallError { step: 0, what: "begin".to_owned(), message: "made by another backend".to_owned() }
}

impl Backend for Node {
    type Plan = Plans;
    type PlanDelta = Deltas;
    type Undo = Undos;

    fn capabilities(&self) -> Capabilities {
        ask!(self, backend => backend.capabilities())
    }

    fn compile(pipeline: &Pipeline, capabilities: &Capabilities) -> Result<Plans, CompileError> {
        if capabilities.backend == ebpf::NAME {
            Ebpf::compile(pipeline, capabilities).map(Of::Ebpf)
        } else {
            Reference::compile(pipeline, capabilities).map(Of::Reference)
        }
    }

    fn compile_change(
        &self,
        new: &Pipeline,
        change: &Change,
        capabilities: &Capabilities,
    ) -> Result<Deltas, CompileError> {
        Ok(match self {
            Self::Reference(backend) => Of::Reference(backend.compile_change(new, change, capabilities)?),
            Self::Ebpf(backend) => Of::Ebpf(backend.compile_change(new, change, capabilities)?),
        })
    }

    fn install(&mut self, delta: Deltas, now: Timestamp) -> Result<Undos, InstallError> {
        match (self, delta) {
            (Self::Reference(backend), Of::Reference(delta)) => {
                backend.install(delta, now).map(Of::Reference)
            }
            (Self::Ebpf(backend), Of::Ebpf(delta)) => backend.install(delta, now).map(Of::Ebpf),
            _ => Err(foreign()),
        }
    }

    fn undo(&mut self, undo: Undos) {
        match (self, undo) {
            (Self::Reference(backend), Of::Reference(undo)) => backend.undo(undo),
            (Self::Ebpf(backend), Of::Ebpf(undo)) => backend.undo(undo),
            _ => tracing::error!("an undo was made by another backend"),
        }
    }

    fn read_back(&self) -> Result<Plans, DataplaneError> {
        Ok(match self {
            Self::Reference(backend) => Of::Reference(backend.read_back()?),
            Self::Ebpf(backend) => Of::Ebpf(backend.read_back()?),
        })
    }

    fn placements(plan: &Plans) -> Vec<Placement> {
        match plan {
            Of::Reference(plan) => Reference::placements(plan),
            Of::Ebpf(plan) => Ebpf::placements(plan),
        }
    }

    fn attach_port(&mut self, port: &PortName) -> Result<(), DataplaneError> {
        ask!(self, backend => backend.attach_port(port))
    }

    fn detach_port(&mut self, port: &PortName) -> Result<(), DataplaneError> {
        ask!(self, backend => backend.detach_port(port))
    }

    fn attached(&self) -> Vec<PortName> {
        ask!(self, backend => backend.attached())
    }

    fn flows(&self, query: &FlowQuery, now: Timestamp) -> Result<FlowPage, DataplaneError> {
        ask!(self, backend => backend.flows(query, now))
    }

    fn counters(&self) -> Counters {
        ask!(self, backend => backend.counters())
    }

    fn poll_events(&mut self) -> Vec<Event> {
        ask!(self, backend => backend.poll_events())
    }

    fn export_state(&self) -> State {
        ask!(self, backend => backend.export_state())
    }

    fn keeps_state(&self) -> bool {
        ask!(self, backend => backend.keeps_state())
    }

    fn import_state(&mut self, state: State, now: Timestamp) -> Result<(), DataplaneError> {
        ask!(self, backend => backend.import_state(state, now))
    }

    fn explain(&self, packet: &PacketIn, now: Timestamp) -> Result<Trace, DataplaneError> {
        ask!(self, backend => backend.explain(packet, now))
    }

    fn test_packet(
        &self,
        packet: &PacketIn,
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
    ) -> Result<Injected, DataplaneError> {
        ask!(self, backend => backend.test_packet(packet, now, choices))
    }

    fn inject(&mut self, request: &InjectRequest, now: Timestamp) -> Result<Vec<Injected>, DataplaneError> {
        ask!(self, backend => backend.inject(request, now))
    }
}

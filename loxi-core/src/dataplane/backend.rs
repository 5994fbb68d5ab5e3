//! The provider's interface.

use super::{
    CompileError, DataplaneError, Event, FlowPage, FlowQuery, InjectRequest, Injected, InstallError, PacketIn,
};
use crate::capability::Capabilities;
use crate::change::Change;
use crate::ir::{EntityKey, Pipeline};
use crate::net::PortName;
use crate::packet::{ChoiceSource, Counters, State, Timestamp, Trace};

/// Where a rule landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlacementAt {
    /// In hardware.
    Hardware,
    /// In the fast path.
    FastPath,
    /// In the slow path.
    SlowPath,
    /// In the reference interpreter.
    Reference,
}

/// Where a rule landed, and why not somewhere faster.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The entity.
    pub entity: EntityKey,
    /// Where.
    pub at: PlacementAt,
    /// Why not somewhere faster; empty where it couldn't be.
    #[serde(default)]
    pub reason: String,
}

/// A target that a pipeline is compiled for.
///
/// `compile` defines the meaning and is pure. `compile_change` is what runs;
/// for every backend a property test holds it to
/// `apply(compile(old), compile_change(old → new)) = compile(new)`.
/// `install` makes before it breaks and leaves everything as it was if it fails.
pub trait Backend: Send + Sized + 'static {
    /// The target's own program: plain data.
    type Plan: Clone + PartialEq + std::fmt::Debug + Send;
    /// What differs between two plans.
    type PlanDelta: Send;
    /// How to take an installation back.
    type Undo: Send;

    /// What this backend can do, on this machine.
    fn capabilities(&self) -> Capabilities;

    /// Compiles a valid pipeline.
    ///
    /// # Errors
    /// [`CompileError`] for what the capabilities don't have.
    fn compile(pipeline: &Pipeline, capabilities: &Capabilities) -> Result<Self::Plan, CompileError>;

    /// Compiles what a change makes of the installed plan. `new` already has the change.
    ///
    /// # Errors
    /// [`CompileError`] for what the capabilities don't have.
    fn compile_change(
        &self,
        new: &Pipeline,
        change: &Change,
        capabilities: &Capabilities,
    ) -> Result<Self::PlanDelta, CompileError>;

    /// Installs a delta.
    ///
    /// # Errors
    /// [`InstallError`]; everything is as before then.
    fn install(&mut self, delta: Self::PlanDelta, now: Timestamp) -> Result<Self::Undo, InstallError>;

    /// Takes an installation back.
    fn undo(&mut self, undo: Self::Undo);

    /// Reads what is installed.
    ///
    /// # Errors
    /// [`DataplaneError::Internal`] if it is no plan.
    fn read_back(&self) -> Result<Self::Plan, DataplaneError>;

    /// Where each rule landed.
    fn placements(plan: &Self::Plan) -> Vec<Placement>;

    /// Opens a configured port for packets.
    ///
    /// # Errors
    /// [`DataplaneError::NoSuchPort`], [`DataplaneError::Attach`].
    fn attach_port(&mut self, port: &PortName) -> Result<(), DataplaneError>;

    /// Closes a port. One that isn't attached stays so.
    ///
    /// # Errors
    /// [`DataplaneError::NoSuchPort`], [`DataplaneError::Attach`].
    fn detach_port(&mut self, port: &PortName) -> Result<(), DataplaneError>;

    /// Ports that are attached, in name order.
    fn attached(&self) -> Vec<PortName>;

    /// A page of flows that haven't expired at `now`.
    ///
    /// # Errors
    /// [`DataplaneError::BadRequest`] for a cursor that isn't ours.
    fn flows(&self, query: &FlowQuery, now: Timestamp) -> Result<FlowPage, DataplaneError>;

    /// Counters.
    fn counters(&self) -> Counters;

    /// Events since the last call, oldest first.
    fn poll_events(&mut self) -> Vec<Event>;

    /// Everything learned.
    fn export_state(&self) -> State;

    /// Whether what was learned outlives this process by itself, so that nobody else needs to keep it.
    fn keeps_state(&self) -> bool {
        false
    }

    /// Takes over what another instance has learned. Entries that refer to entities that aren't
    /// configured are left out.
    ///
    /// # Errors
    /// [`DataplaneError`] if the state contradicts itself; nothing has changed then.
    fn import_state(&mut self, state: State, now: Timestamp) -> Result<(), DataplaneError>;

    /// Why a packet goes where it goes, decoded from what is installed. Changes nothing.
    ///
    /// # Errors
    /// [`DataplaneError::NoSuchPort`].
    fn explain(&self, packet: &PacketIn, now: Timestamp) -> Result<Trace, DataplaneError>;

    /// What would become of one packet now. Changes nothing.
    ///
    /// # Errors
    /// [`DataplaneError::NoSuchPort`].
    fn test_packet(
        &self,
        packet: &PacketIn,
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
    ) -> Result<Injected, DataplaneError>;

    /// Runs the packets of one request in order: on a copy of the live state, or with `commit` on
    /// the state itself, sending what comes out.
    ///
    /// # Errors
    /// [`DataplaneError::NoSuchPort`]; nothing was run then.
    fn inject(&mut self, request: &InjectRequest, now: Timestamp) -> Result<Vec<Injected>, DataplaneError>;
}

//! What finishes the work of a fast path, and where both keep their flows.

use crate::net::{PortName, ZoneName};
use crate::packet::{ChoiceSource, Flow, FlowDirection, FlowId, FlowTuple, Timestamp, Verdict};
use crate::reason::PuntReason;

/// A packet that a fast path could not finish: as it came, with what is lost otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PuntedPacket {
    /// Ingress port.
    pub port: PortName,
    /// Zone of the ingress.
    pub zone: Option<ZoneName>,
    /// Why it comes.
    pub reason: PuntReason,
    /// The original frame.
    pub bytes: Vec<u8>,
}

/// Finishes what a fast path could not.
pub trait SlowPath: Send {
    /// Decides about a punted packet; outputs leave by the fast path's private port.
    fn finish(&mut self, packet: &PuntedPacket, now: Timestamp, choices: &mut dyn ChoiceSource) -> Verdict;
}

/// Why a flow can't be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowInsertError {
    /// The zone is full.
    #[error("the zone is full")]
    Full,
    /// One of the two tuples is another flow's.
    #[error("a tuple of the flow belongs to another")]
    Occupied,
}

/// Where flows are kept. Both tuples of a flow find it; both are unique in their zone.
pub trait FlowStore {
    /// The flow that a packet of this tuple belongs to, and its direction in it.
    fn lookup(&self, zone: &ZoneName, tuple: &FlowTuple, now: Timestamp) -> Option<(FlowDirection, &Flow)>;

    /// Stores a new flow.
    ///
    /// # Errors
    /// [`FlowInsertError`]; nothing has changed then.
    fn insert(&mut self, flow: Flow, now: Timestamp) -> Result<(), FlowInsertError>;

    /// Changes a flow in place. Its tuples must stay.
    fn update(&mut self, id: &FlowId, change: &mut dyn FnMut(&mut Flow));

    /// Takes a flow out.
    fn remove(&mut self, id: &FlowId) -> Option<Flow>;
}

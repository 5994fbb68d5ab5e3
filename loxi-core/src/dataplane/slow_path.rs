//! What finishes the work of a fast path.
//!
//! A packet that the fast path can't finish comes here as it came in, and goes
//! through every stage once: the fast path has neither counted it nor changed
//! any state for it. The slow path works on the fast path's own state, and
//! tells what its counters gain.

use super::{Injected, StateStore};
use crate::ir::Pipeline;
use crate::net::{PortName, ZoneName};
use crate::packet::{ChoiceSource, PortCounters, Timestamp};
use crate::reason::PuntReason;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// What a punted packet meets.
pub struct SlowPathView<'a> {
    /// What is configured.
    pub pipeline: &'a Arc<Pipeline>,
    /// Ports that are attached.
    pub attached: &'a BTreeSet<PortName>,
    /// What was learned.
    pub state: &'a mut dyn StateStore,
    /// When the packet came.
    pub now: Timestamp,
}

/// What a punted packet led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Verdict, choices and trace; [`Injected::punt`] is why the packet came here.
    pub injected: Injected,
    /// What it adds to the counters.
    pub counters: BTreeMap<PortName, PortCounters>,
}

/// Finishes what a fast path could not.
pub trait SlowPath: Send {
    /// Decides about a punted packet. Sending the outputs, and adding up the counters, is the
    /// caller's part.
    fn finish(
        &mut self,
        packet: &PuntedPacket,
        view: SlowPathView<'_>,
        choices: &mut dyn ChoiceSource,
        with_trace: bool,
    ) -> Finished;

    /// A copy of what it keeps by itself, by which packets are tried without consequences.
    fn trial(&self) -> Box<dyn SlowPath>;

    /// Forgets what it keeps about a port by itself. The port is removed; one of the same name is
    /// another one.
    fn forget_port(&mut self, _port: &PortName) {}
}

//! Requests to a dataplane, their replies, and what listeners get.
//!
//! One request per method of [`loxi_core::dataplane::Dataplane`]. A reply holds
//! the method's own result, so that an error of the dataplane arrives as it was
//! made; a [`Fault`](crate::message::Fault) in place of the reply means that
//! nothing was executed.
//!
//! Events have no acknowledgement, and a listener that has just connected can't
//! know whether the daemon has noticed. So it asks for a [`Mark`] and waits until
//! that comes along its stream: what happens after that, it gets.

use crate::frame::Kind;
use crate::message::{Message, Request};
use loxi_core::capability::Capabilities;
use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::{
    DataplaneError, Event, Explanation, FlowPage, FlowQuery, InjectRequest, Injected, PacketIn, SnapshotPage,
    SnapshotQuery,
};
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, State, Timestamp};
use serde::{Deserialize, Serialize};

/// What a dataplane answers.
pub type Outcome<T> = Result<T, DataplaneError>;

macro_rules! requests {
    ($(
        $(#[$doc:meta])*
        $name:ident ($kind:ident) { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }
            -> $reply:ident ($reply_kind:ident) $result:ty;
    )+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            #[doc = concat!("Answer to [`", stringify!($name), "`].")]
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $reply {
                /// What the dataplane says.
                pub outcome: Outcome<$result>,
            }

            impl Message for $name {
                const KIND: Kind = Kind::$kind;
            }

            impl Message for $reply {
                const KIND: Kind = Kind::$reply_kind;
            }

            impl Request for $name {
                type Reply = $reply;
            }

            impl Reply for $reply {
                type Result = $result;
                fn of(outcome: Outcome<$result>) -> Self {
                    Self { outcome }
                }
                fn into_outcome(self) -> Outcome<$result> {
                    self.outcome
                }
            }
        )+
    };
}

/// A reply that holds a dataplane's result.
pub trait Reply: Message {
    /// What it is when all is well.
    type Result;
    /// The reply with this result.
    fn of(outcome: Outcome<Self::Result>) -> Self;
    /// The result in it.
    fn into_outcome(self) -> Outcome<Self::Result>;
}

requests! {
    /// What can the backend do?
    GetCapabilities (Capabilities) {} -> GetCapabilitiesReply (CapabilitiesReply) Capabilities;

    /// Change the configuration.
    Apply (Apply) {
        /// As a whole or not at all.
        transaction: Transaction,
    } -> ApplyReply (ApplyReply) Applied;

    /// A page of what is configured and learned.
    GetSnapshot (Snapshot) {
        /// Which page.
        query: SnapshotQuery,
    } -> GetSnapshotReply (SnapshotReply) SnapshotPage;

    /// A page of flows.
    GetFlows (Flows) {
        /// Which page.
        query: FlowQuery,
    } -> GetFlowsReply (FlowsReply) FlowPage;

    /// Every counter.
    GetCounters (Counters) {} -> GetCountersReply (CountersReply) Counters;

    /// Why does a packet go where it goes?
    Explain (Explain) {
        /// The packet.
        packet: PacketIn,
        /// When; none: now.
        now: Option<Timestamp>,
    } -> ExplainReply (ExplainReply) Explanation;

    /// What becomes of these packets?
    Inject (Inject) {
        /// The packets and how they are run.
        request: InjectRequest,
    } -> InjectReply (InjectReply) Vec<Injected>;

    /// Open a port for packets.
    Attach (Attach) {
        /// The port.
        port: PortName,
    } -> AttachReply (AttachReply) ();

    /// Close a port.
    Detach (Detach) {
        /// The port.
        port: PortName,
    } -> DetachReply (DetachReply) ();

    /// Everything learned.
    ExportState (ExportState) {} -> ExportStateReply (ExportStateReply) State;

    /// Take over what another dataplane has learned.
    ImportState (ImportState) {
        /// What it has learned.
        state: State,
    } -> ImportStateReply (ImportStateReply) ();

    /// Send a [`Notice::Mark`] to the listeners.
    Mark (Mark) {
        /// Comes back in the notice.
        token: u64,
    } -> MarkReply (MarkReply) ();
}

/// What a listener gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// Something happened.
    Event(Event),
    /// Somebody asked for this by a [`Mark`].
    Mark(u64),
}

impl Message for Notice {
    const KIND: Kind = Kind::Notice;
}

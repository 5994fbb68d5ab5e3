//! What happens to a packet: verdicts, flows, traces, choices.

mod choice;
mod counters;
mod flow;
mod stage;
mod state;
mod trace;
mod verdict;

pub use choice::{Choice, ChoicePoint, ChoiceSource, FirstChoice, RecordedChoices, SeededChoices};
pub use counters::{Counters, FlowTotals, PortCounters};
pub use flow::{
    Flow, FlowDirection, FlowId, FlowIngress, FlowState, FlowTuple, PolicyStamp, SctpState, TcpState,
    Translation,
};
pub use stage::Stage;
pub use state::{
    AffinityEntry, FdbEntry, FragmentEntry, FragmentKey, NeighborEntry, NeighborState, PathMtuEntry,
    SlotEntry, State,
};
pub use trace::{Parting, Trace, TraceEntry, TraceStep};
pub(crate) use verdict::hex_bytes;
pub use verdict::{Fate, HexError, Output, Unsent, Verdict, parse_hex};

/// A point in time: nanoseconds of CLOCK_BOOTTIME, which goes on during suspend.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;

    /// This many seconds later; at the end of time it stays there.
    #[must_use]
    pub fn plus_s(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(u64::from(seconds) * Self::SECOND))
    }

    /// This many milliseconds later.
    #[must_use]
    pub fn plus_ms(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds.saturating_mul(1_000_000)))
    }
}

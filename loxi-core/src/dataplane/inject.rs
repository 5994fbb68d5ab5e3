//! Packets offered by hand.

use crate::net::PortName;
use crate::packet::{
    Choice, ChoiceSource, FirstChoice, RecordedChoices, SeededChoices, Timestamp, Trace, Verdict,
};
use crate::reason::PuntReason;

/// A packet and where it enters.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketIn {
    /// Ingress port.
    pub port: PortName,
    /// The frame, from its destination MAC on, without FCS.
    #[serde(with = "crate::packet::hex_bytes")]
    pub bytes: Vec<u8>,
    /// When it comes; none: the request's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// How free choices are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceMode {
    /// The value that needs no randomness.
    #[default]
    First,
    /// Pseudo-random from a seed.
    Seed(u64),
    /// As recorded, then the first.
    Recorded(Vec<Choice>),
}

impl ChoiceMode {
    /// A source of such choices.
    #[must_use]
    pub fn source(&self) -> Box<dyn ChoiceSource> {
        match self {
            Self::First => Box::new(FirstChoice),
            Self::Seed(seed) => Box::new(SeededChoices::new(*seed)),
            Self::Recorded(choices) => Box::new(RecordedChoices::new(choices)),
        }
    }
}

/// Packets to be run in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectRequest {
    /// The packets.
    pub packets: Vec<PacketIn>,
    /// The time; none: the dataplane's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Timestamp>,
    /// Free choices.
    #[serde(default)]
    pub choices: ChoiceMode,
    /// Whether state is kept and outputs are sent.
    #[serde(default)]
    pub commit: bool,
}

/// What became of one packet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injected {
    /// Verdict.
    pub verdict: Verdict,
    /// Free choices that were made, in order.
    #[serde(default)]
    pub choices: Vec<Choice>,
    /// How it came to that.
    #[serde(default)]
    pub trace: Trace,
    /// Why the fast path handed the packet to the slow path, which then led to this verdict. None:
    /// the fast path finished it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub punt: Option<PuntReason>,
}

/// Why a packet goes where it goes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The backend's name.
    pub backend: String,
    /// Decoded from what is installed.
    pub installed: Trace,
    /// What the reference makes of the same packet, where it runs beside another backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Injected>,
}

//! Counters.

use crate::net::{PortName, ZoneName};
use crate::reason::{ConsumedReason, DropReason, PuntReason};
use std::collections::BTreeMap;

/// Counters of one port. Every received packet is counted once by its fate:
/// `rx_packets = forwarded + consumed + punted + dropped`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Their bytes, without FCS.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Their bytes, without FCS.
    pub tx_bytes: u64,
    /// Received frames of which a copy left.
    pub forwarded: u64,
    /// Received frames that ended here, by reason.
    #[serde(default)]
    pub consumed: BTreeMap<ConsumedReason, u64>,
    /// Received frames that were handed on, by reason.
    #[serde(default)]
    pub punted: BTreeMap<PuntReason, u64>,
    /// Received frames that were dropped, by reason.
    #[serde(default)]
    pub dropped: BTreeMap<DropReason, u64>,
    /// Copies that did not leave by this port, by reason.
    #[serde(default)]
    pub unsent: BTreeMap<DropReason, u64>,
}

impl PortCounters {
    /// Received packets less those counted by fate: 0 in a correct dataplane.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        let fates: u64 = self.forwarded
            + self.consumed.values().sum::<u64>()
            + self.punted.values().sum::<u64>()
            + self.dropped.values().sum::<u64>();
        i128::from(self.rx_packets) - i128::from(fates)
    }
}

/// Flows of one zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowTotals {
    /// Flows now.
    pub flows: u64,
    /// Of these, not yet established.
    pub half_open: u64,
    /// Flows at most.
    pub capacity: u64,
    /// Flows made since the start.
    pub created: u64,
}

/// Everything counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// By port. Packets of unknown ports are not here.
    pub ports: BTreeMap<PortName, PortCounters>,
    /// By zone.
    pub zones: BTreeMap<ZoneName, FlowTotals>,
}

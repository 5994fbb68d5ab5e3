//! What the rows must cover: every stage that has entities, every reason.

use crate::report::Report;
use loxi_core::packet::Stage;
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use std::collections::BTreeSet;

/// Drop reasons that no row can show yet, each because what causes it is not there: entities of a
/// later order (ACLs, meters, SYN guard), hardware limits, queues, and what
/// `inject` or validation already refuses.
pub const NOT_IN_THIS_SLICE: [DropReason; 11] = [
    DropReason::PortUnknown,
    DropReason::TunnelNoHeadroom,
    DropReason::TunnelInner,
    DropReason::CtContended,
    DropReason::AclDenied,
    DropReason::MeterRed,
    DropReason::SynGuard,
    DropReason::QueueFull,
    DropReason::FdbLimit,
    DropReason::FragmentLimit,
    DropReason::Unsupported,
];

/// What the rows have shown, and what is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Stages that no row's trace shows.
    pub missing_stages: BTreeSet<Stage>,
    /// Drop reasons that no row shows.
    pub missing_drops: BTreeSet<DropReason>,
    /// Punts to the local stack that no row shows.
    pub missing_punts: BTreeSet<PuntReason>,
    /// Consumed reasons that no row shows.
    pub missing_consumed: BTreeSet<ConsumedReason>,
}

impl Coverage {
    /// Compares a report with what must be covered.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let rows = &report.rows;
        let stages: BTreeSet<Stage> = rows.iter().flat_map(|row| row.stages.iter().copied()).collect();
        let drops: BTreeSet<DropReason> = rows.iter().flat_map(|row| row.drops.iter().copied()).collect();
        let punts: BTreeSet<PuntReason> = rows.iter().flat_map(|row| row.punts.iter().copied()).collect();
        let consumed: BTreeSet<ConsumedReason> =
            rows.iter().flat_map(|row| row.consumed.iter().copied()).collect();
        let later = |reason: &DropReason| NOT_IN_THIS_SLICE.contains(reason);
        Self {
            missing_stages: Stage::EXECUTED.into_iter().filter(|s| !stages.contains(s)).collect(),
            missing_drops: DropReason::ALL
                .iter()
                .copied()
                .filter(|r| !later(r) && !drops.contains(r))
                .collect(),
            missing_punts: PuntReason::ALL
                .iter()
                .copied()
                .filter(|r| r.is_not_ours() && !punts.contains(r))
                .collect(),
            missing_consumed: ConsumedReason::ALL
                .iter()
                .copied()
                // "Rejected" is for backends that consume what they reject.
                .filter(|reason| *reason != ConsumedReason::Rejected && !consumed.contains(reason))
                .collect(),
        }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::default()
    }
}

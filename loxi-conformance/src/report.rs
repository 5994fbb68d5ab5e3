//! What a run showed.

use loxi_core::capability::Feature;
use loxi_core::packet::Stage;
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use std::collections::{BTreeMap, BTreeSet};

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every packet's fate, bytes and counters were as wanted.
    Passed,
    /// The backend declares that it can't do this.
    Refused(Feature),
    /// As passed, and the fast path handed at least one packet to the slow path, as declared: the
    /// first one's reason.
    Punted(PuntReason),
    /// Something was not as wanted.
    Failed(Vec<String>),
}

/// One row's outcome and what it covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowResult {
    /// The file that it is in.
    pub file: String,
    /// The row.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Packets whose fate, bytes and counters were compared and equal.
    pub asserted: usize,
    /// Stages that its traces show.
    pub stages: BTreeSet<Stage>,
    /// Drop reasons seen.
    pub drops: BTreeSet<DropReason>,
    /// Punt reasons seen, whether the packet went to the local stack or to the slow path.
    pub punts: BTreeSet<PuntReason>,
    /// Consumed reasons seen.
    pub consumed: BTreeSet<ConsumedReason>,
}

impl RowResult {
    pub(crate) fn new(file: &str, name: &str) -> Self {
        Self {
            file: file.to_owned(),
            name: name.to_owned(),
            outcome: Outcome::Passed,
            asserted: 0,
            stages: BTreeSet::new(),
            drops: BTreeSet::new(),
            punts: BTreeSet::new(),
            consumed: BTreeSet::new(),
        }
    }

    /// Notes a hand-over to the slow path, of which the first decides the outcome.
    pub(crate) fn punted(&mut self, reason: PuntReason) {
        self.punts.insert(reason);
        if self.outcome == Outcome::Passed {
            self.outcome = Outcome::Punted(reason);
        }
    }

    pub(crate) fn fail(&mut self, message: String) {
        match &mut self.outcome {
            Outcome::Failed(messages) => messages.push(message),
            other => *other = Outcome::Failed(vec![message]),
        }
    }
}

/// Rows of one file, by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTotals {
    /// Passed.
    pub passed: usize,
    /// Refused.
    pub refused: usize,
    /// Punted.
    pub punted: usize,
    /// Failed.
    pub failed: usize,
}

/// Every row's result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In file order.
    pub rows: Vec<RowResult>,
}

impl Report {
    /// Rows that failed.
    #[must_use]
    pub fn failures(&self) -> Vec<&RowResult> {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).collect()
    }

    /// Packets whose fate, bytes and counters were compared and equal.
    #[must_use]
    pub fn asserted(&self) -> usize {
        self.rows.iter().map(|row| row.asserted).sum()
    }

    /// Totals by file.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<&str, StageTotals> {
        let mut totals: BTreeMap<&str, StageTotals> = BTreeMap::new();
        for row in &self.rows {
            let total = totals.entry(&row.file).or_default();
            match row.outcome {
                Outcome::Passed => total.passed += 1,
                Outcome::Refused(_) => total.refused += 1,
                Outcome::Punted(_) => total.punted += 1,
                Outcome::Failed(_) => total.failed += 1,
            }
        }
        totals
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for row in self.failures() {
            if let Outcome::Failed(messages) = &row.outcome {
                writeln!(f, "FAILED {}: {}", row.file, row.name)?;
                for message in messages {
                    writeln!(f, "  {message}")?;
                }
            }
        }
        writeln!(f, "{:<12} {:>7} {:>7} {:>7} {:>7}", "rows", "passed", "refused", "punted", "failed")?;
        for (file, t) in self.totals() {
            writeln!(f, "{file:<12} {:>7} {:>7} {:>7} {:>7}", t.passed, t.refused, t.punted, t.failed)?;
        }
        write!(f, "{} packets asserted in {} rows", self.asserted(), self.rows.len())
    }
}

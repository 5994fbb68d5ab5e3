//! The plan: rows of the tables by name, in units that are compiled by themselves.
//!
//! # Contract
//! - [`compile`] is pure: a plan depends on the pipeline alone, and says everything that the tables
//!   hold but what is learned, attached, counted or numbered.
//! - [`PlanIndex::compile_change`] comes to the same plan as [`compile`] of the new pipeline, at a
//!   cost that grows with the change.
//! - A plan has no unit without rows.
//! - Pipelines are valid ([`loxi_core::validate`]). Of one that isn't, some rows are missing; nothing
//!   panics.

mod change;
mod compile;
mod dump;
mod index;
mod room;
mod rows;

pub use compile::policy::{GroupDef, groups_of, rules_of};
pub use compile::{compile, compile_for};
pub use index::PlanIndex;
pub use room::{Counted, Room};
pub use rows::*;

use loxi_core::net::PortName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the tables shall hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows by unit; none is empty.
    pub units: BTreeMap<Unit, Arc<Rows>>,
}

/// A unit whose rows differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitDelta {
    /// Which one.
    pub unit: Unit,
    /// Its rows as they are; none: it is new.
    pub old: Arc<Rows>,
    /// Its rows as they will be; none: it goes.
    pub new: Arc<Rows>,
}

/// What differs between two plans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanDelta {
    /// Units that differ, in their order.
    pub units: Vec<UnitDelta>,
    /// Ports whose policy generation grows: flows that they admitted are judged again. Each is
    /// configured in the new pipeline.
    pub stale_ports: BTreeSet<PortName>,
    /// Rows of the policies on the way from the old to the new ones, the last one with the new rules; none: the way is
    /// direct.
    pub passage: Vec<Rows>,
}

impl Plan {
    /// Makes the plan what the delta says.
    pub fn apply(&mut self, delta: &PlanDelta) {
        for UnitDelta { unit, new, .. } in &delta.units {
            if new.is_empty() {
                self.units.remove(unit);
            } else {
                self.units.insert(unit.clone(), Arc::clone(new));
            }
        }
    }

    /// Every row, unit by unit.
    pub fn rows(&self) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.units.values().flat_map(|rows| rows.iter())
    }
}

/// What differs between two plans.
#[must_use]
pub fn difference(old: &Plan, new: &Plan) -> Vec<UnitDelta> {
    let units: BTreeSet<_> = old.units.keys().chain(new.units.keys()).collect();
    let of = |plan: &Plan, unit| plan.units.get(unit).cloned().unwrap_or_default();
    let deltas = units.into_iter().map(|unit| UnitDelta {
        unit: unit.clone(),
        old: of(old, unit),
        new: of(new, unit),
    });
    deltas.filter(|delta| delta.old != delta.new).collect()
}

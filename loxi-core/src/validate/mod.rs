//! What makes a set of entities a pipeline.
//!
//! A single entity's values are checked by its types. Here: references that
//! lead nowhere, keys that overlap, values that are impossible together. Every
//! problem names entity and field. [`validate`] reports all problems, in
//! dependency order of the entities; its cost grows with the whole pipeline.

mod l2;
mod l3;
mod lb;
mod policy;
mod tunnel;

use crate::ir::{EntityKey, Pipeline};

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Problem {
    /// It refers to what doesn't exist.
    #[error("{0} does not exist")]
    Dangling(Box<EntityKey>),
    /// It claims what another entity has.
    #[error("overlaps with {0}")]
    Overlap(Box<EntityKey>),
    /// It can't be together with another value.
    #[error("{0}")]
    Impossible(String),
    /// It is out of its range.
    #[error("{value} is out of range {min}..={max}")]
    Range {
        /// The value.
        value: u64,
        /// Lowest legal value.
        min: u64,
        /// Highest legal value.
        max: u64,
    },
    /// It must be given.
    #[error("must be given: {0}")]
    Missing(String),
}

/// A problem and its place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error("{entity}: {field}: {problem}")]
#[serde(deny_unknown_fields)]
pub struct ValidationError {
    /// The entity.
    pub entity: EntityKey,
    /// The field, as the text form names it.
    pub field: String,
    /// What is wrong.
    pub problem: Problem,
}

/// Every problem of a pipeline; never empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ValidationErrors(pub Vec<ValidationError>);

impl std::fmt::Display for ValidationErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ValidationErrors {}

/// Checks that the entities fit together.
///
/// # Errors
/// Every problem found.
pub fn validate(pipeline: &Pipeline) -> Result<(), ValidationErrors> {
    let mut check = Checker { pipeline, errors: Vec::new() };
    l2::check(&mut check);
    l3::check(&mut check);
    tunnel::check(&mut check);
    lb::check(&mut check);
    policy::check(&mut check);
    if check.errors.is_empty() {
        return Ok(());
    }
    check.errors.sort_by(|a, b| a.entity.cmp(&b.entity));
    Err(ValidationErrors(check.errors))
}

/// The pipeline and the problems found so far.
struct Checker<'a> {
    pipeline: &'a Pipeline,
    errors: Vec<ValidationError>,
}

impl Checker<'_> {
    fn problem(&mut self, entity: EntityKey, field: &str, problem: Problem) {
        self.errors.push(ValidationError { entity, field: field.to_owned(), problem });
    }

    fn impossible(&mut self, entity: EntityKey, field: &str, why: impl Into<String>) {
        self.problem(entity, field, Problem::Impossible(why.into()));
    }

    /// Notes a problem unless the entity that a field refers to exists.
    fn refers(&mut self, entity: &EntityKey, field: &str, to: EntityKey) -> bool {
        let exists = self.pipeline.owner(&to).is_some();
        if !exists {
            self.problem(entity.clone(), field, Problem::Dangling(Box::new(to)));
        }
        exists
    }

    /// Notes a problem if no packet of a VRF is ever tracked: what needs a flow would silently do nothing.
    fn needs_zone(&mut self, entity: &EntityKey, vrf: &crate::net::VrfName) {
        use crate::ir::{Bridge, InterfaceOn, Vrf};
        let own = self.pipeline.get::<Vrf>(vrf).is_none_or(|vrf| vrf.zone.is_some());
        let of_bridge = || {
            self.pipeline.interfaces().filter(|interface| interface.vrf == *vrf).any(|interface| {
                match &interface.on {
                    InterfaceOn::Bridge { bridge, .. } => {
                        self.pipeline.get::<Bridge>(bridge).is_some_and(|bridge| bridge.zone.is_some())
                    }
                    InterfaceOn::Port(_) => false,
                }
            })
        };
        if !own && !of_bridge() {
            let why = format!(
                "neither VRF {vrf} nor a bridge of it has a zone, and without one nothing is translated"
            );
            self.problem(entity.clone(), "vrf", Problem::Missing(why));
        }
    }

    fn range(&mut self, entity: &EntityKey, field: &str, value: u64, min: u64, max: u64) {
        if !(min..=max).contains(&value) {
            self.problem(entity.clone(), field, Problem::Range { value, min, max });
        }
    }
}

//! What differs between two pipelines.

use crate::ir::{Entity, EntityKey, Owned, Pipeline};

/// One entity that differs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// Its key.
    pub key: EntityKey,
    /// As it was; none: it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Owned<Entity>>,
    /// As it will be; none: it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Owned<Entity>>,
}

/// Every entity that differs, in the order in which packets may see it change:
/// creations and updates by ascending dependency, then deletions by descending.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Change {
    /// Entities.
    pub entities: Vec<Changed>,
}

impl Change {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// Puts the entities in dependency order.
    pub(super) fn sort(&mut self) {
        self.entities.sort_by(|a, b| match (a.new.is_some(), b.new.is_some()) {
            (true, true) => a.key.cmp(&b.key),
            (false, false) => b.key.cmp(&a.key),
            (true, false) => std::cmp::Ordering::Less,
            (false, true) => std::cmp::Ordering::Greater,
        });
    }

    /// The change that takes this one back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let entities = self.entities.iter();
        let mut inverse = Self {
            entities: entities
                .map(|c| Changed { key: c.key.clone(), old: c.new.clone(), new: c.old.clone() })
                .collect(),
        };
        inverse.sort();
        inverse
    }

    /// Applies the change to a pipeline.
    pub fn apply_to(&self, pipeline: &mut Pipeline) {
        for changed in &self.entities {
            match &changed.new {
                Some(new) => {
                    pipeline.put(new.owner.clone(), new.entity.clone());
                }
                None => {
                    pipeline.remove(&changed.key);
                }
            }
        }
    }
}

/// What must change in `old` to get `new`. Cost grows with both.
#[must_use]
pub fn diff(old: &Pipeline, new: &Pipeline) -> Change {
    let mut change = Change::default();
    for owned in new.entities() {
        let key = owned.entity.key();
        let before = old.entity(&key);
        if before.as_ref() != Some(&owned) {
            change.entities.push(Changed { key, old: before, new: Some(owned) });
        }
    }
    for key in old.keys() {
        if new.owner(&key).is_none() {
            change.entities.push(Changed { old: old.entity(&key), key, new: None });
        }
    }
    change.sort();
    change
}

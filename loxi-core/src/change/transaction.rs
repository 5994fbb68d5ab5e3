//! Transactions: what an owner wants changed, as one.

use super::{Change, Changed};
use crate::ir::{Entity, EntityKey, Owned, Owner, Pipeline};
use std::collections::BTreeMap;

/// Counts the changes of a dataplane's configuration; never goes back, also not by a restart.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Names a transaction for ever: sent twice, it is applied once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TransactionId(pub String);

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A wish for one entity.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The entity shall be so.
    Put(Box<Entity>),
    /// No such entity shall be.
    Delete(EntityKey),
}

/// A change that is made as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// Its name; 1 to 128 bytes.
    pub id: TransactionId,
    /// Who asks; only this owner's entities change.
    pub owner: Owner,
    /// The generation on which it is based; any other is refused. None: whatever is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Generation>,
    /// Whether the owner's entities that aren't put are deleted (full sync).
    #[serde(default)]
    pub replace: bool,
    /// Whether entities of other owners that are put become this owner's.
    #[serde(default)]
    pub take_ownership: bool,
    /// What shall be.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// Replaces the owner's whole set.
    #[must_use]
    pub fn replace(id: impl Into<String>, owner: Owner, entities: impl IntoIterator<Item = Entity>) -> Self {
        let operations = entities.into_iter().map(|entity| Operation::Put(Box::new(entity))).collect();
        Self {
            id: TransactionId(id.into()),
            owner,
            base: None,
            replace: true,
            take_ownership: false,
            operations,
        }
    }

    /// Changes single entities.
    #[must_use]
    pub fn change(id: impl Into<String>, owner: Owner, operations: Vec<Operation>) -> Self {
        Self {
            id: TransactionId(id.into()),
            owner,
            base: None,
            replace: false,
            take_ownership: false,
            operations,
        }
    }
}

/// What a transaction has led to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// The generation that has it.
    pub generation: Generation,
    /// Entities created, updated, deleted.
    pub created: u64,
    /// Entities updated.
    pub updated: u64,
    /// Entities deleted.
    pub deleted: u64,
}

/// Why a transaction can't be planned.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeError {
    /// Based on another generation.
    #[error("based on generation {base}, but the dataplane is at {current}")]
    GenerationConflict {
        /// As given.
        base: Generation,
        /// As it is.
        current: Generation,
    },
    /// Another owner's entity.
    #[error("{entity} is owned by {by}")]
    Owned {
        /// The entity.
        entity: Box<EntityKey>,
        /// Its owner.
        by: Owner,
    },
    /// Deletes what isn't there.
    #[error("{0} does not exist")]
    NoSuchEntity(Box<EntityKey>),
    /// Names an entity twice.
    #[error("{0} is named by two operations")]
    NamedTwice(Box<EntityKey>),
    /// The id has 0 or more than 128 bytes.
    #[error("a transaction's id has 1 to 128 bytes, not {0}")]
    BadId(usize),
}

/// Works out what a transaction changes; pure. Cost grows with the transaction,
/// and for `replace` with the pipeline.
///
/// # Errors
/// [`ChangeError`]; nothing has changed then.
pub fn plan_change(
    pipeline: &Pipeline,
    current: Generation,
    tx: &Transaction,
) -> Result<Change, ChangeError> {
    if tx.id.0.is_empty() || tx.id.0.len() > 128 {
        return Err(ChangeError::BadId(tx.id.0.len()));
    }
    if let Some(base) = tx.base
        && base != current
    {
        return Err(ChangeError::GenerationConflict { base, current });
    }
    let mut wanted: BTreeMap<EntityKey, Option<&Entity>> = BTreeMap::new();
    for operation in &tx.operations {
        let (key, entity) = match operation {
            Operation::Put(entity) => (entity.key(), Some(&**entity)),
            Operation::Delete(key) => (key.clone(), None),
        };
        if wanted.insert(key.clone(), entity).is_some() {
            return Err(ChangeError::NamedTwice(Box::new(key)));
        }
    }
    if tx.replace {
        for key in pipeline.keys().filter(|key| pipeline.owner(key) == Some(&tx.owner)) {
            wanted.entry(key).or_insert(None);
        }
    }
    let mut change = Change::default();
    for (key, entity) in wanted {
        let old = pipeline.entity(&key);
        if let Some(old) = &old
            && old.owner != tx.owner
            && !tx.take_ownership
        {
            return Err(ChangeError::Owned { entity: Box::new(key), by: old.owner.clone() });
        }
        let new = entity.map(|entity| Owned { owner: tx.owner.clone(), entity: entity.clone() });
        if old.is_none() && new.is_none() {
            return Err(ChangeError::NoSuchEntity(Box::new(key)));
        }
        if old != new {
            change.entities.push(Changed { key, old, new });
        }
    }
    change.sort();
    Ok(change)
}

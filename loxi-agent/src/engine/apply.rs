//! Applies a ledger to the dataplane.
//!
//! A refusal that names entities sets aside who contributes them. One that doesn't (too many entities of a kind) stops
//! everything until something changes: which object is one too many isn't ours to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use loxi_core::change::{ChangeError, Operation, Transaction, TransactionId};
use loxi_core::dataplane::{CompileError, Dataplane, DataplaneError};
use loxi_core::ir::{Entity, EntityKey, Owner};
use loxi_core::net::PortName;

use super::{Problem, RequestError};
use crate::intent::{Contributor, Ledger};

/// How often objects are set aside before the whole is given up: each time there is one less.
const SET_ASIDE: usize = 1000;
/// How often a transaction whose outcome isn't known is sent again.
const AGAIN: usize = 3;

/// Applies, and knows what the dataplane is at.
pub(super) struct Applier {
    dataplane: Arc<dyn Dataplane>,
    /// Whose set it is.
    owner: Owner,
    /// What makes this process' transactions differ from those of others.
    run: String,
    transactions: u64,
    /// Whether the dataplane is known to have what was applied.
    known: bool,
    /// Who is set aside, and why.
    set_aside: BTreeMap<Contributor, String>,
}

impl Applier {
    pub(super) fn new(dataplane: Arc<dyn Dataplane>, owner: Owner) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let run = format!("agent-{}-{}", std::process::id(), since.as_nanos());
        Self { dataplane, owner, run, transactions: 0, known: false, set_aside: BTreeMap::new() }
    }

    /// Objects that are set aside. One that has changed is none any more.
    pub(super) fn problems(&mut self, ledger: &Ledger) -> Vec<Problem> {
        self.set_aside.retain(|contributor, _| ledger.is_set_aside(contributor));
        let problem = |(contributor, why): (&Contributor, &String)| Problem {
            object: contributor.to_string(),
            why: why.clone(),
        };
        self.set_aside.iter().map(problem).collect()
    }

    /// Brings the dataplane to what the ledger says.
    ///
    /// # Errors
    /// If it can't be reached, or refuses what is no object's alone.
    pub(super) async fn apply(&mut self, ledger: &mut Ledger) -> Result<(), RequestError> {
        for _ in 0..SET_ASIDE {
            if self.known && ledger.is_applied() {
                return Ok(());
            }
            let pending = ledger.take();
            let transaction = if self.known {
                let operations = ledger.operations(&pending);
                if operations.is_empty() {
                    return Ok(());
                }
                self.transaction(operations, false)
            } else {
                let all = ledger.entities().map(|entity: &Entity| Operation::Put(Box::new(entity.clone())));
                self.transaction(all.collect(), true)
            };
            let Err(error) = self.send(transaction).await else {
                self.known = true;
                return Ok(());
            };
            ledger.give_back(pending);
            if !self.set_aside(ledger, &error) {
                // Where it is now isn't known any more, unless it has just refused.
                self.known &= is_refusal(&error);
                return Err(RequestError::NotYet(error.to_string()));
            }
        }
        Err(RequestError::NotYet("the dataplane refuses too many objects".to_owned()))
    }

    fn transaction(&mut self, operations: Vec<Operation>, replace: bool) -> Transaction {
        self.transactions += 1;
        let id = TransactionId(format!("{}-{}", self.run, self.transactions));
        Transaction { id, owner: self.owner.clone(), base: None, replace, take_ownership: false, operations }
    }

    async fn send(&self, transaction: Transaction) -> Result<(), DataplaneError> {
        let mut left = AGAIN;
        loop {
            match self.dataplane.apply(transaction.clone()).await {
                Err(DataplaneError::OutcomeUnknown { .. }) if left > 0 => left -= 1,
                Err(error) => return Err(error),
                Ok(applied) => {
                    let (generation, created) = (applied.generation.0, applied.created);
                    let (updated, deleted) = (applied.updated, applied.deleted);
                    tracing::debug!(generation, created, updated, deleted, "applied");
                    return Ok(());
                }
            }
        }
    }

    /// Sets the objects aside whose entities an error names; whether there are any.
    fn set_aside(&mut self, ledger: &mut Ledger, error: &DataplaneError) -> bool {
        let mut any = false;
        for (key, why) in blamed(error) {
            for contributor in ledger.contributors_of(&key) {
                if contributor.is_of_the_node() || !ledger.set_aside(&contributor) {
                    continue;
                }
                tracing::error!(object = %contributor, error = %why, "set aside until it changes");
                self.set_aside.insert(contributor, why.clone());
                any = true;
            }
        }
        any
    }

    /// Opens a port for packets.
    pub(super) async fn attach(&self, port: &PortName, ledger: &Ledger) -> Result<(), RequestError> {
        if let Some(why) = self.set_aside.get(&Contributor::Attachment(port.clone()))
            && ledger.is_set_aside(&Contributor::Attachment(port.clone()))
        {
            return Err(RequestError::Refused(why.clone()));
        }
        self.dataplane.attach(port.clone()).await.map_err(request_error)
    }

    /// Closes a port.
    pub(super) async fn detach(&self, port: &PortName) -> Result<(), RequestError> {
        match self.dataplane.detach(port.clone()).await {
            Ok(()) | Err(DataplaneError::NoSuchPort(_)) => Ok(()),
            Err(error) => Err(request_error(error)),
        }
    }
}

fn request_error(error: DataplaneError) -> RequestError {
    if is_refusal(&error) {
        RequestError::Refused(error.to_string())
    } else {
        RequestError::NotYet(error.to_string())
    }
}

/// Whether the dataplane has answered, and nothing of it has changed.
fn is_refusal(error: &DataplaneError) -> bool {
    !matches!(
        error,
        DataplaneError::Unreachable(_) | DataplaneError::OutcomeUnknown { .. } | DataplaneError::Internal(_)
    )
}

/// The entities that an error is about, with what is wrong.
fn blamed(error: &DataplaneError) -> Vec<(EntityKey, String)> {
    match error {
        DataplaneError::Invalid(errors) => {
            errors.0.iter().map(|error| (error.entity.clone(), error.to_string())).collect()
        }
        DataplaneError::Compile(CompileError::Unsupported(error)) => {
            vec![(error.entity.clone(), error.to_string())]
        }
        DataplaneError::Compile(error @ CompileError::TooMany { entity, .. }) => {
            vec![(entity.clone(), error.to_string())]
        }
        DataplaneError::Change(error @ ChangeError::Owned { entity, .. }) => {
            vec![((**entity).clone(), error.to_string())]
        }
        _ => Vec::new(),
    }
}

//! `apply`, `diff` and `delete`: changes of the configuration.

use crate::args::{Apply, Delete, Diff, Output};
use crate::failure::Failure;
use crate::{get, input, show};
use loxi_core::change::{Applied, Change, Changed, Generation, Operation, Transaction, plan_change};
use loxi_core::dataplane::{Dataplane, DataplaneError};
use loxi_core::ir::{EntityKey, EntityKind};
use loxi_core::validate::validate;
use serde_json::Value;
use std::hash::{BuildHasher, Hasher};
use std::process::ExitCode;

/// How often a transaction whose outcome is unknown is sent again.
const RESENDS: usize = 2;

/// The transaction that `apply` means.
pub(crate) fn read(apply: &Apply) -> Result<Transaction, Failure> {
    let entities = input::entities(&apply.file)?;
    let id = apply.id.clone().unwrap_or_else(new_id);
    Ok(Transaction {
        base: apply.base.map(Generation),
        take_ownership: apply.take_ownership,
        ..Transaction::replace(id, apply.owner.clone(), entities)
    })
}

/// The transaction that `diff` is about.
pub(crate) fn read_diff(diff: &Diff) -> Result<Transaction, Failure> {
    let entities = input::entities(&diff.file)?;
    Ok(Transaction {
        take_ownership: diff.take_ownership,
        ..Transaction::replace(new_id(), diff.owner.clone(), entities)
    })
}

/// Unlike that of any other transaction.
fn new_id() -> String {
    // The standard library seeds it from the system's randomness.
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("llcli-{:016x}{:016x}", random(), random() ^ crate::time::now().0)
}

/// Applies, or with `--dry-run` says what would change.
pub(crate) async fn apply(
    dataplane: &dyn Dataplane,
    apply: &Apply,
    transaction: Transaction,
    output: Output,
) -> Result<(), Failure> {
    if apply.dry_run {
        let change = plan(dataplane, &transaction).await?;
        return shown(&change, output);
    }
    let id = transaction.id.clone();
    let applied = send(dataplane, transaction).await;
    if let Err(Failure::Dataplane(DataplaneError::OutcomeUnknown { .. })) = &applied {
        eprintln!("llcli: to send it again: llcli apply --id {id} …");
    }
    told(&applied?, output)
}

/// Sends a transaction, and again if the answer was lost: it is applied once.
async fn send(dataplane: &dyn Dataplane, transaction: Transaction) -> Result<Applied, Failure> {
    for _ in 0..RESENDS {
        match dataplane.apply(transaction.clone()).await {
            Err(DataplaneError::OutcomeUnknown { .. }) => {}
            other => return Ok(other?),
        }
    }
    // A daemon that is gone by now may have applied it before.
    match dataplane.apply(transaction.clone()).await {
        Err(DataplaneError::Unreachable(_)) => {
            Err(DataplaneError::OutcomeUnknown { id: transaction.id }.into())
        }
        other => Ok(other?),
    }
}

fn told(applied: &Applied, output: Output) -> Result<(), Failure> {
    if output != Output::Table {
        return show::value(applied, output);
    }
    let Applied { generation, created, updated, deleted } = applied;
    show::line(&format!("generation {generation}: {created} created, {updated} updated, {deleted} deleted"))
}

/// What a transaction would change, planned as the dataplane would.
async fn plan(dataplane: &dyn Dataplane, transaction: &Transaction) -> Result<Change, Failure> {
    let page = get::snapshot(dataplane, EntityKind::ALL, None).await?;
    let capabilities = dataplane.capabilities().await?;
    let mut pipeline = get::pipeline(page.entities);
    let change = plan_change(&pipeline, page.generation, transaction).map_err(DataplaneError::from)?;
    change.apply_to(&mut pipeline);
    validate(&pipeline).map_err(DataplaneError::from)?;
    capabilities.check(&pipeline).map_err(DataplaneError::from)?;
    Ok(change)
}

/// Says what `apply` would change.
pub(crate) async fn diff(
    dataplane: &dyn Dataplane,
    transaction: Transaction,
    output: Output,
) -> Result<ExitCode, Failure> {
    let change = plan(dataplane, &transaction).await?;
    shown(&change, output)?;
    Ok(if change.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn shown(change: &Change, output: Output) -> Result<(), Failure> {
    if output != Output::Table {
        return show::value(change, output);
    }
    let mut text = String::new();
    for changed in &change.entities {
        let sign = match (&changed.old, &changed.new) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        text.push_str(&format!("{sign} {}\n", changed.key));
        for (field, old, new) in fields(changed) {
            text.push_str(&format!("    {field}: {old} -> {new}\n"));
        }
    }
    let count = |sign: fn(&Changed) -> bool| change.entities.iter().filter(|changed| sign(changed)).count();
    let created = count(|changed| changed.old.is_none());
    let deleted = count(|changed| changed.new.is_none());
    let updated = change.entities.len() - created - deleted;
    text.push_str(&format!("{created} to create, {updated} to update, {deleted} to delete\n"));
    show::text(&text)
}

/// Fields that differ between the old and the new of an update.
fn fields(changed: &Changed) -> Vec<(String, String, String)> {
    let (Some(old), Some(new)) = (&changed.old, &changed.new) else { return Vec::new() };
    let mut fields = Vec::new();
    if old.owner != new.owner {
        fields.push(("owner".to_owned(), old.owner.to_string(), new.owner.to_string()));
    }
    let inner = |owned: &loxi_core::ir::Owned<_>| match serde_json::to_value(&owned.entity) {
        Ok(Value::Object(kind)) => kind.into_iter().next().map(|(_, entity)| entity).unwrap_or_default(),
        _ => Value::Null,
    };
    let (old, new): (Value, Value) = (inner(old), inner(new));
    let (Value::Object(old), Value::Object(new)) = (&old, &new) else { return fields };
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        let text = |value: Option<&Value>| match value {
            None => "none".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        if old.get(name) != new.get(name) {
            fields.push((name.clone(), text(old.get(name)), text(new.get(name))));
        }
    }
    fields
}

/// Deletes one entity.
pub(crate) async fn delete(
    dataplane: &dyn Dataplane,
    delete: &Delete,
    output: Output,
) -> Result<(), Failure> {
    let kind = EntityKind::ALL.iter().find(|kind| kind.name() == delete.kind.replace('-', "_"));
    let Some(kind) = kind else {
        let kinds: Vec<_> = EntityKind::ALL.iter().map(|kind| kind.name()).collect();
        let (given, kinds) = (&delete.kind, kinds.join(", "));
        return Err(Failure::Input(format!("`{given}` is no kind of entity (one of {kinds})")));
    };
    let wanted = format!("{} {}", kind.name(), delete.key);
    let page = get::snapshot(dataplane, &[*kind], None).await?;
    let key: Option<EntityKey> =
        page.entities.iter().map(|owned| owned.entity.key()).find(|key| key.to_string() == wanted);
    let Some(key) = key else {
        return Err(Failure::Input(format!("{wanted} does not exist")));
    };
    let transaction = Transaction::change(new_id(), delete.owner.clone(), vec![Operation::Delete(key)]);
    told(&send(dataplane, transaction).await?, output)
}

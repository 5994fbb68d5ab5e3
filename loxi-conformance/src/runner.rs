//! Runs rows on a dataplane.
//!
//! Each row starts on an emptied dataplane. Packets are injected with
//! `commit`, at times far beyond any clock, so that a live daemon's own clock
//! never ends a flow of a row. After each packet exactly the counters that the
//! expectation implies have moved, and the configuration is as it was.

use crate::punt::punt_of;
use crate::report::{Outcome, RowResult};
use crate::row::{Expectation, Row, RowError, RowStep};
use loxi_core::capability::Capabilities;
use loxi_core::change::{Operation, Transaction};
use loxi_core::dataplane::{
    ChoiceMode, CompileError, Dataplane, DataplaneError, InjectRequest, Injected, PacketIn, SnapshotQuery,
};
use loxi_core::ir::{Entity, Owner};
use loxi_core::net::PortName;
use loxi_core::packet::{Choice, ChoicePoint, Counters, Fate, PortCounters, State, Timestamp, Verdict};
use loxi_core::reason::DropReason;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The owner of everything that the suite configures.
pub const OWNER: &str = "conformance";

/// When rows begin: a million seconds, beyond the boot time of a test machine.
const BEGIN_S: u64 = 1_000_000;

fn owner() -> Result<Owner, DataplaneError> {
    Owner::new(OWNER).map_err(|error| DataplaneError::Internal(error.to_string()))
}

/// A transaction id that no other run has used.
pub(crate) fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{OWNER}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The time of a second of a row.
pub(crate) fn time(second: u64) -> Timestamp {
    Timestamp((BEGIN_S + second) * Timestamp::SECOND)
}

/// Empties a dataplane, configures it and attaches every port.
///
/// # Errors
/// What the dataplane says.
pub async fn reset(dataplane: &dyn Dataplane, entities: Vec<Entity>) -> Result<(), DataplaneError> {
    let replace = |entities| Ok::<_, DataplaneError>(Transaction::replace(fresh_id(), owner()?, entities));
    dataplane.apply(replace(Vec::new())?).await?;
    dataplane.import_state(State::default()).await?;
    dataplane.apply(replace(entities)?).await?;
    attach_all(dataplane).await
}

async fn attach_all(dataplane: &dyn Dataplane) -> Result<(), DataplaneError> {
    let kinds = [loxi_core::ir::EntityKind::Port].into();
    let page = dataplane.snapshot(SnapshotQuery { kinds, ..SnapshotQuery::default() }).await?;
    for owned in page.entities {
        if let Entity::Port(port) = owned.entity
            && !page.attached.contains(&port.name)
        {
            dataplane.attach(port.name).await?;
        }
    }
    Ok(())
}

/// Runs rows and remembers what they covered.
pub struct Runner<'a> {
    pub(crate) dataplane: &'a dyn Dataplane,
    /// Asked for once.
    capabilities: OnceLock<Capabilities>,
}

impl<'a> Runner<'a> {
    /// A runner on a dataplane whose entities of the suite's owner are the suite's to change.
    #[must_use]
    pub fn new(dataplane: &'a dyn Dataplane) -> Self {
        Self { dataplane, capabilities: OnceLock::new() }
    }

    pub(crate) async fn capabilities(&self) -> Result<&Capabilities, DataplaneError> {
        if let Some(known) = self.capabilities.get() {
            return Ok(known);
        }
        let capabilities = self.dataplane.capabilities().await?;
        Ok(self.capabilities.get_or_init(|| capabilities))
    }

    /// Runs one row.
    ///
    /// # Errors
    /// [`RowError`] if the row itself can't be read.
    pub async fn run(&self, file: &str, row: &Row) -> Result<RowResult, RowError> {
        let mut result = RowResult::new(file, &row.name);
        let capabilities = match self.capabilities().await {
            Ok(capabilities) => capabilities,
            Err(error) => {
                result.fail(format!("the capabilities: {error}"));
                return Ok(result);
            }
        };
        if let Some(missing) = row.needs.iter().find(|feature| !capabilities.features.contains(feature)) {
            result.outcome = Outcome::Refused(*missing);
            return Ok(result);
        }
        match reset(self.dataplane, row.entities()?).await {
            Ok(()) => {}
            Err(DataplaneError::Compile(CompileError::Unsupported(need))) => {
                result.outcome = Outcome::Refused(need.feature);
                return Ok(result);
            }
            Err(error) => {
                result.fail(format!("the pipeline: {error}"));
                return Ok(result);
            }
        }
        let mut second = 0;
        for (index, step) in row.steps.iter().enumerate() {
            second = step.at.unwrap_or(second);
            if let Err(message) = self.change(step).await {
                result.fail(format!("step {}: {message}", index + 1));
                return Ok(result);
            }
            if step.packet.is_some() {
                self.packet(row, index, step, second, capabilities, &mut result).await?;
            }
            if matches!(result.outcome, Outcome::Failed(_)) {
                return Ok(result);
            }
        }
        Ok(result)
    }

    async fn change(&self, step: &RowStep) -> Result<(), String> {
        let text = |error: DataplaneError| error.to_string();
        let mut operations: Vec<Operation> =
            step.delete.iter().map(|key| Operation::Delete(key.clone())).collect();
        if let Some(put) = &step.put {
            let entities = put.clone().into_entities().map_err(|error| error.to_string())?;
            operations.extend(entities.into_iter().map(|entity| Operation::Put(Box::new(entity))));
        }
        if !operations.is_empty() {
            let transaction = Transaction::change(fresh_id(), owner().map_err(text)?, operations);
            self.dataplane.apply(transaction).await.map_err(text)?;
            attach_all(self.dataplane).await.map_err(text)?;
        }
        if let Some(port) = &step.detach {
            self.dataplane.detach(port.clone()).await.map_err(text)?;
        }
        Ok(())
    }

    async fn packet(
        &self,
        row: &Row,
        index: usize,
        step: &RowStep,
        second: u64,
        capabilities: &Capabilities,
        result: &mut RowResult,
    ) -> Result<(), RowError> {
        let (Some(port), Some(packet)) = (&step.port, &step.packet) else {
            result.fail(format!("step {}: a packet needs `in`", index + 1));
            return Ok(());
        };
        let bytes = row.bytes(index, packet)?;
        let expect = step.expect.clone().unwrap_or_default();
        let wanted = wanted(row, index, &expect)?;
        match self.inject(port, bytes.clone(), step, second).await {
            Err(error) => result.fail(format!("step {}: {error}", index + 1)),
            Ok((injected, before, after)) => {
                result.saw(&injected);
                let length = bytes.len() as u64;
                let mut wrong = verdict_problems(&injected.verdict, &expect, &wanted);
                wrong.extend(counter_problems(port, length, &injected.verdict, &expect, &before, &after));
                let punt = punt_of(&injected, capabilities).unwrap_or_else(|message| {
                    wrong.push(message);
                    None
                });
                if wrong.is_empty() {
                    result.asserted += 1;
                    if let Some(reason) = punt {
                        result.punted(reason);
                    }
                } else {
                    let packet = step.packet.as_deref().unwrap_or_default();
                    let trace = injected.trace;
                    result.fail(format!(
                        "step {}: {packet}\n    {}\n{trace}",
                        index + 1,
                        wrong.join("\n    ")
                    ));
                }
            }
        }
        Ok(())
    }

    async fn inject(
        &self,
        port: &PortName,
        bytes: Vec<u8>,
        step: &RowStep,
        second: u64,
    ) -> Result<(Injected, Counters, Counters), DataplaneError> {
        let before = self.dataplane.counters().await?;
        // The point is the dataplane's to say; a recorded choice is told by its value.
        let recorded = |value: &u64| Choice { point: ChoicePoint::Identification, value: *value };
        let choices = if step.choose.is_empty() {
            ChoiceMode::First
        } else {
            ChoiceMode::Recorded(step.choose.iter().map(recorded).collect())
        };
        let request = InjectRequest {
            packets: vec![PacketIn { port: port.clone(), bytes, at: None }],
            now: Some(time(second)),
            choices,
            commit: true,
        };
        let mut injected = self.dataplane.inject(request).await?;
        let after = self.dataplane.counters().await?;
        let injected = injected.pop();
        let injected =
            injected.ok_or_else(|| DataplaneError::Internal("no verdict for the packet".to_owned()))?;
        Ok((injected, before, after))
    }
}

/// What an expectation says of the packet's fate.
fn fate(expect: &Expectation) -> Fate {
    match (expect.dropped, expect.punted, expect.consumed) {
        (Some(reason), _, _) => Fate::Dropped(reason),
        (None, Some(reason), _) => Fate::Punted(reason),
        (None, None, Some(reason)) => Fate::Consumed(reason),
        (None, None, None) => Fate::Forwarded,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The outputs that an expectation wants of a step, in order.
pub(crate) fn wanted(
    row: &Row,
    index: usize,
    expect: &Expectation,
) -> Result<Vec<(PortName, Vec<u8>)>, RowError> {
    let outputs = expect.out.iter();
    let mut wanted: Vec<_> = outputs
        .map(|(port, packet)| Ok((port.clone(), row.bytes(index, packet)?)))
        .collect::<Result<_, RowError>>()?;
    wanted.sort();
    Ok(wanted)
}

pub(crate) fn verdict_problems(
    verdict: &Verdict,
    expect: &Expectation,
    wanted: &[(PortName, Vec<u8>)],
) -> Vec<String> {
    let mut wrong = Vec::new();
    if verdict.fate != fate(expect) {
        wrong.push(format!("fate is {}, wanted {}", verdict.fate, fate(expect)));
    }
    let mut got: Vec<(PortName, Vec<u8>)> =
        verdict.outputs.iter().map(|output| (output.port.clone(), output.bytes.clone())).collect();
    got.sort();
    if got != wanted {
        let show = |outputs: &[(PortName, Vec<u8>)]| {
            let lines: Vec<String> =
                outputs.iter().map(|(port, bytes)| format!("{port} {}", hex(bytes))).collect();
            if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n      ") }
        };
        wrong.push(format!("outputs\n      {}\n    wanted\n      {}", show(&got), show(wanted)));
    }
    let unsent: BTreeSet<(PortName, DropReason)> =
        verdict.unsent.iter().map(|unsent| (unsent.port.clone(), unsent.reason)).collect();
    let wanted: BTreeSet<(PortName, DropReason)> = expect.unsent.iter().cloned().collect();
    if unsent != wanted {
        wrong.push(format!("unsent {unsent:?}, wanted {wanted:?}"));
    }
    wrong
}

/// The counters that must have moved, and no others.
fn counter_problems(
    port: &PortName,
    length: u64,
    verdict: &Verdict,
    expect: &Expectation,
    before: &Counters,
    after: &Counters,
) -> Vec<String> {
    let mut want = before.clone();
    for ingress in std::iter::once(port).chain(&expect.through) {
        let Some(counters) = want.ports.get_mut(ingress) else { continue };
        counters.rx_packets += 1;
        counters.rx_bytes += length;
        match fate(expect) {
            Fate::Forwarded => counters.forwarded += 1,
            Fate::Consumed(reason) => *counters.consumed.entry(reason).or_default() += 1,
            Fate::Punted(reason) => *counters.punted.entry(reason).or_default() += 1,
            Fate::Dropped(reason) => *counters.dropped.entry(reason).or_default() += 1,
        }
    }
    for output in &verdict.outputs {
        if let Some(counters) = want.ports.get_mut(&output.port) {
            counters.tx_packets += 1;
            counters.tx_bytes += output.bytes.len() as u64;
        }
    }
    for (unsent, reason) in &expect.unsent {
        if let Some(counters) = want.ports.get_mut(unsent) {
            *counters.unsent.entry(*reason).or_default() += 1;
        }
    }
    let mut wrong = Vec::new();
    for (name, got) in &after.ports {
        let Some(wanted) = want.ports.get(name) else {
            wrong.push(format!("counters of {name} appeared"));
            continue;
        };
        // What a tunnel port sends is counted inside the outer packet, whose length only it knows.
        let into = expect.into.contains(name);
        let sent = got.tx_packets - wanted.tx_packets.min(got.tx_packets);
        let inner = |c: &PortCounters| PortCounters { tx_packets: 0, tx_bytes: 0, ..c.clone() };
        let same = if into { sent > 0 && inner(got) == inner(wanted) } else { got == wanted };
        if !same {
            wrong.push(format!("counters of {name}: {got:?}, wanted {wanted:?}"));
        }
        if got.unaccounted() != 0 {
            wrong.push(format!("counters of {name} leave {} packets unaccounted for", got.unaccounted()));
        }
    }
    if let Some(flows) = expect.flows {
        let got: u64 = after.zones.values().map(|zone| zone.flows).sum();
        if got != flows {
            wrong.push(format!("{got} flows, wanted {flows}"));
        }
    }
    wrong
}

impl RowResult {
    fn saw(&mut self, injected: &Injected) {
        self.stages.extend(injected.trace.steps.iter().map(|step| step.stage));
        match injected.verdict.fate {
            Fate::Dropped(reason) => {
                self.drops.insert(reason);
            }
            Fate::Punted(reason) => {
                self.punts.insert(reason);
            }
            Fate::Consumed(reason) => {
                self.consumed.insert(reason);
            }
            Fate::Forwarded => {}
        }
        self.drops.extend(injected.verdict.unsent.iter().map(|unsent| unsent.reason));
    }
}

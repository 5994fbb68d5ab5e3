//! `inject` and `explain`: what becomes of a packet, and why.

use crate::args::{Inject, Output};
use crate::failure::Failure;
use crate::{packets, show};
use loxi_core::dataplane::{
    ChoiceMode, Dataplane, DataplaneError, Explanation, InjectRequest, Injected, PacketIn,
};
use loxi_core::packet::{Fate, Parting, Timestamp, Verdict};
use serde_json::{Map, Value, json};

/// What `inject` asks for.
pub(crate) fn request(inject: &Inject) -> Result<InjectRequest, Failure> {
    Ok(InjectRequest {
        packets: packets::read(&inject.packets)?,
        now: None,
        choices: inject.seed.map_or(ChoiceMode::First, ChoiceMode::Seed),
        commit: inject.commit,
    })
}

/// Runs `inject`: a line of JSON per packet.
pub(crate) async fn inject(
    dataplane: &dyn Dataplane,
    request: InjectRequest,
    output: Output,
) -> Result<(), Failure> {
    let packets = request.packets.clone();
    let results = dataplane.inject(request).await?;
    if results.len() != packets.len() {
        let (asked, answered) = (packets.len(), results.len());
        return Err(Failure::Odd(format!("{asked} packets were sent, and {answered} are answered")));
    }
    for (index, (packet, result)) in packets.iter().zip(&results).enumerate() {
        if output == Output::Table {
            let title =
                format!("{index}: {} bytes at {}{}: ", packet.bytes.len(), packet.port, at(packet.at));
            show::text(&format!("{title}{}", verdict(&result.verdict)))?;
            continue;
        }
        let mut line = summary(index, packet, &result.verdict);
        line.insert("choices".to_owned(), json!(result.choices));
        show::item(&line, output)?;
    }
    Ok(())
}

fn at(at: Option<Timestamp>) -> String {
    let at = at.map(|at| format!(", {}.{:09} s", at.0 / Timestamp::SECOND, at.0 % Timestamp::SECOND));
    at.unwrap_or_default()
}

/// Fate in one word, with its reason beside it.
fn fate(fate: Fate) -> (&'static str, Option<String>, Option<&'static str>) {
    match fate {
        Fate::Forwarded => ("forwarded", None, None),
        Fate::Consumed(reason) => ("consumed", Some(reason.to_string()), Some(reason.help())),
        Fate::Punted(reason) => ("punted", Some(reason.to_string()), Some(reason.help())),
        Fate::Dropped(reason) => ("dropped", Some(reason.to_string()), Some(reason.help())),
    }
}

fn summary(index: usize, packet: &PacketIn, verdict: &Verdict) -> Map<String, Value> {
    let (fate, reason, _) = fate(verdict.fate);
    let mut line = Map::new();
    line.insert("packet".to_owned(), json!(index));
    line.insert("port".to_owned(), json!(packet.port));
    line.insert("at".to_owned(), json!(packet.at));
    line.insert("fate".to_owned(), json!(fate));
    line.insert("reason".to_owned(), json!(reason));
    line.insert("outputs".to_owned(), json!(verdict.outputs));
    line.insert("unsent".to_owned(), json!(verdict.unsent));
    line
}

/// A verdict for people; ends in a new line.
fn verdict(verdict: &Verdict) -> String {
    let (fate, reason, help) = fate(verdict.fate);
    let mut text = match (reason, help) {
        (Some(reason), Some(help)) => format!("{fate}, {reason} ({help})\n"),
        _ => format!("{fate}\n"),
    };
    for output in &verdict.outputs {
        let hex: Vec<String> = output
            .bytes
            .chunks(2)
            .map(|pair| pair.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        text.push_str(&format!("  out {} ({} bytes)\n", output.port, output.bytes.len()));
        for line in hex.chunks(16) {
            text.push_str(&format!("    {}\n", line.join(" ")));
        }
    }
    for unsent in &verdict.unsent {
        text.push_str(&format!(
            "  not sent by {}: {} ({})\n",
            unsent.port,
            unsent.reason,
            unsent.reason.help()
        ));
    }
    text
}

/// Runs `explain`: each packet by itself, against the state as it is.
pub(crate) async fn explain(
    dataplane: &dyn Dataplane,
    packets: Vec<PacketIn>,
    output: Output,
) -> Result<(), Failure> {
    for (index, packet) in packets.iter().enumerate() {
        let explanation = dataplane.explain(packet.clone(), packet.at).await?;
        let request = InjectRequest { packets: vec![packet.clone()], ..InjectRequest::default() };
        // A backend may be able to explain and not to inject.
        let result = match dataplane.inject(request).await {
            Ok(results) => results.into_iter().next(),
            Err(DataplaneError::NotSupported { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if output == Output::Table {
            show::text(&explained(index, packet, &explanation, result.as_ref()))?;
            continue;
        }
        let mut line = match &result {
            Some(result) => summary(index, packet, &result.verdict),
            None => {
                Map::from_iter([("packet".to_owned(), json!(index)), ("port".to_owned(), json!(packet.port))])
            }
        };
        if let Some(beside) = beside(&explanation, result.as_ref()) {
            line.insert("agrees".to_owned(), json!(beside.agrees));
            if let Some(parting) = beside.parting {
                let steps = json!({"installed": parting.this, "reference": parting.other});
                line.insert("parts".to_owned(), steps);
            }
        }
        line.insert("explanation".to_owned(), json!(explanation));
        show::item(&line, output)?;
    }
    Ok(())
}

/// What is installed beside the reference.
struct Beside<'a> {
    /// Whether both come to the same.
    agrees: bool,
    /// Where they part, if they don't.
    parting: Option<Parting<'a>>,
}

/// Lays the reference's answer beside that of what is installed; none: there is no such answer.
fn beside<'a>(explanation: &'a Explanation, result: Option<&Injected>) -> Option<Beside<'a>> {
    let reference = explanation.reference.as_ref()?;
    let agrees = match result {
        Some(result) => result.verdict == reference.verdict,
        // Without a verdict, what the last steps say must do.
        None => explanation.installed.steps.last() == reference.trace.steps.last(),
    };
    let parting = if agrees { None } else { explanation.installed.parts_from(&reference.trace) };
    Some(Beside { agrees, parting })
}

/// One screen for a person.
fn explained(
    index: usize,
    packet: &PacketIn,
    explanation: &Explanation,
    result: Option<&Injected>,
) -> String {
    let title = format!("{index}: {} bytes at {}{}", packet.bytes.len(), packet.port, at(packet.at));
    let mut text = format!("{title}, as installed in {}:\n{}", explanation.backend, explanation.installed);
    if let Some(reference) = &explanation.reference {
        text.push_str(&format!("the reference:\n{}", reference.trace));
        text.push_str(&format!("the reference says: {}", verdict(&reference.verdict)));
    }
    match beside(explanation, result) {
        Some(Beside { agrees: true, .. }) => text.push_str("both agree\n"),
        Some(Beside { parting: Some(parting), .. }) => {
            text.push_str(&format!("they part here:\n  installed  {}\n", parting.this));
            let other = parting.other.map_or_else(|| "nothing of the kind".to_owned(), ToString::to_string);
            text.push_str(&format!("  reference  {other}\n"));
        }
        Some(Beside { parting: None, .. }) => text.push_str("they differ, though every step is the same\n"),
        None => {}
    }
    if let Some(result) = result {
        text.push_str(&format!("=> {}", verdict(&result.verdict)));
    }
    text
}

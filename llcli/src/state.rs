//! Ports, state, and what the backend and this program can do.

use crate::args::{Output, StateCommand};
use crate::failure::Failure;
use crate::{input, show};
use loxi_core::dataplane::Dataplane;
use loxi_core::net::PortName;
use loxi_core::packet::State;
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use serde_json::{Value, json};

/// Runs `attach`.
pub(crate) async fn attach(dataplane: &dyn Dataplane, port: &PortName) -> Result<(), Failure> {
    dataplane.attach(port.clone()).await?;
    show::line(&format!("{port} attached"))
}

/// Runs `detach`.
pub(crate) async fn detach(dataplane: &dyn Dataplane, port: &PortName) -> Result<(), Failure> {
    dataplane.detach(port.clone()).await?;
    show::line(&format!("{port} detached"))
}

/// Runs `state export` and `state import`.
pub(crate) async fn run<D: Dataplane>(
    connect: impl AsyncFnOnce() -> Result<D, Failure>,
    command: &StateCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        StateCommand::Export => show::value(&connect().await?.export_state().await?, output),
        StateCommand::Import { file } => {
            let state: State = input::value(file)?;
            let flows = state.flows.len();
            connect().await?.import_state(state).await?;
            show::line(&format!("{flows} flows offered"))
        }
    }
}

/// Runs `capabilities`.
pub(crate) async fn capabilities(dataplane: &dyn Dataplane, output: Output) -> Result<(), Failure> {
    let capabilities = dataplane.capabilities().await?;
    if output != Output::Table {
        return show::value(&capabilities, output);
    }
    let mut text = format!("backend {}\n\n", capabilities.backend);
    let rows =
        capabilities.capacity.iter().map(|(kind, limit)| vec![kind.table().to_owned(), limit.to_string()]);
    text.push_str(&show::table(&["ENTITIES", "AT-MOST"], rows));
    text.push('\n');
    let rows = capabilities.stages.iter().map(|(stage, support)| {
        let support = serde_json::to_value(support).ok();
        let support = support.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        vec![stage.number().to_string(), stage.to_string(), support]
    });
    text.push_str(&show::table(&["STAGE", "NAME", "SUPPORT"], rows));
    let features: Vec<_> = capabilities.features.iter().map(ToString::to_string).collect();
    let punts: Vec<_> = capabilities.punts.iter().map(ToString::to_string).collect();
    text.push_str(&format!("\nfeatures: {}\npunts: {}\n", features.join(" "), punts.join(" ")));
    show::text(&text)
}

/// Runs `reasons`.
pub(crate) fn reasons(output: Output) -> Result<(), Failure> {
    let mut all: Vec<(&str, u16, String, &str)> = Vec::new();
    all.extend(DropReason::ALL.iter().map(|r| ("dropped", r.number(), r.to_string(), r.help())));
    all.extend(PuntReason::ALL.iter().map(|r| ("punted", r.number(), r.to_string(), r.help())));
    all.extend(ConsumedReason::ALL.iter().map(|r| ("consumed", r.number(), r.to_string(), r.help())));
    if output != Output::Table {
        let list: Vec<Value> = all
            .into_iter()
            .map(|(fate, number, reason, help)| json!({"fate": fate, "number": number, "reason": reason, "help": help}))
            .collect();
        return show::value(&list, output);
    }
    let rows = all.into_iter().map(|(fate, number, reason, help)| {
        vec![fate.to_owned(), number.to_string(), reason, help.to_owned()]
    });
    show::text(&show::table(&["FATE", "NUMBER", "REASON", "HELP"], rows))
}

/// Runs `version`.
pub(crate) fn version(output: Output) -> Result<(), Failure> {
    let (version, ir) = (env!("CARGO_PKG_VERSION"), loxi_core::IR_VERSION);
    let protocol = loxi_channel::PROTOCOL.to_string();
    match output {
        Output::Table => show::line(&format!("llcli {version}, channel {protocol}, description {ir}")),
        _ => show::value(&json!({"version": version, "channel": protocol, "ir_version": ir}), output),
    }
}

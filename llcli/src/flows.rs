//! `flows`: connections.

use crate::args::{Flows, Output};
use crate::failure::Failure;
use crate::{show, time};
use loxi_core::dataplane::{Dataplane, FlowFilter, FlowQuery};
use loxi_core::packet::{Flow, FlowState, Timestamp};

const HEADINGS: &[&str] = &[
    "ZONE", "STATE", "ORIGINAL", "REPLY", "INGRESS", "AGE", "LEFT", "PACKETS", "BYTES", "SERVICE", "BACKEND",
];

/// Runs the command.
pub(crate) async fn run(dataplane: &dyn Dataplane, flows: &Flows, output: Output) -> Result<(), Failure> {
    let filter = FlowFilter {
        zone: flows.zone.clone(),
        address: flows.address,
        protocol: flows.protocol,
        l4_port: flows.l4_port,
        ingress: flows.ingress.clone(),
    };
    show::watch(&flows.watch, output, async || {
        let found = all(dataplane, &filter).await?;
        match output {
            Output::Table => {
                let now = time::now();
                show::text(&show::table(HEADINGS, found.iter().map(|flow| row(flow, now))))
            }
            _ if flows.watch.watch => show::item(&found, output),
            _ => show::value(&found, output),
        }
    })
    .await
}

/// Every page.
async fn all(dataplane: &dyn Dataplane, filter: &FlowFilter) -> Result<Vec<Flow>, Failure> {
    let mut query = FlowQuery { filter: filter.clone(), ..FlowQuery::default() };
    let mut flows = Vec::new();
    loop {
        let page = dataplane.flows(query.clone()).await?;
        flows.extend(page.flows);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(flows),
        }
    }
}

fn row(flow: &Flow, now: Timestamp) -> Vec<String> {
    vec![
        flow.id.zone.to_string(),
        state(flow.state),
        flow.id.tuple.to_string(),
        flow.reply.to_string(),
        flow.ingress.port.to_string(),
        time::span(now.0.saturating_sub(flow.created.0)),
        time::span(flow.expires.0.saturating_sub(now.0)),
        format!("{}/{}", flow.packets[0], flow.packets[1]),
        format!("{}/{}", flow.bytes[0], flow.bytes[1]),
        flow.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        flow.backend.as_ref().map(|(name, _)| name.to_string()).unwrap_or_default(),
    ]
}

/// The state's name, as JSON has it, without its protocol: that is in the tuple.
fn state(state: FlowState) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(serde_json::Value::Object(fields)) => {
            fields.values().next().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}

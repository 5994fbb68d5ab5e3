//! `counters` and `drops`: what was counted.

use crate::args::{Counters as Options, Drops, Output};
use crate::failure::Failure;
use crate::show;
use loxi_core::dataplane::{Dataplane, DataplaneError};
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, PortCounters};
use loxi_core::reason::DropReason;
use serde::Serialize;
use std::collections::BTreeMap;

const PORTS: &[&str] =
    &["PORT", "RX", "RX-BYTES", "TX", "TX-BYTES", "FORWARDED", "CONSUMED", "PUNTED", "DROPPED", "UNSENT"];
const ZONES: &[&str] = &["ZONE", "FLOWS", "HALF-OPEN", "CAPACITY", "CREATED"];

/// Runs `counters`.
pub(crate) async fn counters(
    dataplane: &dyn Dataplane,
    options: &Options,
    output: Output,
) -> Result<(), Failure> {
    let counters = of(dataplane, options.port.as_ref()).await?;
    if output != Output::Table {
        return show::value(&counters, output);
    }
    let mut text = show::table(PORTS, counters.ports.iter().map(|(port, c)| port_row(port, c)));
    if options.port.is_none() && !counters.zones.is_empty() {
        text.push('\n');
        text.push_str(&show::table(
            ZONES,
            counters.zones.iter().map(|(zone, totals)| {
                let numbers = [totals.flows, totals.half_open, totals.capacity, totals.created];
                std::iter::once(zone.to_string()).chain(numbers.map(|number| number.to_string())).collect()
            }),
        ));
    }
    show::text(&text)
}

/// The counters of all ports, or of one, which must be there.
async fn of(dataplane: &dyn Dataplane, port: Option<&PortName>) -> Result<Counters, Failure> {
    let mut counters = dataplane.counters().await?;
    if let Some(port) = port {
        counters.ports.retain(|name, _| name == port);
        if counters.ports.is_empty() {
            return Err(DataplaneError::NoSuchPort(port.clone()).into());
        }
    }
    Ok(counters)
}

fn port_row(port: &PortName, c: &PortCounters) -> Vec<String> {
    let numbers = [
        c.rx_packets,
        c.rx_bytes,
        c.tx_packets,
        c.tx_bytes,
        c.forwarded,
        c.consumed.values().sum(),
        c.punted.values().sum(),
        c.dropped.values().sum(),
        c.unsent.values().sum(),
    ];
    std::iter::once(port.to_string()).chain(numbers.map(|number| number.to_string())).collect()
}

/// What was dropped at one port for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Drop {
    port: PortName,
    /// Whether a received packet was dropped, or a copy did not leave here.
    what: &'static str,
    reason: DropReason,
    count: u64,
    help: &'static str,
}

/// Runs `drops`.
pub(crate) async fn drops(dataplane: &dyn Dataplane, options: &Drops, output: Output) -> Result<(), Failure> {
    let mut before: BTreeMap<(PortName, &'static str, DropReason), u64> = BTreeMap::new();
    show::watch(&options.watch, output, async || {
        let drops = listed(&of(dataplane, options.port.as_ref()).await?);
        if output != Output::Table {
            return if options.watch.watch {
                show::item(&drops, output)
            } else {
                show::value(&drops, output)
            };
        }
        let mut headings = vec!["PORT", "WHAT", "REASON", "COUNT", "HELP"];
        if options.watch.watch {
            headings.insert(4, "NEW");
        }
        let mut rows = Vec::new();
        for drop in &drops {
            let mut row = vec![
                drop.port.to_string(),
                drop.what.to_owned(),
                drop.reason.to_string(),
                drop.count.to_string(),
                drop.help.to_owned(),
            ];
            if options.watch.watch {
                let key = (drop.port.clone(), drop.what, drop.reason);
                let last = before.insert(key, drop.count).unwrap_or(drop.count);
                row.insert(4, drop.count.saturating_sub(last).to_string());
            }
            rows.push(row);
        }
        show::text(&show::table(&headings, rows))
    })
    .await
}

fn listed(counters: &Counters) -> Vec<Drop> {
    let mut drops = Vec::new();
    for (port, c) in &counters.ports {
        for (what, reasons) in [("dropped", &c.dropped), ("unsent", &c.unsent)] {
            for (reason, count) in reasons.iter().filter(|(_, count)| **count > 0) {
                let (port, reason, count) = (port.clone(), *reason, *count);
                drops.push(Drop { port, what, reason, count, help: reason.help() });
            }
        }
    }
    drops
}

//! How fast pods are with each other: on a lab with its daemons, and in turns with it on plain Linux.
//!
//! Every figure is taken on both, one after the other, several rounds long; the median counts.

mod load;
mod plain;

pub use plain::Plain;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use loxi_linux::netns::NetNs;
use serde::Serialize;

use crate::plan::{self, Family, Spot};
use crate::session::Session;
use load::{Load, Server};

/// Who connects the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The lab's daemons.
    Loxi,
    /// Bridge, routes and vxlan of the kernel.
    Linux,
}

/// What one load came to between two pods.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// `stream`, `request_response` or `connect`.
    pub load: &'static str,
    /// `same_node` or `across_nodes`.
    pub between: &'static str,
    /// What a rate counts: Mbit/s, or per second.
    pub unit: &'static str,
    /// Median with the daemons.
    pub loxi: f64,
    /// Median on plain Linux.
    pub linux: f64,
}

/// How long each load lasts, and how often it is repeated.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// One load.
    pub each: Duration,
    /// Rounds.
    pub rounds: usize,
}

/// Pods that are asked, and their names.
const PAIRS: [(&str, Spot, Spot); 2] =
    [("same_node", Spot::Pod(1, 1), Spot::Pod(1, 2)), ("across_nodes", Spot::Pod(1, 1), Spot::Pod(2, 1))];

/// Measures every load between every pair, on both in turns.
///
/// # Errors
/// If something can't be set up, or nothing arrives.
pub fn run(session: &Session, plain: &Plain, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let spots = session.world().spots();
    let of = |network: Network, spot: Spot| -> anyhow::Result<&NetNs> {
        let found = match network {
            Network::Loxi => spots.get(&spot),
            Network::Linux => plain.pod(spot),
        };
        found.with_context(|| format!("there is no {spot}"))
    };
    let networks = [Network::Loxi, Network::Linux];
    let mut servers = Vec::new();
    for (network, (_, _, to)) in networks.iter().flat_map(|network| PAIRS.map(|pair| (*network, pair))) {
        servers.push(Server::start(of(network, to)?)?);
    }
    let mut figures = Vec::new();
    for (between, from, to) in PAIRS {
        let address = to.address(Family::V4).context("it has no address")?;
        for load in Load::ALL {
            let mut rates = [Vec::new(), Vec::new()];
            // The first round meets what is not yet known: neighbours, flows.
            for round in 0..=effort.rounds {
                for (network, rates) in networks.iter().zip(&mut rates) {
                    let rate = load
                        .rate(of(*network, from)?, address, effort.each)
                        .with_context(|| format!("{} {between} by {network:?}", load.name()))?;
                    if round > 0 {
                        rates.push(rate);
                    }
                }
            }
            let [loxi, linux] = rates.map(median);
            figures.push(Figure { load: load.name(), between, unit: load.unit(), loxi, linux });
        }
    }
    Ok(figures)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The figures for people.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let mut text =
        format!("{:<18} {:<14} {:>12} {:>12} {:>7}\n", "load", "between", "loxi", "linux", "ratio");
    for Figure { load, between, unit, loxi, linux } in figures {
        let ratio = loxi / linux;
        let _ = writeln!(text, "{load:<18} {between:<14} {loxi:>12.0} {linux:>12.0} {ratio:>7.2}  {unit}");
    }
    text
}

/// The MTU of pods on both.
const MTU: u16 = plan::POD_MTU;

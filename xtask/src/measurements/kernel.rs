//! The part of the document about the kernel: the eBPF programs, floors, and the kernel's own forwarding.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const PATHS: &str = "
## eBPF: net ns per packet

A test run of the kernel repeats a wrapper that makes the next flow's frame, in an order that a generator scatters, and jumps to the
installed entry program as a port's stub does. The same wrapper around an empty program is subtracted, pair by pair; the median of the
pairs is the figure. Each case's frames and verdicts are held to the reference's, before and after, and the ports' counters to the
number of packets. `× floor` is the ratio to parse, one array look-up and rewrite at the same hook, family and number of flows. What
TC makes longer was run one packet a time (*), the wrapper's work to make it short again included.
";

const FLOORS: &str = "
## eBPF: floors

The product's parse, one look-up of a 64-byte record, counters, the product's rewrite, and nothing else. `flows` is the installed flow
table; `hash` and `lru` are the kernel's, with room for as many entries. See [flow-table.md](flow-table.md).
";

const LIVE: &str = "
## Live frames: the kernel's own forwarding and the programs at TC

Frames come in at a veth by `BPF_F_TEST_XDP_LIVE_FRAMES`, made by the same wrapper, go up the stack as from a driver, and leave by
another veth, at whose far end they are dropped. Subtracted is the same at a device whose ingress drops everything. So unlike above,
both figures have the way through the egress veth in them. Linux and eBPF were measured in turns.
";

/// A figure's place: path, hook or whoever, family; then by number of flows.
type Rows<'a> = BTreeMap<(&'a str, &'a str, &'a str), BTreeMap<u64, (f64, bool)>>;

fn rows<'a>(figures: &'a Value, kind: &str, by: &str) -> Result<Rows<'a>> {
    let mut rows = Rows::new();
    for figure in figures[kind].as_array().with_context(|| kind.to_owned())? {
        let text = |field: &str| figure[field].as_str().with_context(|| format!("{kind}: {field}"));
        let flows = figure["flows"].as_u64().with_context(|| format!("{kind}: flows"))?;
        let ns = figure["ns"].as_f64().with_context(|| format!("{kind}: ns"))?;
        let single = figure["single"].as_bool().unwrap_or(false);
        rows.entry((text("path")?, text(by)?, text("family")?)).or_default().insert(flows, (ns, single));
    }
    Ok(rows)
}

/// Writes the tables of one run.
pub(super) fn render(figures: &Value) -> Result<String> {
    let mut text = PATHS.to_owned();
    let floors = rows(figures, "floors", "hook")?;
    table(&mut text, &["path", "hook", "family"], &["ns", "Mpps", "× floor"]);
    for ((path, hook, family), by_flows) in rows(figures, "paths", "hook")? {
        for (flows, (ns, single)) in by_flows {
            let floor = floors.get(&("array", hook, family)).and_then(|floor| floor.get(&flows));
            let ratio = floor.map_or_else(|| "–".to_owned(), |(floor, _)| format!("{:.1}", ns / floor));
            let star = if single { "*" } else { "" };
            writeln!(
                text,
                "| {path} | {hook} | {family} | {flows} | {ns:.0}{star} | {:.1} | {ratio} |",
                1000.0 / ns
            )?;
        }
    }
    for entry in figures["entry"].as_array().into_iter().flatten() {
        let (hook, count, code) = (&entry["hook"], &entry["instructions"], &entry["code"]);
        let hook = hook.as_str().unwrap_or_default();
        write!(
            text,
            "\nThe entry program at {hook}: {count} instructions, {code} bytes of machine code, all paths.\n"
        )?;
    }
    text.push_str(FLOORS);
    table(&mut text, &["look-up", "hook", "family"], &["ns", "× array"]);
    for ((path, hook, family), by_flows) in &floors {
        for (flows, (ns, _)) in by_flows {
            let floor = floors.get(&("array", *hook, *family)).and_then(|floor| floor.get(flows));
            let ratio = floor.map_or_else(|| "–".to_owned(), |(floor, _)| format!("{:.1}", ns / floor));
            writeln!(text, "| {path} | {hook} | {family} | {flows} | {ns:.0} | {ratio} |")?;
        }
    }
    text.push_str(LIVE);
    table(&mut text, &["way", "family"], &["Linux ns", "eBPF ns", "Linux ÷ eBPF"]);
    let live = rows(figures, "live", "by")?;
    for ((path, by, family), by_flows) in &live {
        for (flows, (linux, _)) in by_flows.iter().filter(|_| *by == "linux") {
            let ebpf =
                live.get(&(*path, "ebpf", *family)).and_then(|ebpf| ebpf.get(flows)).context("live: ebpf")?.0;
            writeln!(text, "| {path} | {family} | {flows} | {linux:.0} | {ebpf:.0} | {:.1} |", linux / ebpf)?;
        }
    }
    Ok(text)
}

fn table(text: &mut String, names: &[&str], values: &[&str]) {
    let heads: Vec<&str> = names.iter().chain(&["flows"]).chain(values).copied().collect();
    let lines: Vec<&str> =
        names.iter().map(|_| "---").chain(["---:"]).chain(values.iter().map(|_| "---:")).collect();
    text.push_str(&format!("\n| {} |\n| {} |\n", heads.join(" | "), lines.join(" | ")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ratios_are_to_the_floor_of_the_same_case_and_between_both_ways() {
        let figures = json!({
            "paths": [{"path": "p", "hook": "tc", "family": "v4", "flows": 1, "ns": 50.0, "single": true}],
            "floors": [{"path": "array", "hook": "tc", "family": "v4", "flows": 1, "ns": 25.0}],
            "live": [
                {"path": "bridge", "by": "linux", "family": "v6", "flows": 1, "ns": 300.0},
                {"path": "bridge", "by": "ebpf", "family": "v6", "flows": 1, "ns": 100.0},
            ],
        });
        let text = render(&figures).unwrap();
        assert!(text.contains("\n| p | tc | v4 | 1 | 50* | 20.0 | 2.0 |\n"), "{text}");
        assert!(text.contains("\n| bridge | v6 | 1 | 300 | 100 | 3.0 |\n"), "{text}");
    }

    #[test]
    fn a_figure_without_its_peer_is_an_error() {
        let live = json!([{"path": "bridge", "by": "linux", "family": "v6", "flows": 1, "ns": 300.0}]);
        assert!(render(&json!({"paths": [], "floors": [], "live": live})).is_err());
    }
}

//! Figures as a file, from which `cargo xtask measurements --collect` takes them.

use crate::ebpf::Figures;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Writes the figures of one run beside those of the other benches.
///
/// # Errors
/// If the file can't be written.
pub fn write(figures: &Figures) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    let folder = target.join("loxi-bench");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = folder.join("kernel.json");
    std::fs::write(&path, format!("{:#}\n", json(figures))).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn family(v6: bool) -> &'static str {
    if v6 { "v6" } else { "v4" }
}

fn rounded(ns: f64) -> f64 {
    (ns * 10.0).round() / 10.0
}

fn json(figures: &Figures) -> Value {
    let paths = figures.paths.iter().map(|figure| {
        json!({
            "path": figure.case.path.name, "hook": figure.hook.name(), "family": family(figure.case.v6),
            "flows": figure.case.flows, "ns": rounded(figure.ns), "single": figure.single,
        })
    });
    let floors = figures.floors.iter().map(|figure| {
        json!({
            "path": figure.floor.name(), "hook": figure.hook.name(), "family": family(figure.v6),
            "flows": figure.flows, "ns": rounded(figure.ns),
        })
    });
    let live = figures.live.iter().map(|figure| {
        json!({
            "path": figure.name, "by": figure.by, "family": family(figure.v6), "flows": figure.flows,
            "ns": rounded(figure.ns),
        })
    });
    let sizes = figures
        .sizes
        .iter()
        .map(|(hook, instructions, code)| json!({ "hook": hook.name(), "instructions": instructions / 8, "code": code }));
    json!({
        "paths": paths.collect::<Vec<_>>(),
        "floors": floors.collect::<Vec<_>>(),
        "live": live.collect::<Vec<_>>(),
        "entry": sizes.collect::<Vec<_>>(),
    })
}

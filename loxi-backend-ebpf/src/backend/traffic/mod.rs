//! While services and routes change, every packet is judged by the pipeline before or by the one after: looked
//! at after every single call of an installation, and while packets run on another processor.
//!
//! What a packet may come to is the reference's word, before and after, with the choices that the programs made.
#![allow(clippy::unwrap_used)]

mod concurrent;
mod dice;
mod judge;
mod node;
mod stand;
mod stepwise;
mod watched;

/// Changes of a run: more where somebody asks for more.
fn changes(usual: u64) -> u64 {
    std::env::var("LOXI_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// The seed of a run: `LOXI_SEED`, else always the same.
fn seed() -> u64 {
    std::env::var("LOXI_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x10_41)
}

/// Whether programs can be loaded; if not, says why.
fn privileged(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it needs root to load programs");
    }
    root
}

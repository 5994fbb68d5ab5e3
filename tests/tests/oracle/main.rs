//! The Linux kernel as an oracle: one scenario per file.
//!
//! Each runs for real in a network namespace and needs root. Sequences come from a
//! fixed seed (`LOXI_SEED` changes it, `LOXI_STEPS` their length), so that a failure repeats.

#![allow(clippy::unwrap_used, reason = "a test that can't go on says where")]

mod bridge;
mod gateway;
mod neighbours;
mod router;
mod vtep;

use loxi_linux::netns::NetNs;
use loxi_tests::oracle::Summary;
use loxi_tests::tshark::{self, TsharkError};

/// Whether the test can run; if not, says why.
fn privileged(test: &str) -> bool {
    let reason = NetNs::unavailable();
    if let Some(reason) = &reason {
        eprintln!("SKIPPED {test}: {reason}");
    }
    reason.is_none()
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Wireshark finds nothing wrong with what the reference sent.
fn assert_well_formed(name: &str, summary: &Summary) {
    match tshark::complaints(&summary.emitted) {
        Ok(complaints) => {
            let shown: Vec<String> = complaints
                .iter()
                .take(10)
                .map(|(index, words)| format!("{words}: {}", loxi_tests::wire::hex(&summary.emitted[*index])))
                .collect();
            assert!(complaints.is_empty(), "{name}: {} complaints\n{}", complaints.len(), shown.join("\n"));
        }
        Err(error @ TsharkError::Missing) => eprintln!("SKIPPED {name}, Wireshark's opinion: {error}"),
        Err(error) => panic!("{name}: {error}"),
    }
}

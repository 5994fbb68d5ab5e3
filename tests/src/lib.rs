//! What holds the reference itself to something that nobody here wrote.
//!
//! - [`oracle`]: the Linux kernel does the same job with its own bridge, routing, nftables,
//!   conntrack and vxlan; random packets go through both, and what comes out is compared.
//! - [`tshark`]: what the reference emits is looked at by Wireshark's dissectors.
//! - [`targets`]: the bodies of the fuzz targets, which `fuzz/` and a smoke test share.
//!
//! The tests are in `tests/`. What differs on purpose is listed in `docs/differences.md`, and
//! typed in [`oracle::Known`]: a difference that isn't listed fails, and so does a listed one that no
//! longer occurs. This crate panics where a test would: its users are tests.
#![allow(clippy::missing_panics_doc, reason = "assertions of tests")]

#[cfg(feature = "oracle")]
pub mod oracle;
pub mod random;
pub mod targets;
#[cfg(feature = "oracle")]
pub mod tshark;
pub mod wire;

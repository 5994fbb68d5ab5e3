#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

mod backend;
mod capabilities;
mod explain;
pub mod hook;
pub mod install;
pub mod load;
pub mod measure;
pub mod plan;
mod run;
pub mod state;
pub mod sys;

pub use backend::{Delta, Devices, Ebpf, Mode, OpenError, Options, SlowPathCounters, Undo};
pub use capabilities::{NAME, capabilities};
pub use explain::Explained;
pub use hook::Namespaces;
pub use load::Sizes;

/// The time that the programs tell by: `CLOCK_BOOTTIME`.
#[must_use]
pub fn clock() -> loxi_core::dataplane::Clock {
    std::sync::Arc::new(|| loxi_core::packet::Timestamp(loxi_linux::clock::now()))
}

//! Workloads: what every backend's throughput is measured with.
//!
//! A workload is plain data: a committed pipeline of the conformance rows,
//! packets that prepare it, and packets that are measured, with the fate that
//! each must have. [`Bench`] runs one on the reference, and checks the fate and
//! the egress port of every measured packet before and after the measurement:
//! a figure of packets that went astray is none.

mod bench;
pub mod ebpf;
pub mod record;
mod workload;

pub use bench::{Bench, BenchError};
pub use workload::{Path, Workload, workloads};

#![deny(missing_docs)]
#![doc = include_str!("../README.md")]
//!
//! # Inside
//! - [`options`]: the command line
//! - [`run`]: start, life and end
//! - [`run_dir`]: the instance's folder, and that nobody else holds it
//! - [`keep`]: the state file
//! - [`pipeline_file`]: the file of the owner `file`
//! - [`held`]: the dataplane as the channel serves it: kept, traced
//! - [`wires`]: the devices behind the ports
//! - [`packets`]: the thread that moves packets
//! - [`backend`]: opening the backend that the options ask for
//! - [`node`]: the backend, one of those that the daemon knows
//! - [`traffic`]: how packets reach it
//! - [`slow_path`]: the thread that finishes what programs leave
//! - [`attach`]: attaches ports as their devices come and go
//! - [`metrics`]: what is counted, for Prometheus
//!
//! Locks are taken in one order: the dataplane's, then that of the wires, then
//! that of one device. Nothing waits for anything while it holds one.

pub mod attach;
pub mod backend;
pub mod held;
pub mod keep;
pub mod metrics;
pub mod node;
mod notify;
pub mod options;
pub mod packets;
pub mod pipeline_file;
pub mod run;
pub mod run_dir;
pub mod slow_path;
pub mod traffic;
pub mod wires;

/// What the daemon holds.
pub type Engine = loxi_core::dataplane::Local<node::Node>;

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

mod backend;
mod frame;
mod stages;
mod world;

pub use backend::{PortIo, Reference, ReferencePlan, UndoInstall};

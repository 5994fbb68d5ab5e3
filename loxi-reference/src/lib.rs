#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

mod backend;
mod frame;
mod slow_path;
mod stages;
mod world;

pub use backend::{PortIo, Reference, ReferencePlan, UndoInstall};
pub use slow_path::ReferencePath;

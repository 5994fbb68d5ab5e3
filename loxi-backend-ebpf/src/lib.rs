#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

mod backend;
mod capabilities;
pub mod hook;
pub mod install;
pub mod load;
pub mod measure;
pub mod plan;
mod run;
pub mod state;
pub mod sys;

pub use backend::{Delta, Devices, Ebpf, Mode, OpenError, Options, Undo};
pub use capabilities::{NAME, capabilities};
pub use hook::Namespaces;
pub use load::Sizes;

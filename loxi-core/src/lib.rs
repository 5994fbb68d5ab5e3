#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![doc = include_str!("../README.md")]
//!
//! # Contract
//! No I/O, no clock, no thread, no runtime. Nothing panics on any input; what
//! can be refused returns a typed error that names the entity and the field.

pub mod algo;
pub mod capability;
pub mod change;
pub mod dataplane;
mod defaults;
pub mod ir;
pub mod net;
pub mod packet;
pub mod reason;
#[cfg(feature = "text")]
pub mod text;
pub mod validate;

/// Version of the IR: entities, reasons and their meaning. It grows whenever one of them does.
pub const IR_VERSION: u32 = 1;

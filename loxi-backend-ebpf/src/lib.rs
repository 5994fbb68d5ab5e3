#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

pub mod install;
pub mod plan;
pub mod state;
pub mod sys;

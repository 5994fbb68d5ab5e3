#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

pub mod install;
pub mod load;
pub mod plan;
pub mod sys;

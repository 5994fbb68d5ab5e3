//! The plan: rows of the tables by name, in units that are compiled by themselves.

mod rows;

pub use rows::*;

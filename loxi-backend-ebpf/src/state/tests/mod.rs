//! Tests on a simulated kernel. Programs are stood in for by what writes the same words.
#![allow(clippy::unwrap_used)]

mod between;
mod codec;
mod contended;
mod fixture;
mod forgetting;
mod learning;
mod model;
mod moving;
mod paging;
mod recovering;
mod sweeping;
mod table;

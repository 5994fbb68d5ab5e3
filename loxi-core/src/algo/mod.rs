//! Algorithms whose result every backend must agree on.

mod hash;
mod maglev;
mod spread;

pub use hash::{address_hash, flow_hash};
pub use maglev::MaglevTable;
pub use spread::threshold_pick;

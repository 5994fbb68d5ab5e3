//! The Kubernetes agent of a node: turns the cluster into transactions of a dataplane, and gives pods their network.
//!
//! A source ([`cluster`]) tells what there is in the cluster; [`intent`] derives from it what this node's dataplane shall
//! have, and an engine applies the difference. Nothing here names a backend: the dataplane is whatever answers the
//! daemon's channel. The runtime's wishes come in by [`cni`], [`pods`] fulfils them, and [`ipam`] has the addresses.

pub mod cluster;
pub mod cni;
mod digest;
pub mod engine;
pub mod host;
pub mod http;
pub mod intent;
pub mod ipam;
pub mod keep;
pub mod node;
pub mod options;
pub mod pods;
pub mod preflight;
pub mod reach;
pub mod run;
pub mod source;

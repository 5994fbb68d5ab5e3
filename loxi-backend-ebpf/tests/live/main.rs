//! Frames as the kernel has them on real devices, where they are not what goes over a wire: tags beside them,
//! segments to be cut, checksums to be completed. Test runs of programs can't show these.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod capture;
mod complete;
mod dissect;
#[path = "../fixture/mod.rs"]
mod fixture;
mod gso;
mod machines;
mod nodes;
mod partial;
mod vlan;

//! Programs at the devices of ports.
//!
//! # Contract
//! - A hook that somebody else's XDP program holds, or that another instance of ours is at, is left
//!   alone ([`DeviceError::Conflict`]). At TC others may stand beside us.
//! - A port is bound at all of its hooks, or its device is left as it was.
//! - What is bound goes with this value where nothing is kept by name, else by `Hooks::unbind` only.
//! - A device that was taken away and made anew is another one: binding again binds to it.

mod device;
mod filter;
mod links;

pub(crate) use device::Found;
pub use device::{DeviceError, Namespaces};
pub(crate) use links::{Bound, Hooks, let_go};

//! The system calls of loxi outside its backends: namespaces, rtnetlink,
//! nftables, sysctls, offloads, raw frames, and the layout of a node.
//!
//! Everything is synchronous and speaks of the *calling thread's* network namespace
//! unless a namespace is named; see [`netns`]. Errors are one enum per operation and
//! carry the operation, the object and the kernel's answer. Nothing panics
//! on what comes from outside; the one abort is in [`netns::NetNsGuard`].
//!
//! [`sys::Sys`] is the one replaceable place: [`layout`] is written against it, and
//! [`sys::FakeSys`] lets every step of it fail in a test. Unsafe code is in
//! one private module, `ffi`.

mod addr;
pub mod clock;
mod ffi;
pub mod file;
pub mod gso;
pub mod layout;
pub mod netns;
pub mod nftables;
pub mod offload;
pub mod packet;
pub mod place;
pub mod poller;
pub mod process;
pub mod rtnetlink;
pub mod sys;
pub mod sysctl;

pub use addr::{MacAddr, ParseAddrError, Prefix};

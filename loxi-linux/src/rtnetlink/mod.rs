//! Links, addresses, routes, neighbours and filters by rtnetlink, synchronously and typed.
//!
//! An [`Rtnl`] speaks of the namespace in which it was opened, whatever its
//! user's thread enters later. Every change is acknowledged by the kernel before a call returns.
//! Errors name the operation and the object; nothing panics.

mod address;
mod filter;
mod link;
mod neigh;
mod route;
mod socket;
mod wire;

use std::io;

pub use address::{AddrFlags, Address};
pub use filter::{BpfFilter, EVERY_PROTOCOL, Filter, FilterAt};
pub use link::{Link, LinkChange, LinkStats, OperState, VethEnd};
pub use neigh::Neighbor;
pub use route::Route;
pub use socket::Rtnl;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RtnlError {
    /// The socket could not be opened or used.
    #[error("rtnetlink: {operation}: {source}")]
    Socket {
        /// What was being done.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{operation} {object}: {source}{}", hint.as_ref().map_or_else(String::new, |h| format!(" ({h})")))]
    Refused {
        /// What was being done: `add link`, `delete route`, …
        operation: &'static str,
        /// The name of the link, the address, the route.
        object: String,
        /// The kernel's answer.
        source: io::Error,
        /// The kernel's own words, if it had any.
        hint: Option<String>,
    },
    /// There is no link of this name.
    #[error("no link {name}")]
    NoLink {
        /// The name.
        name: String,
    },
    /// The tables changed during each of several attempts to list them.
    #[error("{operation}: the list kept changing")]
    Unsteady {
        /// What was being listed.
        operation: &'static str,
    },
}

impl RtnlError {
    /// The object is there already.
    #[must_use]
    pub fn is_existing(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(libc::EEXIST))
    }

    /// The object, or the link it is on, is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::NoLink { .. } => true,
            Self::Refused { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL)
            ),
            _ => false,
        }
    }
}

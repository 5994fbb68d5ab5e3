//! The one replaceable place: what a node's layout asks of the system.
//!
//! [`RealSys`] asks the kernel; [`FakeSys`] keeps a model in memory, and can be told to
//! fail at its N-th call. Every call names the namespace it is about and leaves the
//! calling thread where it was. A call either does all of what it says, or returns
//! an error and has done nothing.

mod fake;
mod real;

use std::io;
use std::path::{Path, PathBuf};

pub use fake::{FakeLink, FakeNs, FakeState, FakeSys};
pub use real::RealSys;

use crate::netns::NetNsError;
use crate::nftables::{NftError, Table, TableId};
use crate::offload::OffloadError;
use crate::packet::FrameError;
use crate::rtnetlink::{AddrFlags, Route, RtnlError};
use crate::sysctl::SysctlError;
use crate::{MacAddr, Prefix};

/// A network namespace by the path of its file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ns(PathBuf);

impl Ns {
    /// The namespace bound to `path`, or `/proc/PID/ns/net`.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The namespace of whatever thread makes the call.
    #[must_use]
    pub fn current() -> Self {
        Self::at("/proc/thread-self/ns/net")
    }

    /// The namespace that `ip netns` knows by this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(Path::new(crate::netns::RUN_NETNS).join(name))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysError {
    /// About a namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// About links, addresses or routes.
    #[error(transparent)]
    Rtnl(#[from] RtnlError),
    /// About a setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// About filter rules.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// About offloads.
    #[error(transparent)]
    Offload(#[from] OffloadError),
    /// About a TAP.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// About a file.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The fake was told to fail here, or its model has no such thing.
    #[error("fake: {call}: {reason}")]
    Fake {
        /// The call.
        call: String,
        /// Why it fails.
        reason: &'static str,
        /// The object is not there.
        missing: bool,
    },
}

impl SysError {
    /// The object is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Rtnl(error) => error.is_missing(),
            Self::Sysctl(error) => error.is_missing(),
            Self::File { source, .. } | Self::NetNs(NetNsError::Os { source, .. }) => {
                source.kind() == io::ErrorKind::NotFound
            }
            Self::Fake { missing, .. } => *missing,
            _ => false,
        }
    }
}

/// A link as far as a layout looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// The name.
    pub name: String,
    /// The Ethernet address.
    pub mac: Option<MacAddr>,
    /// The MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The label.
    pub alias: Option<String>,
}

/// What a link is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkConfig<'a> {
    /// The Ethernet address; `None` leaves it.
    pub mac: Option<MacAddr>,
    /// The MTU; `None` leaves it.
    pub mtu: Option<u32>,
    /// The label; `None` leaves it.
    pub alias: Option<&'a str>,
    /// Up or down; `None` leaves it.
    pub up: Option<bool>,
}

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Its namespace.
    pub ns: &'a Ns,
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub mac: MacAddr,
}

/// The system as a layout sees it.
#[allow(missing_docs, reason = "the names are those of the modules that do it")]
pub trait Sys: Send + Sync {
    /// Makes a namespace at its path, with the folders above it.
    fn ns_create(&self, ns: &Ns) -> Result<(), SysError>;
    /// Takes its name away. A missing one is an error.
    fn ns_delete(&self, ns: &Ns) -> Result<(), SysError>;
    /// Whether the path is a namespace.
    fn ns_exists(&self, ns: &Ns) -> Result<bool, SysError>;
    /// The namespaces bound in a folder; a missing folder has none.
    fn ns_list(&self, folder: &Path) -> Result<Vec<Ns>, SysError>;

    fn links(&self, ns: &Ns) -> Result<Vec<LinkState>, SysError>;
    fn veth_create(&self, a: End<'_>, b: End<'_>, mtu: u32) -> Result<(), SysError>;
    /// Makes a persistent TAP.
    fn tap_create(&self, ns: &Ns, name: &str) -> Result<(), SysError>;
    fn link_configure(&self, ns: &Ns, name: &str, to: LinkConfig<'_>) -> Result<(), SysError>;
    fn link_delete(&self, ns: &Ns, name: &str) -> Result<(), SysError>;
    fn offloads_disable(&self, ns: &Ns, device: &str) -> Result<(), SysError>;
    /// Has a device merge the segments that it receives.
    fn merging_enable(&self, ns: &Ns, device: &str) -> Result<(), SysError>;

    fn addrs(&self, ns: &Ns, device: &str) -> Result<Vec<Prefix>, SysError>;
    fn addr_add(&self, ns: &Ns, dev: &str, addr: Prefix, how: AddrFlags) -> Result<(), SysError>;
    fn addr_delete(&self, ns: &Ns, device: &str, addr: Prefix) -> Result<(), SysError>;
    fn routes(&self, ns: &Ns) -> Result<Vec<Route>, SysError>;
    fn route_replace(&self, ns: &Ns, route: &Route) -> Result<(), SysError>;
    fn route_delete(&self, ns: &Ns, route: &Route) -> Result<(), SysError>;

    fn sysctl_read(&self, ns: &Ns, key: &str) -> Result<String, SysError>;
    fn sysctl_write(&self, ns: &Ns, key: &str, value: &str) -> Result<(), SysError>;

    fn nft_tables(&self, ns: &Ns) -> Result<Vec<TableId>, SysError>;
    fn nft_apply(&self, ns: &Ns, table: &Table) -> Result<(), SysError>;
    fn nft_delete(&self, ns: &Ns, table: &TableId) -> Result<(), SysError>;

    /// A file's text; `None` if there is no file.
    fn file_read(&self, path: &Path) -> Result<Option<String>, SysError>;
    /// Replaces a file, with the folders above it; a reader sees the old text or the new.
    fn file_write(&self, path: &Path, text: &str) -> Result<(), SysError>;
    /// Removes a file or a symbolic link. A missing one is no error.
    fn file_remove(&self, path: &Path) -> Result<(), SysError>;
    /// Where a symbolic link points; `None` if there is nothing. Another kind of file is an error.
    fn symlink_read(&self, path: &Path) -> Result<Option<PathBuf>, SysError>;
    /// Makes a symbolic link, with the folders above it.
    fn symlink_create(&self, path: &Path, target: &Path) -> Result<(), SysError>;
    /// Removes a folder if it is there and empty.
    fn folder_prune(&self, path: &Path) -> Result<(), SysError>;
}

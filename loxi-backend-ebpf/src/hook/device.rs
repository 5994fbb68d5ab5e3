//! Devices of ports: where they are, and how packets get out of them.

use loxi_core::ir::{Port, PortKind};
use loxi_ebpf_layout::l2::{exit, side};
use loxi_linux::netns::{NetNs, NetNsError};
use loxi_linux::offload::{self, Offload};
use loxi_linux::rtnetlink::{Link, Rtnl, RtnlError};
use std::sync::Arc;

/// Why a device can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is none of that name.
    #[error("there is no device {device} in the {place} namespace")]
    Missing {
        /// Its name.
        device: String,
        /// `root` or `dataplane`.
        place: &'static str,
    },
    /// The namespace can't be entered.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// The kernel does not say what devices there are.
    #[error(transparent)]
    Rtnl(#[from] RtnlError),
    /// A program can't be bound to it.
    #[error("{what} {device}: {source}")]
    Bind {
        /// What was being done.
        what: &'static str,
        /// The device.
        device: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Somebody else's program is there.
    #[error("program {program} is attached to {device} already")]
    Conflict {
        /// The device.
        device: String,
        /// The program.
        program: String,
    },
}

/// The network namespaces of ports: uplinks are in one, all others in the other.
#[derive(Debug)]
pub struct Namespaces {
    root: Arc<NetNs>,
    dataplane: Arc<NetNs>,
    /// They are the same.
    one: bool,
}

impl Namespaces {
    /// Uplinks in `root`, all other ports in `dataplane`.
    ///
    /// # Errors
    /// If the two can't be told apart.
    pub fn new(root: NetNs, dataplane: NetNs) -> Result<Self, NetNsError> {
        let one = root.id()? == dataplane.id()?;
        Ok(Self { root: Arc::new(root), dataplane: Arc::new(dataplane), one })
    }

    /// All ports in the calling thread's namespace.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn current() -> Result<Self, NetNsError> {
        Self::new(NetNs::current()?, NetNs::current()?)
    }

    /// Where devices of a side are, and what that is called.
    pub(crate) fn of(&self, side: u8) -> (&Arc<NetNs>, &'static str) {
        if side == side::ROOT { (&self.root, "root") } else { (&self.dataplane, "dataplane") }
    }

    /// Every namespace once.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Arc<NetNs>> {
        std::iter::once(&self.dataplane).chain((!self.one).then_some(&self.root))
    }

    /// The side of ports of a kind. Where there is one namespace only, nothing crosses.
    pub(crate) fn side(&self, kind: PortKind) -> u8 {
        if kind == PortKind::Uplink && !self.one { side::ROOT } else { side::DATAPLANE }
    }

    /// The device of a port.
    pub(crate) fn find(&self, port: &Port) -> Result<Found, DeviceError> {
        let side = self.side(port.kind);
        let name = port.name.as_str();
        let found = self.look(side, name)?;
        let missing = || DeviceError::Missing { device: name.to_owned(), place: self.of(side).1 };
        found.ok_or_else(missing)
    }

    /// A device by name.
    pub(crate) fn look(&self, side: u8, name: &str) -> Result<Option<Found>, DeviceError> {
        let found = self.of(side).0.run(|| -> Result<Option<Found>, DeviceError> {
            let Some(link) = Rtnl::open()?.link(name)? else { return Ok(None) };
            // A device that doesn't know the switch has none.
            let merges = offload::get(name, Offload::Gro).unwrap_or(false);
            Ok(Some(Found { link, merges, side }))
        })??;
        Ok(found)
    }

    /// The other end of a port's veth, if it is in the root namespace and the port is not.
    pub(crate) fn far_end(&self, near: &Found) -> Result<Option<Found>, DeviceError> {
        let Some(index) = near.link.peer.filter(|_| near.is_veth() && near.side != side::ROOT && !self.one)
        else {
            return Ok(None);
        };
        let name = self.root.run(|| -> Result<Option<String>, DeviceError> {
            let links = Rtnl::open()?.links()?;
            let far =
                links.into_iter().find(|link| link.index == index && link.peer == Some(near.link.index));
            Ok(far.filter(|link| link.kind.as_deref() == Some("veth")).map(|link| link.name))
        })??;
        match name {
            Some(name) => self.look(side::ROOT, &name),
            None => Ok(None),
        }
    }
}

/// A device.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) link: Link,
    /// Whether received segments are merged, for which a veth has queues.
    merges: bool,
    pub(crate) side: u8,
}

impl Found {
    fn is_veth(&self) -> bool {
        self.link.kind.as_deref() == Some("veth")
    }

    /// How packets get out. `xdp`: whether programs at XDP may send by it at all.
    pub(crate) fn exit(&self, xdp: bool) -> u8 {
        let mut bits = 0;
        if self.is_veth() && self.link.peer_netnsid.is_some() {
            bits |= exit::PEER;
        }
        if !self.is_veth() {
            bits |= exit::SUMS;
        }
        // The other end of a veth takes such frames only with queues of its own, which it has while it
        // merges segments. We see our own end's switch alone, so whoever turns it on turns on both.
        if xdp && (!self.is_veth() || self.merges) {
            bits |= exit::XDP;
        }
        bits
    }
}

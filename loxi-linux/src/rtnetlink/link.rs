//! Network devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::wire::{self, Message, Request};
use super::{Rtnl, RtnlError};
use crate::MacAddr;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
/// Length of `struct ifinfomsg`.
const IFINFO: usize = 16;

/// What is counted per device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names say it all, and are the kernel's")]
pub struct LinkStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

/// Operational state (RFC 2863).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperState {
    /// Not told: what TAP devices and loopback say while they work.
    Unknown,
    /// No carrier or administratively down.
    Down,
    /// Working.
    Up,
    /// Another state, by the kernel's number.
    Other(u8),
}

/// A network device as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The index in its namespace.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The Ethernet address; `None` for devices without one.
    pub mac: Option<MacAddr>,
    /// The MTU.
    pub mtu: u32,
    /// The kind: `veth`, `tun` (TAPs too), `bridge`, … `None` for hardware and loopback.
    pub kind: Option<String>,
    /// The index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// `IFF_` flags.
    pub flags: u32,
    /// Operational state.
    pub oper_state: OperState,
    /// The index of the lower device; of a veth, the other end.
    pub peer: Option<u32>,
    /// The namespace of that device by its number here; `None` is this one.
    pub peer_netnsid: Option<i32>,
    /// The label.
    pub alias: Option<String>,
    /// The kernel's number of the XDP program that is attached.
    pub xdp: Option<u32>,
    /// Counters.
    pub stats: LinkStats,
}

impl Link {
    /// Administratively up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    fn parse(message: &Message<'_>) -> Option<Self> {
        if message.kind != libc::RTM_NEWLINK {
            return None;
        }
        let mut link = Self {
            index: wire::get_u32(message.body, 4)?,
            name: String::new(),
            mac: None,
            mtu: 0,
            kind: None,
            master: None,
            flags: wire::get_u32(message.body, 8)?,
            oper_state: OperState::Unknown,
            peer: None,
            peer_netnsid: None,
            alias: None,
            xdp: None,
            stats: LinkStats::default(),
        };
        for (kind, value) in wire::attrs(message.body.get(IFINFO..)?) {
            let number = || wire::get_u32(value, 0);
            match kind {
                IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddr),
                IFLA_IFNAME => link.name = wire::text(value),
                IFLA_MTU => link.mtu = number()?,
                IFLA_LINK => link.peer = number().filter(|index| *index != 0),
                IFLA_MASTER => link.master = number(),
                IFLA_OPERSTATE => {
                    link.oper_state = match value.first()? {
                        0 => OperState::Unknown,
                        2 => OperState::Down,
                        6 => OperState::Up,
                        other => OperState::Other(*other),
                    }
                }
                IFLA_LINKINFO => {
                    link.kind = wire::attrs(value)
                        .find(|(kind, _)| *kind == IFLA_INFO_KIND)
                        .map(|(_, value)| wire::text(value));
                }
                IFLA_IFALIAS => link.alias = Some(wire::text(value)),
                IFLA_LINK_NETNSID => link.peer_netnsid = number().map(|id| id as i32),
                IFLA_XDP => {
                    link.xdp = wire::attrs(value)
                        .find(|(kind, _)| *kind == IFLA_XDP_PROG_ID)
                        .and_then(|(_, value)| wire::get_u32(value, 0));
                }
                IFLA_STATS64 => link.stats = LinkStats::parse(value)?,
                _ => {}
            }
        }
        Some(link)
    }
}

impl LinkStats {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| wire::get_u64(bytes, index * 8);
        Some(Self {
            rx_packets: word(0)?,
            tx_packets: word(1)?,
            rx_bytes: word(2)?,
            tx_bytes: word(3)?,
            rx_errors: word(4)?,
            tx_errors: word(5)?,
            rx_dropped: word(6)?,
            tx_dropped: word(7)?,
        })
    }
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// The name.
    pub name: &'a str,
    /// The namespace; `None` is the socket's.
    pub netns: Option<BorrowedFd<'a>>,
    /// The address; `None` lets the kernel choose.
    pub mac: Option<MacAddr>,
    /// The MTU; `None` is the kernel's 1500.
    pub mtu: Option<u32>,
}

impl<'a> VethEnd<'a> {
    /// An end in the socket's namespace with the kernel's choices.
    #[must_use]
    pub fn new(name: &'a str) -> Self {
        Self { name, netns: None, mac: None, mtu: None }
    }

    fn write(&self, request: &mut Request) {
        request.attr_str(IFLA_IFNAME, self.name);
        if let Some(mac) = self.mac {
            request.attr(IFLA_ADDRESS, &mac.0);
        }
        if let Some(mtu) = self.mtu {
            request.attr_u32(IFLA_MTU, mtu);
        }
        if let Some(netns) = self.netns {
            request.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
        }
    }
}

/// What to change on a link; `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkChange<'a> {
    /// Up or down.
    pub up: Option<bool>,
    /// The MTU.
    pub mtu: Option<u32>,
    /// The Ethernet address.
    pub mac: Option<MacAddr>,
    /// The name.
    pub name: Option<&'a str>,
    /// The label.
    pub alias: Option<&'a str>,
    /// The namespace to move to.
    pub netns: Option<BorrowedFd<'a>>,
    /// The index of the bridge to join; 0 leaves it.
    pub master: Option<u32>,
}

fn ifinfo(index: u32, flags: u32, mask: u32) -> [u8; IFINFO] {
    let mut bytes = [0; IFINFO];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&mask.to_ne_bytes());
    bytes
}

const CREATE: i32 = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;

impl Rtnl {
    /// Makes a veth pair, each end in its namespace. Both are down.
    ///
    /// # Errors
    /// If a name is taken or a namespace refused; then neither end is there.
    pub fn veth_add(&mut self, end: &VethEnd<'_>, peer: &VethEnd<'_>) -> Result<(), RtnlError> {
        let mut request = Request::new(libc::RTM_NEWLINK, CREATE, &ifinfo(0, 0, 0));
        end.write(&mut request);
        request.nest(IFLA_LINKINFO, &[], |request| {
            request.attr(IFLA_INFO_KIND, b"veth");
            request.nest(IFLA_INFO_DATA, &[], |request| {
                request.nest(VETH_INFO_PEER, &ifinfo(0, 0, 0), |request| peer.write(request));
            });
        });
        self.change(request, "add veth", &format!("{} with peer {}", end.name, peer.name))
    }

    /// Makes a bridge. It is down.
    ///
    /// # Errors
    /// If the name is taken or the kernel has no bridges.
    pub fn bridge_add(&mut self, name: &str) -> Result<(), RtnlError> {
        let mut request = Request::new(libc::RTM_NEWLINK, CREATE, &ifinfo(0, 0, 0));
        request.attr_str(IFLA_IFNAME, name);
        request.nest(IFLA_LINKINFO, &[], |request| request.attr(IFLA_INFO_KIND, b"bridge"));
        self.change(request, "add bridge", name)
    }

    /// Changes a link.
    ///
    /// # Errors
    /// If there is no such link or the kernel refuses. A change of several things may then be done in part.
    pub fn link_set(&mut self, name: &str, change: &LinkChange<'_>) -> Result<(), RtnlError> {
        let index = self.link_index(name)?;
        let up = libc::IFF_UP as u32;
        let (flags, mask) = change.up.map_or((0, 0), |on| (if on { up } else { 0 }, up));
        let header = ifinfo(index, flags, mask);
        let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header);
        if let Some(mac) = change.mac {
            request.attr(IFLA_ADDRESS, &mac.0);
        }
        if let Some(mtu) = change.mtu {
            request.attr_u32(IFLA_MTU, mtu);
        }
        if let Some(name) = change.name {
            request.attr_str(IFLA_IFNAME, name);
        }
        if let Some(alias) = change.alias {
            request.attr_str(IFLA_IFALIAS, alias);
        }
        if let Some(netns) = change.netns {
            request.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
        }
        if let Some(master) = change.master {
            request.attr_u32(IFLA_MASTER, master);
        }
        self.change(request, "set link", name)
    }

    /// Deletes a link; of a veth, both ends.
    ///
    /// # Errors
    /// If there is no such link or it can't be deleted (hardware, loopback).
    pub fn link_del(&mut self, name: &str) -> Result<(), RtnlError> {
        let mut request = Request::new(libc::RTM_DELLINK, libc::NLM_F_ACK, &ifinfo(0, 0, 0));
        request.attr_str(IFLA_IFNAME, name);
        self.change(request, "delete link", name)
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn links(&mut self) -> Result<Vec<Link>, RtnlError> {
        let dump = || Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &ifinfo(0, 0, 0));
        self.list(dump, "list links", Link::parse)
    }

    /// The link of a name, if there is one.
    ///
    /// # Errors
    /// If the kernel refuses for another reason.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, RtnlError> {
        let get = || {
            let mut request = Request::new(libc::RTM_GETLINK, libc::NLM_F_ACK, &ifinfo(0, 0, 0));
            request.attr_str(IFLA_IFNAME, name);
            request
        };
        match self.list(get, "look for link", Link::parse) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The index of a link.
    ///
    /// # Errors
    /// [`RtnlError::NoLink`] if there is none.
    pub fn link_index(&mut self, name: &str) -> Result<u32, RtnlError> {
        let link = self.link(name)?;
        link.map(|link| link.index).ok_or_else(|| RtnlError::NoLink { name: name.into() })
    }
}

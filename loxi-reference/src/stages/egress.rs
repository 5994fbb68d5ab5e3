//! The way out of the dataplane, as stage 10 decides it.

use loxi_core::ir::Tunnel;
use loxi_core::net::{InterfaceName, MacAddr, PortName};
use std::net::IpAddr;

/// The link layer of a routed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Macs {
    pub(super) dst: MacAddr,
    pub(super) src: MacAddr,
}

/// A link on which an outer packet leaves.
#[derive(Debug, Clone)]
pub(super) struct Underlay {
    pub(super) port: PortName,
    pub(super) macs: Macs,
    /// Largest packet on that link.
    pub(super) mtu: u16,
}

/// One copy of a flooded frame.
#[derive(Debug, Clone)]
pub(super) enum CopyTo {
    Port(PortName),
    Tunnel(Box<Tunnel>),
}

#[derive(Debug, Clone)]
pub(super) enum WayOut {
    /// By a port.
    Port(PortName),
    /// Inside a tunnel.
    Tunnel { tunnel: Box<Tunnel>, underlay: Underlay },
    /// In IP in IP to a service's endpoint (DSR).
    Ipip { src: IpAddr, dst: IpAddr, underlay: Underlay },
    /// To several members of a bridge.
    Flood(Vec<CopyTo>),
}

/// How a packet leaves.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) out: WayOut,
    /// New link layer; none: bridged, which keeps it and the TTL.
    pub(super) macs: Option<Macs>,
    /// Largest L3 packet on the way, the packet's own encapsulation taken off.
    pub(super) mtu: u16,
    /// L3 interface by which it is routed.
    pub(super) interface: Option<InterfaceName>,
}

impl Way {
    pub(super) fn is_routed(&self) -> bool {
        self.macs.is_some()
    }

    /// The port whose policies and counters are concerned; none for floods.
    pub(super) fn port(&self) -> Option<&PortName> {
        match &self.out {
            WayOut::Port(port) => Some(port),
            WayOut::Tunnel { tunnel, .. } => Some(&tunnel.port),
            WayOut::Ipip { underlay, .. } => Some(&underlay.port),
            WayOut::Flood(_) => None,
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.out {
            WayOut::Port(port) => write!(f, "port {port}")?,
            WayOut::Tunnel { tunnel, underlay } => {
                write!(f, "tunnel {} to {} by port {}", tunnel.name, tunnel.remote, underlay.port)?;
            }
            WayOut::Ipip { src, dst, underlay } => {
                write!(f, "ipip {src} -> {dst} by port {}", underlay.port)?
            }
            WayOut::Flood(copies) => write!(f, "flood, {} copies", copies.len())?,
        }
        match self.macs {
            Some(macs) => write!(f, ", routed to {}, mtu {}", macs.dst, self.mtu),
            None => write!(f, ", bridged, mtu {}", self.mtu),
        }
    }
}

//! A packet as it stands between stages.

use super::Step;
use crate::frame::{ETH, Icmp, Ip, L3, L4, Rewrite, View, rewrite_tuple};
use loxi_core::ir::{Interface, Port, ServiceKey};
use loxi_core::net::{BackendName, BridgeName, TunnelName, VlanId, VrfName, ZoneName};
use loxi_core::packet::{FlowDirection, FlowId, FlowTuple, Translation};
use loxi_core::reason::DropReason;
use std::net::IpAddr;

/// A flow that will exist if the packet gets through.
#[derive(Debug, Clone)]
pub(super) struct Tentative {
    /// As the packet came.
    pub(super) original: FlowTuple,
    /// As it will be sent.
    pub(super) translated: FlowTuple,
    pub(super) translation: Translation,
    pub(super) service: Option<ServiceKey>,
    pub(super) backend: Option<(BackendName, u64)>,
    pub(super) dsr_target: Option<IpAddr>,
    /// Whether stage 12 shall take the VRF's `snat_address` (full NAT).
    pub(super) full_nat: bool,
    /// Whether the affinity of client and service is to be remembered, and for how long.
    pub(super) affinity_s: Option<u32>,
    pub(super) hairpin: bool,
}

/// What conntrack knows of the packet.
#[derive(Debug, Clone)]
pub(super) enum Tracking {
    /// Nothing: no zone, or traffic that is never tracked.
    Untracked,
    /// It opens a flow.
    New(Box<Tentative>),
    /// It belongs to a flow.
    Established(FlowId, FlowDirection),
    /// It is an error about a flow's packet, travelling in that direction.
    Related(FlowId, FlowDirection),
}

#[derive(Debug, Clone)]
pub(super) struct Packet {
    /// Ingress port.
    pub(super) port: Port,
    /// The frame as it stands, untagged.
    pub(super) frame: Vec<u8>,
    /// What the frame holds as it stands.
    pub(super) view: View,
    /// The frame as it came, untagged: what ICMP errors quote.
    pub(super) received: Vec<u8>,
    /// For bridge ports: the bridge.
    pub(super) bridge: Option<BridgeName>,
    /// For bridge ports: the VLAN.
    pub(super) vlan: VlanId,
    /// Priority code point of the tag that it came with.
    pub(super) priority: u8,
    /// For tunnel ports: the tunnel back to the outer source.
    pub(super) tunnel: Option<TunnelName>,
    /// The interface whose MAC admits the frame to L3.
    pub(super) interface: Option<Interface>,
    /// Whether the frame is for our MAC.
    pub(super) to_us: bool,
    /// Routing domain: the port's, or that of the admitting interface.
    pub(super) vrf: Option<VrfName>,
    pub(super) zone: Option<ZoneName>,
    pub(super) tracking: Tracking,
    /// The tuple by which the packet is tracked: its own as it came, or its first fragment's.
    pub(super) tuple: Option<FlowTuple>,
}

impl Packet {
    pub(super) fn ip(&self) -> Option<&Ip> {
        self.view.ip()
    }

    /// What to show of it in a trace.
    pub(super) fn summary(&self) -> String {
        match self.ip() {
            Some(ip) => ip.tuple().to_string(),
            None => format!("{} -> {}", self.view.src, self.view.dst),
        }
    }

    /// Gives the packet, and the view of it, other addresses and ports.
    pub(super) fn translate(&mut self, new: &FlowTuple) -> Step {
        let L3::Ip(ip) = &mut self.view.l3 else { return Ok(()) };
        if rewrite_tuple(&mut self.frame, ip, new) == Rewrite::Impossible {
            return super::drop(DropReason::UnsupportedProtocol);
        }
        (ip.src, ip.dst) = (new.src, new.dst);
        match &mut ip.l4 {
            L4::Tcp { src, dst, .. } | L4::Udp { src, dst } | L4::Sctp { src, dst, .. } => {
                (*src, *dst) = (new.src_port, new.dst_port);
            }
            L4::Icmp(Icmp::Query { id, .. }) => *id = new.src_port,
            _ => {}
        }
        Ok(())
    }

    /// Bytes from the L3 header on, padding not counted for IP.
    pub(super) fn l3_len(&self) -> usize {
        self.ip().map_or(self.frame.len().saturating_sub(ETH), |ip| ip.len)
    }

    pub(super) fn tentative(&mut self) -> Option<&mut Tentative> {
        match &mut self.tracking {
            Tracking::New(tentative) => Some(tentative),
            _ => None,
        }
    }
}

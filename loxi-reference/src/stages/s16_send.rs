//! Stage 16: rewrite, encapsulate, send.
//!
//! Routed frames lose their padding and get a new link layer. Outer headers:
//! VXLAN as RFC 7348, IP in IP as RFC 2003 and RFC 2473, ECN copied from the
//! inner packet (RFC 6040), identification a choice.

use super::egress::{CopyTo, Macs, Underlay, Way, WayOut};
use super::ingress::Packet;
use super::lookup::carries;
use super::s11_ttl_mtu::Pieces;
use super::{Run, Step, drop};
use crate::frame::{ETH, ethertype, finish, fragment_ipv4, pseudo, put16, sum};
use loxi_core::algo::flow_hash;
use loxi_core::ir::{
    Interface, InterfaceOn, OuterDf, OuterDscp, OuterTtl, Port, PortKind, Tunnel, TunnelKind, UdpChecksum,
};
use loxi_core::net::{IpProtocol, PortName, VlanId};
use loxi_core::packet::{ChoicePoint, Fate, FlowTuple, Output, Unsent};
use loxi_core::reason::DropReason;
use std::net::IpAddr;

/// Fields of an outer IP header.
struct Outer {
    src: IpAddr,
    dst: IpAddr,
    protocol: IpProtocol,
    ttl: u8,
    tos: u8,
    dont_fragment: bool,
}

impl Run<'_> {
    pub(super) fn s16_send(&mut self, packet: &Packet, way: Way, pieces: Pieces) -> Step {
        let mut frame = packet.frame.clone();
        if let Some(macs) = way.macs {
            if let Some(ip) = packet.ip() {
                frame.truncate(ETH + ip.len);
            }
            frame[..6].copy_from_slice(&macs.dst.octets());
            frame[6..12].copy_from_slice(&macs.src.octets());
        }
        let frames = match pieces {
            None => vec![frame],
            Some(mtu) => match fragment_ipv4(&frame, mtu) {
                Some(frames) => frames,
                None => return drop(DropReason::Mtu),
            },
        };
        match &way.out {
            WayOut::Flood(copies) => self.flood(packet, &way, &frames, copies),
            WayOut::Port(port) => {
                self.check_open(port)?;
                let vlan = self.egress_vlan(packet, &way);
                for frame in &frames {
                    self.send_frame(port, frame, vlan, packet.priority);
                }
                Ok(())
            }
            WayOut::Tunnel { tunnel, underlay } => {
                self.check_open(&tunnel.port)?;
                self.check_open(&underlay.port)?;
                for frame in &frames {
                    self.send_tunnel(packet, frame, tunnel, underlay);
                }
                Ok(())
            }
            WayOut::Ipip { src, dst, underlay } => {
                self.check_open(&underlay.port)?;
                for frame in &frames {
                    let tos = packet.ip().map_or(0, |ip| ip.tos);
                    let outer = Outer {
                        src: *src,
                        dst: *dst,
                        protocol: inner_protocol(packet),
                        ttl: 64,
                        tos,
                        dont_fragment: true,
                    };
                    let out = self.encapsulate(&outer, &frame[ETH..], underlay.macs);
                    self.send_frame(&underlay.port, &out, None, 0);
                }
                Ok(())
            }
        }
    }

    fn check_open(&self, port: &PortName) -> Step {
        if self.is_open(port) { Ok(()) } else { drop(DropReason::EgressDown) }
    }

    /// The VLAN in which a packet leaves: that of the interface by which it is routed, or the one it came in.
    fn egress_vlan(&self, packet: &Packet, way: &Way) -> Option<VlanId> {
        if !way.is_routed() {
            return Some(packet.vlan);
        }
        match &self.config.get::<Interface>(way.interface.as_ref()?)?.on {
            InterfaceOn::Bridge { vlan, .. } => Some(*vlan),
            InterfaceOn::Port(_) => None,
        }
    }

    /// Sends every copy that may be sent; a copy that may not is listed with its reason.
    fn flood(&mut self, packet: &Packet, way: &Way, frames: &[Vec<u8>], copies: &[CopyTo]) -> Step {
        let sent = self.outputs.len();
        let mut refused = None;
        for copy in copies {
            let result = match copy {
                CopyTo::Port(port) => self.flood_port(packet, way, frames, port),
                CopyTo::Tunnel(tunnel) => self.flood_tunnel(packet, frames, tunnel),
            };
            if let Err(Fate::Dropped(reason)) = result {
                let port = match copy {
                    CopyTo::Port(port) => port.clone(),
                    CopyTo::Tunnel(tunnel) => tunnel.port.clone(),
                };
                refused.get_or_insert(reason);
                self.unsent.push(Unsent { port, reason });
            }
        }
        match refused {
            Some(reason) if self.outputs.len() == sent => drop(reason),
            _ => Ok(()),
        }
    }

    fn flood_port(&mut self, packet: &Packet, way: &Way, frames: &[Vec<u8>], name: &PortName) -> Step {
        self.check_open(name)?;
        let Some(port) = self.config.get::<Port>(name).cloned() else { return drop(DropReason::EgressDown) };
        if let Some(connection) = Self::copy_connection(packet) {
            self.admits(packet, &port, &connection)?;
        }
        if frames.iter().any(|frame| frame.len() - ETH > usize::from(port.mtu.get())) {
            return drop(DropReason::Mtu);
        }
        let vlan = self.egress_vlan(packet, way);
        for frame in frames {
            self.send_frame(name, frame, vlan, packet.priority);
        }
        Ok(())
    }

    fn flood_tunnel(&mut self, packet: &Packet, frames: &[Vec<u8>], tunnel: &Tunnel) -> Step {
        let way = self.tunnel_way(tunnel.clone(), false)?;
        let WayOut::Tunnel { tunnel, underlay } = way.out else { return drop(DropReason::EgressDown) };
        self.check_open(&tunnel.port)?;
        self.check_open(&underlay.port)?;
        for frame in frames {
            if frame.len() - ETH > usize::from(way.mtu) {
                return drop(DropReason::Mtu);
            }
            self.send_tunnel(packet, frame, &tunnel, &underlay);
        }
        Ok(())
    }

    fn send_tunnel(&mut self, packet: &Packet, frame: &[u8], tunnel: &Tunnel, underlay: &Underlay) {
        let inner = packet.ip();
        let tos = inner.map_or(0, |ip| ip.tos);
        let dscp = match tunnel.dscp {
            OuterDscp::Fixed(dscp) => dscp << 2,
            OuterDscp::Inherit => tos & !3,
        };
        let ttl = match tunnel.ttl {
            OuterTtl::Fixed(ttl) => ttl,
            // The TTL as it is now, after this hop.
            OuterTtl::Inherit => inner_ttl(frame).unwrap_or(64),
        };
        let dont_fragment = match tunnel.df {
            OuterDf::Set => true,
            OuterDf::Clear => false,
            OuterDf::Inherit => inner.is_some_and(|ip| ip.dont_fragment),
        };
        let (protocol, payload) = match tunnel.kind {
            TunnelKind::Ipip => (inner_protocol(packet), frame[ETH..].to_vec()),
            TunnelKind::Vxlan { vni, port } => {
                let mut payload = self.udp_header(packet, tunnel, port, frame.len());
                payload.extend_from_slice(&[0x08, 0, 0, 0]);
                payload.extend_from_slice(&(vni.get() << 8).to_be_bytes());
                payload.extend_from_slice(frame);
                if tunnel.udp_checksum == UdpChecksum::Computed {
                    let total =
                        pseudo(tunnel.local, tunnel.remote, IpProtocol::UDP.0, payload.len()) + sum(&payload);
                    let checksum = finish(total);
                    put16(&mut payload, 6, if checksum == 0 { 0xffff } else { checksum });
                }
                (IpProtocol::UDP, payload)
            }
        };
        let outer = Outer {
            src: tunnel.local,
            dst: tunnel.remote,
            protocol,
            ttl,
            tos: dscp | tos & 3,
            dont_fragment,
        };
        let out = self.encapsulate(&outer, &payload, underlay.macs);
        let counters = self.counters_of(&tunnel.port);
        counters.tx_packets += 1;
        counters.tx_bytes += frame.len() as u64;
        self.send_frame(&underlay.port, &out, None, 0);
    }

    fn udp_header(&mut self, packet: &Packet, tunnel: &Tunnel, port: u16, inner: usize) -> Vec<u8> {
        let ports = tunnel.source_ports;
        let hash = flow_hash(0, &entropy_tuple(packet));
        let point = ChoicePoint::Entropy { first: ports.first(), last: ports.last(), hash };
        let source = u16::try_from(self.choose(point)).unwrap_or(ports.first());
        // The MTU of the underlay bounds the length.
        let length = u16::try_from(8 + 8 + inner).unwrap_or(u16::MAX);
        let mut header = Vec::with_capacity(16 + inner);
        header.extend_from_slice(&source.to_be_bytes());
        header.extend_from_slice(&port.to_be_bytes());
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&[0, 0]);
        header
    }

    fn encapsulate(&mut self, outer: &Outer, payload: &[u8], macs: Macs) -> Vec<u8> {
        let mut frame = macs.dst.octets().to_vec();
        frame.extend_from_slice(&macs.src.octets());
        match (outer.src, outer.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend_from_slice(&ethertype::IPV4.to_be_bytes());
                let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
                // What may not be fragmented needs no identification (RFC 6864 section 4.1).
                let id = if outer.dont_fragment { 0 } else { self.choose(ChoicePoint::Identification) };
                let id = u16::try_from(id).unwrap_or(0);
                frame.extend_from_slice(&[0x45, outer.tos]);
                frame.extend_from_slice(&length.to_be_bytes());
                frame.extend_from_slice(&id.to_be_bytes());
                let flags: u8 = if outer.dont_fragment { 0x40 } else { 0 };
                frame.extend_from_slice(&[flags, 0, outer.ttl, outer.protocol.0, 0, 0]);
                frame.extend_from_slice(&src.octets());
                frame.extend_from_slice(&dst.octets());
                let checksum = finish(sum(&frame[ETH..ETH + 20]));
                put16(&mut frame, ETH + 10, checksum);
            }
            (src, dst) => {
                let octets = |addr: IpAddr| match addr {
                    IpAddr::V6(v6) => v6.octets(),
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                };
                frame.extend_from_slice(&ethertype::IPV6.to_be_bytes());
                let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
                frame.extend_from_slice(&[0x60 | outer.tos >> 4, outer.tos << 4, 0, 0]);
                frame.extend_from_slice(&length.to_be_bytes());
                frame.extend_from_slice(&[outer.protocol.0, outer.ttl]);
                frame.extend_from_slice(&octets(src));
                frame.extend_from_slice(&octets(dst));
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    /// Puts a frame out, tagged as the port has the VLAN.
    pub(super) fn send_frame(&mut self, port: &PortName, frame: &[u8], vlan: Option<VlanId>, priority: u8) {
        if !self.is_open(port) {
            self.unsent.push(Unsent { port: port.clone(), reason: DropReason::EgressDown });
            return;
        }
        let config = self.config.get::<Port>(port);
        if config.is_some_and(|port| port.kind == PortKind::Tunnel) {
            return;
        }
        let mode = config.and_then(|port| port.bridge()).map(|member| &member.vlan);
        let tag = vlan.filter(|vlan| mode.is_some_and(|mode| carries(mode, *vlan) == Some(true)));
        let bytes = match tag {
            None => frame.to_vec(),
            Some(vlan) => {
                let mut tagged = frame[..12].to_vec();
                tagged.extend_from_slice(&ethertype::VLAN.to_be_bytes());
                tagged.extend_from_slice(&(u16::from(priority) << 13 | vlan.get()).to_be_bytes());
                tagged.extend_from_slice(&frame[12..]);
                tagged
            }
        };
        let counters = self.counters_of(port);
        counters.tx_packets += 1;
        counters.tx_bytes += bytes.len() as u64;
        self.outputs.push(Output { port: port.clone(), bytes });
    }
}

fn inner_protocol(packet: &Packet) -> IpProtocol {
    if packet.ip().is_some_and(crate::frame::Ip::is_ipv4) { IpProtocol::IPIP } else { IpProtocol::IPV6 }
}

fn inner_ttl(frame: &[u8]) -> Option<u8> {
    match crate::frame::be16(frame, 12) {
        ethertype::IPV4 => frame.get(ETH + 8).copied(),
        ethertype::IPV6 => frame.get(ETH + 7).copied(),
        _ => None,
    }
}

/// What the entropy of an outer source port depends on: the inner flow, so that
/// a flow stays on one path. Fragments have no ports, so none of them counts any.
fn entropy_tuple(packet: &Packet) -> FlowTuple {
    match packet.ip() {
        Some(ip) if ip.fragment.is_none() => ip.tuple(),
        Some(ip) => FlowTuple { src_port: 0, dst_port: 0, ..ip.tuple() },
        None => FlowTuple {
            src: IpAddr::from([0; 4]),
            dst: IpAddr::from([0; 4]),
            protocol: IpProtocol(0),
            src_port: u16::from(packet.view.src.octets()[5]),
            dst_port: u16::from(packet.view.dst.octets()[5]),
        },
    }
}

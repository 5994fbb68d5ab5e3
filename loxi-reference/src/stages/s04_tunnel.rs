//! Stage 4: tunnels end here, and errors about our own outer packets.
//!
//! Only packets for our MAC, by an `underlay` port, from a trusted peer. The
//! inner packet restarts at stage 1 on the termination's port; a second
//! termination is a loop. Fragments of outer packets are not reassembled
//! (RFC 7348 section 4.3 forbids VTEPs to fragment). ECN is combined as
//! RFC 6040 section 4.2 says.

use super::ingress::Packet;
use super::{Run, Step, drop, entity, step};
use crate::frame::{ETH, Icmp, Ip, L4, be16, embedded_tuple, ethertype, set_ecn_ce, set_ect1};
use loxi_core::ir::{EntityKey, Tunnel, TunnelKind, TunnelTermination};
use loxi_core::net::{IpProtocol, MacAddr, PortName, TunnelName, Vni};
use loxi_core::packet::{Fate, PathMtuEntry};
use loxi_core::reason::{ConsumedReason, DropReason};
use std::net::IpAddr;

/// An ended tunnel's inner frame: its port, its bytes, and the tunnel back.
pub(super) type Inner = (PortName, Vec<u8>, Option<TunnelName>);

/// Seconds for which a lowered path MTU is believed (RFC 1191 section 6.3: 10 minutes).
const PATH_MTU_S: u32 = 600;

impl Run<'_> {
    pub(super) fn s04_tunnel(&mut self, packet: &Packet) -> Step<Option<Inner>> {
        let (Some(ip), Some(vrf)) = (packet.ip(), &packet.vrf) else { return Ok(None) };
        if !packet.port.underlay || !packet.to_us {
            return Ok(None);
        }
        self.error_about_outer(packet, ip)?;
        let candidates: Vec<&TunnelTermination> =
            self.config.terminations().filter(|t| t.vrf == *vrf && t.dst == ip.dst).collect();
        let Some(found) = find(&candidates, packet, ip)? else { return Ok(None) };
        let termination = found.termination.clone();
        let key = EntityKey::Termination(termination.key());
        if !termination.peers.iter().any(|peer| peer.contains(ip.src)) {
            step!(
                self,
                TunnelTermination,
                entity(key, &termination.origin),
                ("from {}", ip.src),
                ("drop tunnel_untrusted_peer")
            );
            return drop(DropReason::TunnelUntrustedPeer);
        }
        if !self.tunnels.is_empty() {
            return drop(DropReason::TunnelLoop);
        }
        let mut inner = match found.inner {
            InnerKind::Frame(at) => packet.frame[at..ETH + ip.len].to_vec(),
            InnerKind::Packet(at, kind) => {
                // A frame is made for the port: the packet itself has no link layer.
                let mac = self
                    .config
                    .get::<loxi_core::ir::Port>(&termination.port)
                    .map_or(MacAddr::ZERO, |p| p.mac);
                let mut frame = mac.octets().to_vec();
                frame.extend_from_slice(&[0x02, 0, 0, 0, 0, 0]);
                frame.extend_from_slice(&kind.to_be_bytes());
                frame.extend_from_slice(&packet.frame[at..ETH + ip.len]);
                frame
            }
        };
        combine_ecn(&mut inner, ip.tos & 3)?;
        let back = self.tunnel_back(&termination.port, ip.src).map(|tunnel| tunnel.name.clone());
        step!(
            self,
            TunnelTermination,
            entity(key, &termination.origin),
            ("{} from {}", termination.key(), ip.src),
            ("decapsulate, restart at {}", termination.port)
        );
        Ok(Some((termination.port, inner, back)))
    }

    /// An ICMP error that quotes an outer packet of ours stops here: a
    /// frag-needed lowers the endpoint's path MTU, others are only counted.
    fn error_about_outer(&mut self, packet: &Packet, ip: &Ip) -> Step {
        let L4::Icmp(Icmp::Error { kind, code, word, at }) = ip.l4 else { return Ok(()) };
        let Some((quoted, _)) = embedded_tuple(&packet.frame, at, ip.is_ipv4()) else { return Ok(()) };
        let ours = |tunnel: &&Tunnel| {
            let protocol = match tunnel.kind {
                TunnelKind::Vxlan { port, .. } => {
                    quoted.protocol == IpProtocol::UDP && quoted.dst_port == port
                }
                TunnelKind::Ipip => matches!(quoted.protocol, IpProtocol::IPIP | IpProtocol::IPV6),
            };
            protocol
                && tunnel.local == quoted.src
                && tunnel.remote == quoted.dst
                && packet.vrf.as_ref() == Some(&tunnel.underlay_vrf)
        };
        let Some(tunnel) = self.config.tunnels().find(ours).cloned() else { return Ok(()) };
        let too_big = if ip.is_ipv4() { (kind, code) == (3, 4) } else { (kind, code) == (2, 0) };
        let fate = if too_big {
            let least = if ip.is_ipv4() { 576 } else { 1280 };
            // RFC 1191 section 4 has 16 bits, and 0 from routers that are older; RFC 4443 has 32.
            let told = if ip.is_ipv4() { word & 0xffff } else { word };
            let mtu = u16::try_from(told).unwrap_or(u16::MAX).max(least);
            let entry = PathMtuEntry { remote: tunnel.remote, mtu, expires: self.now.plus_s(PATH_MTU_S) };
            let known = self.state.path_mtu(tunnel.remote).filter(|old| old.expires > self.now);
            if known.is_none_or(|old| mtu <= old.mtu) {
                self.state.put_path_mtu(entry);
            }
            Fate::Consumed(ConsumedReason::PathMtu)
        } else {
            Fate::Consumed(ConsumedReason::TunnelError)
        };
        step!(
            self,
            TunnelTermination,
            entity(EntityKey::Tunnel(tunnel.name.clone()), &tunnel.origin),
            ("error {kind}/{code} about {quoted}"),
            ("{fate}")
        );
        Err(fate)
    }
}

enum InnerKind {
    /// An Ethernet frame at this position.
    Frame(usize),
    /// An IP packet at this position, of this ethertype.
    Packet(usize, u16),
}

struct Found<'a> {
    termination: &'a TunnelTermination,
    inner: InnerKind,
}

fn find<'a>(candidates: &[&'a TunnelTermination], packet: &Packet, ip: &Ip) -> Step<Option<Found<'a>>> {
    match (&ip.l4, ip.protocol) {
        (L4::Udp { dst, .. }, _) => vxlan(candidates, packet, ip, *dst),
        (_, IpProtocol::IPIP | IpProtocol::IPV6) => {
            let Some(termination) = candidates.iter().find(|t| t.matches == TunnelKind::Ipip) else {
                return Ok(None);
            };
            if ip.fragment.is_some() {
                return drop(DropReason::TunnelDecapError);
            }
            let kind = if ip.protocol == IpProtocol::IPIP { ethertype::IPV4 } else { ethertype::IPV6 };
            Ok(Some(Found { termination, inner: InnerKind::Packet(ip.l4_at, kind) }))
        }
        _ => Ok(None),
    }
}

fn vxlan<'a>(
    candidates: &[&'a TunnelTermination],
    packet: &Packet,
    ip: &Ip,
    dst_port: u16,
) -> Step<Option<Found<'a>>> {
    let at_port =
        |t: &&&TunnelTermination| matches!(t.matches, TunnelKind::Vxlan { port, .. } if port == dst_port);
    let mut here = candidates.iter().filter(at_port).peekable();
    if here.peek().is_none() {
        return Ok(None);
    }
    let header = packet.frame.get(ip.l4_at + 8..ip.l4_at + 16).filter(|_| ETH + ip.len >= ip.l4_at + 16);
    let Some(header) = header.filter(|_| ip.fragment.is_none()) else {
        return drop(DropReason::TunnelDecapError);
    };
    // The I flag must be set (RFC 7348 section 5).
    if header[0] & 0x08 == 0 {
        return drop(DropReason::TunnelDecapError);
    }
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    let vni = Vni::new(vni).map_err(|_| Fate::Dropped(DropReason::TunnelDecapError))?;
    let mut exclusive = false;
    for termination in here {
        if matches!(termination.matches, TunnelKind::Vxlan { vni: own, .. } if own == vni) {
            return Ok(Some(Found { termination, inner: InnerKind::Frame(ip.l4_at + 16) }));
        }
        exclusive |= termination.exclusive;
    }
    if exclusive { drop(DropReason::TunnelUnknownKey) } else { Ok(None) }
}

/// RFC 6040 section 4.2, figure 4.
fn combine_ecn(inner: &mut [u8], outer: u8) -> Step {
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    let ipv4 = match be16(inner, 12) {
        ethertype::IPV4 => true,
        ethertype::IPV6 => false,
        _ => return Ok(()),
    };
    let Some(second) = inner.get(ETH + 1).copied().filter(|_| inner.len() >= ETH + 20) else { return Ok(()) };
    let ecn = if ipv4 { second & 3 } else { second >> 4 & 3 };
    match (ecn, outer) {
        (0, CE) => drop(DropReason::TunnelDecapError),
        (ECT0 | ECT1, CE) => {
            set_ecn_ce(inner, ipv4);
            Ok(())
        }
        (ECT0, ECT1) => {
            set_ect1(inner, ipv4);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether two addresses are of one family.
pub(super) fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

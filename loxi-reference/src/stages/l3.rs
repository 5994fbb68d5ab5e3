//! Routing: from a destination to a way out; packets that we make ourselves.

use super::egress::{CopyTo, Macs, Underlay, Way, WayOut};
use super::ingress::Packet;
use super::s04_tunnel::same_family;
use super::{Run, Step, drop, entity, ip_of, step};
use crate::frame::{ETH, Icmp, IcmpError, L4, arp_packet, echo_reply, icmp_error, nd_solicit, tcp_reset};
use loxi_core::algo::{flow_hash, threshold_pick};
use loxi_core::ir::{
    EntityKey, FdbKey, Interface, InterfaceOn, NeighborKey, NextHop, NextHopAction, NextHopGroup, Port,
    PortKind, Route, RouteTarget, Tunnel, TunnelKind, Vrf,
};
use loxi_core::net::{MacAddr, NextHopName, PortName, VrfName};
use loxi_core::packet::{Fate, FlowTuple, NeighborEntry, NeighborState};
use loxi_core::reason::{DropReason, PuntReason};
use std::net::IpAddr;

/// Seconds for which an unanswered question for a neighbour is remembered.
const ASKED_S: u32 = 3;

/// Where a next hop on a link is.
pub(super) enum OnLink {
    At(PortName, Macs, u16),
    /// Its MAC is known and its bridge port isn't.
    Flood(Vec<CopyTo>, Macs, u16),
    /// Behind an L2 tunnel.
    Behind(Box<Tunnel>, Macs, u16),
}

impl Run<'_> {
    /// The way to a destination in a VRF. `None`: no route.
    pub(super) fn route(&mut self, vrf: &VrfName, tuple: &FlowTuple) -> Step<Option<Way>> {
        let Some(route) = self.longest_route(vrf, tuple.dst).cloned() else { return Ok(None) };
        let hop = self.next_hop(&route, tuple);
        let key = EntityKey::Route(route.key());
        step!(
            self,
            Forward,
            entity(key, &route.origin),
            ("{vrf} {}", tuple.dst),
            (
                "{}",
                hop.as_ref().map_or("no usable next hop".to_owned(), |hop| format!("next hop {}", hop.name))
            )
        );
        let Some(hop) = hop else { return Ok(None) };
        match &hop.action {
            NextHopAction::Blackhole => drop(DropReason::Blackhole),
            NextHopAction::Host => Err(Fate::Punted(PuntReason::NotOursRoute)),
            NextHopAction::Tunnel(name) => {
                let Some(tunnel) = self.config.get::<Tunnel>(name).cloned() else { return Ok(None) };
                let way = self.tunnel_way(tunnel, true)?;
                Ok(Some(way))
            }
            NextHopAction::Direct { interface, gateway } => {
                let Some(interface) = self.config.get::<Interface>(interface).cloned() else {
                    return Ok(None);
                };
                let on_link = self.on_link(&interface, gateway.unwrap_or(tuple.dst))?;
                self.direct_way(&interface, on_link).map(Some)
            }
        }
    }

    pub(super) fn direct_way(&mut self, interface: &Interface, on_link: OnLink) -> Step<Way> {
        let (out, macs, mtu) = match on_link {
            OnLink::At(port, macs, mtu) => (WayOut::Port(port), macs, mtu),
            OnLink::Flood(copies, macs, mtu) => (WayOut::Flood(copies), macs, mtu),
            OnLink::Behind(tunnel, macs, mtu) => {
                let way = self.tunnel_way(*tunnel, false)?;
                (way.out, macs, mtu.min(way.mtu))
            }
        };
        Ok(Way { out, macs: Some(macs), mtu, interface: Some(interface.name.clone()) })
    }

    fn next_hop(&self, route: &Route, tuple: &FlowTuple) -> Option<NextHop> {
        let name: &NextHopName = match &route.target {
            RouteTarget::NextHop(name) => name,
            RouteTarget::Group(name) => {
                let group = self.config.get::<NextHopGroup>(name)?;
                let weights: Vec<u32> = group.members.iter().map(|member| u32::from(member.weight)).collect();
                &group.members.get(threshold_pick(flow_hash(group.seed, tuple), &weights)?)?.next_hop
            }
        };
        self.config.get::<NextHop>(name).cloned()
    }

    /// The way through a tunnel; `routed` packets get the tunnel's inner MACs.
    pub(super) fn tunnel_way(&mut self, tunnel: Tunnel, routed: bool) -> Step<Way> {
        let underlay = self.underlay(&tunnel.underlay_vrf, tunnel.local, tunnel.remote)?;
        let (mac, port_mtu) =
            self.config.get::<Port>(&tunnel.port).map_or((MacAddr::ZERO, u16::MAX), |p| (p.mac, p.mtu.get()));
        let outer = self.outer_mtu(tunnel.remote, underlay.mtu);
        let mtu = outer.saturating_sub(overhead(&tunnel)).min(port_mtu);
        let macs = routed.then(|| Macs { dst: tunnel.inner_dst_mac.unwrap_or(MacAddr::ZERO), src: mac });
        Ok(Way { out: WayOut::Tunnel { tunnel: Box::new(tunnel), underlay }, macs, mtu, interface: None })
    }

    /// The link on which a packet between two outer addresses leaves.
    pub(super) fn underlay(&mut self, vrf: &VrfName, local: IpAddr, remote: IpAddr) -> Step<Underlay> {
        let tuple = FlowTuple {
            src: local,
            dst: remote,
            protocol: loxi_core::net::IpProtocol(0),
            src_port: 0,
            dst_port: 0,
        };
        match self.route(vrf, &tuple)? {
            Some(Way { out: WayOut::Port(port), macs: Some(macs), mtu, .. }) => {
                Ok(Underlay { port, macs, mtu })
            }
            // A tunnel inside a tunnel, or an endpoint whose port isn't known.
            Some(_) => drop(DropReason::NeighborUnresolved),
            None => drop(DropReason::NoRoute),
        }
    }

    /// Where a next hop on an interface's link is; asks for it if that isn't known.
    pub(super) fn on_link(&mut self, interface: &Interface, address: IpAddr) -> Step<OnLink> {
        let key = NeighborKey { interface: interface.name.clone(), address };
        let Some(mac) = self.neighbor_mac(&key) else {
            step!(self, Forward, None, ("neighbor {key}"), ("ask, and drop neighbor_unresolved"));
            self.ask(interface, key);
            return drop(DropReason::NeighborUnresolved);
        };
        self.refresh(interface, &key);
        let macs = Macs { dst: mac, src: interface.mac };
        let of = |port: &Port| interface.mtu.get().min(port.mtu.get());
        match &interface.on {
            InterfaceOn::Port(name) => {
                let mtu = self.config.get::<Port>(name).map_or(interface.mtu.get(), of);
                Ok(OnLink::At(name.clone(), macs, mtu))
            }
            InterfaceOn::Bridge { bridge, vlan } => {
                let fdb = FdbKey { bridge: bridge.clone(), vlan: *vlan, mac };
                let station = self.station(&fdb);
                step!(
                    self,
                    Forward,
                    station.as_ref().and_then(|station| self.fdb_entry(station, &fdb)),
                    ("{bridge} vlan {vlan} {mac}"),
                    ("{}", station.as_ref().map_or("unknown".to_owned(), |s| format!("port {}", s.port)))
                );
                match station {
                    Some(station) => {
                        match station.tunnel.and_then(|name| self.config.get::<Tunnel>(&name).cloned()) {
                            Some(tunnel) => Ok(OnLink::Behind(Box::new(tunnel), macs, interface.mtu.get())),
                            None => {
                                let mtu =
                                    self.config.get::<Port>(&station.port).map_or(interface.mtu.get(), of);
                                Ok(OnLink::At(station.port, macs, mtu))
                            }
                        }
                    }
                    None => {
                        let copies = self.flood_unknown(bridge, *vlan)?;
                        Ok(OnLink::Flood(copies, macs, interface.mtu.get()))
                    }
                }
            }
        }
    }

    /// Asks a link for a neighbour, at most once a second.
    fn ask(&mut self, interface: &Interface, key: NeighborKey) {
        let known = self.state.neighbor(&key);
        if known.as_ref().is_some_and(|entry| self.now < entry.asked.plus_s(1)) {
            return;
        }
        let Some(own) = interface.address(key.address.is_ipv4()) else { return };
        let state = known.as_ref().map_or(NeighborState::Incomplete, |entry| entry.state);
        let kept = known.map(|entry| entry.expires);
        let expires = kept.unwrap_or(self.now.plus_s(ASKED_S)).max(self.now.plus_s(ASKED_S));
        let entry = NeighborEntry { key: key.clone(), state, asked: self.now, expires };
        let expired = kept.is_some_and(|at| at <= self.now);
        let entry = if expired { NeighborEntry { state: NeighborState::Incomplete, ..entry } } else { entry };
        self.state.put_neighbor(entry);
        let frame = match (own, key.address) {
            (IpAddr::V4(own), IpAddr::V4(target)) => arp_packet((interface.mac, own), (None, target)),
            (IpAddr::V6(own), IpAddr::V6(target)) => nd_solicit(interface.mac, own, target),
            _ => return,
        };
        match &interface.on {
            InterfaceOn::Port(port) => self.send_frame(port, &frame, None, 0),
            InterfaceOn::Bridge { bridge, vlan } => {
                let members: Vec<PortName> =
                    self.members(bridge, *vlan).map(|port| port.name.clone()).collect();
                for port in members {
                    if self.is_open(&port) && self.is_device(&port) {
                        self.send_frame(&port, &frame, Some(*vlan), 0);
                    }
                }
            }
        }
    }

    /// Asks again for a learned neighbour that is in use and wasn't heard of for a while.
    fn refresh(&mut self, interface: &Interface, key: &NeighborKey) {
        /// Seconds for which an answer is believed without asking (RFC 4861's REACHABLE_TIME).
        const REACHABLE_S: u32 = 30;
        let old = self.state.neighbor(key).is_some_and(|entry| self.now >= entry.asked.plus_s(REACHABLE_S));
        if old && self.config.get::<loxi_core::ir::Neighbor>(key).is_none() {
            self.ask(interface, key.clone());
        }
    }

    pub(super) fn is_device(&self, port: &PortName) -> bool {
        self.config.get::<Port>(port).is_some_and(|port| port.kind != PortKind::Tunnel)
    }

    /// Sends an answer back where the packet came from: to its source's MAC,
    /// or for packets out of a tunnel along the route to its source.
    fn answer(&mut self, packet: &Packet, frame: Vec<u8>) -> Step {
        if packet.port.kind != PortKind::Tunnel {
            let vlan = packet.bridge.as_ref().map(|_| packet.vlan);
            self.send_frame(&packet.port.name.clone(), &frame, vlan, packet.priority);
            return Ok(());
        }
        let Some(vrf) = packet.vrf.clone() else { return Ok(()) };
        let ip = ip_of(&packet.view)?;
        let tuple = FlowTuple { dst: self.sender(packet)?, ..ip.tuple() };
        // An answer that finds no way is not sent; the packet's own fate stands.
        if let Ok(Some(way)) = self.route(&vrf, &tuple) {
            let mut reply = packet.clone();
            reply.view = match self.s00_parse(&frame) {
                Ok(view) => view,
                Err(_) => return Ok(()),
            };
            reply.frame = frame;
            let _ = self.s16_send(&reply, way, None);
        }
        Ok(())
    }

    /// The source of the packet as it came in.
    fn sender(&self, packet: &Packet) -> Step<IpAddr> {
        let ip = ip_of(&packet.view)?;
        Ok(packet.tuple.map_or(ip.src, |tuple| tuple.src))
    }

    /// MACs of an answer: from the interface or port that the frame was for.
    fn answer_macs(packet: &Packet) -> (MacAddr, MacAddr) {
        let own = packet.interface.as_ref().map_or(packet.port.mac, |interface| interface.mac);
        let src = if packet.view.dst.is_unicast() { packet.view.dst } else { own };
        (packet.view.src, src)
    }

    pub(super) fn answer_echo(&mut self, packet: &Packet) -> Step {
        let reply = echo_reply(&packet.frame, ip_of(&packet.view)?, Self::answer_macs(packet));
        if reply.is_empty() { Ok(()) } else { self.answer(packet, reply) }
    }

    pub(super) fn answer_reset(&mut self, packet: &Packet) -> Step {
        match tcp_reset(&packet.frame, ip_of(&packet.view)?, Self::answer_macs(packet)) {
            Some(reset) => self.answer(packet, reset),
            None => Ok(()),
        }
    }

    /// Sends an ICMP error about the packet as it came in, where one may be
    /// sent (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e).
    pub(super) fn answer_error(&mut self, packet: &Packet, error: IcmpError) -> Step {
        let ip = ip_of(&packet.view)?;
        let received = ip_of_received(packet);
        let (src, dst) = received.unwrap_or((ip.src, ip.dst));
        let about_error = matches!(ip.l4, L4::Icmp(Icmp::Error { .. }));
        let nobody = src.is_unspecified() || src.is_multicast();
        let group = dst.is_multicast() || packet.view.dst.is_group();
        if about_error || nobody || group || ip.is_later_fragment() {
            return Ok(());
        }
        let Some(own) = self.own_address(packet, src) else { return Ok(()) };
        if !self.tokens.take(&packet.port.name, self.now) {
            return Ok(());
        }
        // Rejections answer as the address that was asked.
        let from = if error == IcmpError::PortUnreachable { dst } else { own };
        let end = (ETH + ip.len).min(packet.received.len());
        let frame = icmp_error(error, Self::answer_macs(packet), from, src, &packet.received[ETH..end]);
        self.answer(packet, frame)
    }

    /// Source of ICMP errors: the ingress interface's address, else the VRF's
    /// `snat_address`, else any address of the VRF (RFC 1812 section 4.3.2.4).
    fn own_address(&self, packet: &Packet, to: IpAddr) -> Option<IpAddr> {
        let ipv4 = to.is_ipv4();
        let ingress = packet.interface.as_ref().and_then(|interface| interface.address(ipv4));
        let vrf = packet.vrf.as_ref();
        let of_vrf = || {
            let vrf = self.config.get::<Vrf>(vrf?)?;
            if ipv4 { vrf.snat_address_v4.map(IpAddr::from) } else { vrf.snat_address_v6.map(IpAddr::from) }
        };
        let any = || {
            let mut interfaces = self.config.interfaces().filter(|interface| Some(&interface.vrf) == vrf);
            interfaces.find_map(|interface| interface.address(ipv4))
        };
        ingress.or_else(of_vrf).or_else(any).filter(|own| same_family(*own, to))
    }
}

/// Source and destination as received, which a translation may have changed since.
fn ip_of_received(packet: &Packet) -> Option<(IpAddr, IpAddr)> {
    let bytes = packet.received.get(ETH..)?;
    if bytes.first()? >> 4 == 4 {
        let header = etherparse::Ipv4HeaderSlice::from_slice(bytes).ok()?;
        Some((header.source_addr().into(), header.destination_addr().into()))
    } else {
        let header = etherparse::Ipv6HeaderSlice::from_slice(bytes).ok()?;
        Some((header.source_addr().into(), header.destination_addr().into()))
    }
}

/// Bytes that an encapsulation adds to an inner L3 packet.
pub(super) fn overhead(tunnel: &Tunnel) -> u16 {
    let ip = if tunnel.remote.is_ipv4() { 20 } else { 40 };
    match tunnel.kind {
        // UDP, VXLAN, inner Ethernet.
        TunnelKind::Vxlan { .. } => ip + 8 + 8 + 14,
        TunnelKind::Ipip => ip,
    }
}

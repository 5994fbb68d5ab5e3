//! Stage 10: route what is for our MAC, bridge the rest.
//!
//! Link-local addresses are never routed; multicast and broadcast stay on
//! their bridge. A packet for an interface's own address is answered (echo)
//! or left to the local stack. A flow's replies to our MAC leave by the port
//! of its first packet, whatever the route says.

use super::egress::{Macs, Way, WayOut};
use super::ingress::{Packet, Tracking};
use super::{Run, Step, drop, entity, ip_of, learned, step};
use crate::frame::{Icmp, IcmpError, L3, L4};
use loxi_core::ir::{
    BridgePort, EntityKey, Interface, LocalDelivery, Port, PortKind, Tunnel, Unclaimed, VlanMode, Vrf,
};
use loxi_core::net::VrfName;
use loxi_core::packet::{Fate, FlowDirection, FlowTuple, Translation};
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use std::net::IpAddr;

impl Run<'_> {
    pub(super) fn s10_forward(&mut self, packet: &mut Packet) -> Step<Way> {
        self.learn(packet);
        self.neighbor_protocols(packet)?;
        let way = self.s10_way(packet)?;
        step!(self, Forward, None, ("{}", packet.summary()), ("{way}"));
        Ok(way)
    }

    fn s10_way(&mut self, packet: &mut Packet) -> Step<Way> {
        if !packet.to_us {
            if packet.bridge.is_some() {
                return self.bridge_way(packet);
            }
            // A routed port knows no other stations.
            let reason =
                if Self::is_foreign(packet) { DropReason::UnsupportedL2 } else { DropReason::WrongMac };
            return self.unclaimed(packet, reason);
        }
        if !matches!(packet.view.l3, L3::Ip(_)) {
            return self.unclaimed(packet, DropReason::NoL3).and_then(|()| drop(DropReason::NoL3));
        }
        let Some(vrf) = packet.vrf.clone() else { return drop(DropReason::NoRoute) };
        self.s10_local(packet, &vrf)?;
        let ip = ip_of(&packet.view)?;
        if ip.is_group() {
            return self.unclaimed(packet, DropReason::NoRoute);
        }
        if link_local(ip.dst) || link_local(ip.src) {
            return drop(DropReason::LinkLocalRouted);
        }
        if let Some(way) = self.s10_way_back(packet)? {
            return Ok(way);
        }
        if let Some(way) = self.s10_dsr(packet, &vrf)? {
            return Ok(way);
        }
        let tuple = before_snat(ip_of(&packet.view)?.tuple(), packet);
        // ECMP keeps a fragmented packet together: later fragments have no ports, so none counts.
        let tuple = match ip_of(&packet.view)?.fragment {
            Some(_) => FlowTuple { src_port: 0, dst_port: 0, ..tuple },
            None => tuple,
        };
        match self.route(&vrf, &tuple)? {
            Some(way) => Ok(way),
            None => self.s10_no_route(packet),
        }
    }

    fn s10_no_route(&mut self, packet: &Packet) -> Step<Way> {
        if packet.port.unclaimed() == Unclaimed::Punt {
            return self.unclaimed(packet, DropReason::NoRoute);
        }
        step!(self, Forward, None, ("{}", packet.summary()), ("drop no_route"));
        self.answer_error(packet, IcmpError::NoRoute)?;
        drop(DropReason::NoRoute)
    }

    /// Packets for an address of our own.
    fn s10_local(&mut self, packet: &Packet, vrf: &VrfName) -> Step {
        let ip = ip_of(&packet.view)?;
        let Some(interface) = self.interface_with(vrf, ip.dst).cloned() else { return Ok(()) };
        let key = EntityKey::Interface(interface.name.clone());
        step!(
            self,
            Forward,
            entity(key, &interface.origin),
            ("local address {}", ip.dst),
            ("{}", local(interface.local))
        );
        if interface.local == LocalDelivery::Punt {
            return Err(Fate::Punted(PuntReason::NotOursLocal));
        }
        match ip.l4 {
            L4::Icmp(Icmp::Query { request: true, echo: true, .. }) if ip.fragment.is_none() => {
                self.answer_echo(packet)?;
                Err(Fate::Consumed(ConsumedReason::EchoReply))
            }
            _ => {
                self.reject(packet)?;
                drop(DropReason::NoService)
            }
        }
    }

    /// A reply leaves where its flow's first packet came in.
    fn s10_way_back(&mut self, packet: &Packet) -> Step<Option<Way>> {
        let Some((flow, FlowDirection::Reply)) = self.flow_of(packet) else { return Ok(None) };
        let Some(port) = self.config.get::<Port>(&flow.ingress.port).cloned() else { return Ok(None) };
        if port.bridge().is_some_and(|member| matches!(member.vlan, VlanMode::Trunk { .. })) {
            // Of several VLANs the flow doesn't tell which.
            return Ok(None);
        }
        step!(
            self,
            Forward,
            learned(format!("flow {}", flow.id.tuple)),
            ("reply"),
            ("back by port {}", port.name)
        );
        if port.kind == PortKind::Tunnel {
            let tunnel =
                flow.ingress.tunnel.as_ref().and_then(|name| self.config.get::<Tunnel>(name).cloned());
            // Without a tunnel back to its source the route decides.
            return match tunnel {
                Some(tunnel) => self.tunnel_way(tunnel, true).map(Some),
                None => Ok(None),
            };
        }
        let interface = self.interface_of(&port);
        let src = interface.as_ref().map_or(port.mac, |interface| interface.mac);
        let mtu = interface.as_ref().map_or(u16::MAX, |interface| interface.mtu.get()).min(port.mtu.get());
        Ok(Some(Way {
            out: WayOut::Port(port.name),
            macs: Some(Macs { dst: flow.ingress.mac, src }),
            mtu,
            interface: interface.map(|interface| interface.name),
        }))
    }

    /// The first interface on the link of a port with one VLAN, or none.
    fn interface_of(&self, port: &Port) -> Option<Interface> {
        match port.bridge() {
            Some(BridgePort { bridge, vlan: VlanMode::Access(vlan), .. }) => {
                self.interfaces_on_bridge(bridge, *vlan).next().cloned()
            }
            Some(_) => None,
            None => self.interfaces_on_port(&port.name).next().cloned(),
        }
    }

    /// The way to a service's endpoint that answers its client directly.
    fn s10_dsr(&mut self, packet: &Packet, vrf: &VrfName) -> Step<Option<Way>> {
        let (translation, target) = match &packet.tracking {
            Tracking::New(tentative) => (tentative.translation, tentative.dsr_target),
            _ => match self.flow_of(packet) {
                Some((flow, FlowDirection::Original)) => (flow.translation, flow.dsr_target),
                _ => return Ok(None),
            },
        };
        let Some(target) = target else { return Ok(None) };
        let tuple = loxi_core::packet::FlowTuple { dst: target, ..ip_of(&packet.view)?.tuple() };
        if translation == Translation::DsrL2 {
            return match self.route(vrf, &tuple)? {
                Some(way) => Ok(Some(way)),
                None => drop(DropReason::NoRoute),
            };
        }
        let config = self.config.get::<Vrf>(vrf);
        let src = if target.is_ipv4() {
            config.and_then(|vrf| vrf.snat_address_v4).map(IpAddr::from)
        } else {
            config.and_then(|vrf| vrf.snat_address_v6).map(IpAddr::from)
        };
        let Some(src) = src else { return drop(DropReason::Unsupported) };
        let underlay = self.underlay(vrf, src, target)?;
        let header = if target.is_ipv4() { 20 } else { 40 };
        let mtu = self.outer_mtu(target, underlay.mtu).saturating_sub(header);
        // Routed: the TTL goes down once; the inner packet has no link layer to be rewritten.
        let macs = Some(underlay.macs);
        Ok(Some(Way { out: WayOut::Ipip { src, dst: target, underlay }, macs, mtu, interface: None }))
    }
}

/// The tuple by which a way is chosen: the destination as translated, the source as it came. That of a
/// flow's first packet isn't translated yet either, so that all of its packets take one way.
fn before_snat(tuple: FlowTuple, packet: &Packet) -> FlowTuple {
    let Some(own) = packet.tuple else { return tuple };
    // Both ports of an ICMP query are its identifier, which the source's translation changes.
    let dst_port = if own.protocol.has_ports() { tuple.dst_port } else { own.dst_port };
    FlowTuple { src: own.src, src_port: own.src_port, dst_port, ..tuple }
}

fn link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Who answers, in words.
pub(super) fn local(delivery: LocalDelivery) -> &'static str {
    match delivery {
        LocalDelivery::Answer => "ours to answer",
        LocalDelivery::Punt => "the local stack answers",
    }
}

//! ARP (RFC 826) and Neighbor Discovery (RFC 4861), inside stage 10.
//!
//! For an interface's address: answered on the ingress port, or left to the
//! local stack that has the address too. Answers to our own questions teach
//! us a neighbour, as does a question for us. On a bridge with
//! `proxy_neighbors`, questions for a static neighbour are answered on its
//! behalf, unless the asker is that neighbour. Router solicitations of pods
//! are dropped: their gateway is static.

use super::ingress::Packet;
use super::{Run, Step, drop, entity, step};
use crate::frame::{Icmp, L3, L4, arp_packet, nd_advert};
use loxi_core::ir::{Bridge, EntityKey, Interface, LocalDelivery, Neighbor, NeighborKey};
use loxi_core::net::MacAddr;
use loxi_core::packet::{Fate, NeighborEntry, NeighborState};
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use std::net::{IpAddr, Ipv6Addr};

/// Seconds for which a learned neighbour is kept without being heard of (RFC 1122 section 2.3.2.1
/// names a minute as the order of magnitude).
const NEIGHBOR_S: u32 = 120;

impl Run<'_> {
    /// Handles what a link's stations say about their addresses. Passes what is not for us.
    pub(super) fn neighbor_protocols(&mut self, packet: &Packet) -> Step {
        match &packet.view.l3 {
            L3::Arp(arp) => {
                let (target, sender) = (arp.target_ip.into(), arp.sender_ip.into());
                self.heard(packet, target, sender, arp.sender_mac, !arp.request)?;
                if arp.request { self.asked(packet, target, sender) } else { Ok(()) }
            }
            L3::Ip(ip) => match &ip.l4 {
                L4::Icmp(Icmp::Nd { kind: 133, .. }) if Self::is_pod(packet) => {
                    drop(DropReason::RouterSolicitation)
                }
                L4::Icmp(Icmp::Nd { kind: 135, target: Some(target) }) => {
                    let target = IpAddr::from(*target);
                    let (src, mac) = (ip.src, packet.view.src);
                    if !src.is_unspecified() {
                        self.heard(packet, target, src, mac, false)?;
                    }
                    self.asked(packet, target, src)
                }
                L4::Icmp(Icmp::Nd { kind: 136, target: Some(target) }) => {
                    let (dst, target) = (ip.dst, IpAddr::from(*target));
                    let mac = target_mac(packet, ip.l4_at).unwrap_or(packet.view.src);
                    self.heard(packet, dst, target, mac, true)
                }
                _ => Ok(()),
            },
            L3::Other(_) => Ok(()),
        }
    }

    /// Interfaces on the link that a packet came by.
    fn link_interfaces(&self, packet: &Packet) -> Vec<Interface> {
        match &packet.bridge {
            Some(bridge) => self.interfaces_on_bridge(bridge, packet.vlan).cloned().collect(),
            None => self.interfaces_on_port(&packet.port.name).cloned().collect(),
        }
    }

    /// A station has told its address, to one of ours.
    fn heard(
        &mut self,
        packet: &Packet,
        ours: IpAddr,
        sender: IpAddr,
        mac: MacAddr,
        is_answer: bool,
    ) -> Step {
        let interfaces = self.link_interfaces(packet);
        let Some(interface) = interfaces.iter().find(|interface| interface.addresses.contains(&ours)) else {
            return Ok(());
        };
        let key = NeighborKey { interface: interface.name.clone(), address: sender };
        let configured = self.config.get::<Neighbor>(&key).is_some();
        let usable = mac.is_unicast() && !sender.is_unspecified() && sender != ours;
        // An answer that nobody asked for teaches nothing (RFC 4861 section 7.2.5).
        let asked = self.state.neighbor(&key).is_some();
        if usable && !configured && (asked || !is_answer) {
            let entry = NeighborEntry {
                key: key.clone(),
                state: NeighborState::Reachable(mac),
                asked: self.now,
                expires: self.now.plus_s(NEIGHBOR_S),
            };
            self.state.put_neighbor(entry);
            step!(
                self,
                Forward,
                entity(EntityKey::Interface(interface.name.clone()), &interface.origin),
                ("{sender} is at {mac}"),
                ("learned neighbor {key}")
            );
        }
        if is_answer {
            return Err(match interface.local {
                LocalDelivery::Punt => Fate::Punted(PuntReason::NotOursLocal),
                LocalDelivery::Answer => Fate::Consumed(ConsumedReason::NeighborLearned),
            });
        }
        Ok(())
    }

    /// A station asks who has an address.
    fn asked(&mut self, packet: &Packet, target: IpAddr, asker: IpAddr) -> Step {
        let interfaces = self.link_interfaces(packet);
        if let Some(interface) = interfaces.iter().find(|interface| interface.addresses.contains(&target)) {
            let key = EntityKey::Interface(interface.name.clone());
            step!(
                self,
                Forward,
                entity(key, &interface.origin),
                ("who has {target}"),
                ("{}", super::s10_forward::local(interface.local))
            );
            if interface.local == LocalDelivery::Punt {
                return Err(Fate::Punted(PuntReason::NotOursLocal));
            }
            return self.tell(packet, target, asker, interface.mac, true);
        }
        let proxies = packet
            .bridge
            .as_ref()
            .and_then(|name| self.config.get::<Bridge>(name))
            .is_some_and(|bridge| bridge.proxy_neighbors);
        if !proxies {
            return Ok(());
        }
        for interface in interfaces {
            let key = NeighborKey { interface: interface.name, address: target };
            let Some(neighbor) = self.config.get::<Neighbor>(&key).cloned() else { continue };
            // Its own station asks whether anybody else has the address.
            if neighbor.mac == packet.view.src {
                return Ok(());
            }
            step!(
                self,
                Forward,
                entity(EntityKey::Neighbor(key), &neighbor.origin),
                ("who has {target}"),
                ("{} has it", neighbor.mac)
            );
            return self.tell(packet, target, asker, neighbor.mac, false);
        }
        Ok(())
    }

    fn tell(&mut self, packet: &Packet, target: IpAddr, asker: IpAddr, mac: MacAddr, own: bool) -> Step {
        let vlan = packet.bridge.as_ref().map(|_| packet.vlan);
        let (frame, reason) = match (target, asker) {
            (IpAddr::V4(target), IpAddr::V4(asker)) => {
                (arp_packet((mac, target), (Some(packet.view.src), asker)), ConsumedReason::ArpReply)
            }
            (IpAddr::V6(target), IpAddr::V6(asker)) => {
                let macs = (packet.view.src, mac);
                let src: Ipv6Addr = target;
                (nd_advert(macs, (src, asker), mac, target, (own, own)), ConsumedReason::NdAdvert)
            }
            // One protocol has one family.
            _ => return Ok(()),
        };
        self.send_frame(&packet.port.name.clone(), &frame, vlan, packet.priority);
        Err(Fate::Consumed(reason))
    }
}

/// The target link-layer address option of an advertisement.
fn target_mac(packet: &Packet, l4_at: usize) -> Option<MacAddr> {
    let mut options = packet.frame.get(l4_at + 24..)?;
    while let [kind, length, ..] = options {
        let length = usize::from(*length) * 8;
        if length == 0 || length > options.len() {
            return None;
        }
        if *kind == 2 {
            let mut octets = [0; 6];
            octets.copy_from_slice(&options[2..8]);
            return Some(MacAddr::new(octets));
        }
        options = &options[length..];
    }
    None
}

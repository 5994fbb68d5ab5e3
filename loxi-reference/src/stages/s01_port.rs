//! Stage 1: the port's state, its VLANs, and what the packet enters.
//!
//! A frame is for our MAC if an L3 interface on its bridge and VLAN, or on its
//! port, has the MAC, or if the port is attached to a VRF and the MAC is its
//! own. The zone is an attribute of what the port is attached to.

use super::ingress::{Packet, Tracking};
use super::{Run, Step, drop, entity, step};
use crate::frame::L3;
use loxi_core::ir::{Admin, Attachment, Bridge, EntityKey, Interface, Port, PortKind, VlanMode, Vrf};
use loxi_core::net::{PortName, TunnelName, VlanId};
use loxi_core::packet::Fate;
use loxi_core::reason::DropReason;

impl Run<'_> {
    /// Stages 0 and 1: makes a packet of a frame that comes in at a port, or
    /// out of a tunnel by which one can go back.
    pub(super) fn enter(
        &mut self,
        name: &PortName,
        frame: &[u8],
        back: Option<Option<TunnelName>>,
    ) -> Step<Packet> {
        let Some(port) = self.config.get::<Port>(name).cloned() else {
            step!(self, Port, None, ("{name}"), ("drop port_unknown"));
            return drop(DropReason::PortUnknown);
        };
        if back.is_some() {
            self.tunnels.push(name.clone());
        }
        let untagged = self.s00_untag(frame)?;
        let view = self.s00_parse(&untagged.frame)?;
        if port.admin == Admin::Down {
            step!(
                self,
                Port,
                entity(EntityKey::Port(name.clone()), &port.origin),
                ("{name}"),
                ("drop port_down")
            );
            return drop(DropReason::PortDown);
        }
        let mut packet = Packet {
            received: untagged.frame.clone(),
            frame: untagged.frame,
            view,
            bridge: None,
            vlan: VlanId::default(),
            priority: untagged.priority,
            tunnel: back.flatten(),
            interface: None,
            to_us: false,
            vrf: None,
            zone: None,
            tracking: Tracking::Untracked,
            tuple: None,
            port,
        };
        self.s01_attach(&mut packet, untagged.vid)?;
        step!(
            self,
            Port,
            entity(EntityKey::Port(name.clone()), &packet.port.origin),
            ("{name} {}", packet.summary()),
            (
                "{}{}{}",
                if packet.to_us { "for our MAC" } else { "for another station" },
                packet.vrf.as_ref().map_or(String::new(), |vrf| format!(", vrf {vrf}")),
                packet.zone.as_ref().map_or(String::new(), |zone| format!(", zone {zone}")),
            )
        );
        Ok(packet)
    }

    fn s01_attach(&mut self, packet: &mut Packet, vid: Option<VlanId>) -> Step {
        let dst = packet.view.dst;
        match &packet.port.attachment {
            Attachment::Detached => self.unclaimed(packet, DropReason::Unclaimed),
            Attachment::Vrf(name) => {
                // A routed port carries no VLANs.
                if vid.is_some() {
                    return self.unclaimed(packet, DropReason::VlanFiltered);
                }
                let interfaces: Vec<&Interface> = self.interfaces_on_port(&packet.port.name).collect();
                packet.interface = interfaces
                    .iter()
                    .find(|interface| interface.mac == dst)
                    .or(interfaces.first())
                    .map(|interface| (*interface).clone());
                packet.to_us =
                    dst == packet.port.mac || packet.interface.as_ref().is_some_and(|i| i.mac == dst);
                packet.zone = self.config.get::<Vrf>(name).and_then(|vrf| vrf.zone.clone());
                packet.vrf = Some(name.clone());
                Ok(())
            }
            Attachment::Bridge(member) => {
                let bridge = member.bridge.clone();
                packet.vlan = match (&member.vlan, vid) {
                    (VlanMode::Access(own), None) => *own,
                    (VlanMode::Trunk { native: Some(native), .. }, None) => *native,
                    (VlanMode::Trunk { allowed, .. }, Some(vid)) if allowed.contains(&vid) => vid,
                    _ => return drop(DropReason::VlanFiltered),
                };
                packet.zone = self.config.get::<Bridge>(&bridge).and_then(|bridge| bridge.zone.clone());
                let admitting =
                    self.interfaces_on_bridge(&bridge, packet.vlan).find(|interface| interface.mac == dst);
                packet.to_us = admitting.is_some();
                packet.interface =
                    admitting.or_else(|| self.interfaces_on_bridge(&bridge, packet.vlan).next()).cloned();
                packet.vrf = packet.interface.as_ref().map(|interface| interface.vrf.clone());
                packet.bridge = Some(bridge);
                Ok(())
            }
        }
    }

    /// The fate of what no entity claims, as the port has it; `otherwise` where it drops.
    pub(super) fn unclaimed<T>(&mut self, packet: &Packet, otherwise: DropReason) -> Step<T> {
        let fate = match packet.port.unclaimed() {
            loxi_core::ir::Unclaimed::Punt => Fate::Punted(loxi_core::reason::PuntReason::NotOursUnclaimed),
            loxi_core::ir::Unclaimed::Drop => Fate::Dropped(otherwise),
        };
        let key = EntityKey::Port(packet.port.name.clone());
        step!(self, Forward, entity(key, &packet.port.origin), ("{}", packet.summary()), ("{fate}"));
        Err(fate)
    }

    /// Whether a frame is one of our own side of an access network.
    pub(super) fn is_pod(packet: &Packet) -> bool {
        packet.port.kind == PortKind::Pod
    }

    /// Whether the frame is neither IP nor ARP.
    pub(super) fn is_foreign(packet: &Packet) -> bool {
        matches!(packet.view.l3, L3::Other(_))
    }
}

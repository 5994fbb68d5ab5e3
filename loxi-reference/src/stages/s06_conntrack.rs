//! Stage 6: the flow that a packet belongs to.
//!
//! By zone; without one the packet is untracked. A hit moves the flow's state
//! on, applies the stored translation and, while the policy generations are
//! current, skips stages 7, 8, 12 and the policies. Forwarding is decided anew
//! for every packet, which is what a cache with a forwarding generation must
//! come to. A UDP hit on a past slot generation is a miss.

use super::ingress::{Packet, Tentative, Tracking};
use super::s06_states::{next, opening, reopens, timeout};
use super::{Run, Step, drop, entity, ip_of, learned, step};
use crate::frame::{Icmp, L4};
use loxi_core::ir::{CtZone, EntityKey, LocalDelivery, VipMode};
use loxi_core::net::{IpProtocol, ZoneName};
use loxi_core::packet::{Fate, Flow, FlowDirection, FlowId, FlowTuple, Translation};
use loxi_core::reason::{DropReason, PuntReason};

/// The tuple that a flow's packets have when they leave.
pub(super) fn translated(flow: &Flow, direction: FlowDirection) -> FlowTuple {
    match direction {
        FlowDirection::Original if flow.translation == Translation::Nat => flow.reply.reversed(),
        FlowDirection::Original => flow.id.tuple,
        FlowDirection::Reply => flow.id.tuple.reversed(),
    }
}

impl Run<'_> {
    pub(super) fn s06_conntrack(&mut self, packet: &mut Packet) -> Step {
        let Some(zone) = packet.zone.clone() else { return Ok(()) };
        let Some(config) = self.config.get::<CtZone>(&zone).cloned() else { return Ok(()) };
        let ip = ip_of(&packet.view)?;
        // Link protocols and groups have no connections.
        if ip.is_link_protocol() || ip.is_group() {
            return Ok(());
        }
        match &ip.l4 {
            L4::Icmp(Icmp::Error { .. }) => return self.s06_related(packet, &zone),
            L4::Icmp(Icmp::Other) => {
                return self.s06_stranger(packet, DropReason::CtInvalid);
            }
            _ => {}
        }
        // A later fragment has its first one's tuple already.
        let tuple = packet.tuple.unwrap_or_else(|| ip.tuple());
        packet.tuple = Some(tuple);
        let found = self.state.lookup(&zone, &tuple, self.now);
        match found {
            Some((direction, flow)) if !self.is_over(&flow, packet)? => {
                self.established(packet, &config, flow, direction)
            }
            Some((_, flow)) => {
                self.state.remove(&flow.id);
                self.opens(packet, &config, tuple)
            }
            None => self.opens(packet, &config, tuple),
        }
    }

    /// Whether a flow that was found is to be replaced by a new one.
    fn is_over(&self, flow: &Flow, packet: &Packet) -> Step<bool> {
        let stale = flow.id.tuple.protocol == IpProtocol::UDP
            && flow.backend.as_ref().is_some_and(|(name, generation)| self.state.slot(name) != *generation);
        Ok(stale || reopens(flow.state, &ip_of(&packet.view)?.l4))
    }

    fn opens(&mut self, packet: &mut Packet, zone: &CtZone, tuple: FlowTuple) -> Step {
        let ip = ip_of(&packet.view)?;
        if opening(&ip.l4, zone).is_none() {
            return self.s06_stranger(packet, DropReason::CtInvalid);
        }
        step!(self, Conntrack, None, ("zone {} {tuple}", zone.name), ("new"));
        packet.tracking = Tracking::New(Box::new(Tentative {
            original: tuple,
            translated: tuple,
            translation: Translation::Nat,
            service: None,
            backend: None,
            dsr_target: None,
            full_nat: false,
            affinity_s: None,
            hairpin: false,
        }));
        Ok(())
    }

    /// What fits no flow and may open none. To an address that the host has too it may be of a connection of
    /// the host's own, which is left alone: nobody here has seen it begin.
    pub(super) fn s06_stranger(&mut self, packet: &Packet, reason: DropReason) -> Step {
        let tuple = packet.tuple.map_or_else(|| ip_of(&packet.view).map(|ip| ip.tuple()), Ok)?;
        let text = packet.summary();
        if let Some(vrf) = packet.vrf.as_ref().filter(|_| packet.to_us) {
            let service = self.service(packet, &tuple);
            match self.deciding_vip(packet, vrf, tuple.dst, service.is_some()) {
                Some(vip) if vip.mode == VipMode::Shared && service.is_none() => {
                    let entry = entity(EntityKey::Vip(vip.key()), &vip.origin);
                    step!(self, Conntrack, entry, ("{text}"), ("no flow: punt not_ours_shared"));
                    return Err(Fate::Punted(PuntReason::NotOursShared));
                }
                None => {
                    let own = self.interface_with(vrf, tuple.dst);
                    if let Some(own) = own.filter(|own| own.local == LocalDelivery::Punt) {
                        let entry = entity(EntityKey::Interface(own.name.clone()), &own.origin);
                        step!(self, Conntrack, entry, ("{text}"), ("no flow: untracked, the host's address"));
                        return Ok(());
                    }
                }
                Some(_) => {}
            }
        }
        step!(self, Conntrack, None, ("{text}"), ("drop {reason}: no flow, and it may open none"));
        drop(reason)
    }

    fn established(
        &mut self,
        packet: &mut Packet,
        zone: &CtZone,
        flow: Flow,
        direction: FlowDirection,
    ) -> Step {
        let id = flow.id.clone();
        self.revalidate(&flow)?;
        let ip = ip_of(&packet.view)?;
        let state = next(flow.state, direction, &ip.l4, flow.translation != Translation::Nat);
        let expires = self.now.plus_s(timeout(state, id.tuple.protocol, zone));
        let (index, bytes) = (usize::from(direction == FlowDirection::Reply), ip.len as u64);
        self.state.update(&id, &mut |flow| {
            flow.state = state;
            flow.expires = expires;
            flow.packets[index] += 1;
            flow.bytes[index] += bytes;
        });
        let new = translated(&flow, direction);
        step!(
            self,
            Conntrack,
            learned(format!("flow {}", id.tuple)),
            ("zone {} {}", zone.name, packet.summary()),
            ("{direction}, {state}, becomes {new}")
        );
        packet.tracking = Tracking::Established(id, direction);
        packet.translate(&new)
    }

    /// The zone and flow of an established or related packet.
    pub(super) fn flow_of(&self, packet: &Packet) -> Option<(Flow, FlowDirection)> {
        let (id, direction): (&FlowId, _) = match &packet.tracking {
            Tracking::Established(id, direction) | Tracking::Related(id, direction) => (id, *direction),
            Tracking::New(_) | Tracking::Untracked => return None,
        };
        Some((self.state.get(id)?, direction))
    }

    pub(super) fn zone_of(&self, zone: &ZoneName) -> Option<CtZone> {
        self.config.get::<CtZone>(zone).cloned()
    }
}

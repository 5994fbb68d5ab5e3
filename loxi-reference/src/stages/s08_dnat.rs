//! Stage 8: destination NAT by rules: DNAT, and the way in of static 1:1.
//!
//! For new flows of frames to our MAC that no service claimed; by ascending
//! priority, the first match decides.

use super::ingress::Packet;
use super::{Run, Step, entity, step};
use loxi_core::ir::{EntityKey, NatAction, NatMatch};
use loxi_core::net::InterfaceName;
use loxi_core::packet::FlowTuple;

/// Whether a rule is about packets of this tuple that leave by this interface.
pub(super) fn matches(rule: &NatMatch, tuple: &FlowTuple, egress: Option<&InterfaceName>) -> bool {
    let within = |set: &std::collections::BTreeSet<loxi_core::net::IpPrefix>, addr| {
        set.is_empty() || set.iter().any(|prefix| prefix.contains(addr))
    };
    within(&rule.src, tuple.src)
        && within(&rule.dst, tuple.dst)
        && rule.protocol.is_none_or(|protocol| protocol == tuple.protocol)
        && rule.dst_ports.is_none_or(|ports| ports.contains(tuple.dst_port))
        && rule.egress.as_ref().is_none_or(|interface| Some(interface) == egress)
}

impl Run<'_> {
    pub(super) fn s08_dnat(&mut self, packet: &mut Packet) -> Step {
        let Some(vrf) = packet.vrf.clone().filter(|_| packet.to_us) else { return Ok(()) };
        let Some(tentative) = packet.tentative() else { return Ok(()) };
        if tentative.service.is_some() {
            return Ok(());
        }
        let tuple = tentative.original;
        for rule in self.config.clone().nat_rules().filter(|rule| rule.vrf == vrf) {
            let translated = match &rule.action {
                NatAction::Dnat { address, port } if matches(&rule.matches, &tuple, None) => FlowTuple {
                    dst: *address,
                    dst_port: if *port == 0 { tuple.dst_port } else { *port },
                    ..tuple
                },
                NatAction::OneToOne { internal, external } if matches(&rule.matches, &tuple, None) => {
                    match external.map(tuple.dst, internal) {
                        Some(dst) => FlowTuple { dst, ..tuple },
                        None => continue,
                    }
                }
                _ => continue,
            };
            step!(
                self,
                Dnat,
                entity(EntityKey::NatRule(rule.key()), &rule.origin),
                ("{tuple}"),
                ("becomes {translated}")
            );
            if let Some(tentative) = packet.tentative() {
                tentative.translated = translated;
            }
            return packet.translate(&translated);
        }
        Ok(())
    }
}

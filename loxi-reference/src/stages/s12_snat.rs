//! Stage 12: the source of a new flow.
//!
//! In order: a hairpin (out by the port that it came in by, after a
//! destination translation) gets the address of the interface on that link;
//! full NAT the VRF's `snat_address`; then the VRF's rules by ascending
//! priority, of which the first match decides. The port is kept where the
//! reply's tuple is unique, else one is chosen.

use super::egress::Way;
use super::ingress::{Packet, Tentative};
use super::s08_dnat::matches;
use super::{Run, Step, drop, entity, learned, step};
use loxi_core::algo::address_hash;
use loxi_core::ir::{EntityKey, Interface, NatAction, NatRule, Vrf};
use loxi_core::net::{IpProtocol, L4Ports, VrfName, ZoneName};
use loxi_core::packet::{ChoicePoint, FlowTuple, TraceEntry};
use loxi_core::reason::DropReason;
use std::net::IpAddr;

/// Ports for translations that name none: the range cannot be refused.
fn unprivileged() -> L4Ports {
    L4Ports::new(1024, u16::MAX).unwrap_or(L4Ports::ANY)
}

/// What becomes of a source.
struct Source {
    address: IpAddr,
    ports: L4Ports,
    entry: Option<TraceEntry>,
    hairpin: bool,
    /// Whether the port must stay (static 1:1).
    fixed: bool,
}

impl Run<'_> {
    pub(super) fn s12_snat(&mut self, packet: &mut Packet, way: &Way) -> Step {
        let Some(zone) = packet.zone.clone() else { return Ok(()) };
        let Some(tentative) = packet.tentative().cloned() else { return Ok(()) };
        let source = self.source(packet, &tentative, way)?;
        let translated = match &source {
            Some(source) => {
                let wanted = FlowTuple { src: source.address, ..tentative.translated };
                let fixed = source.fixed;
                let (ports, hairpin) = (source.ports, source.hairpin);
                self.unique(&zone, &tentative, wanted, ports, hairpin, fixed)?
            }
            // Two flows may come to the same tuple by their destinations' translation alone.
            None => self.unique(&zone, &tentative, tentative.translated, unprivileged(), false, false)?,
        };
        if translated == tentative.translated {
            return Ok(());
        }
        let entry =
            source.as_ref().and_then(|source| source.entry.clone()).or_else(|| learned("tuple was taken"));
        step!(self, Snat, entry, ("{}", tentative.translated), ("becomes {translated}"));
        if let Some(tentative) = packet.tentative() {
            tentative.translated = translated;
            tentative.hairpin = source.is_some_and(|source| source.hairpin);
        }
        packet.translate(&translated)
    }

    fn source(&mut self, packet: &Packet, tentative: &Tentative, way: &Way) -> Step<Option<Source>> {
        let Some(vrf) = packet.vrf.as_ref().filter(|_| way.is_routed()) else { return Ok(None) };
        let tuple = tentative.translated;
        let ipv4 = tuple.src.is_ipv4();
        let moved = tentative.original != tuple;
        if moved && way.port() == Some(&packet.port.name) {
            let own = packet.interface.as_ref().and_then(|interface| interface.address(ipv4));
            let own = own.or_else(|| self.snat_address(vrf, ipv4));
            let Some(address) = own else { return Ok(None) };
            let entry = learned("hairpin");
            let ports = unprivileged();
            return Ok(Some(Source { address, ports, entry, hairpin: true, fixed: false }));
        }
        if tentative.full_nat {
            let Some(address) = self.snat_address(vrf, ipv4) else { return drop(DropReason::Unsupported) };
            let origin = self.config.get::<Vrf>(vrf).map(|vrf| vrf.origin.clone()).unwrap_or_default();
            let entry = entity(EntityKey::Vrf(vrf.clone()), &origin);
            let ports = unprivileged();
            return Ok(Some(Source { address, ports, entry, hairpin: false, fixed: false }));
        }
        let config = self.config.clone();
        for rule in config.nat_rules().filter(|rule| rule.vrf == *vrf) {
            if !matches(&rule.matches, &tuple, way.interface.as_ref()) {
                continue;
            }
            if let Some(decision) = self.by_rule(rule, &tuple, way) {
                return Ok(decision);
            }
        }
        Ok(None)
    }

    /// What a matching rule does; the outer `None` lets the search go on.
    fn by_rule(&self, rule: &NatRule, tuple: &FlowTuple, way: &Way) -> Option<Option<Source>> {
        let entry = entity(EntityKey::NatRule(rule.key()), &rule.origin);
        let of = |address: IpAddr, ports: L4Ports, fixed: bool| Source {
            address,
            ports,
            entry: entry.clone(),
            hairpin: false,
            fixed,
        };
        match &rule.action {
            NatAction::NoNat => Some(None),
            NatAction::Dnat { .. } => None,
            NatAction::Snat { pool, ports } => {
                let family: Vec<&IpAddr> =
                    pool.iter().filter(|a| a.is_ipv4() == tuple.src.is_ipv4()).collect();
                let count = u32::try_from(family.len()).ok().filter(|count| *count > 0)?;
                let index = address_hash(0, tuple.src) % count;
                Some(Some(of(**family.get(index as usize)?, *ports, false)))
            }
            NatAction::Masquerade { ports } => {
                let interface = self.config.get::<Interface>(way.interface.as_ref()?)?;
                Some(Some(of(interface.address(tuple.src.is_ipv4())?, *ports, false)))
            }
            NatAction::OneToOne { internal, external } => {
                Some(Some(of(internal.map(tuple.src, external)?, L4Ports::ANY, true)))
            }
        }
    }

    fn snat_address(&self, vrf: &VrfName, ipv4: bool) -> Option<IpAddr> {
        let vrf = self.config.get::<Vrf>(vrf)?;
        if ipv4 { vrf.snat_address_v4.map(IpAddr::from) } else { vrf.snat_address_v6.map(IpAddr::from) }
    }

    /// Makes the reply's tuple unique by the source port or identifier.
    fn unique(
        &mut self,
        zone: &ZoneName,
        tentative: &Tentative,
        wanted: FlowTuple,
        ports: L4Ports,
        hairpin: bool,
        fixed: bool,
    ) -> Step<FlowTuple> {
        // ICMP has one identifier for both ends, so it can only change as a pair.
        let paired = matches!(wanted.protocol, IpProtocol::ICMP | IpProtocol::ICMPV6);
        let with = |port: u16| FlowTuple {
            src_port: port,
            dst_port: if paired { port } else { wanted.dst_port },
            ..wanted
        };
        let own = tentative.original;
        let free = |run: &Self, tuple: FlowTuple| {
            // Only a flow that talks to itself may have one tuple twice.
            let reply = tuple.reversed();
            run.state.lookup(zone, &reply, run.now).is_none() && (reply != own || own == own.reversed())
        };
        if free(self, wanted) {
            return Ok(wanted);
        }
        if fixed || !(wanted.protocol.has_ports() || paired) {
            return drop(DropReason::PortsExhausted);
        }
        let ports = if paired { L4Ports::ANY } else { ports };
        // The search starts behind the port itself, or at the range's start, and goes round once.
        let count = ports.count();
        let start = if ports.contains(wanted.src_port) {
            u32::from(wanted.src_port) - u32::from(ports.first()) + 1
        } else {
            0
        };
        let at = |offset: u32| ports.first() + ((start + offset) % count) as u16;
        let Some(preferred) = (0..count).map(at).find(|port| free(self, with(*port))) else {
            return drop(DropReason::PortsExhausted);
        };
        let (first, last) = (ports.first(), ports.last());
        let point = if hairpin {
            ChoicePoint::HairpinPort { first, last, preferred }
        } else {
            ChoicePoint::SnatPort { first, last, preferred }
        };
        let value = u16::try_from(self.choose(point)).unwrap_or(preferred);
        // A choice whose tuple is taken is not admissible.
        let chosen = if free(self, with(value)) { value } else { preferred };
        Ok(with(chosen))
    }
}

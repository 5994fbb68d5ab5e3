//! Which units there are: each is named by an entity.

use super::tunnel::encap_of;
use super::{Source, link_of};
use crate::plan::Unit;
use loxi_core::ir::{Entity, Interface, Tunnel, TunnelKind, TunnelTermination};
use std::collections::BTreeSet;

/// The units that an entity names: what must be looked at where it comes, goes or changes. What
/// stands by its interface's link ([`Unit::Proxy`]) a neighbour doesn't know.
pub(in crate::plan) fn units_of(entity: &Entity) -> Vec<Unit> {
    match entity {
        Entity::Zone(zone) => vec![Unit::Zone(zone.name.clone())],
        Entity::Vrf(vrf) => vec![Unit::Vrf(vrf.name.clone())],
        Entity::Bridge(bridge) => vec![Unit::Bridge(bridge.name.clone())],
        Entity::Port(port) => vec![Unit::Port(port.name.clone())],
        Entity::Interface(interface) => of_interface(interface),
        Entity::Neighbor(neighbor) => vec![Unit::Neighbor(neighbor.key())],
        Entity::Tunnel(tunnel) => of_tunnel(tunnel),
        Entity::Termination(termination) => of_termination(termination),
        Entity::Fdb(fdb) => vec![Unit::Station(fdb.key())],
        Entity::NextHop(hop) => vec![Unit::NextHop(hop.name.clone())],
        Entity::NextHopGroup(group) => vec![Unit::Group(group.name.clone())],
        Entity::Route(route) => vec![Unit::Route(route.key())],
        Entity::Vip(vip) => vec![Unit::Vip(vip.key())],
        Entity::Backend(backend) => vec![Unit::Backend(backend.name.clone())],
        Entity::Service(service) => vec![Unit::Service(service.key())],
        Entity::NatRule(rule) => vec![Unit::Nat(rule.vrf.clone())],
        Entity::PolicyRule(_) | Entity::PolicyIsolation(_) => vec![Unit::Policy],
        // Sets are rows of whoever refers to them.
        _ => Vec::new(),
    }
}

/// Every unit of a pipeline.
pub(super) fn all(source: &Source<'_>) -> BTreeSet<Unit> {
    let pipeline = source.pipeline;
    let mut units = BTreeSet::from([Unit::Policy]);
    units.extend(pipeline.zones().map(|zone| Unit::Zone(zone.name.clone())));
    units.extend(pipeline.vrfs().map(|vrf| Unit::Vrf(vrf.name.clone())));
    units.extend(pipeline.bridges().map(|bridge| Unit::Bridge(bridge.name.clone())));
    units.extend(pipeline.ports().map(|port| Unit::Port(port.name.clone())));
    units.extend(pipeline.interfaces().flat_map(of_interface));
    for neighbor in pipeline.neighbors() {
        units.insert(Unit::Neighbor(neighbor.key()));
        if let Some(interface) = pipeline.get::<Interface>(&neighbor.interface) {
            units.insert(Unit::Proxy(link_of(interface), neighbor.address));
        }
    }
    units.extend(pipeline.tunnels().flat_map(of_tunnel));
    units.extend(pipeline.terminations().flat_map(of_termination));
    units.extend(pipeline.fdb().map(|fdb| Unit::Station(fdb.key())));
    units.extend(pipeline.next_hops().map(|hop| Unit::NextHop(hop.name.clone())));
    units.extend(pipeline.next_hop_groups().map(|group| Unit::Group(group.name.clone())));
    units.extend(pipeline.routes().map(|route| Unit::Route(route.key())));
    units.extend(pipeline.vips().map(|vip| Unit::Vip(vip.key())));
    units.extend(pipeline.backends().map(|backend| Unit::Backend(backend.name.clone())));
    units.extend(pipeline.services().map(|service| Unit::Service(service.key())));
    units.extend(pipeline.nat_rules().map(|rule| Unit::Nat(rule.vrf.clone())));
    units
}

fn of_interface(interface: &Interface) -> Vec<Unit> {
    let mut units = vec![Unit::Interface(interface.name.clone()), Unit::Link(link_of(interface))];
    units.extend(interface.addresses.iter().map(|address| Unit::LocalAddr(interface.vrf.clone(), *address)));
    units
}

fn of_tunnel(tunnel: &Tunnel) -> Vec<Unit> {
    let (encap, _) = encap_of(tunnel.kind);
    vec![
        Unit::Tunnel(tunnel.name.clone()),
        Unit::Endpoint(tunnel.remote),
        Unit::Back(tunnel.port.clone(), tunnel.remote),
        Unit::Outer(tunnel.underlay_vrf.clone(), encap, tunnel.local, tunnel.remote),
    ]
}

fn of_termination(termination: &TunnelTermination) -> Vec<Unit> {
    let (encap, vni) = encap_of(termination.matches);
    let mut units = vec![
        Unit::Peers(termination.name.clone()),
        Unit::End(termination.vrf.clone(), termination.dst, encap, vni),
        Unit::EndAny(termination.vrf.clone(), termination.dst, encap),
    ];
    if let TunnelKind::Vxlan { port, .. } = termination.matches {
        units.push(Unit::BareUdp(port));
    }
    units
}

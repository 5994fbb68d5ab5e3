//! VRFs, L3 interfaces, neighbours, next hops, routes, NAT.

use super::{Checker, Problem};
use crate::ir::{
    Attachment, EntityKey, InterfaceOn, NatAction, NatRule, NextHop, NextHopAction, Port, RouteTarget,
};
use crate::net::is_hosts;
use std::collections::BTreeMap;

pub(super) fn check(check: &mut Checker<'_>) {
    vrfs(check);
    interfaces(check);
    neighbors(check);
    next_hops(check);
    routes(check);
    nat(check);
}

fn vrfs(check: &mut Checker<'_>) {
    for vrf in check.pipeline.vrfs() {
        let key = EntityKey::Vrf(vrf.name.clone());
        if let Some(zone) = &vrf.zone {
            check.refers(&key, "zone", EntityKey::Zone(zone.clone()));
        }
    }
}

fn interfaces(check: &mut Checker<'_>) {
    let mut addresses = BTreeMap::new();
    for interface in check.pipeline.interfaces() {
        let key = EntityKey::Interface(interface.name.clone());
        check.refers(&key, "vrf", EntityKey::Vrf(interface.vrf.clone()));
        if !interface.mac.is_unicast() {
            check.impossible(key.clone(), "mac", format!("{} is no station's address", interface.mac));
        }
        match &interface.on {
            InterfaceOn::Bridge { bridge, .. } => {
                check.refers(&key, "on.bridge", EntityKey::Bridge(bridge.clone()));
            }
            InterfaceOn::Port(port) => {
                if check.refers(&key, "on.port", EntityKey::Port(port.clone())) {
                    let attachment = check.pipeline.get::<Port>(port).map(|port| &port.attachment);
                    if attachment != Some(&Attachment::Vrf(interface.vrf.clone())) {
                        let why = format!("port {port} is not attached to VRF {}", interface.vrf);
                        check.impossible(key.clone(), "on.port", why);
                    }
                }
            }
        }
        if interface.addresses.iter().any(std::net::IpAddr::is_ipv6) && interface.mtu.get() < 1280 {
            check.range(&key, "mtu", interface.mtu.get().into(), 1280, 65535);
        }
        for address in &interface.addresses {
            if !is_hosts(*address) {
                check.impossible(key.clone(), "addresses", format!("{address} is no interface's address"));
            }
            // A link-local address is meaningful per link only.
            let link_local = matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !link_local
                && let Some(other) = addresses.insert((interface.vrf.clone(), *address), key.clone())
            {
                check.problem(key.clone(), "addresses", Problem::Overlap(Box::new(other)));
            }
        }
    }
}

fn neighbors(check: &mut Checker<'_>) {
    for neighbor in check.pipeline.neighbors() {
        let key = EntityKey::Neighbor(neighbor.key());
        check.refers(&key, "interface", EntityKey::Interface(neighbor.interface.clone()));
        if !neighbor.mac.is_unicast() {
            check.impossible(key, "mac", format!("{} is no station's address", neighbor.mac));
        }
    }
}

fn next_hops(check: &mut Checker<'_>) {
    for hop in check.pipeline.next_hops() {
        let key = EntityKey::NextHop(hop.name.clone());
        match &hop.action {
            NextHopAction::Direct { interface, gateway } => {
                check.refers(&key, "action.direct.interface", EntityKey::Interface(interface.clone()));
                if let Some(gateway) = gateway
                    && (gateway.is_multicast() || gateway.is_unspecified())
                {
                    check.impossible(
                        key,
                        "action.direct.gateway",
                        format!("{gateway} is no router's address"),
                    );
                }
            }
            NextHopAction::Tunnel(tunnel) => {
                check.refers(&key, "action.tunnel", EntityKey::Tunnel(tunnel.clone()));
                if let Some(tunnel) = check.pipeline.get::<crate::ir::Tunnel>(tunnel)
                    && matches!(tunnel.kind, crate::ir::TunnelKind::Vxlan { .. })
                    && tunnel.inner_dst_mac.is_none()
                {
                    let why = format!("routing into tunnel {} needs its inner_dst_mac", tunnel.name);
                    check.problem(key, "action.tunnel", Problem::Missing(why));
                }
            }
            NextHopAction::Host | NextHopAction::Blackhole => {}
        }
    }
    for group in check.pipeline.next_hop_groups() {
        let key = EntityKey::NextHopGroup(group.name.clone());
        if group.members.is_empty() {
            check.problem(key.clone(), "members", Problem::Missing("at least one member".to_owned()));
        }
        for member in &group.members {
            check.refers(&key, "members.next_hop", EntityKey::NextHop(member.next_hop.clone()));
            check.range(&key, "members.weight", member.weight.into(), 1, u16::MAX.into());
        }
    }
}

fn routes(check: &mut Checker<'_>) {
    for route in check.pipeline.routes() {
        let key = EntityKey::Route(route.key());
        check.refers(&key, "vrf", EntityKey::Vrf(route.vrf.clone()));
        let hops = match &route.target {
            RouteTarget::NextHop(hop) => {
                check.refers(&key, "target.next_hop", EntityKey::NextHop(hop.clone()));
                vec![hop.clone()]
            }
            RouteTarget::Group(group) => {
                check.refers(&key, "target.group", EntityKey::NextHopGroup(group.clone()));
                check
                    .pipeline
                    .get::<crate::ir::NextHopGroup>(group)
                    .map(|group| group.members.iter().map(|member| member.next_hop.clone()).collect())
                    .unwrap_or_default()
            }
        };
        for hop in hops {
            let Some(NextHop { action: NextHopAction::Direct { gateway, .. }, .. }) =
                check.pipeline.get::<NextHop>(&hop)
            else {
                continue;
            };
            if gateway.is_some_and(|gateway| gateway.is_ipv4() != route.prefix.is_ipv4()) {
                check.impossible(key.clone(), "target", format!("next hop {hop} is of the other IP family"));
            }
        }
    }
}

fn nat(check: &mut Checker<'_>) {
    for rule in check.pipeline.nat_rules() {
        let key = EntityKey::NatRule(rule.key());
        check.refers(&key, "vrf", EntityKey::Vrf(rule.vrf.clone()));
        check.needs_zone(&key, &rule.vrf);
        if let Some(interface) = &rule.matches.egress {
            check.refers(&key, "matches.egress", EntityKey::Interface(interface.clone()));
        }
        if rule.matches.dst_ports.is_some()
            && !rule.matches.protocol.is_some_and(|protocol| protocol.has_ports())
        {
            check.impossible(key.clone(), "matches.dst_ports", "needs a protocol with ports");
        }
        nat_action(check, &key, rule);
    }
}

fn nat_action(check: &mut Checker<'_>, key: &EntityKey, rule: &NatRule) {
    match &rule.action {
        NatAction::NoNat => {}
        NatAction::Snat { pool, ports } => {
            if pool.is_empty() {
                check.problem(
                    key.clone(),
                    "action.snat.pool",
                    Problem::Missing("at least one address".to_owned()),
                );
            }
            check.range(key, "action.snat.ports", ports.first().into(), 1, u16::MAX.into());
        }
        NatAction::Masquerade { ports } => {
            check.range(key, "action.masquerade.ports", ports.first().into(), 1, u16::MAX.into());
        }
        NatAction::OneToOne { internal, external } => {
            if internal.is_ipv4() != external.is_ipv4() || internal.len() != external.len() {
                let why = format!("{internal} and {external} are not of one family and length");
                check.impossible(key.clone(), "action.one_to_one", why);
            }
        }
        NatAction::Dnat { address, port } => {
            if rule.matches.dst.is_empty() {
                let why = "the destinations that are translated".to_owned();
                check.problem(key.clone(), "matches.dst", Problem::Missing(why));
            }
            if rule.matches.dst.iter().any(|prefix| prefix.is_ipv4() != address.is_ipv4()) {
                check.impossible(
                    key.clone(),
                    "action.dnat.address",
                    "is of another IP family than matches.dst",
                );
            }
            if *port != 0 && !rule.matches.protocol.is_some_and(|protocol| protocol.has_ports()) {
                check.impossible(key.clone(), "action.dnat.port", "needs a protocol with ports");
            }
            if rule.matches.egress.is_some() {
                check.impossible(
                    key.clone(),
                    "matches.egress",
                    "the egress interface is not known before DNAT",
                );
            }
        }
    }
}

//! Which columns the table of a kind has, and what is in them.

use loxi_core::ir::{
    AntiSpoof, Attachment, Entity, EntityKind, FdbTarget, InterfaceOn, NatAction, NextHopAction, PolicyPeer,
    PolicyPorts, PolicySubject, RouteTarget, VipMode, VlanMode,
};
use serde::Serialize;
use std::fmt::Display;

/// Headings of a kind's table; the owner comes after them.
pub(crate) fn headings(kind: EntityKind) -> &'static [&'static str] {
    match kind {
        EntityKind::Zone => &["NAME", "MAX-FLOWS", "MAX-HALF-OPEN", "MAX-PER-SOURCE"],
        EntityKind::Vrf => &["NAME", "ZONE", "SNAT-V4", "SNAT-V6"],
        EntityKind::Bridge => &["NAME", "ZONE", "LEARNING", "AGEING", "UNKNOWN", "PROXY", "FLOOD-TUNNELS"],
        EntityKind::Port => &["NAME", "KIND", "MAC", "MTU", "ADMIN", "IN", "ANTI-SPOOF", "ATTACHED"],
        EntityKind::Interface => &["NAME", "ON", "VRF", "MAC", "MTU", "ADDRESSES"],
        EntityKind::Neighbor => &["INTERFACE", "ADDRESS", "MAC", "STATE"],
        EntityKind::Tunnel => &["NAME", "KIND", "LOCAL", "REMOTE", "VRF", "PORT"],
        EntityKind::Termination => &["NAME", "VRF", "DESTINATION", "MATCHES", "PEERS", "PORT"],
        EntityKind::Fdb => &["BRIDGE", "VLAN", "MAC", "TO", "STATE"],
        EntityKind::NextHop => &["NAME", "ACTION"],
        EntityKind::NextHopGroup => &["NAME", "MEMBERS", "SEED"],
        EntityKind::Route => &["VRF", "PREFIX", "TO"],
        EntityKind::Vip => &["VRF", "ADDRESS", "MODE"],
        EntityKind::Backend => &["NAME", "ADDRESS", "PORT", "WEIGHT", "STATE", "LOCALITY"],
        EntityKind::Service => &["VRF", "VIP", "PROTOCOL", "PORTS", "SCOPE", "MODE", "ALGORITHM", "BACKENDS"],
        EntityKind::NatRule => &["VRF", "PRIORITY", "SOURCE", "DESTINATION", "ACTION"],
        EntityKind::AddrSet | EntityKind::PortSet => &["NAME", "MEMBERS"],
        EntityKind::PolicyRule => {
            &["DIRECTION", "TIER", "PRIORITY", "SUBJECT", "PEER", "PROTOCOL", "PORTS", "ACTION"]
        }
        EntityKind::PolicyIsolation => &["POLICY", "DIRECTION", "SUBJECT"],
        // A kind that is newer than this program has its key.
        _ => &["KEY"],
    }
}

/// What the columns say of an entity. `attached` is about ports.
pub(crate) fn row(entity: &Entity, attached: bool) -> Vec<String> {
    match entity {
        Entity::Zone(e) => {
            vec![show(&e.name), show(e.max_flows), maybe(&e.max_half_open), maybe(&e.max_per_source)]
        }
        Entity::Vrf(e) => {
            vec![show(&e.name), maybe(&e.zone), maybe(&e.snat_address_v4), maybe(&e.snat_address_v6)]
        }
        Entity::Bridge(e) => vec![
            show(&e.name),
            maybe(&e.zone),
            show(e.learning),
            format!("{}s", e.ageing_s),
            word(&e.unknown_unicast),
            show(e.proxy_neighbors),
            list(&e.flood_tunnels),
        ],
        Entity::Port(e) => vec![
            show(&e.name),
            word(&e.kind),
            show(e.mac),
            show(e.mtu),
            word(&e.admin),
            attachment(&e.attachment),
            e.anti_spoof.as_ref().map(guard).unwrap_or_default(),
            if attached { "yes" } else { "no" }.to_owned(),
        ],
        Entity::Interface(e) => vec![
            show(&e.name),
            match &e.on {
                InterfaceOn::Bridge { bridge, vlan } => format!("bridge {bridge} vlan {vlan}"),
                InterfaceOn::Port(port) => format!("port {port}"),
            },
            show(&e.vrf),
            show(e.mac),
            show(e.mtu),
            list(&e.addresses),
        ],
        Entity::Neighbor(e) => vec![show(&e.interface), show(e.address), show(e.mac), "static".to_owned()],
        Entity::Tunnel(e) => vec![
            show(&e.name),
            show(e.kind),
            show(e.local),
            show(e.remote),
            show(&e.underlay_vrf),
            show(&e.port),
        ],
        Entity::Termination(e) => {
            vec![show(&e.name), show(&e.vrf), show(e.dst), show(e.matches), list(&e.peers), show(&e.port)]
        }
        Entity::Fdb(e) => {
            let to = match &e.target {
                FdbTarget::Port(port) => format!("port {port}"),
                FdbTarget::Tunnel(tunnel) => format!("tunnel {tunnel}"),
            };
            vec![show(&e.bridge), show(e.vlan), show(e.mac), to, "static".to_owned()]
        }
        Entity::NextHop(e) => vec![show(&e.name), next_hop(&e.action)],
        Entity::NextHopGroup(e) => {
            let members = e.members.iter().map(|m| format!("{}*{}", m.next_hop, m.weight));
            vec![show(&e.name), list(members), show(e.seed)]
        }
        Entity::Route(e) => {
            let to = match &e.target {
                RouteTarget::NextHop(hop) => format!("next hop {hop}"),
                RouteTarget::Group(group) => format!("group {group}"),
            };
            vec![show(&e.vrf), show(e.prefix), to]
        }
        Entity::Vip(e) => {
            let mode = match e.mode {
                VipMode::Exclusive { other, echo } => {
                    format!("exclusive, else {}{}", word(&other), if echo { ", echo" } else { "" })
                }
                VipMode::Shared => "shared".to_owned(),
            };
            vec![show(&e.vrf), show(e.address), mode]
        }
        Entity::Backend(e) => vec![
            show(&e.name),
            show(e.address),
            show(e.port),
            show(e.weight),
            word(&e.state),
            word(&e.locality),
        ],
        Entity::Service(e) => vec![
            show(&e.vrf),
            show(e.vip),
            show(e.protocol),
            show(e.ports),
            word(&e.scope),
            word(&e.mode),
            word(&e.algorithm),
            list(&e.backends),
        ],
        Entity::NatRule(e) => {
            vec![show(&e.vrf), show(e.priority), list(&e.matches.src), list(&e.matches.dst), nat(&e.action)]
        }
        Entity::AddrSet(e) => vec![show(&e.name), list(&e.members)],
        Entity::PortSet(e) => vec![show(&e.name), list(&e.members)],
        Entity::PolicyRule(e) => vec![
            show(e.direction),
            word(&e.tier),
            show(e.priority),
            subject(&e.subject),
            match &e.peer {
                PolicyPeer::Any => "any".to_owned(),
                PolicyPeer::Set(set) => format!("set {set}"),
                PolicyPeer::Prefixes { prefixes, except } if except.is_empty() => list(prefixes),
                PolicyPeer::Prefixes { prefixes, except } => {
                    format!("{} except {}", list(prefixes), list(except))
                }
            },
            e.protocol.map_or_else(|| "any".to_owned(), show),
            match &e.ports {
                PolicyPorts::Any => "any".to_owned(),
                PolicyPorts::Ranges(ranges) => list(ranges),
                PolicyPorts::Set(set) => format!("set {set}"),
            },
            word(&e.action),
        ],
        Entity::PolicyIsolation(e) => vec![show(&e.policy), show(e.direction), subject(&e.subject)],
        other => vec![show(other.key())],
    }
}

fn show(value: impl Display) -> String {
    value.to_string()
}

fn maybe<T: Display>(value: &Option<T>) -> String {
    value.as_ref().map(show).unwrap_or_default()
}

fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(show).collect::<Vec<_>>().join(",")
}

/// The name of a variant, as files have it.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(serde_json::Value::Object(fields)) => fields.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

fn attachment(attachment: &Attachment) -> String {
    match attachment {
        Attachment::Detached => String::new(),
        Attachment::Bridge(member) => match &member.vlan {
            VlanMode::Access(vlan) => format!("bridge {} vlan {vlan}", member.bridge),
            VlanMode::Trunk { .. } => format!("bridge {} trunk", member.bridge),
        },
        Attachment::Vrf(vrf) => format!("vrf {vrf}"),
    }
}

fn guard(guard: &AntiSpoof) -> String {
    list(&guard.addresses)
}

fn next_hop(action: &NextHopAction) -> String {
    match action {
        NextHopAction::Direct { interface, gateway: Some(gateway) } => {
            format!("via {gateway} on {interface}")
        }
        NextHopAction::Direct { interface, gateway: None } => format!("on {interface}"),
        NextHopAction::Tunnel(tunnel) => format!("tunnel {tunnel}"),
        NextHopAction::Host => "host".to_owned(),
        NextHopAction::Blackhole => "blackhole".to_owned(),
    }
}

fn nat(action: &NatAction) -> String {
    match action {
        NatAction::NoNat => "no nat".to_owned(),
        NatAction::Snat { pool, .. } => format!("source {}", list(pool)),
        NatAction::Masquerade { .. } => "masquerade".to_owned(),
        NatAction::OneToOne { internal, external } => format!("{internal} <-> {external}"),
        NatAction::Dnat { address, port: 0 } => format!("destination {address}"),
        NatAction::Dnat { address, port } => format!("destination {address} port {port}"),
    }
}

fn subject(subject: &PolicySubject) -> String {
    match subject {
        PolicySubject::AllPods => "all pods".to_owned(),
        PolicySubject::Ports(ports) => list(ports),
    }
}

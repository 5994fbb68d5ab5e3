//! Tunnels and terminations.

use super::{Checker, Problem};
use crate::ir::{EntityKey, OuterDscp, OuterTtl, Port, PortKind, TunnelKind};
use crate::net::PortName;
use std::collections::BTreeMap;

pub(super) fn check(check: &mut Checker<'_>) {
    for tunnel in check.pipeline.tunnels() {
        let key = EntityKey::Tunnel(tunnel.name.clone());
        check.refers(&key, "underlay_vrf", EntityKey::Vrf(tunnel.underlay_vrf.clone()));
        tunnel_port(check, &key, &tunnel.port);
        if tunnel.local.is_ipv4() != tunnel.remote.is_ipv4() {
            check.impossible(key.clone(), "remote", "local and remote are of different IP families");
        }
        if tunnel.local == tunnel.remote {
            check.impossible(key.clone(), "remote", "is the local address");
        }
        if tunnel.remote.is_multicast() || tunnel.remote.is_unspecified() {
            check.impossible(key.clone(), "remote", format!("{} is no peer's address", tunnel.remote));
        }
        if let OuterTtl::Fixed(ttl) = tunnel.ttl {
            check.range(&key, "ttl.fixed", ttl.into(), 1, 255);
        }
        if let OuterDscp::Fixed(dscp) = tunnel.dscp {
            check.range(&key, "dscp.fixed", dscp.into(), 0, 63);
        }
        if tunnel.inner_dst_mac.is_some_and(|mac| !mac.is_unicast()) {
            check.impossible(key.clone(), "inner_dst_mac", "is no station's address");
        }
        if matches!(tunnel.kind, TunnelKind::Vxlan { .. }) {
            check.range(&key, "source_ports", tunnel.source_ports.first().into(), 1, u16::MAX.into());
        }
    }
    let mut names = BTreeMap::new();
    for termination in check.pipeline.terminations() {
        let key = EntityKey::Termination(termination.key());
        check.refers(&key, "vrf", EntityKey::Vrf(termination.vrf.clone()));
        tunnel_port(check, &key, &termination.port);
        if termination.peers.is_empty() {
            check.problem(
                key.clone(),
                "peers",
                Problem::Missing("at least one prefix of trusted peers".to_owned()),
            );
        }
        if termination.peers.iter().any(|peer| peer.is_ipv4() != termination.dst.is_ipv4()) {
            check.impossible(key.clone(), "peers", "are of another IP family than dst");
        }
        if let Some(other) = names.insert(termination.name.clone(), key.clone()) {
            check.problem(key, "name", Problem::Overlap(Box::new(other)));
        }
    }
}

fn tunnel_port(check: &mut Checker<'_>, key: &EntityKey, name: &PortName) {
    if check.refers(key, "port", EntityKey::Port(name.clone()))
        && check.pipeline.get::<Port>(name).is_some_and(|port| port.kind != PortKind::Tunnel)
    {
        check.impossible(key.clone(), "port", format!("port {name} is not of kind tunnel"));
    }
}

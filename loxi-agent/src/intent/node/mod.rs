//! This node's own network, and the ways to other nodes.
//!
//! What is this node's own follows from the settings alone. For every other node there is a tunnel to its address and a
//! route to its pods. Two nodes whose pods' networks overlap can't both be right: this node's own wins, else the one that
//! comes first by name; the other one's network has no way until the first gives it up.

mod own;
#[cfg(test)]
mod tests;

pub(super) use own::bridged;

use std::collections::BTreeSet;
use std::net::IpAddr;

use loxi_core::ir::{
    Entity, NextHop, NextHopAction, Origin, OuterDf, OuterDscp, OuterTtl, Route, RouteTarget, Tunnel,
    TunnelKind, TunnelTermination, UdpChecksum,
};
use loxi_core::net::{IpPrefix, L4Ports, MacAddr, NetError, TerminationName};
use loxi_linux::layout;

use super::{Changed, Contributor, Controller, Ledger, Settings, View, names};
use crate::cluster::model::{Kind, Name, Node, Object};

/// The controller of nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    /// Whether a node has changed since the tunnels' ends were said.
    changed: bool,
}

impl Nodes {
    pub(super) fn new(settings: &Settings, ledger: &mut Ledger) -> Self {
        ledger.contribute(&Contributor::Own, own::entities(settings));
        Self { changed: false }
    }
}

impl Controller for Nodes {
    fn changed(&mut self, view: View<'_>, changed: Changed<'_>, ledger: &mut Ledger) {
        let Changed::Object(change) = changed else { return };
        let Kind::Node = change.reference.kind else { return };
        let old = match &change.old {
            Some(Object::Node(node)) => node.pod_cidrs.clone(),
            _ => Vec::new(),
        };
        let name = &change.reference.name;
        let new = view.cluster.node(&name.name).map(|node| node.pod_cidrs.clone()).unwrap_or_default();
        // Whoever's network overlaps with what it had or has may have won or lost.
        let touched = |node: &&Node| {
            node.name != *name && [&old, &new].iter().any(|cidrs| overlap(cidrs, &node.pod_cidrs))
        };
        let others: Vec<Name> = view.cluster.nodes().filter(touched).map(|node| node.name.clone()).collect();
        for name in others.iter().chain([name]) {
            ledger.contribute(&Contributor::Node(name.clone()), way(view, name));
        }
        self.changed = true;
    }

    fn settle(&mut self, view: View<'_>, ledger: &mut Ledger) {
        if std::mem::take(&mut self.changed) {
            let remotes = view.cluster.nodes().filter_map(|node| ends(view.settings, node));
            ledger.contribute(&Contributor::Overlay, terminations(view.settings, remotes));
        }
    }
}

fn overlap(some: &[IpPrefix], others: &[IpPrefix]) -> bool {
    some.iter().any(|one| others.iter().any(|other| one.covers(other) || other.covers(one)))
}

/// The addresses between which a node's tunnel is: of IPv4 where both have one. None to one that says it has our address.
fn ends(settings: &Settings, node: &Node) -> Option<(IpAddr, IpAddr)> {
    if node.name.name == settings.node {
        return None;
    }
    let own = |v4: bool| settings.node_ips.iter().copied().find(|address| address.is_ipv4() == v4);
    let ends = [true, false].into_iter().find_map(|v4| Some((own(v4)?, node.internal_ip(v4)?)))?;
    if settings.node_ips.contains(&ends.1) {
        tracing::warn!(node = %node.name, address = %ends.1, "it has this node's address: no way to it");
        return None;
    }
    Some(ends)
}

/// The networks of a node's pods that no other node has a better claim to.
fn uncontested<'a>(view: View<'a>, node: &'a Node) -> impl Iterator<Item = IpPrefix> + 'a {
    let better = move |other: &&Node| other.name < node.name && other.name.name != view.settings.node;
    node.pod_cidrs.iter().copied().filter(move |cidr| {
        let taken = |others: &[IpPrefix]| overlap(&[*cidr], others);
        let by = view.cluster.nodes().filter(better).find(|other| taken(&other.pod_cidrs));
        let ours = taken(&view.settings.pod_cidrs);
        if ours || by.is_some() {
            let by = by.map_or(&*view.settings.node, |other| &*other.name.name);
            tracing::warn!(node = %node.name, %cidr, by, "the pods' network is another node's: no way to it");
        }
        !ours && by.is_none()
    })
}

/// The way to a node's pods; nothing for this node, and for one without address or pods' network.
fn way(view: View<'_>, name: &Name) -> Vec<Entity> {
    let settings = view.settings;
    let Some(node) = view.cluster.node(&name.name) else { return Vec::new() };
    let (Some((local, remote)), Some(tunnel), Some(hop)) =
        (ends(settings, node), names::tunnel(&name.name), names::next_hop(&name.name))
    else {
        return Vec::new();
    };
    let Ok(source_ports) = L4Ports::new(49152, 65535) else { return Vec::new() };
    let origin = || Origin(format!("Node {name}"));
    let mut entities: Vec<Entity> = Vec::new();
    for prefix in uncontested(view, node) {
        for vrf in [&settings.names.pods, &settings.names.underlay] {
            let target = RouteTarget::NextHop(hop.clone());
            entities.push(Route { vrf: vrf.clone(), prefix, target, origin: origin() }.into());
        }
    }
    if !entities.is_empty() {
        let action = NextHopAction::Tunnel(tunnel.clone());
        entities.push(NextHop { name: hop, action, origin: origin() }.into());
        entities.push(
            Tunnel {
                name: tunnel,
                kind: vxlan(settings),
                underlay_vrf: settings.names.underlay.clone(),
                local,
                remote,
                port: settings.names.vtep.clone(),
                inner_dst_mac: Some(vtep_mac(&name.name)),
                ttl: OuterTtl::default(),
                dscp: OuterDscp::default(),
                df: OuterDf::default(),
                udp_checksum: UdpChecksum::default(),
                source_ports,
                origin: origin(),
            }
            .into(),
        );
    }
    entities
}

/// The Ethernet address at which a node's tunnels end: every node knows it by the name alone.
#[must_use]
pub fn vtep_mac(node: &str) -> MacAddr {
    MacAddr::new(layout::mac_for(node, layout::VTEP).0)
}

fn vxlan(settings: &Settings) -> TunnelKind {
    TunnelKind::Vxlan { vni: settings.overlay.vni, port: settings.overlay.port }
}

/// Where the tunnels of the other nodes end here: one place for each of our addresses that somebody has a tunnel to.
fn terminations(settings: &Settings, ends: impl IntoIterator<Item = (IpAddr, IpAddr)>) -> Vec<Entity> {
    let ends: Vec<_> = ends.into_iter().collect();
    let locals: BTreeSet<IpAddr> = ends.iter().map(|(local, _)| *local).collect();
    let termination = |local: IpAddr| -> Result<Entity, NetError> {
        let from = ends.iter().filter(|(at, _)| *at == local).map(|(_, peer)| IpPrefix::host(*peer));
        let family = if local.is_ipv4() { "v4" } else { "v6" };
        Ok(TunnelTermination {
            name: TerminationName::new(format!("vxlan-{family}"))?,
            vrf: settings.names.underlay.clone(),
            dst: local,
            matches: vxlan(settings),
            peers: from.collect(),
            port: settings.names.vtep.clone(),
            exclusive: false,
            origin: Origin::default(),
        }
        .into())
    };
    locals.into_iter().filter_map(|local| termination(local).ok()).collect()
}

//! What this node's network has by itself: domains, the ports that aren't pods', gateways.

use std::collections::BTreeSet;
use std::net::IpAddr;

use loxi_core::ir::{
    Admin, Attachment, Bridge, BridgePort, CtTimeouts, CtZone, Entity, Fdb, FdbTarget, Flooding, Interface,
    InterfaceOn, LocalDelivery, Neighbor, NextHop, NextHopAction, Origin, Port, PortKind, Route, RouteTarget,
    Scope, Unclaimed, VlanMode, Vrf,
};
use loxi_core::net::{IpPrefix, NetError, NextHopName, VlanId, VrfName};

use crate::intent::Settings;

/// All of it.
pub(super) fn entities(settings: &Settings) -> Vec<Entity> {
    let mut entities = Vec::new();
    domains(settings, &mut entities);
    ports(settings, &mut entities);
    interfaces(settings, &mut entities);
    host_station(settings, &mut entities);
    if let Ok(routes) = routes(settings) {
        entities.extend(routes);
    }
    entities
}

fn hosts(addresses: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpPrefix> {
    addresses.into_iter().map(IpPrefix::host).collect()
}

/// Zone, VRFs and bridge.
fn domains(settings: &Settings, entities: &mut Vec<Entity>) {
    let names = &settings.names;
    entities.push(
        CtZone {
            name: names.zone.clone(),
            max_flows: settings.max_flows,
            max_half_open: None,
            max_per_source: None,
            mid_stream_pickup: false,
            timeouts: CtTimeouts::default(),
            origin: Origin::default(),
        }
        .into(),
    );
    let host = |v4: bool| settings.host(v4);
    let snat_address_v4 = match host(true) {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    };
    let snat_address_v6 = match host(false) {
        Some(IpAddr::V6(address)) => Some(address),
        _ => None,
    };
    let own = [true, false].into_iter().filter_map(host).chain(settings.node_ips.iter().copied());
    entities.push(
        Vrf {
            name: names.pods.clone(),
            zone: Some(names.zone.clone()),
            snat_address_v4,
            snat_address_v6,
            node_local: hosts(own),
            origin: Origin::default(),
        }
        .into(),
    );
    entities.push(
        Vrf {
            name: names.underlay.clone(),
            // One zone: what comes in for a pod here is answered from there.
            zone: Some(names.zone.clone()),
            snat_address_v4,
            snat_address_v6,
            node_local: BTreeSet::new(),
            origin: Origin::default(),
        }
        .into(),
    );
    entities.push(
        Bridge {
            name: names.bridge.clone(),
            zone: Some(names.zone.clone()),
            // Every station is known by its attachment.
            learning: false,
            ageing_s: 300,
            max_macs: 64,
            unknown_unicast: Flooding::Drop,
            multicast: Flooding::Drop,
            broadcast: Flooding::Drop,
            any_ethertype: false,
            proxy_neighbors: true,
            flood_tunnels: BTreeSet::new(),
            origin: Origin::default(),
        }
        .into(),
    );
}

/// How a port of the pod network is on its bridge.
pub(in crate::intent) fn bridged(settings: &Settings) -> Attachment {
    Attachment::Bridge(BridgePort {
        bridge: settings.names.bridge.clone(),
        vlan: VlanMode::Access(VlanId::default()),
        learning: false,
        split_horizon: None,
    })
}

/// Uplink, host, and the end of tunnels.
fn ports(settings: &Settings, entities: &mut Vec<Entity>) {
    let names = &settings.names;
    let (uplink, uplink_mac, uplink_mtu) = &settings.uplink;
    let port = Port {
        name: uplink.clone(),
        kind: PortKind::Uplink,
        mac: *uplink_mac,
        mtu: *uplink_mtu,
        admin: Admin::Up,
        attachment: Attachment::Vrf(names.underlay.clone()),
        underlay: true,
        scope: Scope::External,
        anti_spoof: None,
        unclaimed: Some(Unclaimed::Punt),
        origin: Origin::default(),
    };
    let inside = Port {
        underlay: false,
        scope: Scope::Internal,
        unclaimed: None,
        mtu: settings.pod_mtu,
        ..port.clone()
    };
    entities.push(port.into());
    entities.push(
        Port {
            name: names.host.clone(),
            kind: PortKind::Host,
            mac: settings.macs.host,
            attachment: bridged(settings),
            ..inside.clone()
        }
        .into(),
    );
    entities.push(
        Port {
            name: names.vtep.clone(),
            kind: PortKind::Tunnel,
            mac: settings.macs.vtep,
            attachment: Attachment::Vrf(names.pods.clone()),
            ..inside
        }
        .into(),
    );
}

/// The pods' gateway, and this node at the wire.
fn interfaces(settings: &Settings, entities: &mut Vec<Entity>) {
    let names = &settings.names;
    let (uplink, uplink_mac, uplink_mtu) = &settings.uplink;
    entities.push(
        Interface {
            name: names.switch.clone(),
            on: InterfaceOn::Bridge { bridge: names.bridge.clone(), vlan: VlanId::default() },
            vrf: names.pods.clone(),
            mac: settings.macs.switch,
            addresses: [true, false].into_iter().filter_map(|v4| settings.switch(v4)).collect(),
            mtu: settings.pod_mtu,
            local: LocalDelivery::Answer,
            origin: Origin::default(),
        }
        .into(),
    );
    entities.push(
        Interface {
            name: names.wire.clone(),
            on: InterfaceOn::Port(uplink.clone()),
            vrf: names.underlay.clone(),
            mac: *uplink_mac,
            addresses: settings.node_ips.iter().copied().collect(),
            mtu: *uplink_mtu,
            local: LocalDelivery::Punt,
            origin: Origin::default(),
        }
        .into(),
    );
}

/// The host on the pods' bridge.
fn host_station(settings: &Settings, entities: &mut Vec<Entity>) {
    let names = &settings.names;
    entities.push(
        Fdb {
            bridge: names.bridge.clone(),
            vlan: VlanId::default(),
            mac: settings.macs.host,
            target: FdbTarget::Port(names.host.clone()),
            origin: Origin::default(),
        }
        .into(),
    );
    for address in [true, false].into_iter().filter_map(|v4| settings.host(v4)) {
        entities.push(
            Neighbor {
                interface: names.switch.clone(),
                address,
                mac: settings.macs.host,
                origin: Origin::default(),
            }
            .into(),
        );
    }
}

/// Pods on their bridge, nodes on the wire, everything else by the host or by the wire's gateway.
fn routes(settings: &Settings) -> Result<Vec<Entity>, NetError> {
    let names = &settings.names;
    let mut entities: Vec<Entity> = Vec::new();
    let direct = |name: &str, interface: &_, gateway: Option<IpAddr>| -> Result<_, NetError> {
        let name = NextHopName::new(name)?;
        let action = NextHopAction::Direct { interface: Clone::clone(interface), gateway };
        let hop = NextHop { name: name.clone(), action, origin: Origin::default() };
        Ok((name, Entity::from(hop)))
    };
    let route = |vrf: &VrfName, prefix: IpPrefix, hop: &NextHopName| -> Entity {
        let target = RouteTarget::NextHop(hop.clone());
        Route { vrf: vrf.clone(), prefix, target, origin: Origin::default() }.into()
    };
    let (pods, hop) = direct("pods-link", &names.switch, None)?;
    entities.push(hop);
    let (wire, hop) = direct("wire", &names.wire, None)?;
    entities.push(hop);
    entities.extend(settings.pod_cidrs.iter().map(|prefix| route(&names.pods, *prefix, &pods)));
    // Ports of the node lead to pods: what is translated here is routed here.
    entities.extend(settings.pod_cidrs.iter().map(|prefix| route(&names.underlay, *prefix, &pods)));
    entities.extend(settings.on_link.iter().map(|prefix| route(&names.underlay, *prefix, &wire)));
    for v4 in [true, false] {
        let family = if v4 { "v4" } else { "v6" };
        if let Some(host) = settings.host(v4) {
            // Whatever is neither pod nor service is the host's to route.
            let (name, hop) = direct(&format!("host-{family}"), &names.switch, Some(host))?;
            entities.push(hop);
            entities.push(route(&names.pods, IpPrefix::containing(host, 0), &name));
        }
        if let Some(gateway) = settings.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == v4) {
            let (name, hop) = direct(&format!("gateway-{family}"), &names.wire, Some(gateway))?;
            entities.push(hop);
            entities.push(route(&names.underlay, IpPrefix::containing(gateway, 0), &name));
        }
    }
    Ok(entities)
}

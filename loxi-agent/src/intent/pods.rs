//! The interfaces of this node's pods: their ports, where their addresses are, and the ports of the node that lead to them.

use std::collections::BTreeSet;

use loxi_core::ir::{
    Admin, AntiSpoof, BackendState, Entity, Fdb, FdbTarget, LbAlgorithm, LbBackend, LbMode, LbService,
    Locality, Neighbor, OnNoBackend, Origin, Port, PortKind, Scope, ServiceScope, TrafficPolicy, VipAddress,
    VipMode,
};
use loxi_core::net::{BackendName, IpPrefix, L4Ports, VlanId};

use super::node::bridged;
use super::{Attachment, Changed, Contributor, Controller, HostPort, Ledger, Settings, View};

/// The controller of interfaces.
#[derive(Debug)]
pub(super) struct Pods;

impl Controller for Pods {
    fn changed(&mut self, view: View<'_>, changed: Changed<'_>, ledger: &mut Ledger) {
        let Changed::Attachment { port, .. } = changed else { return };
        let entities = view.attachments.get(port).map(|attachment| entities(view.settings, attachment));
        ledger.contribute(&Contributor::Attachment(port.clone()), entities.unwrap_or_default());
    }
}

/// A pod's port, its station on the bridge, and its addresses there. Nobody else can send as it.
fn entities(settings: &Settings, attachment: &Attachment) -> Vec<Entity> {
    let names = &settings.names;
    let origin = || match &attachment.pod {
        Some(pod) => Origin(format!("Pod {}", pod.name)),
        None => Origin(format!("container {}", attachment.container)),
    };
    let port = Port {
        name: attachment.port.clone(),
        kind: PortKind::Pod,
        mac: attachment.mac,
        mtu: attachment.mtu,
        admin: Admin::Up,
        attachment: bridged(settings),
        underlay: false,
        scope: Scope::Internal,
        anti_spoof: Some(AntiSpoof {
            addresses: attachment.addresses.iter().copied().map(IpPrefix::host).collect(),
            macs: BTreeSet::new(),
            dhcp_client: false,
        }),
        unclaimed: None,
        origin: origin(),
    };
    let station = Fdb {
        bridge: names.bridge.clone(),
        vlan: VlanId::default(),
        mac: attachment.mac,
        target: FdbTarget::Port(attachment.port.clone()),
        origin: origin(),
    };
    let neighbors = attachment.addresses.iter().map(|address| {
        let interface = names.switch.clone();
        Neighbor { interface, address: *address, mac: attachment.mac, origin: origin() }.into()
    });
    let host_ports = attachment.host_ports.iter().flat_map(|port| host_port(settings, attachment, port));
    [port.into(), station.into()].into_iter().chain(neighbors).chain(host_ports).collect()
}

/// A port of the node that leads to the pod: a service with one endpoint at each of the node's addresses that it is meant
/// for, from the wire and from the pods.
fn host_port(settings: &Settings, attachment: &Attachment, port: &HostPort) -> Vec<Entity> {
    let HostPort { address, protocol, host_port, container_port } = port;
    let origin = Origin(format!("hostPort {host_port} of port {}", attachment.port));
    let mut entities = Vec::new();
    for own in settings.node_ips.iter().filter(|own| address.is_none_or(|address| address == **own)) {
        let Some(target) = attachment.addresses.iter().find(|target| target.is_ipv4() == own.is_ipv4())
        else {
            continue;
        };
        let Ok(name) = BackendName::new(format!("host-port:{target}/{container_port}")) else { continue };
        entities.push(Entity::from(LbBackend {
            name: name.clone(),
            address: *target,
            port: *container_port,
            weight: 1,
            state: BackendState::Active,
            locality: Locality::Local,
            origin: origin.clone(),
        }));
        for vrf in [&settings.names.underlay, &settings.names.pods] {
            // The node has more to say at its addresses.
            let (vrf, mode) = (vrf.clone(), VipMode::Shared);
            entities
                .push(VipAddress { vrf: vrf.clone(), address: *own, mode, origin: origin.clone() }.into());
            entities.push(Entity::from(LbService {
                vrf,
                vip: *own,
                protocol: (*protocol).into(),
                ports: L4Ports::one(*host_port),
                scope: ServiceScope::Any,
                backends: BTreeSet::from([name.clone()]),
                algorithm: LbAlgorithm::Random,
                affinity: None,
                traffic_policy: TrafficPolicy::Cluster,
                source_ranges: BTreeSet::new(),
                // The pod is here, so its answers pass here: it sees who asks.
                mode: LbMode::Nat,
                on_no_backend: OnNoBackend::Reject,
                on_no_local_backend: OnNoBackend::Reject,
                origin: origin.clone(),
            }));
        }
    }
    entities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::model::Protocol;
    use crate::intent::fixture;
    use loxi_core::ir::EntityKind;
    use std::net::IpAddr;

    fn services(attachment: &Attachment) -> Vec<(String, u16, u16)> {
        let entities = entities(&fixture::settings(), attachment);
        assert!(entities.iter().any(|entity| entity.kind() == EntityKind::Port));
        let port_of = |name: &BackendName| {
            entities.iter().find_map(|entity| match entity {
                Entity::Backend(backend) if backend.name == *name => Some(backend.port),
                _ => None,
            })
        };
        let service = |entity: &Entity| match entity {
            Entity::Service(service) => {
                let backend = service.backends.first().and_then(port_of).unwrap();
                Some((format!("{} {}", service.vrf, service.vip), service.ports.first(), backend))
            }
            _ => None,
        };
        entities.iter().filter_map(service).collect()
    }

    #[test]
    fn host_ports_are_services_at_the_addresses_that_are_meant() {
        let settings = fixture::settings();
        let mut attachment = fixture::attachment(1);
        assert_eq!(services(&attachment), []);
        let port =
            |address| HostPort { address, protocol: Protocol::Tcp, host_port: 80, container_port: 8080 };
        attachment.host_ports = vec![port(None)];
        let of_family = |ip: &&IpAddr| attachment.addresses.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
        let meant = settings.node_ips.iter().filter(of_family).count();
        let found = services(&attachment);
        assert_eq!(found.len(), 2 * meant);
        assert!(found.iter().all(|(_, port, target)| (*port, *target) == (80, 8080)), "{found:?}");
        attachment.host_ports = vec![port(settings.node_ips.first().copied())];
        assert_eq!(services(&attachment).len(), 2);
        // Another node's is not ours.
        attachment.host_ports = vec![port(Some("192.0.2.77".parse().unwrap()))];
        assert_eq!(services(&attachment), []);
    }
}

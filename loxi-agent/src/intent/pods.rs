//! The interfaces of this node's pods: their ports, and where their addresses are.

use std::collections::BTreeSet;

use loxi_core::ir::{Admin, AntiSpoof, Entity, Fdb, FdbTarget, Neighbor, Origin, Port, PortKind, Scope};
use loxi_core::net::{IpPrefix, VlanId};

use super::node::bridged;
use super::{Attachment, Changed, Contributor, Controller, Ledger, Settings, View};

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
    [port.into(), station.into()].into_iter().chain(neighbors).collect()
}

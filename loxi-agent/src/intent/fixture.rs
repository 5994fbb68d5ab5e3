//! A small node for tests.

use std::sync::Arc;

use loxi_core::change::Transaction;
use loxi_core::dataplane::{InjectRequest, Local, PacketIn};
use loxi_core::ir::{Entity, Owner, Pipeline};
use loxi_core::net::{MacAddr, Mtu, PortName, Vni};
use loxi_core::packet::{Fate, Timestamp};
use loxi_reference::Reference;

use super::{Attachment, Intent, Macs, Names, Overlay, PodIdentity, Settings, vtep_mac};
use crate::cluster::model::Name;

/// Node `n1` at 172.18.0.1 with the pods of 10.244.1.0/24 and fd00:10:244:1::/64.
pub(crate) fn settings() -> Settings {
    Settings {
        names: Names::new().unwrap(),
        node: "n1".into(),
        node_ips: vec!["172.18.0.1".parse().unwrap(), "fd00:172:18::1".parse().unwrap()],
        zone: Some("z1".into()),
        on_link: vec!["172.18.0.0/24".parse().unwrap(), "fd00:172:18::/64".parse().unwrap()],
        gateways: vec!["172.18.0.254".parse().unwrap()],
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()],
        uplink: (PortName::new("eth0").unwrap(), MacAddr::new([2, 0, 0, 0, 0, 1]), Mtu::new(1500).unwrap()),
        pod_mtu: Mtu::new(1450).unwrap(),
        macs: Macs {
            switch: MacAddr::new([2, 0, 0, 0, 0, 2]),
            host: MacAddr::new([2, 0, 0, 0, 0, 3]),
            vtep: vtep_mac("n1"),
        },
        overlay: Overlay { vni: Vni::new(100).unwrap(), port: 4789 },
        max_flows: 1 << 16,
    }
}

/// The interface of a pod `default/pod-N`: port `hsN`, addresses that end in `9 + N`.
pub(crate) fn attachment(number: u8) -> Attachment {
    let last = number + 9;
    Attachment {
        container: format!("container-{number}"),
        ifname: "eth0".into(),
        pod: Some(PodIdentity { name: Name::new("default", format!("pod-{number}")), uid: None }),
        port: PortName::new(format!("hs{number}")).unwrap(),
        mac: MacAddr::new([2, 0, 0, 0, 1, number]),
        addresses: vec![
            format!("10.244.1.{last}").parse().unwrap(),
            format!("fd00:10:244:1::{last:x}").parse().unwrap(),
        ],
        mtu: Mtu::new(1450).unwrap(),
        host_ports: Vec::new(),
    }
}

/// The entities of an intent, by key.
pub(crate) fn entities(intent: &mut Intent) -> Vec<Entity> {
    let mut entities: Vec<Entity> = intent.ledger().entities().cloned().collect();
    entities.sort_by_key(Entity::key);
    entities
}

/// Everything as a pipeline that is valid.
pub(crate) fn valid(intent: &mut Intent) -> Pipeline {
    let owner = Owner::new("agent").unwrap();
    let pipeline = Pipeline::from_entities(&owner, entities(intent));
    if let Err(wrong) = loxi_core::validate::validate(&pipeline) {
        panic!("{wrong:?}");
    }
    pipeline
}

/// What becomes of a packet that comes in at a port of a fresh dataplane with everything.
pub(crate) fn fate(intent: &mut Intent, port: &str, packet: &str) -> Fate {
    let local = Local::new(Reference::new(), Arc::new(|| Timestamp(Timestamp::SECOND)));
    let pipeline = valid(intent);
    let all: Vec<Entity> = pipeline.entities().map(|owned| owned.entity).collect();
    local.apply(&Transaction::replace("all", Owner::new("agent").unwrap(), all)).unwrap();
    for port in pipeline.ports() {
        local.attach(&port.name).unwrap();
    }
    let bytes = loxi_conformance::build(packet).unwrap();
    let packets = vec![PacketIn { port: PortName::new(port).unwrap(), bytes, at: None }];
    let injected = local.inject(&InjectRequest { packets, ..InjectRequest::default() }).unwrap();
    injected[0].verdict.fate
}

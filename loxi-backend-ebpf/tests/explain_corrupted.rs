//! An entry that somebody else has changed: the programs follow it, `explain` shows it and changes
//! nothing, an audit names it, and the reference parts from it there.
#![allow(clippy::unwrap_used)]

mod bpffs;

use bpffs::{Mounted, dump, tables, update};
use loxi_backend_ebpf::plan::{Plan, Row, RowKey};
use loxi_backend_ebpf::{Devices, Ebpf, Mode, Options, Sizes, capabilities};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, ChoiceMode, InjectRequest, Injected, Local, PacketIn};
use loxi_core::ir::{EntityKey, Owner, Port};
use loxi_core::net::PortName;
use loxi_core::packet::{Fate, Stage, Timestamp};
use loxi_core::text::from_yaml;
use loxi_reference::ReferencePath;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

const NODE: &str = include_str!("../../loxi-conformance/rows/pipelines/node.yaml");
const NOW: Timestamp = Timestamp(1_000_000 * Timestamp::SECOND);

/// A new connection to a service on a local endpoint, and a packet for a pod of another node.
const TO_SERVICE: &str =
    "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.96.0.1 / tcp 1000>80 S";
const TO_NODE: &str = "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.244.2.10 / udp 1>2";

struct Node {
    local: Local<Ebpf>,
    pins: PathBuf,
    _mounted: Mounted,
}

impl Node {
    fn new() -> Self {
        let mounted = Mounted::new();
        let pins = mounted.pins();
        let options = Options {
            mode: Mode::Tc,
            sizes: Sizes { flows_v4: 4096, flows_v6: 4096 },
            devices: Devices::None,
            pins: Some(pins.clone()),
            slow_path: Some(Box::new(ReferencePath::assuming(&capabilities()))),
            ..Options::default()
        };
        let local = Local::new(Ebpf::open(options).unwrap(), Arc::new(|| NOW));
        let entities = from_yaml(NODE).unwrap();
        local.apply(&Transaction::replace("node", Owner::new("test").unwrap(), entities)).unwrap();
        let ports: Vec<PortName> = local.pipeline().ports().map(|port: &Port| port.name.clone()).collect();
        for port in ports {
            local.attach(&port).unwrap();
        }
        Self { local, pins, _mounted: mounted }
    }

    fn map(&self, name: &str) -> PathBuf {
        self.pins.join(name)
    }

    fn packet(words: &str) -> PacketIn {
        let bytes = loxi_conformance::build(words).unwrap();
        PacketIn { port: PortName::new("hs1").unwrap(), bytes, at: None }
    }

    fn inject(&self, words: &str) -> Injected {
        let request = InjectRequest { packets: vec![Self::packet(words)], ..InjectRequest::default() };
        self.local.inject(&request).unwrap().remove(0)
    }

    fn reference(&self, words: &str) -> Injected {
        let mut path = ReferencePath::assuming(&capabilities());
        let packet = Self::packet(words);
        self.local.with_backend(|ebpf| ebpf.explain_by(&mut path, &packet, NOW)).unwrap()
    }

    /// What is installed comes to what the programs do, and reading it changes nothing.
    fn explained(&self, words: &str) -> loxi_core::packet::Trace {
        let before = tables(&self.pins);
        let packet = Self::packet(words);
        let read = self.local.with_backend(|ebpf| ebpf.explain_programs(&packet, NOW, &ChoiceMode::First));
        let read = read.unwrap();
        let told = self.local.explain(&packet, None).unwrap().installed;
        assert!(tables(&self.pins) == before, "explaining has changed a table");
        assert_eq!(read.trace, told);
        let injected = self.inject(words);
        assert_eq!((read.fate, &read.outputs), (injected.verdict.fate, &injected.verdict.outputs), "{told}");
        // Who only tries a packet gets the same steps.
        assert_eq!(injected.trace, told);
        told
    }

    /// The whole way of a packet that the slow path finishes.
    fn explained_unfinished(&self, words: &str) -> loxi_core::packet::Trace {
        let packet = Self::packet(words);
        let trace = self.local.explain(&packet, None).unwrap().installed;
        assert_eq!(trace, self.inject(words).trace);
        trace
    }

    /// Rows of the plan that stand otherwise in the tables.
    fn audit(&self) -> Vec<(RowKey, Option<Row>, Option<Row>)> {
        let planned = Ebpf::compile(&self.local.pipeline(), &capabilities()).unwrap();
        let installed = self.local.with_backend(|ebpf| ebpf.read_back()).unwrap();
        let mut installed = rows(&installed);
        let mut wrong = Vec::new();
        for (key, row) in rows(&planned) {
            let found = installed.remove(&key);
            if found.as_ref() != Some(&row) {
                wrong.push((key, Some(row), found));
            }
        }
        wrong.extend(installed.into_iter().map(|(key, row)| (key, None, Some(row))));
        wrong
    }
}

fn rows(plan: &Plan) -> BTreeMap<RowKey, Row> {
    plan.rows().map(|(key, row)| (key.clone(), row.clone())).collect()
}

#[test]
fn an_endpoint_that_was_given_another_address() {
    let node = Node::new();
    let (whole, fine) = (node.explained(TO_SERVICE), node.inject(TO_SERVICE));
    assert_eq!(fine.verdict, node.reference(TO_SERVICE).verdict);
    assert_eq!(node.audit(), []);

    let map = node.map("BACKENDS");
    let addr = [10, 244, 1, 11];
    let (key, mut value) =
        dump(&map).into_iter().find(|(_, value)| value.windows(4).any(|bytes| bytes == addr)).unwrap();
    let at: Vec<usize> = (0..value.len() - 3).filter(|at| value[*at..at + 4] == addr).collect();
    for at in at {
        value[at + 3] = 12;
    }
    update(&map, &key, &value);

    let trace = node.explained(TO_SERVICE);
    assert_ne!(trace, whole);
    let text = trace.to_string();
    assert!(text.contains("-> nat to backend web-1 10.244.1.12:8080"), "{text}");
    let broken = node.inject(TO_SERVICE);
    assert_eq!(broken.verdict.fate, Fate::Forwarded);
    assert_eq!(broken.verdict.outputs[0].port.as_str(), "hs3");
    let reference = node.reference(TO_SERVICE);
    assert_eq!(reference.verdict, fine.verdict);
    let parting = trace.parts_from(&reference.trace).unwrap();
    assert_eq!(parting.this.stage, Stage::Service);
    assert_eq!(parting.other.unwrap().effect, "nat to backend web-1 10.244.1.11:8080");
    // Its services name its address too.
    let wrong = node.audit();
    assert!(wrong[1..].iter().all(|(key, ..)| matches!(key, RowKey::Service(_))), "{wrong:?}");
    assert!(matches!(&wrong[0].0, RowKey::Backend(name) if name.as_str() == "web-1"), "{wrong:?}");
    let (Some(Row::Backend(planned)), Some(Row::Backend(found))) = (&wrong[0].1, &wrong[0].2) else {
        panic!("{wrong:?}")
    };
    assert_eq!([planned.address, found.address].map(|a| a.to_string()), ["10.244.1.11", "10.244.1.12"]);
}

#[test]
fn a_route_that_was_given_another_next_hop() {
    let node = Node::new();
    let (whole, fine) = (node.explained(TO_NODE), node.inject(TO_NODE));
    assert_eq!(fine.verdict, node.reference(TO_NODE).verdict);
    let entity = |trace: &loxi_core::packet::Trace| {
        let routes = trace.steps.iter().filter_map(|step| step.entry.as_ref()?.entity.clone());
        routes.into_iter().find(|key| matches!(key, EntityKey::Route(_))).unwrap().to_string()
    };
    assert_eq!(entity(&whole), "route pods 10.244.2.0/24");

    let map = node.map("ROUTES");
    let all = dump(&map);
    let of = |addr: [u8; 4], bits: u8| {
        let prefix = move |key: &[u8]| key[0] == 64 + bits && key[8] == 4 && key[12..16] == addr;
        all.iter().filter(move |(key, _)| prefix(key))
    };
    let (key, target) = of([10, 244, 2, 0], 24).next().unwrap();
    // That of another route of the same VRF.
    let (_, other) = of([0; 4], 0).find(|(other, _)| other[4..8] == key[4..8]).unwrap();
    assert_ne!(target, other);
    update(&map, key, other);

    let trace = node.explained(TO_NODE);
    let broken = node.inject(TO_NODE);
    assert_ne!(broken.verdict, fine.verdict);
    let reference = node.reference(TO_NODE);
    assert_eq!(reference.verdict, fine.verdict);
    let parting = trace.parts_from(&reference.trace).unwrap();
    assert_eq!(parting.this.stage, Stage::Forward);
    assert_eq!(parting.this.key, "pods 10.244.2.10");
    assert_eq!(parting.this.effect, "next hop host-v4");
    assert_eq!(parting.other.unwrap().effect, "next hop n2");
    let wrong = node.audit();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(
        matches!(&wrong[0].0, RowKey::Route(route) if route.prefix.to_string() == "10.244.2.0/24"),
        "{wrong:?}"
    );

    // What leads nowhere is told, and has no route.
    update(&map, key, &[0xff, 0xff, 0, 0]);
    let trace = node.explained_unfinished(TO_NODE);
    assert!(trace.to_string().contains("next hop 65535, beyond the table's end"), "{trace}");
    let punt = node.inject(TO_NODE).punt.unwrap();
    assert!(trace.to_string().contains(&format!("punted({punt})")), "{trace}");
}

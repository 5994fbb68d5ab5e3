//! Generated cases: a node's pipeline with variations, and sequences of
//! packets and changes on it.
//!
//! A case is a handful of small numbers, so that it shrinks well; what they
//! mean is worked out here. Sequences are conversations: a connection's
//! packets in both directions, with damage sprinkled in.

use crate::packet::build;
use crate::row::{Row, RowFile, RowStep};
use crate::vary::Variation;
use loxi_core::dataplane::PacketIn;
use loxi_core::ir::Entity;
use loxi_core::net::PortName;
use loxi_core::text::PipelineText;
use proptest::prelude::*;

/// One step of a case, in small numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseStep {
    /// What happens: which kind of traffic, or a change.
    pub kind: u8,
    /// Who talks to whom.
    pub pair: u8,
    /// Which connection of that pair.
    pub port: u8,
    /// Where in the conversation.
    pub phase: u8,
    /// Payload bytes.
    pub size: u16,
    /// What is damaged; mostly nothing.
    pub damage: u8,
}

/// A pipeline's variation and what happens on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// How the node differs from the committed one.
    pub variation: Variation,
    /// What happens, in order.
    pub steps: Vec<CaseStep>,
}

/// A step as it is run.
pub(crate) enum Concrete {
    Packet(PacketIn),
    Change(Vec<Entity>),
}

/// Cases.
pub fn case() -> impl Strategy<Value = Case> {
    let damage = prop_oneof![12 => Just(0u8), 1 => 1u8..9];
    let step =
        (0u8..24, 0u8..8, 0u8..3, 0u8..6, prop_oneof![8 => 0u16..200, 1 => 1300u16..1700], damage).prop_map(
            |(kind, pair, port, phase, size, damage)| CaseStep { kind, pair, port, phase, size, damage },
        );
    (crate::vary::variation(), proptest::collection::vec(step, 1..40))
        .prop_map(|(variation, steps)| Case { variation, steps })
}

/// The entities of a case.
#[must_use]
pub fn pipeline_of(case: &Case) -> Vec<Entity> {
    case.variation.pipeline()
}

struct Station {
    port: &'static str,
    mac: &'static str,
    v4: &'static str,
    v6: &'static str,
}

const STATIONS: [Station; 4] = [
    Station { port: "hs1", mac: "02:00:00:00:01:01", v4: "10.244.1.10", v6: "fd00:10:244:1::10" },
    Station { port: "hs2", mac: "02:00:00:00:01:02", v4: "10.244.1.11", v6: "fd00:10:244:1::11" },
    Station { port: "hs3", mac: "02:00:00:00:01:03", v4: "10.244.1.12", v6: "fd00:10:244:1::12" },
    Station { port: "loxi_host", mac: "02:00:00:00:01:fe", v4: "10.244.1.2", v6: "fd00:10:244:1::2" },
];
const SWITCH: &str = "02:00:00:00:01:00";
const REMOTE: (&str, &str) = ("10.244.2.10", "fd00:10:244:2::10");
const VIP: (&str, &str) = ("10.96.0.1", "fd00:10:96::1");

/// The steps as they are run.
#[must_use]
pub(crate) fn packets_of(case: &Case) -> Vec<Concrete> {
    case.steps.iter().flat_map(|step| concrete(case, step)).collect()
}

/// A step's packet, with the one that opens its connection before it.
fn concrete(case: &Case, step: &CaseStep) -> Vec<Concrete> {
    if step.kind == 23 {
        return vec![Concrete::Change(case.variation.change(step.phase))];
    }
    let opening = CaseStep { phase: 0, damage: 0, ..step.clone() };
    let opens = step.phase == 0;
    (!opens)
        .then_some(opening)
        .into_iter()
        .chain(std::iter::once(step.clone()))
        .filter_map(|step| packet(&step))
        .collect()
}

fn packet(step: &CaseStep) -> Option<Concrete> {
    let (port, text) = packet_text(step);
    let mut bytes = build(&text).ok()?;
    damage(&mut bytes, step.damage);
    Some(Concrete::Packet(PacketIn { port: PortName::new(port).ok()?, bytes, at: None }))
}

/// A packet of a conversation. Even kinds are IPv4, odd ones IPv6.
fn packet_text(step: &CaseStep) -> (&'static str, String) {
    let v6 = step.kind % 2 == 1;
    let (a, b) = (&STATIONS[usize::from(step.pair % 4)], &STATIONS[usize::from(step.pair / 2 % 4)]);
    let b = if a.port == b.port { &STATIONS[usize::from((step.pair + 1) % 4)] } else { b };
    let addr = |station: &Station| if v6 { station.v6 } else { station.v4 };
    let ip = if v6 { "ipv6" } else { "ipv4" };
    let reply = step.phase % 2 == 1;
    let (from, to) = if reply { (b, a) } else { (a, b) };
    let sport = 40_000 + u16::from(step.port);
    match step.kind / 2 {
        // Between two pods, bridged.
        0..=3 => {
            let l4 = transport(step, sport, reply, v6);
            (from.port, format!("eth {}>{} / {ip} {}>{} / {l4}", from.mac, to.mac, addr(from), addr(to)))
        }
        // Between two pods, by way of the gateway's MAC.
        4 | 5 => {
            let l4 = transport(step, sport, reply, v6);
            (from.port, format!("eth {}>{SWITCH} / {ip} {}>{} / {l4}", from.mac, addr(from), addr(to)))
        }
        // To a pod of another node.
        6 | 7 => {
            let l4 = transport(step, sport, false, v6);
            let remote = if v6 { REMOTE.1 } else { REMOTE.0 };
            (a.port, format!("eth {}>{SWITCH} / {ip} {}>{remote} / {l4}", a.mac, addr(a)))
        }
        // To a service.
        8 | 9 => {
            let l4 = transport(step, sport, false, v6);
            let vip = if v6 { VIP.1 } else { VIP.0 };
            (a.port, format!("eth {}>{SWITCH} / {ip} {}>{vip} / {l4}", a.mac, addr(a)))
        }
        // From a pod of another node.
        10 => {
            let remote = if v6 { REMOTE.1 } else { REMOTE.0 };
            let l4 = transport(step, sport, false, v6);
            let inner = format!("eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / {ip} {remote}>{} / {l4}", addr(a));
            let outer = "eth 02:00:00:00:02:e0>02:00:00:00:01:e0 / ipv4 172.18.0.2>172.18.0.1 df";
            ("eth0", format!("{outer} / udp 50000>4789 csum=0 / vxlan 100 / {inner}"))
        }
        // To the outside.
        _ => {
            let outside = if v6 { "2001:db8::9" } else { "198.51.100.9" };
            let l4 = transport(step, sport, false, v6);
            (a.port, format!("eth {}>{SWITCH} / {ip} {}>{outside} / {l4}", a.mac, addr(a)))
        }
    }
}

fn transport(step: &CaseStep, sport: u16, reply: bool, v6: bool) -> String {
    let ports = if reply { format!("80>{sport}") } else { format!("{sport}>80") };
    let payload = if step.size == 0 { String::new() } else { format!(" / fill {}", step.size) };
    match (step.kind / 2 + step.port) % 3 {
        0 => format!("udp {ports}{payload}"),
        1 => {
            let flags = match step.phase {
                0 => "S",
                1 => "SA",
                5 => "FA",
                _ => "A",
            };
            let payload = if step.phase < 2 { String::new() } else { payload };
            format!("tcp {ports} {flags}{payload}")
        }
        _ => {
            let kind = match (v6, reply) {
                (false, false) => "icmp 8 0",
                (false, true) => "icmp 0 0",
                (true, false) => "icmp6 128 0",
                (true, true) => "icmp6 129 0",
            };
            format!("{kind} id={sport} seq={}{payload}", step.phase)
        }
    }
}

fn damage(bytes: &mut Vec<u8>, how: u8) {
    match how {
        1 => bytes.truncate(bytes.len() / 2),
        2 => bytes.truncate(13),
        3 => {
            if let Some(byte) = bytes.get_mut(24) {
                *byte ^= 0x55;
            }
        }
        4 => {
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 0xff;
            }
        }
        5 => {
            if let Some(byte) = bytes.get_mut(22) {
                *byte = 1;
            }
        }
        6 => {
            if let Some(byte) = bytes.get_mut(6) {
                *byte |= 1;
            }
        }
        7 => bytes.resize(bytes.len() + 10, 0),
        8 => {
            if let Some(byte) = bytes.get_mut(14) {
                *byte = 0x42;
            }
        }
        _ => {}
    }
}

impl Case {
    /// The case as a row file: its packets as bytes, to be completed with what is right.
    #[must_use]
    pub fn to_row(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let steps = packets_of(self)
            .into_iter()
            .filter_map(|step| match step {
                Concrete::Packet(packet) => Some(RowStep {
                    port: Some(packet.port),
                    packet: Some(format!("hex {}", hex(&packet.bytes))),
                    ..RowStep::default()
                }),
                Concrete::Change(entities) => {
                    let owner = loxi_core::ir::Owner::new("case").ok()?;
                    let changed = loxi_core::ir::Pipeline::from_entities(&owner, entities);
                    Some(RowStep { put: Some(PipelineText::from_pipeline(&changed)), ..RowStep::default() })
                }
            })
            .collect();
        let whole = loxi_core::ir::Owner::new("case")
            .map(|owner| loxi_core::ir::Pipeline::from_entities(&owner, pipeline_of(self)))
            .unwrap_or_default();
        let with = Some(PipelineText::from_pipeline(&whole));
        let row = Row { name: "shrunk".to_owned(), pipeline: None, needs: Vec::new(), with, steps };
        let file = RowFile { vars: std::collections::BTreeMap::new(), rows: vec![row] };
        serde_saphyr::to_string(&file).unwrap_or_default()
    }
}

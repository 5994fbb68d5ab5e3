//! Bodies of the fuzz targets. `fuzz/` drives them with libFuzzer, `tests/fuzz_smoke.rs` for a fixed number of
//! cases with proptest, so that CI runs them without any tool.
//!
//! Each takes any bytes, panics if something doesn't hold, and returns how much it judged: a
//! driver can assert that its inputs got anywhere.

use loxi_channel::frame::HEADER_LEN;
use loxi_channel::message::{Message, Peer};
use loxi_channel::request::{
    Apply, Attach, Explain, GetFlows, GetSnapshot, ImportState, Inject, InjectReply,
};
use loxi_channel::{Fault, Frame, Hello, Limits, Ping, Pong, Refused, Welcome};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, ChoiceMode, InjectRequest, Local, PacketIn};
use loxi_core::ir::{Entity, Owner, Pipeline};
use loxi_core::net::PortName;
use loxi_core::packet::{State, Timestamp};
use loxi_core::text;
use loxi_reference::Reference;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

/// The conformance suite's node: every stage has something to do.
const NODE: &str = include_str!("../../loxi-conformance/rows/pipelines/node.yaml");

/// Ports by the first byte of a frame. The last is closed, so that nothing may leave by it.
const PORTS: [&str; 6] = ["hs1", "hs2", "loxi_host", "eth0", "hsvxlan100", "hs3"];

static ENTITIES: LazyLock<Vec<Entity>> = LazyLock::new(|| text::from_yaml(NODE).unwrap_or_default());

fn owner() -> Owner {
    Owner::new("fuzz").expect("a plain name")
}

/// A reference on the node's pipeline, all of its ports but the last one open.
fn node() -> Local<Reference> {
    let local = Local::new(Reference::new(), Arc::new(|| Timestamp(Timestamp::SECOND)));
    local.apply(&Transaction::replace("1", owner(), ENTITIES.iter().cloned())).expect("the node's pipeline");
    for port in &PORTS[..5] {
        local.attach(&PortName::new(*port).expect("a port")).expect("attach");
    }
    local
}

/// Splits bytes into frames: a byte for the port, one for the length in units of 8 bytes and the
/// time that passes, the bytes.
fn frames(mut data: &[u8]) -> Vec<PacketIn> {
    let mut packets = Vec::new();
    let mut now = Timestamp::SECOND;
    while let [port, length, rest @ ..] = data {
        let length = (usize::from(*length) * 8).min(rest.len());
        now += u64::from(*port >> 4) * Timestamp::SECOND * 10;
        let port = PortName::new(PORTS[usize::from(*port & 15) % PORTS.len()]).expect("a port");
        packets.push(PacketIn { port, bytes: rest[..length].to_vec(), at: Some(Timestamp(now)) });
        data = &rest[length..];
        if packets.len() == 64 {
            break;
        }
    }
    packets
}

/// The inverse of what [`packet_reference`] reads: for seeds.
#[must_use]
pub fn seed_of(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (port, bytes) in frames {
        let units = bytes.len().div_ceil(8);
        data.push(*port);
        data.push(u8::try_from(units).unwrap_or(u8::MAX));
        data.extend_from_slice(bytes);
        data.resize(data.len() + units * 8 - bytes.len(), 0);
    }
    data
}

/// Any frames at any ports: no panic, every packet counted once, outputs by open ports only, state
/// that holds together and survives export and import. Returns how many packets led to an output.
pub fn packet_reference(data: &[u8]) -> usize {
    let packets = frames(data);
    let count = packets.len() as u64;
    let local = node();
    let request = InjectRequest { packets, now: None, choices: ChoiceMode::Seed(7), commit: true };
    let injected = local.inject(&request).expect("known ports");
    let open: BTreeSet<PortName> = local.with_backend(|backend| backend.attached()).into_iter().collect();
    for output in injected.iter().flat_map(|injected| &injected.verdict.outputs) {
        assert!(open.contains(&output.port), "an output by {}, which is closed", output.port);
        assert!(output.bytes.len() >= 14, "an output without an Ethernet header");
    }
    let counters = local.counters();
    assert!(counters.ports.values().all(|port| port.unaccounted() == 0), "{counters:?}");
    let tunnel = PortName::new("hsvxlan100").expect("a port");
    let entered: u64 = request.packets.iter().filter(|packet| packet.port == tunnel).count() as u64;
    let received: u64 =
        counters.ports.iter().filter(|(name, _)| **name != tunnel).map(|(_, port)| port.rx_packets).sum();
    assert_eq!(received + entered, count, "every packet is received by the port that it came by");
    state_holds_together(&local);
    injected.iter().filter(|injected| !injected.verdict.outputs.is_empty()).count()
}

fn state_holds_together(local: &Local<Reference>) {
    let state: State = local.with_backend(|backend| backend.export_state());
    let mut tuples = BTreeSet::new();
    for flow in &state.flows {
        let own = flow.id.tuple == flow.reply;
        assert!(tuples.insert((flow.id.zone.clone(), flow.id.tuple)), "a tuple of two flows: {flow:?}");
        assert!(own || tuples.insert((flow.id.zone.clone(), flow.reply)), "a tuple of two flows: {flow:?}");
    }
    for (zone, totals) in local.counters().zones {
        let flows = state.flows.iter().filter(|flow| flow.id.zone == zone).count() as u64;
        assert_eq!(totals.flows, flows, "zone {zone}");
        assert!(totals.half_open <= totals.flows && totals.flows <= totals.capacity, "zone {zone}");
    }
    let copy = node();
    copy.with_backend(|backend| backend.import_state(state.clone(), Timestamp(0))).expect("our own state");
    assert_eq!(copy.with_backend(|backend| backend.export_state()), state);
}

/// Any text: an error with a place, or entities whose text form reads back equal. Returns how
/// many entities there were.
pub fn ir_text(data: &[u8]) -> usize {
    let Ok(text) = std::str::from_utf8(data) else { return 0 };
    let mut judged = 0;
    for read in [text::from_yaml(text), text::from_json(text)] {
        let Ok(entities) = read else { continue };
        judged += entities.len();
        let pipeline = Pipeline::from_entities(&owner(), entities);
        // Whether the entities fit together or not: it is said, not died of.
        let _ = loxi_core::validate::validate(&pipeline);
        let yaml = text::to_yaml(&pipeline);
        let again = text::from_yaml(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_eq!(Pipeline::from_entities(&owner(), again), pipeline, "{yaml}");
        let json = text::to_json(&pipeline);
        let again = text::from_json(&json).unwrap_or_else(|error| panic!("{error}\n{json}"));
        assert_eq!(Pipeline::from_entities(&owner(), again), pipeline, "{json}");
    }
    judged
}

/// Decodes a frame as one kind of message; what decodes encodes and decodes to the same bytes.
fn as_message<M: Message>(frame: &Frame<'_>, limits: &Limits) -> usize {
    let Ok(message) = M::from_frame(frame, limits.depth) else { return 0 };
    let once = message.to_frame(frame.correlation, limits.reply).expect("a message that was read");
    let again = Frame::decode(&once, limits.reply).expect("our own frame");
    let again = M::from_frame(&again, limits.depth).expect("our own message");
    assert_eq!(again.to_frame(frame.correlation, limits.reply).expect("the same message"), once);
    1
}

/// Any message, taken for each kind: an error, or a message that survives the way. Returns how many kinds
/// it was, which is one at most.
pub fn channel_message(data: &[u8]) -> usize {
    let limits = Limits::default();
    let _ = loxi_channel::frame::correlation_of(data);
    let Ok(frame) = Frame::decode(data, limits.request) else { return 0 };
    assert_eq!(frame.body.len() + HEADER_LEN, data.len());
    let judged = as_message::<Hello>(&frame, &limits)
        + as_message::<Welcome>(&frame, &limits)
        + as_message::<Refused>(&frame, &limits)
        + as_message::<Ping>(&frame, &limits)
        + as_message::<Pong>(&frame, &limits)
        + as_message::<Fault>(&frame, &limits)
        + as_message::<Apply>(&frame, &limits)
        + as_message::<GetSnapshot>(&frame, &limits)
        + as_message::<GetFlows>(&frame, &limits)
        + as_message::<Explain>(&frame, &limits)
        + as_message::<Inject>(&frame, &limits)
        + as_message::<InjectReply>(&frame, &limits)
        + as_message::<Attach>(&frame, &limits)
        + as_message::<ImportState>(&frame, &limits);
    assert!(judged <= 1, "a body has one meaning: that of its kind");
    judged
}

/// Whole messages of several kinds: seeds.
#[must_use]
pub fn messages() -> Vec<Vec<u8>> {
    let limit = Limits::default().reply;
    let transaction = Transaction::replace("seed", owner(), ENTITIES.iter().take(6).cloned());
    let packet = PacketIn { port: PortName::new("hs1").expect("a port"), bytes: vec![0; 60], at: None };
    let request = InjectRequest { packets: vec![packet.clone()], ..InjectRequest::default() };
    let hello = Hello {
        protocol: loxi_channel::PROTOCOL,
        ir_version: loxi_core::IR_VERSION,
        client: Peer { name: "seed".to_owned(), version: "1".to_owned() },
    };
    [
        hello.to_frame(1, limit),
        Ping { token: 7 }.to_frame(2, limit),
        Apply { transaction }.to_frame(3, limit),
        Explain { packet, now: None }.to_frame(4, limit),
        Inject { request }.to_frame(5, limit),
        ImportState { state: State::default() }.to_frame(6, limit),
    ]
    .into_iter()
    .map(|frame| frame.expect("a small message"))
    .collect()
}

/// An invocation of the CNI plugin: six variables and the configuration, separated by zeroes.
const VARIABLES: [&str; 6] =
    ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"];

/// Any environment and configuration: an error with a number that CNI has for it, printed as JSON, or an invocation
/// whose names are fit for paths and links. Returns 1 for an invocation.
pub fn cni_invocation(data: &[u8]) -> usize {
    let mut parts = data.splitn(VARIABLES.len() + 1, |byte| *byte == 0);
    let variables: Vec<Option<String>> = VARIABLES
        .iter()
        .map(|_| parts.next().and_then(|part| String::from_utf8(part.to_vec()).ok()))
        .collect();
    let env = |name: &str| {
        let at = VARIABLES.iter().position(|variable| *variable == name)?;
        variables[at].clone()
    };
    let text = loxi_cni::input::read(parts.next().unwrap_or_default());
    match text.and_then(|text| loxi_cni::input::Input::new(&env, &text)) {
        Ok(loxi_cni::input::Input { request: loxi_cni::input::Request::Version, .. }) => 1,
        Ok(loxi_cni::input::Input {
            request: loxi_cni::input::Request::Ask { socket, invocation, .. },
            ..
        }) => {
            assert!(socket.starts_with('/'), "{socket}");
            for name in [&invocation.container_id, &invocation.ifname] {
                assert!(!name.contains(['/', '\0']) && name != "..", "{name:?}");
            }
            assert!(invocation.ifname.len() < 16, "{:?}", invocation.ifname);
            1
        }
        Err(refused) => {
            assert!(matches!(refused.failure.code, 1 | 4 | 6 | 7), "{:?}", refused.failure);
            let printed = loxi_cni::output::failure(refused.version, &refused.failure);
            let value: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
            assert_eq!(value["msg"], refused.failure.msg);
            0
        }
    }
}

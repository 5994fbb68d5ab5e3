//! The bytes on the wire, held to committed files.
//!
//! Every kind has a file in `golden/`, as hex in lines of 16 bytes; `#` begins a
//! comment. A difference means that peers of another build no longer understand
//! each other: it needs a new version of the protocol, not a new file. To write
//! the file of a new kind, run with `LOXI_WRITE_GOLDEN=1`; existing files are
//! never overwritten.

#![allow(clippy::unwrap_used)]

mod samples;

use loxi_channel::message::{Peer, RefusedReason};
use loxi_channel::request::*;
use loxi_channel::{
    Fault, FaultCode, Frame, Hello, Kind, Limits, Message, PROTOCOL, Ping, Pong, ProtocolVersion, Refused,
    Welcome,
};
use loxi_core::capability::{Capabilities, Feature, StageSupport};
use loxi_core::dataplane::DataplaneError;
use loxi_core::ir::EntityKind;
use loxi_core::packet::{Stage, Timestamp};
use loxi_core::reason::{DropReason, PuntReason};
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::path::{Path, PathBuf};

const CORRELATION: u64 = 0x0102_0304_0506_0708;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.hex"))
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let line: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", line.join(" ")).unwrap();
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn hold<M: Message + PartialEq + Debug>(name: &str, message: &M, seen: &mut BTreeSet<u16>) {
    let limits = Limits::default();
    let bytes = message.to_frame(CORRELATION, limits.request).unwrap();
    let path = file(name);
    if !path.exists() && std::env::var_os("LOXI_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, to_hex(&bytes)).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(to_hex(&bytes), to_hex(&from_hex(&golden)), "{name}: written");

    let golden = from_hex(&golden);
    let frame = Frame::decode(&golden, limits.request).unwrap();
    assert_eq!(frame.version, PROTOCOL);
    assert_eq!(frame.correlation, CORRELATION);
    assert_eq!(&M::from_frame(&frame, limits.depth).unwrap(), message, "{name}: read");
    seen.insert(frame.kind.code());
}

#[test]
fn every_kind_keeps_its_bytes() {
    let mut seen = BTreeSet::new();
    let protocol = ProtocolVersion { major: 1, minor: 0 };
    let peer = |name: &str| Peer { name: name.to_owned(), version: "0.1.0".to_owned() };
    let hello = Hello { protocol, ir_version: 1, client: peer("llcli") };
    hold("hello", &hello, &mut seen);
    let welcome = Welcome {
        protocol,
        ir_version: 1,
        server: peer("loxilightd"),
        instance: "node-1".to_owned(),
        backend: "reference".to_owned(),
        generation: 42,
        boot: 0x1122_3344_5566_7788,
    };
    hold("welcome", &welcome, &mut seen);
    for (name, reason) in [
        ("refused-ir-version", RefusedReason::IrVersion { ours: 2, theirs: 1 }),
        ("refused-shutting-down", RefusedReason::ShuttingDown),
        ("refused-other", RefusedReason::Other("no".to_owned())),
    ] {
        hold(name, &Refused { reason }, &mut seen);
    }
    hold("ping", &Ping { token: 7 }, &mut seen);
    hold("pong", &Pong { token: 7, boot: 9 }, &mut seen);
    for code in [
        FaultCode::Malformed,
        FaultCode::UnknownKind,
        FaultCode::Protocol,
        FaultCode::TooLong,
        FaultCode::ShuttingDown,
        FaultCode::Internal,
    ] {
        let name = format!("fault-{}", code.to_string().replace(' ', "-"));
        let message = "what happened".to_owned();
        hold(&name, &Fault { code, message }, &mut seen);
    }
    requests(&mut seen);
    let every: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(seen, every, "a kind has no golden frame");
}

/// What a dataplane is asked and answers. The description inside has a version
/// of its own: where one of these differs, that one must go up.
fn requests(seen: &mut BTreeSet<u16>) {
    hold("capabilities", &GetCapabilities {}, seen);
    let capabilities = Capabilities {
        backend: "test".to_owned(),
        capacity: [(EntityKind::Bridge, 10)].into(),
        features: [Feature::BridgeLearning].into(),
        stages: [(Stage::Parse, StageSupport::Full)].into(),
        punts: [PuntReason::NotOursRoute].into(),
        coarse_reasons: [(DropReason::SpoofArp, DropReason::SpoofIp)].into(),
        least_connections_slack: 1,
    };
    hold("capabilities-reply", &GetCapabilitiesReply { outcome: Ok(capabilities) }, seen);
    hold("apply", &Apply { transaction: samples::transaction() }, seen);
    hold("apply-reply", &ApplyReply { outcome: Ok(samples::applied()) }, seen);
    for (index, error) in samples::errors().into_iter().enumerate() {
        hold(&format!("apply-reply-error-{index}"), &ApplyReply { outcome: Err(error) }, seen);
    }
    hold("snapshot", &GetSnapshot { query: samples::snapshot_query() }, seen);
    hold("snapshot-reply", &GetSnapshotReply { outcome: Ok(samples::snapshot_page()) }, seen);
    hold("flows", &GetFlows { query: samples::flow_query() }, seen);
    hold("flows-reply", &GetFlowsReply { outcome: Ok(samples::flow_page()) }, seen);
    hold("counters", &GetCounters {}, seen);
    hold("counters-reply", &GetCountersReply { outcome: Ok(samples::counters()) }, seen);
    let now = Some(Timestamp(3));
    hold("explain", &Explain { packet: samples::packet(), now }, seen);
    hold("explain-reply", &ExplainReply { outcome: Ok(samples::explanation()) }, seen);
    hold("inject", &Inject { request: samples::inject_request() }, seen);
    hold("inject-reply", &InjectReply { outcome: Ok(vec![samples::injected()]) }, seen);
    hold("attach", &Attach { port: samples::port("hs1") }, seen);
    hold("attach-reply", &AttachReply { outcome: Ok(()) }, seen);
    let error = DataplaneError::NoSuchPort(samples::port("hs9"));
    hold("attach-reply-error", &AttachReply { outcome: Err(error) }, seen);
    hold("detach", &Detach { port: samples::port("hs1") }, seen);
    hold("detach-reply", &DetachReply { outcome: Ok(()) }, seen);
    hold("export-state", &ExportState {}, seen);
    hold("export-state-reply", &ExportStateReply { outcome: Ok(samples::state()) }, seen);
    hold("import-state", &ImportState { state: samples::state() }, seen);
    hold("import-state-reply", &ImportStateReply { outcome: Ok(()) }, seen);
    hold("mark", &Mark { token: 7 }, seen);
    hold("mark-reply", &MarkReply { outcome: Ok(()) }, seen);
    hold("notice-event", &Notice::Event(samples::event()), seen);
    hold("notice-mark", &Notice::Mark(7), seen);
}

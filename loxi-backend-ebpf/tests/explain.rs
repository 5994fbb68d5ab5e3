//! What `explain` reads from the tables is what the programs do: packet by packet, on the committed rows
//! and on generated cases, at both hooks.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use loxi_backend_ebpf::{Devices, Ebpf, Explained, Mode, Options, Sizes, capabilities};
use loxi_conformance::{run_generated, run_rows};
use loxi_core::capability::Capabilities;
use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::{
    ChoiceMode, Dataplane, DataplaneError, FlowPage, FlowQuery, InjectRequest, Injected, Local, PacketIn,
    SnapshotPage, SnapshotQuery,
};
use loxi_core::ir::EntityKey;
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, Fate, Stage, State, Timestamp, Trace, TraceStep};
use loxi_core::reason::DropReason;
use loxi_reference::ReferencePath;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn local(mode: Mode) -> Local<Ebpf> {
    let options = Options {
        mode,
        sizes: Sizes { flows_v4: 4096, flows_v6: 4096 },
        devices: Devices::None,
        slow_path: Some(Box::new(ReferencePath::assuming(&capabilities()))),
        ..Options::default()
    };
    Local::new(Ebpf::open(options).unwrap(), Arc::new(|| Timestamp(loxi_linux::clock::now())))
}

/// A dataplane that reads from the tables what will become of each packet before it is run, and
/// compares.
struct Asking {
    local: Local<Ebpf>,
    asked: AtomicUsize,
    forwarded: AtomicUsize,
    short: AtomicUsize,
    made_room: AtomicUsize,
    /// Packets of which rules or isolations decided, by name.
    named: AtomicUsize,
    differences: Mutex<Vec<String>>,
}

/// What differs between the reading and the run; none: nothing.
fn difference(explained: &Explained, injected: &Injected) -> Option<String> {
    let last = explained.trace.steps.last();
    let said = explained.fate.to_string();
    if last.is_none_or(|last| last.stage != Stage::Send || last.effect != said) {
        return Some(format!("the last step does not tell of {said}"));
    }
    if let Some(reason) = injected.punt {
        let same = explained.fate == Fate::Punted(reason);
        return (!same).then(|| format!("{said}, where the programs punt for {reason}"));
    }
    let verdict = &injected.verdict;
    if explained.fate != verdict.fate || explained.outputs != verdict.outputs {
        return Some(format!("{said} {:?}\n  where the programs have\n  {verdict:?}", explained.outputs));
    }
    let met: u32 = injected.trace.steps.iter().map(|step| 1 << step.stage.number()).sum();
    (met != explained.stages)
        .then(|| format!("stages {:#b}, where the programs met {met:#b}", explained.stages))
}

/// Entities of the policies that decided.
fn deciders(trace: &Trace) -> Vec<EntityKey> {
    let judged = |step: &&TraceStep| matches!(step.stage, Stage::EgressPolicy | Stage::IngressPolicy);
    let entity = |step: &TraceStep| step.entry.as_ref()?.entity.clone();
    trace.steps.iter().filter(judged).filter_map(entity).collect()
}

impl Asking {
    fn new(mode: Mode) -> Self {
        let zero = AtomicUsize::default;
        let differences = Mutex::default();
        Self {
            local: local(mode),
            asked: zero(),
            forwarded: zero(),
            short: zero(),
            made_room: zero(),
            named: zero(),
            differences,
        }
    }

    fn ask(&self, request: &InjectRequest) -> Vec<Explained> {
        let now = request.now.unwrap_or_else(|| Timestamp(loxi_linux::clock::now()));
        let explain = |packet: &PacketIn| {
            self.local.with_backend(|ebpf| {
                let explained = ebpf.explain_programs(packet, now, &request.choices).unwrap();
                self.compare_deciders(ebpf, packet, now, &explained);
                explained
            })
        };
        request.packets.iter().map(explain).collect()
    }

    /// Whether the rules and isolations that decide are named as the reference names them.
    fn compare_deciders(&self, ebpf: &Ebpf, packet: &PacketIn, now: Timestamp, explained: &Explained) {
        let named = deciders(&explained.trace);
        let judged = |step: &TraceStep| matches!(step.stage, Stage::EgressPolicy | Stage::IngressPolicy);
        if explained.is_unfinished() || !explained.trace.steps.iter().any(judged) {
            return;
        }
        let mut path = ReferencePath::assuming(&capabilities());
        let by_reference = ebpf.explain_by(&mut path, packet, now).unwrap();
        self.named.fetch_add(named.len(), Ordering::Relaxed);
        if named != deciders(&by_reference.trace) {
            let told = format!("{}\n  where the reference has\n{}", explained.trace, by_reference.trace);
            self.differences.lock().unwrap().push(told);
        }
    }

    /// Fails if anything differed, or if too little was compared to say that nothing does.
    fn finish(&self, least: usize, least_short: usize) {
        let differences = self.differences.lock().unwrap();
        let (asked, forwarded) = (self.asked.load(Ordering::Relaxed), self.forwarded.load(Ordering::Relaxed));
        let short = self.short.load(Ordering::Relaxed);
        println!("{asked} packets, {forwarded} forwarded, {short} by the short way");
        assert!(
            differences.is_empty(),
            "{} of {asked} differ:\n{}",
            differences.len(),
            differences.join("\n")
        );
        assert!(self.made_room.load(Ordering::Relaxed) < 5);
        assert!(asked >= least && forwarded * 4 > asked && short >= least_short, "too little to compare");
    }
}

#[async_trait]
impl Dataplane for Asking {
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError> {
        Dataplane::capabilities(&self.local).await
    }
    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError> {
        self.local.apply(&transaction)
    }
    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        Ok(self.local.snapshot(&query))
    }
    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError> {
        self.local.flows(&query)
    }
    async fn counters(&self) -> Result<Counters, DataplaneError> {
        Ok(self.local.counters())
    }
    async fn inject(&self, request: InjectRequest) -> Result<Vec<Injected>, DataplaneError> {
        let explained = self.ask(&request);
        let injected = self.local.inject(&request)?;
        for ((explained, injected), packet) in explained.iter().zip(&injected).zip(&request.packets) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let forwarded = usize::from(injected.verdict.fate == Fate::Forwarded);
            self.forwarded.fetch_add(forwarded, Ordering::Relaxed);
            let short = explained.trace.steps.iter().any(|step| step.effect == "believed");
            self.short.fetch_add(usize::from(short), Ordering::Relaxed);
            let limit = matches!(
                explained.fate,
                Fate::Dropped(DropReason::CtFull | DropReason::CtHalfOpenLimit | DropReason::CtSourceLimit)
            );
            // Before a packet by hand, flows that are over make room; packets of the wire find them there.
            if limit && injected.verdict.fate == Fate::Forwarded {
                self.made_room.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if let Some(difference) = difference(explained, injected) {
                let bytes: String = packet.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let told = format!("{} {bytes}: {difference}\n{}", packet.port, explained.trace);
                self.differences.lock().unwrap().push(told);
            }
        }
        Ok(injected)
    }
    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        self.local.attach(&port)
    }
    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        self.local.detach(&port)
    }
    async fn export_state(&self) -> Result<State, DataplaneError> {
        Dataplane::export_state(&self.local).await
    }
    async fn import_state(&self, state: State) -> Result<(), DataplaneError> {
        Dataplane::import_state(&self.local, state).await
    }
}

/// Generated cases of a run: more where somebody asks for more.
fn cases(usual: usize) -> usize {
    std::env::var("LOXI_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

async fn rows(mode: Mode) {
    let asking = Asking::new(mode);
    let report = run_rows(&asking).await.unwrap();
    assert!(report.failures().is_empty(), "{report}");
    asking.finish(200, 0);
    let named = asking.named.load(Ordering::Relaxed);
    assert!(named > 10, "only {named} deciders were named");
}

async fn generated(mode: Mode) {
    let asking = Asking::new(mode);
    run_generated(&asking, cases(200)).await.unwrap_or_else(|error| panic!("{error}"));
    asking.finish(1000, 20);
}

#[tokio::test]
async fn rows_at_tc() {
    rows(Mode::Tc).await;
}

#[tokio::test]
async fn rows_at_xdp() {
    rows(Mode::Xdp).await;
}

#[tokio::test]
async fn generated_cases_at_tc() {
    generated(Mode::Tc).await;
}

#[tokio::test]
async fn generated_cases_at_xdp() {
    generated(Mode::Xdp).await;
}

const BRIDGE: &str = "\
version: 1
zones: [{name: z}]
bridges: [{name: b, zone: z, learning: false}]
ports:
  - {name: p1, kind: pod, mac: \"02:00:00:00:00:01\", attachment: {bridge: {bridge: b}}}
  - {name: p2, kind: pod, mac: \"02:00:00:00:00:02\", attachment: {bridge: {bridge: b}}}
fdb:
  - {bridge: b, mac: \"02:00:00:00:00:02\", target: {port: p2}}
";

#[test]
fn a_record_of_a_flow_is_told_of_with_why_it_is_or_is_not_believed() {
    let local = local(Mode::Tc);
    let apply = |id: &str, more: &str| {
        let entities = loxi_core::text::from_yaml(&format!("{BRIDGE}{more}")).unwrap();
        local.apply(&Transaction::replace(id, loxi_core::ir::Owner::new("test").unwrap(), entities)).unwrap();
    };
    apply("one", "");
    let port = |name: &str| PortName::new(name).unwrap();
    local.attach(&port("p1")).unwrap();
    local.attach(&port("p2")).unwrap();
    let now = Timestamp(1_000_000 * Timestamp::SECOND);
    let bytes = loxi_conformance::build(
        "eth 02:00:00:00:00:01>02:00:00:00:00:02 / ipv4 10.0.0.1>10.0.0.2 / udp 1>2 / data hello",
    );
    let packet = PacketIn { port: port("p1"), bytes: bytes.unwrap(), at: None };
    let told = |now| local.explain(&packet, Some(now)).unwrap().installed.to_string();
    let run = || {
        let request = InjectRequest {
            packets: vec![packet.clone()],
            now: Some(now),
            commit: true,
            ..Default::default()
        };
        assert_eq!(local.inject(&request).unwrap()[0].verdict.fate, Fate::Forwarded);
    };
    assert!(!told(now).contains("short way"), "{}", told(now));
    run();
    let short = told(now);
    assert!(short.contains("short way: zone z udp 10.0.0.1:1 -> 10.0.0.2:2 [record "), "{short}");
    assert!(short.contains("unreplied, fast, epoch ") && short.contains("] -> believed\n"), "{short}");
    assert!(short.ends_with("16 send               1 output(s) -> forwarded\n"), "{short}");
    let later = told(Timestamp(now.0 + 2 * Timestamp::SECOND));
    assert!(later.contains("not believed: its decision is to be looked at again by now\n"), "{later}");
    assert!(later.contains("[flow udp 10.0.0.1:1 -> 10.0.0.2:2] -> original, unreplied"), "{later}");
    apply("two", "vrfs: [{name: v}]\n");
    let stale = told(now);
    assert!(stale.contains("] -> not believed: decided in epoch "), "{stale}");
    assert!(stale.contains(": judged again\n"), "{stale}");
    run();
    assert!(told(now).contains("] -> believed\n"), "{}", told(now));
    // Asking took nothing: the flow has the packets that were run.
    let page = local.flows(&FlowQuery::default()).unwrap();
    assert_eq!(page.flows.iter().map(|flow| flow.packets).collect::<Vec<_>>(), [[2, 0]]);
}

#[test]
fn limits_are_those_that_a_packet_would_meet() {
    let local = local(Mode::Tc);
    let text = BRIDGE.replace("{name: z}", "{name: z, max_flows: 1}");
    let entities = loxi_core::text::from_yaml(&text).unwrap();
    local.apply(&Transaction::replace("x", loxi_core::ir::Owner::new("test").unwrap(), entities)).unwrap();
    let port = |name: &str| PortName::new(name).unwrap();
    local.attach(&port("p1")).unwrap();
    local.attach(&port("p2")).unwrap();
    let now = Timestamp(1_000_000 * Timestamp::SECOND);
    let check = |tcp: &str, fate: &str| {
        let words = format!("eth 02:00:00:00:00:01>02:00:00:00:00:02 / ipv4 10.0.0.1>10.0.0.2 / tcp {tcp}");
        let bytes = loxi_conformance::build(&words).unwrap();
        let packet = PacketIn { port: port("p1"), bytes, at: None };
        let explain = |ebpf: &mut Ebpf| ebpf.explain_programs(&packet, now, &ChoiceMode::First).unwrap();
        let explained = local.with_backend(explain);
        let mut request = InjectRequest {
            packets: vec![packet.clone()],
            now: Some(now),
            commit: false,
            ..Default::default()
        };
        let dry = local.inject(&request).unwrap().remove(0);
        assert_eq!(dry.verdict.fate.to_string(), fate, "asked without commit");
        request.commit = true;
        let injected = local.inject(&request).unwrap().remove(0);
        assert_eq!(explained.fate.to_string(), fate, "{}", explained.trace);
        assert_eq!(difference(&explained, &injected), None, "{}", explained.trace);
    };
    check("1000>80 S", "forwarded");
    check("1001>80 S", "dropped(ct_full)");
    check("1000>80 R", "forwarded");
    // The connection that is over makes room for the one that takes its place.
    check("1000>80 S", "forwarded");
    check("1001>80 S", "dropped(ct_full)");
}

//! The reference's stages on the state in the tables: every committed row comes to the same as on the
//! reference's own memory, verdict by verdict, and leaves the same state behind.
#![allow(clippy::unwrap_used)]

use loxi_backend_ebpf::capabilities;
use loxi_backend_ebpf::install::Installer;
use loxi_backend_ebpf::plan::PlanIndex;
use loxi_backend_ebpf::state::{Pace, Store, export, forget, import, recount};
use loxi_backend_ebpf::sys::SimulatedKernel;
use loxi_conformance::{Row, RowStep, rows};
use loxi_core::change::{Change, Operation, Transaction};
use loxi_core::dataplane::{Backend, Local, PuntedPacket, SlowPath, SlowPathView};
use loxi_core::ir::{CtTimeouts, Owner, Pipeline};
use loxi_core::net::PortName;
use loxi_core::packet::{ChoicePoint, ChoiceSource, State, Timestamp, Verdict};
use loxi_core::reason::PuntReason;
use loxi_ebpf_layout::flow::TICK_SHIFT;
use loxi_reference::{Reference, ReferencePath};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SEED: u64 = 7;
const START: u64 = 1_000_000;

fn timeouts(of: &CtTimeouts) -> [u32; 16] {
    [
        0,
        of.tcp_syn_sent_s,
        of.tcp_syn_received_s,
        of.tcp_established_s,
        of.tcp_fin_wait_s,
        of.tcp_close_wait_s,
        of.tcp_last_ack_s,
        of.tcp_time_wait_s,
        of.tcp_close_s,
        of.sctp_setup_s,
        of.sctp_established_s,
        of.sctp_shutdown_s,
        of.udp_s,
        of.udp_stream_s,
        of.icmp_s,
        of.other_s,
    ]
}

/// The tables of a node in memory, and who writes plans into them.
struct Tables {
    installer: Installer,
    index: PlanIndex,
    pipeline: Arc<Pipeline>,
    pace: Pace,
}

impl Tables {
    fn new() -> Self {
        let kernel = SimulatedKernel::new([256, 256]).unwrap();
        let (installer, plan) = Installer::new(Box::new(kernel)).unwrap();
        let (index, pipeline, pace) = (PlanIndex::from_plan(plan), Arc::default(), Pace::default());
        Self { installer, index, pipeline, pace }
    }

    fn store(&mut self) -> Store<'_> {
        self.installer.store(SEED, &mut self.pace)
    }

    /// Takes over what a change makes of the configuration.
    fn install(&mut self, change: &Change) {
        let mut pipeline = (*self.pipeline).clone();
        change.apply_to(&mut pipeline);
        let delta = self.index.compile_change(&pipeline, change, &capabilities()).unwrap();
        let undo = self.installer.install(delta).unwrap();
        self.index.apply(undo.delta());
        forget(&mut self.store(), undo.gone()).unwrap();
        self.pipeline = Arc::new(pipeline);
    }
}

/// State as exact as the tables are, and without what has expired and what is nobody's.
fn plain(mut state: State, pipeline: &Pipeline, now: Timestamp) -> State {
    let round = |at: Timestamp| Timestamp(at.0 >> TICK_SHIFT << TICK_SHIFT);
    state.flows.retain(|flow| flow.expires > now);
    for flow in &mut state.flows {
        let zone = pipeline.zones().find(|zone| zone.name == flow.id.zone).unwrap();
        let number = match flow.state {
            loxi_core::packet::FlowState::Tcp(of) => 1 + of as usize,
            loxi_core::packet::FlowState::Sctp(of) => 9 + of as usize,
            loxi_core::packet::FlowState::Unreplied => 12,
            loxi_core::packet::FlowState::Replied => 13,
        };
        let number = match (number, flow.id.tuple.protocol.0) {
            (12 | 13, 17) => number,
            (12 | 13, 1 | 58) => 14,
            (12 | 13, _) => 15,
            _ => number,
        };
        let idle = u64::from(timeouts(&zone.timeouts)[number]) * Timestamp::SECOND;
        flow.expires = Timestamp(round(Timestamp(flow.expires.0 - idle)).0 + idle);
    }
    state.fdb.retain(|entry| entry.expires > now);
    state.neighbors.retain(|entry| entry.expires > now);
    state.affinity.retain(|entry| entry.expires > now);
    for entry in &mut state.path_mtus {
        entry.expires = round(entry.expires);
    }
    state.path_mtus.retain(|entry| entry.expires > now);
    state.round_robin.retain(|(_, turn)| *turn != 0);
    // Generations are each store's own: what counts is whether a flow's are the present ones.
    for flow in &mut state.flows {
        if let Some((name, generation)) = &mut flow.backend {
            let slot = state.slots.iter().find(|slot| slot.backend == *name);
            *generation = u64::from(slot.is_some_and(|slot| slot.generation == *generation));
        }
        for (name, generation) in
            [&mut flow.policy.source, &mut flow.policy.destination].into_iter().flatten()
        {
            let present =
                state.policy_generations.iter().find(|(port, _)| port == name).map_or(0, |(_, at)| *at);
            *generation = u64::from(present == *generation);
        }
    }
    for entry in &mut state.affinity {
        let slot = state.slots.iter().find(|slot| slot.backend == entry.backend.0);
        entry.backend.1 = u64::from(slot.is_some_and(|slot| slot.generation == entry.backend.1));
    }
    state.slots.clear();
    state.policy_generations.clear();
    state
}

fn transaction(step: &RowStep, n: usize, owner: &Owner) -> Option<Transaction> {
    if step.put.is_none() && step.delete.is_empty() {
        return None;
    }
    let put = step.put.clone().map_or_else(Vec::new, |text| text.into_entities().unwrap());
    let put = put.into_iter().map(|entity| Operation::Put(Box::new(entity)));
    let delete = step.delete.iter().cloned().map(Operation::Delete);
    Some(Transaction::change(format!("step {n}"), owner.clone(), put.chain(delete).collect()))
}

struct Both {
    reference: Local<Reference>,
    tables: Tables,
    path: ReferencePath,
    attached: BTreeSet<PortName>,
    clock: Arc<AtomicU64>,
}

impl Both {
    fn new(row: &Row, owner: &Owner) -> Self {
        let clock = Arc::new(AtomicU64::new(START * Timestamp::SECOND));
        let read = Arc::clone(&clock);
        let reference =
            Local::new(Reference::new(), Arc::new(move || Timestamp(read.load(Ordering::SeqCst))));
        let transaction = Transaction::replace("row", owner.clone(), row.entities().unwrap());
        let change = reference.plan(&transaction).unwrap();
        reference.apply(&transaction).unwrap();
        let attached: BTreeSet<_> = reference.pipeline().ports().map(|port| port.name.clone()).collect();
        for port in &attached {
            reference.attach(port).unwrap();
        }
        let mut both = Self { reference, tables: Tables::new(), path: ReferencePath::new(), attached, clock };
        both.tables.install(&change);
        both
    }

    fn state(&self) -> State {
        self.reference.with_backend(|backend| backend.export_state())
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::SeqCst))
    }

    /// A packet on both: what each makes of it.
    fn packet(&mut self, port: &PortName, bytes: &[u8], choose: &[u64]) -> (Verdict, Verdict) {
        let now = self.now();
        let given = || Given(choose.iter().copied().collect());
        let wanted = self.reference.with_backend(|backend| backend.receive(port, bytes, now, &mut given()));
        let reason = PuntReason::FirstPacket;
        let packet = PuntedPacket { port: port.clone(), zone: None, reason, bytes: bytes.to_vec() };
        let pipeline = Arc::clone(&self.tables.pipeline);
        let mut store = self.tables.store();
        let view = SlowPathView { pipeline: &pipeline, attached: &self.attached, state: &mut store, now };
        let finished = self.path.finish(&packet, view, &mut given(), false);
        (finished.injected.verdict, wanted)
    }
}

/// Values that a row gives, then those that need no randomness.
struct Given(VecDeque<u64>);

impl ChoiceSource for Given {
    fn choose(&mut self, point: &ChoicePoint) -> u64 {
        self.0.pop_front().unwrap_or_else(|| point.default_value())
    }
}

#[test]
fn every_row_comes_to_the_same_on_the_tables() {
    let owner = Owner::new("test").unwrap();
    let (mut packets, mut flows, mut changes) = (0, 0, 0);
    for (file, row) in rows().unwrap() {
        let what = format!("{file}: {}", row.name);
        let mut both = Both::new(&row, &owner);
        for (n, step) in row.steps.iter().enumerate() {
            if let Some(at) = step.at {
                both.clock.store((START + at) * Timestamp::SECOND, Ordering::SeqCst);
            }
            if let Some(transaction) = transaction(step, n, &owner) {
                let change = both.reference.plan(&transaction).unwrap();
                both.reference.apply(&transaction).unwrap();
                both.attached =
                    both.reference.with_backend(|backend| backend.attached()).into_iter().collect();
                both.tables.install(&change);
                changes += 1;
            }
            if let Some(port) = &step.detach {
                both.reference.detach(port).unwrap();
                both.attached.remove(port);
            }
            if let (Some(port), Some(packet)) = (&step.port, &step.packet) {
                let bytes = row.bytes(n, packet).unwrap();
                let (got, wanted) = both.packet(port, &bytes, &step.choose);
                assert_eq!(got, wanted, "{what}, step {}", n + 1);
                packets += 1;
            }
        }
        let (now, pipeline) = (both.now(), both.reference.pipeline());
        let wanted = plain(both.state(), &pipeline, now);
        flows += wanted.flows.len();
        let mut store = both.tables.store();
        let got = export(&store).unwrap();
        assert_eq!(plain(got.clone(), &pipeline, now), wanted, "{what}");
        assert_eq!(recount(&mut store).unwrap().corrected, 0, "{what}");
        // And it comes in again as it went out.
        import(&mut store, got.clone(), now).unwrap();
        assert_eq!(plain(export(&store).unwrap(), &pipeline, now), plain(got, &pipeline, now), "{what}");
        assert_eq!(recount(&mut store).unwrap().corrected, 0, "{what}");
    }
    assert!(
        packets > 300 && flows > 70 && changes > 10,
        "{packets} packets, {flows} flows, {changes} changes"
    );
}

//! The reference's stages on the state in the tables: every committed row comes to the same as on the
//! reference's own memory, verdict by verdict, and leaves the same state behind.
#![allow(clippy::unwrap_used)]

use loxi_backend_ebpf::install::Names;
use loxi_backend_ebpf::state::{Gone, Store, export, forget, import, recount};
use loxi_backend_ebpf::sys::{
    BACKENDS, BRIDGES, ENDPOINTS, Kernel, NEIGHBORS, PORT_POLICY, STATIONS, SimulatedKernel, ZONES,
};
use loxi_conformance::{Row, RowStep, rows};
use loxi_core::change::{Operation, Transaction};
use loxi_core::dataplane::{Backend, Local, PuntedPacket, SlowPath, SlowPathView};
use loxi_core::ir::{CtTimeouts, EntityKey, FdbTarget, Owner, Pipeline};
use loxi_core::net::PortName;
use loxi_core::packet::{ChoicePoint, ChoiceSource, State, Timestamp, Verdict};
use loxi_core::reason::PuntReason;
use loxi_ebpf_layout::flow::TICK_SHIFT;
use loxi_ebpf_layout::l2::{Bridge, Link, PortPolicy, Station, StationAt};
use loxi_ebpf_layout::l3::{Neighbor, NeighborKey, Zone, neighbor};
use loxi_ebpf_layout::lb;
use loxi_ebpf_layout::pair::Pair;
use loxi_ebpf_layout::tunnel::EndpointKey;
use loxi_ebpf_layout::{Addr, family};
use loxi_reference::{Reference, ReferencePath};
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SEED: u64 = 7;
const START: u64 = 1_000_000;

fn wire(addr: IpAddr) -> (u32, Addr) {
    match addr {
        IpAddr::V4(addr) => (family::V4.into(), Addr::v4(addr.octets())),
        IpAddr::V6(addr) => (family::V6.into(), Addr::v6(addr.octets())),
    }
}

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

/// The tables of a node, as far as the state needs them.
struct Tables {
    kernel: SimulatedKernel,
    names: Names,
    pipeline: Arc<Pipeline>,
    /// Remote addresses get their places in the order in which they come.
    remotes: Vec<IpAddr>,
}

impl Tables {
    fn new() -> Self {
        let kernel = SimulatedKernel::new([256, 256]).unwrap();
        Self { kernel, names: Names::default(), pipeline: Arc::default(), remotes: Vec::new() }
    }

    fn store(&mut self) -> Store<'_> {
        Store::new(&mut self.kernel, &self.names, SEED)
    }

    /// Takes over a configuration, and what the reference has of generations.
    fn install(&mut self, pipeline: Pipeline, generations: &State) {
        self.forget(&pipeline);
        let (kernel, names): (&mut dyn Kernel, _) = (&mut self.kernel, &mut self.names);
        for port in pipeline.ports() {
            names.ports.allot(kernel, &port.name).unwrap();
        }
        for tunnel in pipeline.tunnels() {
            names.tunnels.allot(kernel, &tunnel.name).unwrap();
            if !self.remotes.contains(&tunnel.remote) {
                self.remotes.push(tunnel.remote);
                let (family, addr) = wire(tunnel.remote);
                kernel.set(ENDPOINTS, &EndpointKey { family, addr }, &(self.remotes.len() as u32)).unwrap();
            }
        }
        for zone in pipeline.zones() {
            let (number, _) = names.zones.allot(kernel, &zone.name).unwrap();
            let row = Zone {
                exists: 1,
                max_flows: zone.max_flows,
                max_per_source: zone.max_per_source.unwrap_or(u32::MAX),
                timeouts: timeouts(&zone.timeouts),
                ..Zone::default()
            };
            kernel.fill(ZONES, number, &Pair { which: 0, halves: [row, Zone::default()] });
        }
        for bridge in pipeline.bridges() {
            let (number, _) = names.bridges.allot(kernel, &bridge.name).unwrap();
            let row = Bridge { flags: 1, max_stations: bridge.max_macs.into(), ..Bridge::default() };
            kernel.fill(BRIDGES, number, &Pair { which: 0, halves: [row, Bridge::default()] });
        }
        for interface in pipeline.interfaces() {
            names.interfaces.allot(kernel, &interface.name).unwrap();
        }
        for service in pipeline.services() {
            names.services.allot(kernel, &service.key()).unwrap();
        }
        for backend in pipeline.backends() {
            names.backends.allot(kernel, &backend.name).unwrap();
        }
        for entry in pipeline.fdb() {
            let (port, tunnel) = match &entry.target {
                FdbTarget::Port(port) => (names.ports.number(port).unwrap(), 0),
                FdbTarget::Tunnel(name) => (0, names.tunnels.number(name).unwrap()),
            };
            let id = names.bridges.number(&entry.bridge).unwrap() as u16;
            let key =
                Station { link: Link { id, vlan: entry.vlan.get() }, mac: entry.mac.octets(), reserved: 0 };
            let at = StationAt { port: port as u16, tunnel: tunnel as u16, fixed: 1, expires: 0 };
            kernel.set(STATIONS, &key, &at).unwrap();
        }
        for entry in pipeline.neighbors() {
            let (family, addr) = wire(entry.address);
            let interface = names.interfaces.number(&entry.interface).unwrap();
            let known = Neighbor { mac: entry.mac.octets(), state: neighbor::FIXED, ..Neighbor::default() };
            kernel.set(NEIGHBORS, &NeighborKey { interface, family, addr }, &known).unwrap();
        }
        for slot in &generations.slots {
            let Some(number) = names.backends.number(&slot.backend) else { continue };
            let generation = slot.generation as u32;
            kernel.fill(BACKENDS, number, &lb::Backend { generation, ..lb::Backend::default() });
        }
        for (port, generation) in &generations.policy_generations {
            let Some(number) = names.ports.number(port) else { continue };
            kernel.fill(PORT_POLICY, number, &PortPolicy { groups: 0, generation: *generation });
        }
        self.pipeline = Arc::new(pipeline);
    }

    /// Forgets what a new configuration lacks, and takes the numbers back.
    fn forget(&mut self, next: &Pipeline) {
        let before: BTreeSet<EntityKey> = self.pipeline.keys().collect();
        let after: BTreeSet<EntityKey> = next.keys().collect();
        let names = &self.names;
        let mut gone = Gone::default();
        for key in before.difference(&after) {
            match key {
                EntityKey::Port(name) => gone.ports.extend(names.ports.number(name)),
                EntityKey::Zone(name) => gone.zones.extend(names.zones.number(name)),
                EntityKey::Bridge(name) => gone.bridges.extend(names.bridges.number(name)),
                EntityKey::Interface(name) => gone.interfaces.extend(names.interfaces.number(name)),
                EntityKey::Service(key) => gone.services.extend(names.services.number(key)),
                EntityKey::Tunnel(name) => gone.tunnels.extend(names.tunnels.number(name)),
                _ => {}
            }
        }
        forget(&mut self.store(), &gone).unwrap();
        let (kernel, names): (&mut dyn Kernel, _) = (&mut self.kernel, &mut self.names);
        // What is configured is the installer's, which is not under test.
        for (key, _) in kernel.all(STATIONS).unwrap().into_iter().filter(|(_, at)| at.fixed != 0) {
            kernel.unset(STATIONS, &key).unwrap();
        }
        let fixed = |known: &Neighbor| known.state == neighbor::FIXED;
        for (key, _) in kernel.all(NEIGHBORS).unwrap().into_iter().filter(|(_, known)| fixed(known)) {
            kernel.unset(NEIGHBORS, &key).unwrap();
        }
        for key in before.difference(&after) {
            match key {
                EntityKey::Port(name) => names.ports.retire(kernel, name).unwrap(),
                EntityKey::Zone(name) => names.zones.retire(kernel, name).unwrap(),
                EntityKey::Bridge(name) => names.bridges.retire(kernel, name).unwrap(),
                EntityKey::Interface(name) => names.interfaces.retire(kernel, name).unwrap(),
                EntityKey::Service(key) => names.services.retire(kernel, key).unwrap(),
                EntityKey::Tunnel(name) => names.tunnels.retire(kernel, name).unwrap(),
                EntityKey::Backend(name) => names.backends.retire(kernel, name).unwrap(),
                _ => {}
            }
        }
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
    state.slots.retain(|slot| pipeline.backends().any(|backend| backend.name == slot.backend));
    state.round_robin.retain(|(_, turn)| *turn != 0);
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
        reference.apply(&Transaction::replace("row", owner.clone(), row.entities().unwrap())).unwrap();
        let attached: BTreeSet<_> = reference.pipeline().ports().map(|port| port.name.clone()).collect();
        for port in &attached {
            reference.attach(port).unwrap();
        }
        let mut both = Self { reference, tables: Tables::new(), path: ReferencePath::new(), attached, clock };
        both.install();
        both
    }

    fn state(&self) -> State {
        self.reference.with_backend(|backend| backend.export_state())
    }

    fn install(&mut self) {
        let (pipeline, state) = (self.reference.pipeline(), self.state());
        self.tables.install(pipeline, &state);
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
        let mut store = Store::new(&mut self.tables.kernel, &self.tables.names, SEED);
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
            if let Some(change) = transaction(step, n, &owner) {
                both.reference.apply(&change).unwrap();
                both.attached =
                    both.reference.with_backend(|backend| backend.attached()).into_iter().collect();
                both.install();
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

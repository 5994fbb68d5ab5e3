//! A small node: names, zones, a kernel.

use crate::install::{Named, Names, Space};
use crate::state::Store;
use crate::sys::{BACKENDS, BRIDGES, GLOBALS, Kernel, NAMES, SimulatedKernel, ZONES};
use loxi_core::ir::{ServiceKey, ServiceScope};
use loxi_core::net::{IpProtocol, L4Ports, MacAddr, PortName, ZoneName};
use loxi_core::packet::{
    Flow, FlowId, FlowIngress, FlowState, FlowTuple, PolicyStamp, Timestamp, Translation,
};
use loxi_ebpf_layout::flow::{TICK_SHIFT, state};
use loxi_ebpf_layout::l2::Bridge;
use loxi_ebpf_layout::l3::Zone;
use loxi_ebpf_layout::lb::Backend;
use loxi_ebpf_layout::pair::Pair;
use std::net::IpAddr;

pub(super) const SEED: u64 = 0x1234_5678_9abc_def0;

/// Seconds of idle time, the same in all zones, by [`loxi_ebpf_layout::l3::timeout`].
pub(super) const TIMEOUTS: [u32; 16] =
    [0, 120, 60, 86_400, 120, 60, 30, 120, 10, 10, 7440, 3, 30, 120, 30, 600];

pub(super) const NOW: Timestamp = Timestamp(1_000_000 * Timestamp::SECOND);

pub(super) struct Node {
    pub(super) kernel: SimulatedKernel,
    pub(super) names: Names,
}

pub(super) fn service() -> ServiceKey {
    ServiceKey {
        vrf: "main".parse().unwrap(),
        vip: "10.96.0.1".parse().unwrap(),
        protocol: IpProtocol::TCP,
        ports: L4Ports::one(80),
        scope: ServiceScope::Any,
    }
}

/// Gives a name a number, as an installation does.
pub(super) fn allot<T: Named>(space: &mut Space<T>, kernel: &mut SimulatedKernel, name: &T) -> u32 {
    let (number, _) = space.choose(name).unwrap();
    let (key, value) = space.row(name, number, true);
    (kernel as &mut dyn Kernel).set(NAMES, &key, &value).unwrap();
    space.give(name, number);
    number
}

impl Node {
    /// Zones `z1` and `z2` (which limits the flows of one source), ports `p1` to `p4`, tunnels `t1`
    /// and `t2`, a bridge `br` of at most four stations, an interface `if1`, endpoints `b1` and `b2` of
    /// generations 5 and 6, one service.
    pub(super) fn new(buckets: [u32; 2]) -> Self {
        let mut kernel = SimulatedKernel::new(buckets).unwrap();
        let mut names = Names::default();
        for (n, zone) in ["z1", "z2"].into_iter().enumerate() {
            let number = allot(&mut names.zones, &mut kernel, &zone.parse().unwrap());
            let max_per_source = if n == 0 { u32::MAX } else { 1000 };
            let zone =
                Zone { exists: 1, max_flows: 100_000, max_per_source, timeouts: TIMEOUTS, ..Zone::default() };
            let pair = Pair { which: 1, halves: [Zone::default(), zone] };
            (&mut kernel as &mut dyn Kernel).fill(ZONES, number, &pair);
        }
        for port in ["p1", "p2", "p3", "p4"] {
            allot(&mut names.ports, &mut kernel, &port.parse().unwrap());
        }
        for tunnel in ["t1", "t2"] {
            allot(&mut names.tunnels, &mut kernel, &tunnel.parse().unwrap());
        }
        allot(&mut names.bridges, &mut kernel, &"br".parse().unwrap());
        allot(&mut names.interfaces, &mut kernel, &"if1".parse().unwrap());
        allot(&mut names.services, &mut kernel, &service());
        for (name, generation) in [("b1", 5), ("b2", 6)] {
            let number = allot(&mut names.backends, &mut kernel, &name.parse().unwrap());
            let backend = Backend { generation, ..Backend::default() };
            let pair = Pair { which: 0, halves: [backend, Backend::default()] };
            (&mut kernel as &mut dyn Kernel).fill(BACKENDS, number, &pair);
        }
        let bridge = Bridge { flags: 1, max_stations: 4, ..Bridge::default() };
        let pair = Pair { which: 0, halves: [bridge, Bridge::default()] };
        (&mut kernel as &mut dyn Kernel).fill(BRIDGES, 1, &pair);
        Self { kernel, names }
    }

    pub(super) fn store(&mut self) -> Store<'_> {
        Store::new(&mut self.kernel, &self.names, SEED)
    }

    pub(super) fn kernel(&self) -> &dyn Kernel {
        &self.kernel
    }

    pub(super) fn epoch(&self) -> u64 {
        self.kernel().at(GLOBALS, 0).epoch
    }
}

pub(super) fn zone(name: &str) -> ZoneName {
    name.parse().unwrap()
}

pub(super) fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

pub(super) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16) -> FlowTuple {
    FlowTuple { src: addr(src), dst: addr(dst), protocol: IpProtocol::TCP, src_port, dst_port }
}

/// Seconds for which a flow of this state may idle.
pub(super) fn idle(of: FlowState, protocol: IpProtocol) -> u32 {
    let number = crate::state::flow::codec::state_number(of);
    let index = match (number, protocol.0) {
        (state::UNREPLIED | state::REPLIED, 1 | 58) => 14,
        (state::UNREPLIED | state::REPLIED, 17) => number,
        (state::UNREPLIED | state::REPLIED, _) => 15,
        _ => number,
    };
    TIMEOUTS[usize::from(index)]
}

/// A plain flow that has just begun in `z1` at `p1`.
pub(super) fn flow(original: FlowTuple, now: Timestamp) -> Flow {
    let state = FlowState::Tcp(loxi_core::packet::TcpState::SynSent);
    Flow {
        id: FlowId { zone: zone("z1"), tuple: original },
        reply: original.reversed(),
        translation: Translation::Nat,
        state,
        created: now,
        expires: now.plus_s(idle(state, original.protocol)),
        ingress: FlowIngress { port: port("p1"), mac: MacAddr::new([2, 0, 0, 0, 0, 1]), tunnel: None },
        service: None,
        backend: None,
        dsr_target: None,
        policy: PolicyStamp { source: Some((port("p1"), 0)), destination: Some((port("p2"), 3)) },
        hairpin: false,
        packets: [1, 0],
        bytes: [60, 0],
    }
}

/// The flow as the table tells it: its end is as exact as a tick.
pub(super) fn as_stored(flow: &Flow) -> Flow {
    let idle = u64::from(idle(flow.state, flow.id.tuple.protocol)) * Timestamp::SECOND;
    let last = (flow.expires.0 - idle) >> TICK_SHIFT << TICK_SHIFT;
    Flow { expires: Timestamp(last + idle), ..flow.clone() }
}

/// Flows of the test that differ in their source.
pub(super) fn nth(n: u32) -> Flow {
    let [_, a, b, c] = n.to_be_bytes();
    flow(tuple(&format!("10.{a}.{b}.{c}"), 40_000, "192.0.2.1", 80), NOW)
}

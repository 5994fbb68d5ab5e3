//! Whatever a dataplane is asked or answers arrives as it was sent.
//!
//! Values grow from a seed; the shapes are those of `samples`, the contents are
//! random, edges included.

#![allow(clippy::unwrap_used)]

mod samples;

use loxi_channel::request::*;
use loxi_channel::{Frame, Kind, Limits, Message};
use loxi_core::capability::Capabilities;
use loxi_core::change::{Applied, Generation, Operation, Transaction};
use loxi_core::dataplane::*;
use loxi_core::ir::{Entity, EntityKind, Origin, Owned, Owner};
use loxi_core::net::{BridgeName, IpProtocol, PortName};
use loxi_core::packet::*;
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Random values of our types (SplitMix64).
struct Grow(u64);

impl Grow {
    fn random(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random() % limit as u64).unwrap()
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len());
        from[index].clone()
    }
    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.pick(&[0, 1, 23, 24, 255, 256, u64::from(u32::MAX), 1 << 32, u64::MAX]),
            1 => self.random() & 0xffff,
            _ => self.random(),
        }
    }
    fn word(&mut self) -> u16 {
        u16::try_from(self.number() & 0xffff).unwrap()
    }
    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| make(self))
    }
    fn some<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }
    fn text(&mut self) -> String {
        self.pick(&["", "x", "in words", "ünï\n\"çode\u{1f980}\0", &"long ".repeat(2000)]).to_owned()
    }
    fn name(&mut self) -> String {
        format!("n{}", self.word())
    }
    fn port(&mut self) -> PortName {
        PortName::new(self.name()).unwrap()
    }
    fn owner(&mut self) -> Owner {
        Owner::new(self.name()).unwrap()
    }
    fn time(&mut self) -> Timestamp {
        Timestamp(self.number())
    }
    fn bytes(&mut self) -> Vec<u8> {
        let length = self.pick(&[0, 1, 60, 1514, 9000]);
        (0..length).map(|_| self.number() as u8).collect()
    }
    fn address(&mut self) -> IpAddr {
        match self.below(2) {
            0 => IpAddr::from((self.number() as u32).to_be_bytes()),
            _ => IpAddr::from((u128::from(self.number()) << 64 | 1).to_be_bytes()),
        }
    }
    fn tuple(&mut self) -> FlowTuple {
        FlowTuple {
            src: self.address(),
            dst: self.address(),
            protocol: IpProtocol(self.number() as u8),
            src_port: self.word(),
            dst_port: self.word(),
        }
    }
    fn drop_reason(&mut self) -> DropReason {
        let other = DropReason::from_number(self.word());
        let known = self.pick(DropReason::ALL);
        self.pick(&[other, known])
    }
    fn flow(&mut self) -> Flow {
        Flow {
            id: FlowId { zone: samples::zone(&self.name()), tuple: self.tuple() },
            reply: self.tuple(),
            translation: self.pick(&[Translation::Nat, Translation::DsrIpip, Translation::DsrL2]),
            state: self.pick(&[FlowState::Unreplied, FlowState::Tcp(TcpState::LastAck)]),
            expires: self.time(),
            dsr_target: self.maybe(Self::address),
            backend: self.maybe(|g| (g.name().parse().unwrap(), g.number())),
            packets: [self.number(), self.number()],
            ..samples::flow()
        }
    }
    fn entity(&mut self) -> Entity {
        let mut bridge = samples::as_bridge(&samples::bridge("b")).clone();
        bridge.name = BridgeName::new(self.name()).unwrap();
        bridge.max_macs = self.number() as u32;
        bridge.origin = Origin(self.text());
        bridge.into()
    }
    fn transaction(&mut self) -> Transaction {
        let operations = self.some(|g| match g.below(2) {
            0 => Operation::Put(Box::new(g.entity())),
            _ => Operation::Delete(g.entity().key()),
        });
        Transaction {
            base: self.maybe(|g| Generation(g.number())),
            replace: self.below(2) == 0,
            take_ownership: self.below(2) == 0,
            ..Transaction::change(self.text(), self.owner(), operations)
        }
    }
    fn packet(&mut self) -> PacketIn {
        PacketIn { port: self.port(), bytes: self.bytes(), at: self.maybe(Self::time) }
    }
    fn choice(&mut self) -> Choice {
        let (last, preferred) = (self.word(), self.word());
        let point = ChoicePoint::SnatPort { first: 1, last, preferred };
        Choice { point, value: self.number() }
    }
    fn trace(&mut self) -> Trace {
        let steps = self.some(|g| TraceStep {
            stage: g.pick(&Stage::ALL),
            key: g.text(),
            entry: g.maybe(|g| TraceEntry {
                entity: g.maybe(|g| g.entity().key()),
                origin: Origin(g.text()),
                text: g.text(),
            }),
            effect: g.text(),
        });
        Trace { steps }
    }
    fn injected(&mut self) -> Injected {
        let fate = match self.below(4) {
            0 => Fate::Forwarded,
            1 => Fate::Consumed(self.pick(ConsumedReason::ALL)),
            2 => Fate::Punted(self.pick(PuntReason::ALL)),
            _ => Fate::Dropped(self.drop_reason()),
        };
        let verdict = Verdict {
            fate,
            outputs: self.some(|g| Output { port: g.port(), bytes: g.bytes() }),
            unsent: self.some(|g| Unsent { port: g.port(), reason: g.drop_reason() }),
        };
        let punt = self.maybe(|g| g.pick(PuntReason::ALL));
        Injected { verdict, choices: self.some(Self::choice), trace: self.trace(), punt }
    }
    fn choices(&mut self) -> ChoiceMode {
        match self.below(3) {
            0 => ChoiceMode::First,
            1 => ChoiceMode::Seed(self.number()),
            _ => ChoiceMode::Recorded(self.some(Self::choice)),
        }
    }
    fn counters(&mut self) -> Counters {
        let ports: BTreeMap<_, _> = self
            .some(|g| {
                let dropped = g.some(|g| (g.drop_reason(), g.number())).into_iter().collect();
                (g.port(), PortCounters { rx_bytes: g.number(), dropped, ..PortCounters::default() })
            })
            .into_iter()
            .collect();
        Counters { ports, ..samples::counters() }
    }
    fn state(&mut self) -> State {
        State {
            flows: self.some(Self::flow),
            policy_generations: self.some(|g| (g.port(), g.number())),
            ..State::default()
        }
    }
    fn page(&mut self) -> SnapshotPage {
        SnapshotPage {
            generation: Generation(self.number()),
            entities: self.some(|g| Owned { owner: g.owner(), entity: g.entity() }),
            next: self.maybe(Self::number),
            attached: self.some(Self::port),
            ..SnapshotPage::default()
        }
    }
    fn event(&mut self) -> Event {
        let kind = match self.below(3) {
            0 => EventKind::PortAttached(self.port()),
            1 => EventKind::Dropped { port: self.port(), reason: self.drop_reason(), packet: self.text() },
            _ => EventKind::Applied {
                id: self.transaction().id,
                owner: self.owner(),
                generation: Generation(self.number()),
            },
        };
        Event { at: self.time(), kind }
    }
    fn outcome<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Outcome<T> {
        match self.below(4) {
            0 => Err(self.pick(&samples::errors())),
            _ => Ok(make(self)),
        }
    }
}

fn travels<M: Message + PartialEq + std::fmt::Debug>(message: &M, kinds: &mut Vec<Kind>) {
    let limits = Limits::default();
    let bytes = message.to_frame(9, limits.reply).unwrap();
    let frame = Frame::decode(&bytes, limits.reply).unwrap();
    assert_eq!(&M::from_frame(&frame, limits.depth).unwrap(), message);
    if !kinds.contains(&frame.kind) {
        kinds.push(frame.kind);
    }
}

fn everything(g: &mut Grow, kinds: &mut Vec<Kind>) {
    travels(&GetCapabilities {}, kinds);
    let capabilities = Capabilities::full(&g.text(), g.number());
    travels(&GetCapabilitiesReply { outcome: g.outcome(|_| capabilities) }, kinds);
    travels(&Apply { transaction: g.transaction() }, kinds);
    let applied = Applied { created: g.number(), ..samples::applied() };
    travels(&ApplyReply { outcome: g.outcome(|_| applied) }, kinds);
    let query = SnapshotQuery {
        kinds: g.some(|g| g.pick(EntityKind::ALL)).into_iter().collect(),
        owner: g.maybe(Grow::owner),
        skip: g.number(),
        limit: g.number() as u32,
    };
    travels(&GetSnapshot { query }, kinds);
    travels(&GetSnapshotReply { outcome: g.outcome(Grow::page) }, kinds);
    let query = FlowQuery { cursor: g.maybe(|g| g.flow().id), ..samples::flow_query() };
    travels(&GetFlows { query }, kinds);
    let page = FlowPage { flows: g.some(Grow::flow), next: g.maybe(|g| g.flow().id) };
    travels(&GetFlowsReply { outcome: g.outcome(|_| page) }, kinds);
    travels(&GetCounters {}, kinds);
    travels(&GetCountersReply { outcome: g.outcome(Grow::counters) }, kinds);
    travels(&Explain { packet: g.packet(), now: g.maybe(Grow::time) }, kinds);
    let explanation =
        Explanation { backend: g.text(), installed: g.trace(), reference: g.maybe(Grow::injected) };
    travels(&ExplainReply { outcome: g.outcome(|_| explanation) }, kinds);
    let request = InjectRequest {
        packets: g.some(Grow::packet),
        now: g.maybe(Grow::time),
        choices: g.choices(),
        commit: g.below(2) == 0,
    };
    travels(&Inject { request }, kinds);
    travels(&InjectReply { outcome: g.outcome(|g| g.some(Grow::injected)) }, kinds);
    travels(&Attach { port: g.port() }, kinds);
    travels(&AttachReply { outcome: g.outcome(|_| ()) }, kinds);
    travels(&Detach { port: g.port() }, kinds);
    travels(&DetachReply { outcome: g.outcome(|_| ()) }, kinds);
    travels(&ExportState {}, kinds);
    travels(&ExportStateReply { outcome: g.outcome(Grow::state) }, kinds);
    travels(&ImportState { state: g.state() }, kinds);
    travels(&ImportStateReply { outcome: g.outcome(|_| ()) }, kinds);
    travels(&Mark { token: g.number() }, kinds);
    travels(&MarkReply { outcome: g.outcome(|_| ()) }, kinds);
    travels(&Notice::Event(g.event()), kinds);
    travels(&Notice::Mark(g.number()), kinds);
}

#[test]
fn every_message_travels() {
    let conversation = [Kind::Hello, Kind::Welcome, Kind::Refused, Kind::Ping, Kind::Pong, Kind::Fault].len();
    proptest!(ProptestConfig::with_cases(300), |(seed: u64)| {
        let mut kinds = Vec::new();
        everything(&mut Grow(seed), &mut kinds);
        prop_assert_eq!(kinds.len(), Kind::ALL.len() - conversation);
    });
}

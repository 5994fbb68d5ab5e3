//! A node of installed programs with the reference beside it, and connections through it.

use super::dice::Dice;
use super::judge::{Frame, NOW, Sides, later, openings, replay, turned};
use super::node::Node;
use crate::backend::{Ebpf, Undo};
use crate::run::Choices;
use crate::{Devices, Mode, Options, Sizes, capabilities};
use loxi_core::change::{Change, diff};
use loxi_core::dataplane::{Backend, ChoiceMode, Injected, PacketIn};
use loxi_core::ir::Pipeline;
use loxi_core::packet::{Fate, State};
use loxi_reference::ReferencePath;

const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// Changes on one node before another one begins.
pub(super) const EPISODE: u64 = 25;

/// Packets of new connections that are looked at, and connections that are opened beforehand.
const NEW: u64 = 12;
const OLD: u64 = 6;

pub(super) struct Stand {
    pub(super) ebpf: Ebpf,
    pub(super) sides: Sides,
    pub(super) pipeline: Pipeline,
    pub(super) node: Node,
    pub(super) dice: Dice,
    /// Packets of connections that are there: of both directions.
    pub(super) established: Vec<PacketIn>,
    openings: Vec<PacketIn>,
}

impl Stand {
    pub(super) fn new(mode: Mode, seed: u64) -> Self {
        let options = Options {
            mode,
            sizes: Sizes { flows_v4: 1024, flows_v6: 1024 },
            devices: Devices::None,
            slow_path: Some(Box::new(ReferencePath::assuming(&capabilities()))),
            ..Options::default()
        };
        Self {
            ebpf: Ebpf::open(options).unwrap(),
            sides: Sides::new(&capabilities()),
            pipeline: Pipeline::default(),
            node: Node { v6: false },
            dice: Dice(seed),
            established: Vec::new(),
            openings: Vec::new(),
        }
    }

    pub(super) fn install(&mut self, new: &Pipeline, change: &Change) -> Undo {
        let delta = self.ebpf.compile_change(new, change, &capabilities()).unwrap();
        self.ebpf.install(delta, NOW).unwrap()
    }

    fn become_(&mut self, new: Pipeline) {
        self.install(&new, &diff(&self.pipeline, &new));
        self.pipeline = new;
    }

    /// Another node, with connections through it.
    pub(super) fn begin(&mut self) {
        self.become_(Pipeline::default());
        self.ebpf.import_state(State::default(), NOW).unwrap();
        self.node = Node { v6: self.dice.one_in(3) };
        let pipeline = self.node.pipeline(&mut self.dice);
        self.become_(pipeline);
        self.sides = Sides::new(&capabilities());
        self.sides.configure(&self.pipeline);
        let ports: Vec<_> = self.pipeline.ports().map(|port| port.name.clone()).collect();
        ports.iter().for_each(|port| self.ebpf.attach_port(port).unwrap());
        self.openings = openings(self.node);
        self.established.clear();
        for _ in 0..OLD {
            let opening = self.dice.of(&self.openings).unwrap();
            self.open(&opening);
        }
    }

    /// Opens a connection on all sides alike.
    fn open(&mut self, opening: &PacketIn) {
        let out = self.commit(opening).verdict;
        if out.fate != Fate::Forwarded {
            return;
        }
        self.established.push(later(opening, ACK));
        let back = |flags| out.outputs.first().and_then(|out| turned(&out.port, &out.bytes, flags));
        if let (Some(answer), Some(reply)) = (back(SYN_ACK), back(ACK)) {
            if self.commit(&answer).verdict.fate == Fate::Forwarded {
                self.established.push(reply);
            }
            self.commit(&later(opening, ACK));
        }
    }

    fn commit(&mut self, packet: &PacketIn) -> Injected {
        let mut choices = Choices::new(&ChoiceMode::Seed(self.dice.word()));
        let inner = self.ebpf.inner.get_mut();
        let got = inner.run(packet, NOW, &mut choices, true).unwrap();
        let wanted = self.sides.commit(packet, &got.choices);
        assert_eq!(got.verdict, wanted.verdict, "{}", wanted.trace);
        got
    }

    /// Lets packets of connections that are there take notice of what is configured now, so that the short way
    /// is theirs again.
    pub(super) fn refresh(&mut self) {
        for packet in self.established.clone().iter().filter(|packet| !is_udp(packet)) {
            self.commit(packet);
        }
    }

    /// What is looked at while a change comes: connections that are there, and others that open.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        let mut packets = self.established.clone();
        packets.extend((0..NEW).filter_map(|_| self.dice.of(&self.openings)));
        let frame = |packet: PacketIn| {
            let known = self.established.iter().any(|known| known.bytes == packet.bytes);
            let port = self.ebpf.port_number(&packet.port).unwrap();
            Frame { port, known, replaces: known && is_udp(&packet), packet }
        };
        packets.into_iter().map(frame).collect()
    }

    /// Whether the installed programs, with their slow path, are what the reference is.
    pub(super) fn check(&mut self, frame: &Frame) {
        let mut choices = Choices::new(&ChoiceMode::Seed(self.dice.word()));
        if frame.replaces {
            return;
        }
        let inner = self.ebpf.inner.get_mut();
        let got = inner.run(&frame.packet, NOW, &mut choices, false).unwrap();
        let wanted = replay(&self.sides.before, &frame.packet, &got.choices);
        assert_eq!(got.verdict, wanted.verdict, "{}\nwhere the programs\n{}", wanted.trace, got.trace);
    }

    /// Whether the tables hold what they should.
    pub(super) fn audit(&mut self, what: &str) {
        let (got, wanted) = (self.ebpf.read_back().unwrap(), self.ebpf.inner.get_mut().index.plan().clone());
        let differs = crate::plan::difference(&wanted, &got);
        assert!(differs.is_empty(), "{what}\n{differs:#?}");
    }

    /// A random change, with what it comes to.
    pub(super) fn next_change(&mut self) -> (Pipeline, Change) {
        let new = (0..1000).find_map(|_| self.node.changed(&mut self.dice, &self.pipeline)).unwrap();
        let change = diff(&self.pipeline, &new);
        (new, change)
    }
}

fn is_udp(packet: &PacketIn) -> bool {
    let at = if packet.bytes[12] == 0x08 { 23 } else { 20 };
    packet.bytes[at] == 17
}

//! The reference, configured for the same job.

use super::Frame;
use crate::wire;
use loxi_core::change::Transaction;
use loxi_core::dataplane::{ChoiceMode, InjectRequest, Injected, Local, PacketIn};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::packet::{Choice, ChoicePoint, Timestamp};
use loxi_reference::Reference;
use std::sync::Arc;

/// Time between two packets: long enough for the bucket of ICMP errors to fill again.
const PACE_NS: u64 = 20_000_000;

/// The reference with its ports numbered as the kernel's.
pub struct Model {
    local: Local<Reference>,
    ports: Vec<PortName>,
    now: Timestamp,
}

impl Model {
    /// A reference that has this pipeline and all of its ports open.
    #[must_use]
    pub fn new(backend: Reference, yaml: &str, ports: &[&str]) -> Self {
        let start = Timestamp(Timestamp::SECOND * 1000);
        let local = Local::new(backend, Arc::new(move || start));
        let entities = loxi_core::text::from_yaml(yaml).expect("the pipeline's text");
        let owner = Owner::new("oracle").expect("an owner");
        local.apply(&Transaction::replace("1", owner, entities)).expect("the pipeline");
        for port in local.pipeline().ports() {
            local.attach(&port.name).expect("attach");
        }
        let ports = ports.iter().map(|name| PortName::new(*name).expect("a port's name")).collect();
        Self { local, ports, now: start }
    }

    /// Runs the frames. Where something is free to choose, it is chosen as the kernel did, provided
    /// that the reference finds that admissible.
    pub fn run(&mut self, frames: &[Frame], kernel: &[Frame]) -> Vec<Injected> {
        let first = self.inject(frames, ChoiceMode::First, false);
        let made: Vec<Choice> = first.iter().flat_map(|injected| injected.choices.clone()).collect();
        let mode =
            if made.is_empty() { ChoiceMode::First } else { ChoiceMode::Recorded(follow(made, kernel)) };
        let injected = self.inject(frames, mode, true);
        self.now = Timestamp(self.now.0 + PACE_NS * frames.len() as u64);
        injected
    }

    /// How many frames would come out; changes nothing.
    #[must_use]
    pub fn outputs(&self, frames: &[Frame]) -> usize {
        self.inject(frames, ChoiceMode::First, false).iter().map(|i| i.verdict.outputs.len()).sum()
    }

    /// The kernel's number of a port.
    #[must_use]
    pub fn number(&self, port: &PortName) -> usize {
        self.ports.iter().position(|name| name == port).unwrap_or(usize::MAX)
    }

    /// Received packets that no fate accounts for, over all ports.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        self.local.counters().ports.values().map(|port| port.unaccounted().abs()).sum()
    }

    fn inject(&self, frames: &[Frame], choices: ChoiceMode, commit: bool) -> Vec<Injected> {
        let packet = |(index, frame): (usize, &Frame)| PacketIn {
            port: self.ports[frame.port].clone(),
            bytes: frame.bytes.clone(),
            at: Some(Timestamp(self.now.0 + PACE_NS * index as u64)),
        };
        let packets = frames.iter().enumerate().map(packet).collect();
        let request = InjectRequest { packets, now: Some(self.now), choices, commit };
        self.local.inject(&request).expect("known ports")
    }
}

/// The same choices with the values that the kernel's outputs show.
fn follow(made: Vec<Choice>, kernel: &[Frame]) -> Vec<Choice> {
    let shown = |point: &ChoicePoint| -> Option<u64> {
        let frame = &kernel.first()?.bytes;
        match point {
            ChoicePoint::SnatPort { .. } | ChoicePoint::HairpinPort { .. } | ChoicePoint::Entropy { .. } => {
                wire::source_port(frame).map(u64::from)
            }
            ChoicePoint::Identification => Some(wire::word(frame, wire::ETH + 4).into()),
            _ => None,
        }
    };
    made.into_iter()
        .map(|choice| {
            let value = shown(&choice.point).unwrap_or(choice.value);
            Choice { value, ..choice }
        })
        .collect()
}

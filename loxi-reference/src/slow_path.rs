//! The reference as the slow path of another backend.
//!
//! It works on that backend's state, and keeps nothing of its own but the token
//! buckets of ICMP errors. A clone is how packets are tried without
//! consequences.

use crate::stages::{Run, Surroundings};
use crate::world::IcmpTokens;
use loxi_core::capability::{Capabilities, Feature};
use loxi_core::dataplane::{Finished, Injected, PuntedPacket, SlowPath, SlowPathView};
use loxi_core::net::PortName;
use loxi_core::packet::ChoiceSource;
use std::collections::BTreeMap;

/// Runs punted packets through every stage, on whatever state it is given.
#[derive(Debug, Clone)]
pub struct ReferencePath {
    tokens: IcmpTokens,
    verify_l4: bool,
}

impl Default for ReferencePath {
    fn default() -> Self {
        Self::new()
    }
}

impl ReferencePath {
    /// A slow path that has sent no ICMP error yet.
    #[must_use]
    pub fn new() -> Self {
        Self { tokens: IcmpTokens::default(), verify_l4: true }
    }

    /// A slow path that does no more than the backend of these capabilities, so that a packet's fate
    /// doesn't depend on who finishes it; see [`Reference::assuming`](crate::Reference::assuming).
    #[must_use]
    pub fn assuming(capabilities: &Capabilities) -> Self {
        Self { verify_l4: capabilities.features.contains(&Feature::VerifyL4Checksum), ..Self::new() }
    }
}

impl SlowPath for ReferencePath {
    fn finish(
        &mut self,
        packet: &PuntedPacket,
        view: SlowPathView<'_>,
        choices: &mut dyn ChoiceSource,
        with_trace: bool,
    ) -> Finished {
        let mut counters = BTreeMap::new();
        let around = Surroundings {
            config: view.pipeline,
            attached: view.attached,
            state: view.state,
            counters: &mut counters,
            tokens: &mut self.tokens,
            now: view.now,
            verify_l4: self.verify_l4,
        };
        let ran = Run::new(around, choices, with_trace).run(&packet.port, &packet.bytes);
        let punt = Some(packet.reason);
        let injected = Injected { verdict: ran.verdict, choices: ran.choices, trace: ran.trace, punt };
        Finished { injected, counters }
    }

    fn trial(&self) -> Box<dyn SlowPath> {
        Box::new(self.clone())
    }

    fn forget_port(&mut self, port: &PortName) {
        self.tokens.keep(|other| other != port);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::world::World;
    use loxi_conformance::rows;
    use loxi_core::ir::{Owner, Pipeline};
    use loxi_core::packet::{FirstChoice, PortCounters, Timestamp};
    use loxi_core::reason::PuntReason;
    use std::sync::Arc;

    fn world(pipeline: Pipeline) -> World {
        let attached = pipeline.ports().map(|port| port.name.clone()).collect();
        World { config: Arc::new(pipeline), attached, ..World::default() }
    }

    fn add(to: &mut PortCounters, more: PortCounters) {
        to.rx_packets += more.rx_packets;
        to.rx_bytes += more.rx_bytes;
        to.tx_packets += more.tx_packets;
        to.tx_bytes += more.tx_bytes;
        to.forwarded += more.forwarded;
        for (reason, count) in more.consumed {
            *to.consumed.entry(reason).or_default() += count;
        }
        for (reason, count) in more.punted {
            *to.punted.entry(reason).or_default() += count;
        }
        for (reason, count) in more.dropped {
            *to.dropped.entry(reason).or_default() += count;
        }
        for (reason, count) in more.unsent {
            *to.unsent.entry(reason).or_default() += count;
        }
    }

    fn run(world: &mut World, port: &PortName, bytes: &[u8], now: Timestamp) -> Injected {
        let around = Surroundings {
            config: &world.config,
            attached: &world.attached,
            state: &mut world.state,
            counters: &mut world.ports,
            tokens: &mut world.tokens,
            now,
            verify_l4: true,
        };
        let ran = Run::new(around, &mut FirstChoice, true).run(port, bytes);
        Injected { verdict: ran.verdict, choices: ran.choices, trace: ran.trace, punt: None }
    }

    fn finish(
        path: &mut ReferencePath,
        world: &mut World,
        port: &PortName,
        bytes: &[u8],
        now: Timestamp,
    ) -> Injected {
        let reason = PuntReason::FirstPacket;
        let packet = PuntedPacket { port: port.clone(), zone: None, reason, bytes: bytes.to_vec() };
        let view =
            SlowPathView { pipeline: &world.config, attached: &world.attached, state: &mut world.state, now };
        let finished = path.finish(&packet, view, &mut FirstChoice, true);
        for (port, more) in finished.counters {
            add(world.counters_of(&port), more);
        }
        assert_eq!(finished.injected.punt, Some(reason));
        Injected { punt: None, ..finished.injected }
    }

    #[test]
    fn every_row_comes_to_the_same_by_either_way() {
        let owner = Owner::new("test").unwrap();
        let mut compared = 0;
        for (file, row) in rows().unwrap() {
            let pipeline = Pipeline::from_entities(&owner, row.entities().unwrap());
            let (mut direct, mut punted) = (world(pipeline.clone()), world(pipeline));
            let mut path = ReferencePath::new();
            let mut second = 0;
            for (index, step) in row.steps.iter().enumerate() {
                second = step.at.unwrap_or(second);
                // What a step changes is left out: neither way has a part in it.
                let (Some(port), Some(packet)) = (&step.port, &step.packet) else { continue };
                let bytes = row.bytes(index, packet).unwrap();
                let now = Timestamp((1_000_000 + second) * Timestamp::SECOND);
                let wanted = run(&mut direct, port, &bytes, now);
                let got = finish(&mut path, &mut punted, port, &bytes, now);
                assert_eq!(got, wanted, "{file}: {}, step {}", row.name, index + 1);
                compared += 1;
            }
            assert_eq!(punted.export(), direct.export(), "{file}: {}", row.name);
            assert_eq!(punted.counters(), direct.counters(), "{file}: {}", row.name);
        }
        assert!(compared > 300, "{compared} packets compared");
    }
}

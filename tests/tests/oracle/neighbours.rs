//! Neighbours that nobody has told of: both sides ask on the link, learn from the answer, and answer when asked.

use crate::router::{PIPELINE, PORTS, Router, kernel};
use crate::{assert_well_formed, privileged};
use loxi_conformance::build;
use loxi_reference::Reference;
use loxi_tests::oracle::{self, Frame, Known, Model, Scenario, Step};
use loxi_tests::random::Random;
use loxi_tests::wire;
use std::net::{IpAddr, Ipv6Addr};

const LISTED: &[Known] = &[Known::QueuedForNeighbor, Known::SolicitationSource];

/// Stations per family that are found.
const STATIONS: usize = 20;

/// Steps per station: asked for, found, reached, reached again.
const STEPS: usize = 4;

struct Neighbours {
    next: usize,
}

impl Scenario for Neighbours {
    fn own(&self) -> Vec<IpAddr> {
        Router.own()
    }

    fn step(&mut self, _random: &mut Random) -> Step {
        let (station, step) = (self.next / STEPS, self.next % STEPS);
        self.next += 1;
        let (host, v6) = (0x10 + station / 2, station % 2 == 1);
        let mac = format!("02:00:00:01:0c:{host:02x}");
        match (step, v6) {
            (1, false) => {
                let ip = format!("10.1.1.{host}");
                let text =
                    format!("eth {mac}>02:00:00:00:0a:01 / arp reply {mac}/{ip}>02:00:00:00:0a:01/10.1.1.1");
                frame(1, "found", &text, Some(Known::QueuedForNeighbor))
            }
            (1, true) => {
                let target: Ipv6Addr = format!("fd00:1:1::{host:x}").parse().unwrap();
                let option = format!("0201{}", mac.replace(':', ""));
                let text = format!(
                    "eth {mac}>02:00:00:00:0a:01 / ipv6 {target}>fd00:1:1::1 hop=255 / icmp6 136 0 word=0x60000000 / \
                     hex {}{option}",
                    wire::hex(&target.octets())
                );
                frame(1, "found", &text, Some(Known::QueuedForNeighbor))
            }
            (_, false) => frame(
                0,
                "to be reached",
                &format!(
                    "eth 02:00:00:00:0b:02>02:00:00:00:0a:00 / ipv4 10.1.0.2>10.1.1.{host} / udp 1>2 / fill {step}"
                ),
                None,
            ),
            (_, true) => frame(
                0,
                "to be reached",
                &format!(
                    "eth 02:00:00:00:0b:02>02:00:00:00:0a:00 / ipv6 fd00:1::2>fd00:1:1::{host:x} / udp 1>2 / fill {step}"
                ),
                None,
            ),
        }
    }
}

fn frame(port: usize, what: &str, text: &str, may: Option<Known>) -> Step {
    let bytes = build(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Step { what: format!("{what}: {text}"), frames: vec![Frame { port, bytes }], may }
}

#[test]
fn the_kernel_finds_neighbours_the_same() {
    if !privileged("the_kernel_finds_neighbours_the_same") {
        return;
    }
    let mut kernel = kernel();
    // Without one Linux asks for nobody.
    kernel.ip("addr add fe80::1/64 dev p1 nodad");
    let mut model = Model::new(Reference::new(), PIPELINE, &PORTS);
    let steps = 2 * STATIONS * STEPS;
    let summary = oracle::run(&mut kernel, &mut model, &mut Neighbours { next: 0 }, 1, steps, LISTED);
    summary.assert("neighbours", steps, 70, LISTED);
    assert_well_formed("neighbours", &summary);
}

//! Aggregates (GSO): whole on their way into a tunnel, right packets wherever they come out and however often they
//! are forwarded.

use crate::capture::{Capture, able};
use crate::dissect::{Seen, Sum, dissect};
use crate::fixture::{Asked, serve};
use crate::machines::checksum_errors;
use crate::nodes::{FIRST, MTU, Nodes, SECOND, Setup, THIRD, addr, at};
use std::net::IpAddr;

const BYTES: usize = 4 << 20;
const PORT: u16 = 8080;

/// Frames of a capture that are IP, each of which is right.
pub fn right(frames: &[Vec<u8>], of: &str) -> Vec<Seen> {
    let seen = |frame: &Vec<u8>| {
        let head = &frame[..frame.len().min(160)];
        dissect(frame).unwrap_or_else(|wrong| panic!("{of}: {wrong}, in {} bytes: {head:02x?}", frame.len()))
    };
    frames.iter().filter_map(seen).collect()
}

/// Those that go from one to another.
pub fn between(seen: &[Seen], from: &str, to: &str) -> Vec<Seen> {
    let pair: (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    seen.iter().filter(|seen| seen.inner() == pair && !seen.payload.is_empty()).cloned().collect()
}

/// How many bytes of payload are in packets longer than a link takes.
fn in_aggregates(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.ip_length > MTU.into()).map(|seen| seen.payload.len()).sum()
}

/// The bytes of a TCP stream, from its packets: those of one stream may overtake each other where it changes the
/// processor.
fn stream(seen: &[Seen]) -> Vec<u8> {
    let first = seen.first().expect("it has packets").seq;
    let mut places: Vec<(usize, &Seen)> =
        seen.iter().map(|one| (one.seq.wrapping_sub(first) as usize, one)).collect();
    places.sort_by_key(|(at, _)| *at);
    let mut bytes: Vec<u8> = Vec::new();
    for (at, one) in places {
        assert!(at <= bytes.len(), "a gap at {}", bytes.len());
        // What was sent again is to be the same.
        let known = bytes.len().min(at + one.payload.len()) - at;
        assert!(bytes[at..at + known] == one.payload[..known], "other bytes came again at {at}");
        bytes.extend_from_slice(&one.payload[known..]);
    }
    bytes
}

fn is_what_was_sent(seen: &[Seen], what: &str) {
    let bytes = stream(seen);
    assert_eq!(bytes.len(), BYTES, "{what}");
    assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8), "{what}: other bytes came");
}

/// One connection that carries a lot both ways.
fn transfer(nodes: &Nodes, from: u8, to: u8, v6: bool) {
    let mut asked = Asked::open(nodes.host(from), &at(to, v6, PORT))
        .unwrap_or_else(|error| panic!("{error}, from {from} to {to}, v6 {v6}: {}", nodes.tell()));
    asked.echo(BYTES);
}

fn serving(setup: Setup<'_>, hosts: &[u8]) -> Nodes {
    let nodes = Nodes::new(setup);
    for n in hosts {
        for v6 in [false, true] {
            serve(nodes.host(*n), &at(*n, v6, PORT), "server");
        }
    }
    nodes
}

/// Families of the outer and of the inner packets.
const FAMILIES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn aggregates_go_whole_into_a_tunnel_and_come_out_right() {
    if !able("aggregates_go_whole_into_a_tunnel_and_come_out_right") {
        return;
    }
    for (outer, v6) in FAMILIES {
        let nodes = serving(Setup { v6: outer, ..Setup::default() }, &[SECOND]);
        let (a, b) = (addr(FIRST, v6), addr(SECOND, v6));
        let captures = [
            Capture::start(&nodes.nodes[0], "wire"),
            Capture::start(nodes.host(SECOND), "eth0"),
            Capture::start(nodes.host(FIRST), "eth0"),
        ];
        transfer(&nodes, FIRST, SECOND, v6);
        let what = format!("outer v6 {outer}, inner v6 {v6}");
        let [wire, there, back] = captures.map(Capture::stop);

        let wire = right(&wire, &format!("{what}, on the wire"));
        let out = between(&wire, &a, &b);
        assert!(out.iter().all(|seen| seen.addresses.len() == 2), "{what}: not encapsulated");
        assert!(out.iter().all(|seen| seen.addresses[0].0.is_ipv6() == outer));
        let whole = in_aggregates(&out);
        assert!(whole > BYTES / 2, "{what}: {whole} of {BYTES} bytes left in aggregates");
        is_what_was_sent(&out, &format!("{what}, on the wire"));

        // They come whole to the other pod, and its answer comes whole back.
        let there = between(&right(&there, &format!("{what}, at the pod")), &a, &b);
        assert!(there.iter().all(|seen| seen.addresses.len() == 1));
        is_what_was_sent(&there, &format!("{what}, at the pod"));
        assert!(in_aggregates(&there) > BYTES / 2, "{what}: cut on the way");
        let back = between(&right(&back, &format!("{what}, back")), &b, &a);
        assert!(in_aggregates(&back) > BYTES / 2, "{what}: cut on the way back");
        for n in [FIRST, SECOND] {
            assert_eq!(checksum_errors(nodes.host(n)), 0, "{what}");
        }
        nodes.dropped_nothing();
    }
}

#[test]
fn what_came_out_of_a_tunnel_is_cut_right_on_another_wire() {
    if !able("what_came_out_of_a_tunnel_is_cut_right_on_another_wire") {
        return;
    }
    for (outer, v6) in FAMILIES {
        let out = "tx off tso off gso off";
        let nodes = serving(Setup { v6: outer, out, ..Setup::default() }, &[FIRST, THIRD]);
        let (a, c) = (addr(FIRST, v6), addr(THIRD, v6));
        for (from, to) in [(FIRST, THIRD), (THIRD, FIRST)] {
            let what = format!("outer v6 {outer}, inner v6 {v6}, from {from} to {to}");
            let captures =
                [Capture::start(nodes.host(THIRD), "eth0"), Capture::start(&nodes.nodes[0], "wire")];
            transfer(&nodes, from, to, v6);
            let [there, wire] = captures.map(Capture::stop);
            let wire = right(&wire, &format!("{what}, on the wire"));
            assert!(in_aggregates(&between(&wire, &a, &c)) > BYTES / 2, "{what}: cut before");
            let there = between(&right(&there, &what), &a, &c);
            let longest = there.iter().map(|seen| seen.ip_length).max();
            assert!(longest <= Some(MTU.into()), "{what}: {longest:?} bytes left by a link of {MTU}");
            assert!(there.iter().all(|seen| seen.sum == Sum::Whole), "{what}: a checksum isn't whole");
            if from == FIRST {
                is_what_was_sent(&there, &what);
            }
        }
        for n in [FIRST, THIRD] {
            assert_eq!(checksum_errors(nodes.host(n)), 0, "outer v6 {outer}, inner v6 {v6}");
        }
        nodes.dropped_nothing();
    }
}

#[test]
fn what_goes_into_a_tunnel_is_cut_right_by_its_wire() {
    if !able("what_goes_into_a_tunnel_is_cut_right_by_its_wire") {
        return;
    }
    // Whether IP in IP; families outside and inside.
    for (bare, outer, v6) in
        [(false, false, false), (false, true, true), (true, false, true), (true, true, false)]
    {
        let wire = "tx off tso off gso off";
        let nodes = serving(Setup { v6: outer, bare, wire, ..Setup::default() }, &[SECOND, THIRD]);
        let (a, b) = (addr(FIRST, v6), addr(SECOND, v6));
        let what = format!("bare {bare}, outer v6 {outer}, inner v6 {v6}");
        let capture = Capture::start(&nodes.nodes[1], "wire");
        transfer(&nodes, FIRST, SECOND, v6);
        let seen = between(&right(&capture.stop(), &what), &a, &b);
        let longest = seen.iter().map(|seen| seen.length).max();
        assert!(longest <= Some(1514), "{what}: frames of {longest:?} bytes");
        assert!(seen.iter().all(|seen| seen.sum == Sum::Whole), "{what}: a checksum isn't whole");
        is_what_was_sent(&seen, &what);
        transfer(&nodes, FIRST, THIRD, v6);
        for n in [FIRST, SECOND, THIRD] {
            assert_eq!(checksum_errors(nodes.host(n)), 0, "{what}");
        }
        nodes.dropped_nothing();
    }
}

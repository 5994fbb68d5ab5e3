//! Wireshark's opinion: the control that it looks at all, and what the reference emits for the
//! conformance suite's own packets.

#![allow(clippy::unwrap_used, reason = "a test that can't go on says where")]

use loxi_conformance::{Row, RowFile, RowStep, build, case, pipeline_of, rows};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{InjectRequest, Local, PacketIn};
use loxi_core::ir::{Entity, Owner};
use loxi_core::packet::Timestamp;
use loxi_reference::Reference;
use loxi_tests::tshark::{TsharkError, complaints};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::sync::Arc;

const RIGHT: &str =
    "eth 02:00:00:00:00:01>02:00:00:00:00:02 / ipv4 10.0.0.1>10.0.0.2 / udp 1000>2000 / fill 40";

/// What Wireshark finds; `None`, with the reason told, if it isn't here.
fn asked(test: &str, frames: &[Vec<u8>]) -> Option<Vec<(usize, String)>> {
    match complaints(frames) {
        Ok(found) => Some(found),
        Err(error @ TsharkError::Missing) => {
            eprintln!("SKIPPED {test}: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn wrong_checksums_are_found_at_every_layer() {
    let wrong = [
        "ipv4 10.0.0.1>10.0.0.2 csum=0x1 / udp 1000>2000 / fill 40",
        "ipv4 10.0.0.1>10.0.0.2 / udp 1000>2000 csum=0x1 / fill 40",
        "ipv4 10.0.0.1>10.0.0.2 / tcp 1000>2000 S csum=0x1",
        "ipv4 10.0.0.1>10.0.0.2 / icmp 8 0 id=1 csum=0x1",
        "ipv4 10.0.0.1>10.0.0.2 / sctp 1000>2000 chunk=1 csum=0x1 / fill 16",
        "ipv6 fd00::1>fd00::2 / udp 1000>2000 csum=0x1 / fill 40",
        "ipv6 fd00::1>fd00::2 / tcp 1000>2000 S csum=0x1",
        "ipv6 fd00::1>fd00::2 / icmp6 128 0 id=1 csum=0x1",
        "ipv4 10.0.0.1>10.0.0.2 / udp 5>4789 csum=0 / vxlan 100 / eth 02:00:00:00:00:03>02:00:00:00:00:04 / \
         ipv4 10.1.0.1>10.1.0.2 / tcp 1>2 S csum=0x1",
    ];
    let mut frames = vec![build(RIGHT).unwrap()];
    frames.extend(
        wrong.map(|text| build(&format!("eth 02:00:00:00:00:01>02:00:00:00:00:02 / {text}")).unwrap()),
    );
    let Some(found) = asked("wrong_checksums_are_found_at_every_layer", &frames) else { return };
    let indices: Vec<usize> = found.iter().map(|(index, _)| *index).collect();
    assert_eq!(indices, (1..frames.len()).collect::<Vec<_>>(), "{found:?}");
}

#[test]
fn a_malformed_packet_is_found() {
    let frames =
        [build("eth 02:00:00:00:00:01>02:00:00:00:00:02 / ipv4 10.0.0.1>10.0.0.2 proto=17 / hex 0102")
            .unwrap()];
    let Some(found) = asked("a_malformed_packet_is_found", &frames) else { return };
    assert_eq!(found.len(), 1);
}

/// A packet and what the reference emitted for it.
type Passed = (Vec<u8>, Vec<Vec<u8>>);

/// What the reference emits for the packets of a row, changes in between left out.
fn emitted(entities: Vec<Entity>, row: &Row) -> Vec<Passed> {
    let start = Timestamp(Timestamp::SECOND * 1000);
    let local = Local::new(Reference::new(), Arc::new(move || start));
    local.apply(&Transaction::replace("1", Owner::new("row").unwrap(), entities)).unwrap();
    for port in local.pipeline().ports() {
        local.attach(&port.name).unwrap();
    }
    let packet = |(index, step): (usize, &RowStep)| {
        let bytes = row.bytes(index, step.packet.as_ref()?).unwrap();
        Some(PacketIn { port: step.port.clone()?, bytes, at: None })
    };
    let known = local.pipeline();
    let packets: Vec<PacketIn> = row.steps.iter().enumerate().filter_map(packet).collect();
    let packets: Vec<PacketIn> =
        packets.into_iter().filter(|packet| known.ports().any(|port| port.name == packet.port)).collect();
    let request = InjectRequest { packets: packets.clone(), commit: true, ..InjectRequest::default() };
    let injected = local.inject(&request).unwrap();
    let outputs = injected
        .into_iter()
        .map(|injected| injected.verdict.outputs.into_iter().map(|output| output.bytes).collect());
    packets.into_iter().map(|packet| packet.bytes).zip(outputs).collect()
}

/// What is right when it comes in is right when it goes out. Packets that Wireshark finds wrong as they
/// come in are not judged: their payload passes as it is.
fn assert_right(test: &str, passed: &[Passed], least: usize) {
    let inputs: Vec<Vec<u8>> = passed.iter().map(|(input, _)| input.clone()).collect();
    let Some(wrong) = asked(test, &inputs) else { return };
    let wrong: BTreeSet<usize> = wrong.into_iter().map(|(index, _)| index).collect();
    let right = passed.iter().enumerate().filter(|(index, _)| !wrong.contains(index));
    let frames: Vec<Vec<u8>> = right.flat_map(|(_, (_, outputs))| outputs.clone()).collect();
    println!(
        "{test}: {} of {} packets wrong as they come, {} frames",
        wrong.len(),
        inputs.len(),
        frames.len()
    );
    assert!(frames.len() >= least, "only {} frames", frames.len());
    let found = asked(test, &frames).unwrap_or_default();
    let line =
        |(index, words): &(usize, String)| format!("{words}: {}", loxi_tests::wire::hex(&frames[*index]));
    let shown: Vec<String> = found.iter().take(10).map(line).collect();
    assert!(found.is_empty(), "{} complaints\n{}", found.len(), shown.join("\n"));
}

#[test]
fn what_the_rows_lead_to_is_well_formed() {
    let mut passed = Vec::new();
    for (_, row) in rows().unwrap() {
        passed.extend(emitted(row.entities().unwrap(), &row));
    }
    assert_right("what_the_rows_lead_to_is_well_formed", &passed, 150);
}

#[test]
fn what_generated_packets_lead_to_is_well_formed() {
    let mut runner = TestRunner::deterministic();
    let mut passed = Vec::new();
    for _ in 0..200 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let file: RowFile = loxi_core::text::parse_yaml(&case.to_row()).unwrap();
        passed.extend(file.rows.iter().flat_map(|row| emitted(pipeline_of(&case), row)));
    }
    assert_right("what_generated_packets_lead_to_is_well_formed", &passed, 3000);
}

//! Wireshark's opinion: the control that it looks at all, and what the reference emits for the
//! conformance suite's own packets.

use loxi_conformance::build;
use loxi_tests::tshark::{TsharkError, complaints};

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

//! Whatever arrives is a message or an error, and never a panic.

#![allow(clippy::unwrap_used)]

use loxi_channel::frame::{HEADER_LEN, MAGIC, correlation_of};
use loxi_channel::message::Peer;
use loxi_channel::{
    Fault, Frame, FrameError, Hello, Kind, Limits, Message, PROTOCOL, Ping, Pong, ProtocolVersion, Refused,
    Welcome,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const LIMIT: usize = 4096;

/// Decodes as each kind, as a side would that expects it.
fn read_as_everything(bytes: &[u8]) -> usize {
    let depth = Limits::default().depth;
    let _ = correlation_of(bytes);
    let Ok(frame) = Frame::decode(bytes, LIMIT) else {
        return 0;
    };
    let results = [
        Hello::from_frame(&frame, depth).is_ok(),
        Welcome::from_frame(&frame, depth).is_ok(),
        Refused::from_frame(&frame, depth).is_ok(),
        Ping::from_frame(&frame, depth).is_ok(),
        Pong::from_frame(&frame, depth).is_ok(),
        Fault::from_frame(&frame, depth).is_ok(),
    ];
    // A body has one meaning: that of its kind.
    assert!(results.iter().filter(|read| **read).count() <= 1);
    1
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        ir_version: 1,
        client: Peer { name: "test".to_owned(), version: "1".to_owned() },
    }
}

fn frame_of(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Ping { token: 0 }.to_frame(1, LIMIT).unwrap();
    bytes.truncate(HEADER_LEN);
    bytes[8..10].copy_from_slice(&kind.to_be_bytes());
    bytes[20..24].copy_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn arbitrary_bytes() {
    proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..200))| {
        read_as_everything(&bytes);
        let mut with_magic = MAGIC.to_vec();
        with_magic.extend_from_slice(&bytes);
        read_as_everything(&with_magic);
    });
}

#[test]
fn arbitrary_bodies_under_a_sound_header() {
    let judged = AtomicUsize::new(0);
    proptest!(ProptestConfig::with_cases(1000), |(
        kind in prop::sample::select(Kind::ALL),
        body in prop::collection::vec(any::<u8>(), 0..300),
    )| {
        let read = read_as_everything(&frame_of(kind.code(), &body));
        judged.fetch_add(read, Ordering::Relaxed);
    });
    assert!(judged.into_inner() >= 1000, "the header was not sound");
}

#[test]
fn damaged_frames() {
    let judged = AtomicUsize::new(0);
    proptest!(ProptestConfig::with_cases(1000), |(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    )| {
        let mut bytes = hello().to_frame(9, LIMIT).unwrap();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        judged.fetch_add(read_as_everything(&bytes), Ordering::Relaxed);
        // A sound one: damage to the length may be just what the cut makes true.
        let mut sound = hello().to_frame(9, LIMIT).unwrap();
        sound.truncate(cut.index(sound.len()));
        assert!(Frame::decode(&sound, LIMIT).is_err(), "a cut frame is none");
    });
    assert!(judged.into_inner() >= 300, "damage never reached a body");
}

#[test]
fn each_fault_of_a_header_has_its_error() {
    let good = Ping { token: 1 }.to_frame(5, LIMIT).unwrap();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        Frame::decode(&bytes, LIMIT).map(|frame| frame.kind)
    };
    let version = |major, minor| ProtocolVersion { major, minor };

    assert_eq!(with(6, &[0, 9]), Ok(Kind::Ping), "a newer minor is read");
    assert_eq!(with(0, b"HTTP"), Err(FrameError::BadMagic { found: *b"HTTP" }));
    assert_eq!(with(4, &[0, 2, 0, 3]), Err(FrameError::TooNew { theirs: version(2, 3) }));
    assert_eq!(with(4, &[0, 0]), Err(FrameError::TooOld { theirs: version(0, 0) }));
    assert_eq!(with(8, &[0x7f, 1]), Err(FrameError::UnknownKind { code: 0x7f01 }));
    assert_eq!(with(10, &[1, 0]), Err(FrameError::Reserved { found: 256 }));
    assert_eq!(with(20, &[0xff; 4]), Err(FrameError::TooLong { length: 0xffff_ffff, limit: LIMIT }));
    assert!(matches!(with(20, &[0, 0, 0, 1]), Err(FrameError::LengthMismatch { stated: 1, .. })));
    assert_eq!(Frame::decode(&good[..7], LIMIT), Err(FrameError::Truncated { have: 7 }));
    let frame = Frame::decode(&good, LIMIT).unwrap();
    assert!(matches!(
        Hello::from_frame(&frame, 64),
        Err(FrameError::UnexpectedKind { found: Kind::Ping, expected: Kind::Hello })
    ));
}

#[test]
fn what_would_be_too_long_is_not_written() {
    let mut hello = hello();
    hello.client.name = "x".repeat(LIMIT);
    assert!(matches!(hello.to_frame(0, LIMIT), Err(FrameError::TooLong { limit: LIMIT, .. })));
}

#[test]
fn a_field_of_a_later_minor_version_is_skipped() {
    // {"token": 7, "since": [1, {"a": null}]}
    let body = b"\xa2\x65token\x07\x65since\x82\x01\xa1\x61a\xf6";
    let bytes = frame_of(Kind::Ping.code(), body);
    let frame = Frame::decode(&bytes, LIMIT).unwrap();
    assert_eq!(Ping::from_frame(&frame, 64), Ok(Ping { token: 7 }));
}

//! A peer that speaks SP by hand, and badly: the daemon says what is wrong or
//! hangs up, and goes on serving.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use loxi_channel::message::RefusedReason;
use loxi_channel::{
    Endpoint, Fault, FaultCode, Frame, Hello, Incoming, Limits, Message, Outgoing, Ping, Refused, Server,
    Service, Welcome,
};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

struct Closed;

#[async_trait]
impl Service for Closed {
    async fn hello(&self, _: Hello) -> Result<Welcome, Refused> {
        let reason = RefusedReason::ShuttingDown;
        Err(Refused { reason })
    }

    fn boot(&self) -> u64 {
        1
    }

    async fn call(&self, request: Incoming) -> Result<Outgoing, Fault> {
        Err(request.unknown())
    }
}

/// SP's handshake as a requester (protocol 48), then nothing.
fn shake(endpoint: &Endpoint) -> UnixStream {
    let mut stream = UnixStream::connect(endpoint.control()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"\0SP\0\x00\x30\0\0").unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\0SP\0\x00\x31\0\0");
    stream
}

/// One request by hand, and the frame that answers it.
fn ask(stream: &mut UnixStream, frame: &[u8]) -> Vec<u8> {
    let mut message = vec![1];
    message.extend_from_slice(&(frame.len() as u64 + 4).to_be_bytes());
    message.extend_from_slice(&[0x80, 0, 0, 1]);
    message.extend_from_slice(frame);
    stream.write_all(&message).unwrap();
    let mut head = [0; 13];
    stream.read_exact(&mut head).unwrap();
    let length = u64::from_be_bytes(head[1..9].try_into().unwrap());
    let mut answer = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn fault_of(answer: &[u8]) -> (u64, FaultCode) {
    let frame = Frame::decode(answer, 1 << 16).unwrap();
    let fault = Fault::from_frame(&frame, 64).unwrap();
    (frame.correlation, fault.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_get_a_fault_and_bad_lengths_get_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_folder(folder.path().join("run")).unwrap();
    let limits = Limits { request: 4096, ..Limits::default() };
    let server = Server::bind(&endpoint, limits, 2, Arc::new(Closed)).unwrap();
    tokio::task::spawn_blocking(move || converse(&endpoint)).await.unwrap();
    server.shutdown().await;
}

fn converse(endpoint: &Endpoint) {
    let ping = Ping { token: 1 }.to_frame(77, 4096).unwrap();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = ping.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let mut stream = shake(endpoint);
    for (frame, expected) in [
        (b"GET / HTTP/1.1".to_vec(), (0, FaultCode::Malformed)),
        (Vec::new(), (0, FaultCode::Malformed)),
        (with(4, &[0, 9]), (77, FaultCode::Protocol)),
        (with(8, &[0x12, 0x34]), (77, FaultCode::UnknownKind)),
        (with(20, &[1, 0, 0, 0]), (77, FaultCode::TooLong)),
        (with(24, &[0xff]), (77, FaultCode::Malformed)),
        // A reply is no request.
        (with(8, &[0xff, 0xff]), (77, FaultCode::UnknownKind)),
    ] {
        assert_eq!(fault_of(&ask(&mut stream, &frame)), expected, "{frame:02x?}");
    }

    // A length over the limit is refused before the message exists: the peer
    // is hung up on, though it has sent nothing but the length.
    for length in [4096 + 64, 1 << 40, u64::MAX] {
        let mut greedy = shake(endpoint);
        let mut message = vec![1];
        message.extend_from_slice(&length.to_be_bytes());
        greedy.write_all(&message).unwrap();
        let ended = greedy.read(&mut [0; 16]);
        assert!(matches!(ended, Ok(0)), "{length}: {ended:?}");
    }

    // Half a message, then gone.
    let mut half = shake(endpoint);
    half.write_all(&[1, 0, 0, 0, 0, 0, 0, 1, 0, 0x80]).unwrap();
    drop(half);

    let answer = ask(&mut stream, &ping);
    let frame = Frame::decode(&answer, 4096).unwrap();
    assert_eq!(frame.correlation, 77, "still served");
}

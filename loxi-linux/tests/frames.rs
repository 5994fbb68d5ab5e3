//! Frames in and out on the real kernel, with offloads on.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod fixture;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::{await_frame, l4_checksum_is_right, privileged, socket, veth};
use loxi_linux::netns::{self, NetNs};
use loxi_linux::offload::{self, Offload};
use loxi_linux::packet::{
    FrameError, FrameIo, PacketSocket, PacketSocketOptions, RxCounters, Tap, TapOptions,
};
use loxi_linux::poller::{Interest, Poller};
use loxi_linux::rtnetlink::{AddrFlags, LinkChange, Rtnl};
use loxi_linux::{MacAddr, sysctl};

const A: &str = "10.1.0.1";
const B: &str = "10.1.0.2";

fn address(ns: &NetNs, device: &str, addr: &str) {
    let _guard = netns::enter(ns).unwrap();
    let prefix = (addr.parse().unwrap(), 24);
    Rtnl::open().unwrap().addr_add(device, prefix, AddrFlags::default()).unwrap();
}

fn is_udp(frame: &[u8]) -> bool {
    frame.len() > 42 && frame[12..14] == [8, 0] && frame[23] == 17
}

#[test]
fn a_partial_checksum_is_completed() {
    if !privileged("a_partial_checksum_is_completed") {
        return;
    }
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    veth(&a, "va", &b, "vb");
    address(&a, "va", A);
    {
        let _guard = netns::enter(&a).unwrap();
        assert!(offload::get("va", Offload::TxChecksum).unwrap());
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        Rtnl::open().unwrap().neigh_add("va", B.parse().unwrap(), mac).unwrap();
    }
    let mut io = socket(&b, "vb");
    let send = |payload: &[u8]| {
        let _guard = netns::enter(&a).unwrap();
        let socket = UdpSocket::bind((A, 0)).unwrap();
        socket.send_to(payload, (B, 9)).unwrap();
    };
    for payload in [&b"hello"[..], &[0xff; 999]] {
        send(payload);
        let (frame, meta) = await_frame(&mut io, is_udp).unwrap();
        assert!(meta.checksum_completed, "the sender left it to the device");
        assert_eq!(&frame[42..42 + payload.len()], payload);
        assert!(l4_checksum_is_right(&frame));
    }
    assert!(io.counters().frames >= 2);
    assert_eq!(io.counters().unfinished, 0);
}

#[test]
fn own_frames_are_not_received_and_long_ones_not_sent() {
    if !privileged("own_frames_are_not_received_and_long_ones_not_sent") {
        return;
    }
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    veth(&a, "va", &b, "vb");
    let (mut near, mut far) = (socket(&a, "va"), socket(&b, "vb"));
    let mut frame = vec![0xff; 12];
    frame.extend([0x88, 0xb5]);
    frame.extend([7; 100]);
    near.send(&frame).unwrap();
    let (seen, meta) = await_frame(&mut far, |f| f == frame).unwrap();
    assert_eq!((seen, meta.segmented), (frame.clone(), false));
    let mut own = Vec::new();
    while near.recv(&mut own).unwrap().is_some() {
        assert_ne!(own, frame);
    }
    // A tag inside the frame is taken out by the receiving kernel and put back here.
    let mut tagged = frame[..12].to_vec();
    tagged.extend([0x81, 0, 0, 42]);
    tagged.extend(&frame[12..]);
    near.send(&tagged).unwrap();
    let (seen, meta) = await_frame(&mut far, |f| f.len() == tagged.len()).unwrap();
    assert_eq!(seen, tagged);
    assert!(meta.vlan_restored);

    frame.resize(14 + 1501, 0);
    let error = near.send(&frame).unwrap_err();
    assert!(matches!(error, FrameError::BadLength { len: 1515, .. }), "{error}");
    assert!(matches!(near.send(&[0; 13]), Err(FrameError::BadLength { .. })));
    frame.truncate(14 + 1500);
    near.send(&frame).unwrap();
    assert!(await_frame(&mut far, |f| f.len() == 1514).is_some());

    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    a.run(|| Rtnl::open().unwrap().link_set("va", &down).unwrap()).unwrap();
    let error = near.send(&frame).unwrap_err();
    assert!(matches!(error, FrameError::Down { .. }), "{error}");
    a.run(|| Rtnl::open().unwrap().link_del("va").unwrap()).unwrap();
    let error = near.send(&frame).unwrap_err();
    assert!(matches!(error, FrameError::Gone { .. }), "{error}");
}

#[test]
fn what_the_queue_loses_is_counted() {
    if !privileged("what_the_queue_loses_is_counted") {
        return;
    }
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    veth(&a, "va", &b, "vb");
    let mut near = socket(&a, "va");
    let small = PacketSocketOptions { receive_buffer: 4096, ..PacketSocketOptions::default() };
    let mut far = b.run(|| PacketSocket::open_with("vb", small).unwrap()).unwrap();
    let mut frame = vec![0xff; 12];
    frame.extend([0x88, 0xb5]);
    frame.resize(1000, 7);
    for _ in 0..100 {
        near.send(&frame).unwrap();
    }
    let mut got = Vec::new();
    while far.recv(&mut got).unwrap().is_some() {}
    let counters = far.counters();
    assert!(counters.overruns > 0, "{counters:?}");
    assert_eq!(counters.frames + counters.overruns, 100, "{counters:?}");
    assert_eq!(far.counters(), counters, "asking again changes nothing");
}

type Io = dyn FrameIo + 'static;

/// Carries frames between two devices until told to stop; returns what each has received.
fn bridge(a: &mut Io, b: &mut Io, stop: &AtomicBool) -> [RxCounters; 2] {
    let poller = Poller::new().unwrap();
    poller.add(a.poll_fd().unwrap(), 0, Interest::Read).unwrap();
    poller.add(b.poll_fd().unwrap(), 1, Interest::Read).unwrap();
    let (mut ready, mut frame) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        poller.wait(&mut ready, Some(Duration::from_millis(20))).unwrap();
        for event in &ready {
            let (from, to) = if event.token == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            while from.recv(&mut frame).unwrap().is_some() {
                match to.send(&frame) {
                    Ok(()) | Err(FrameError::Busy { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    [a.counters(), b.counters()]
}

/// One megabyte by TCP from `a` to `b` while `ports` are bridged.
fn transfer(
    a: &NetNs,
    b: &NetNs,
    server: &str,
    mut ports: (Box<dyn FrameIo>, Box<dyn FrameIo>),
) -> [RxCounters; 2] {
    let data: Vec<u8> = (0..1u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let listener = b.run(|| TcpListener::bind((server, 7000)).unwrap()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let carrier = scope.spawn(|| bridge(&mut *ports.0, &mut *ports.1, &stop));
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let timeout = Some(Duration::from_secs(20));
            let mut client = a
                .run(|| {
                    let server = std::net::SocketAddr::new(server.parse().unwrap(), 7000);
                    TcpStream::connect_timeout(&server, Duration::from_secs(5)).unwrap()
                })
                .unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.set_read_timeout(timeout).unwrap();
            client.set_write_timeout(timeout).unwrap();
            let sent = data.clone();
            let writer = std::thread::spawn(move || client.write_all(&sent).unwrap());
            let mut got = Vec::new();
            accepted.read_to_end(&mut got).unwrap();
            writer.join().unwrap();
            assert!(got == data, "{} bytes arrived of {}, or others", got.len(), data.len());
        }));
        stop.store(true, Ordering::Relaxed);
        let counters = carrier.join().unwrap();
        if let Err(panic) = end {
            eprintln!("{counters:?}");
            std::panic::resume_unwind(panic);
        }
        counters
    })
}

/// Two hosts, each with a veth to a switch namespace.
struct Hosts {
    a: NetNs,
    b: NetNs,
    switch: NetNs,
}

fn hosts() -> Hosts {
    let [a, b, switch] = std::array::from_fn(|_| NetNs::anonymous().unwrap());
    veth(&a, "eth0", &switch, "sa");
    veth(&b, "eth0", &switch, "sb");
    address(&a, "eth0", A);
    address(&b, "eth0", B);
    for ns in [&a, &b] {
        let _guard = netns::enter(ns).unwrap();
        let mut rtnl = Rtnl::open().unwrap();
        sysctl::write("net.ipv6.conf.eth0.disable_ipv6", "0").unwrap();
        let last = if std::ptr::eq(ns, &a) { "fd01::1" } else { "fd01::2" };
        let how = AddrFlags { no_dad: true, ..AddrFlags::default() };
        rtnl.addr_add("eth0", (last.parse().unwrap(), 64), how).unwrap();
        assert!(offload::get("eth0", Offload::Tso).unwrap(), "offloads stay on");
    }
    Hosts { a, b, switch }
}

#[test]
fn a_stream_of_super_frames_arrives_whole() {
    if !privileged("a_stream_of_super_frames_arrives_whole") {
        return;
    }
    let hosts = hosts();
    for server in [B, "fd01::2"] {
        let ports = (socket(&hosts.switch, "sa"), socket(&hosts.switch, "sb"));
        let ports = (Box::new(ports.0) as _, Box::new(ports.1) as _);
        let [from_a, _] = transfer(&hosts.a, &hosts.b, server, ports);
        assert!(from_a.super_frames > 0, "no super-frame came, so nothing was shown: {from_a:?}");
        assert!(from_a.frames >= (1 << 20) / 1448, "{from_a:?}");
        assert_eq!((from_a.unfinished, from_a.truncated), (0, 0));
    }
}

#[test]
fn a_stream_without_offloads_arrives_whole() {
    if !privileged("a_stream_without_offloads_arrives_whole") {
        return;
    }
    let hosts = hosts();
    for (ns, device) in [(&hosts.a, "eth0"), (&hosts.b, "eth0"), (&hosts.switch, "sa"), (&hosts.switch, "sb")]
    {
        ns.run(|| offload::disable_all(device).unwrap()).unwrap();
    }
    let ports = (socket(&hosts.switch, "sa"), socket(&hosts.switch, "sb"));
    let ports = (Box::new(ports.0) as _, Box::new(ports.1) as _);
    let [from_a, from_b] = transfer(&hosts.a, &hosts.b, B, ports);
    assert_eq!((from_a.super_frames, from_b.super_frames), (0, 0));
}

fn tap(ns: &NetNs, name: &str, options: TapOptions) -> Tap {
    let _guard = netns::enter(ns).unwrap();
    sysctl::write("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    let tap = Tap::open(name, options).unwrap();
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    Rtnl::open().unwrap().link_set(name, &up).unwrap();
    tap
}

#[test]
fn a_tap_gives_and_takes() {
    if !privileged("a_tap_gives_and_takes") {
        return;
    }
    for offloads in [false, true] {
        let ns = NetNs::anonymous().unwrap();
        let mut io = tap(&ns, "tap0", TapOptions { offloads, ..TapOptions::default() });
        address(&ns, "tap0", A);
        let receiver = ns.run(|| UdpSocket::bind((A, 0)).unwrap()).unwrap();
        let mac = {
            let _guard = netns::enter(&ns).unwrap();
            let mut rtnl = Rtnl::open().unwrap();
            rtnl.neigh_add("tap0", B.parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 9])).unwrap();
            rtnl.link("tap0").unwrap().unwrap().mac.unwrap()
        };
        receiver.send_to(b"ping", (B, 9)).unwrap();
        let (mut frame, meta) = await_frame(&mut io, is_udp).unwrap();
        assert!(l4_checksum_is_right(&frame), "offloads {offloads}");
        assert_eq!(meta.checksum_completed, offloads);
        // Back where it came from: both pairs of addresses and ports change places.
        frame[..6].copy_from_slice(&mac.0);
        let (src, dst): (Vec<u8>, Vec<u8>) = (frame[26..30].into(), frame[30..34].into());
        frame[26..30].copy_from_slice(&dst);
        frame[30..34].copy_from_slice(&src);
        let (src, dst): (Vec<u8>, Vec<u8>) = (frame[34..36].into(), frame[36..38].into());
        frame[34..36].copy_from_slice(&dst);
        frame[36..38].copy_from_slice(&src);
        io.send(&frame).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut buffer = [0; 16];
        let (len, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.to_string().as_str()), (&b"ping"[..], "10.1.0.2:9"));
    }
}

#[test]
fn a_stream_between_taps_with_offloads_arrives_whole() {
    if !privileged("a_stream_between_taps_with_offloads_arrives_whole") {
        return;
    }
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let options = TapOptions { offloads: true, ..TapOptions::default() };
    let ports = (tap(&a, "t", options), tap(&b, "t", options));
    address(&a, "t", A);
    address(&b, "t", B);
    let [from_a, _] = transfer(&a, &b, B, (Box::new(ports.0), Box::new(ports.1)));
    assert!(from_a.super_frames > 0, "{from_a:?}");
    assert_eq!((from_a.unfinished, from_a.truncated), (0, 0));
}

#[test]
fn a_persistent_tap_outlives_its_reader() {
    if !privileged("a_persistent_tap_outlives_its_reader") {
        return;
    }
    let ns = NetNs::anonymous().unwrap();
    let there = || ns.run(|| Rtnl::open().unwrap().link("t").unwrap().is_some()).unwrap();
    drop(tap(&ns, "t", TapOptions::default()));
    assert!(!there());
    let persistent = TapOptions { persistent: true, ..TapOptions::default() };
    drop(tap(&ns, "t", persistent));
    assert!(there());
    let second = tap(&ns, "t", TapOptions { offloads: true, ..persistent });
    let taken = ns.run(|| Tap::open("t", persistent).map(drop)).unwrap();
    assert!(taken.is_err(), "one reader at a time");
    drop(second);
    ns.run(|| loxi_linux::packet::delete_tap("t").unwrap()).unwrap();
    assert!(!there());
}

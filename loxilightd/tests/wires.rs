//! The daemon between real devices: two pods in namespaces of their own, whose
//! frames pass through it. Needs root; skipped, saying so, without it.

#![allow(clippy::unwrap_used)]

use loxi_core::dataplane::Local;
use loxi_core::net::PortName;
use loxi_core::packet::Timestamp;
use loxi_linux::netns::NetNs;
use loxi_linux::packet::{FrameIo, PacketSocket};
use loxi_linux::rtnetlink::{LinkChange, Rtnl, VethEnd};
use loxi_reference::Reference;
use loxilightd::attach::Attacher;
use loxilightd::keep::Keeper;
use loxilightd::node::Node;
use loxilightd::packets::PacketThread;
use loxilightd::pipeline_file;
use loxilightd::traffic::Traffic;
use loxilightd::wires::{Namespaces, WireIo, Wires};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PIPELINE: &str = "\
version: 1
bridges: [{name: pods}]
ports:
  - {name: hs1, kind: pod, mac: \"02:00:00:00:00:01\", attachment: {bridge: {bridge: pods}}}
  - {name: hs2, kind: pod, mac: \"02:00:00:00:00:02\", attachment: {bridge: {bridge: pods}}}
  - {name: tun9, kind: tunnel, mac: \"02:00:00:00:00:09\"}
";

fn veth(dataplane: &NetNs, name: &str, pod: &NetNs) {
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    dataplane
        .run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            let peer = VethEnd { netns: Some(pod.as_fd()), ..VethEnd::new("eth0") };
            rtnl.veth_add(&VethEnd::new(name), &peer).unwrap();
            rtnl.link_set(name, &up).unwrap();
        })
        .unwrap();
    pod.run(|| Rtnl::open().unwrap().link_set("eth0", &up).unwrap()).unwrap();
}

fn frame(number: u32) -> Vec<u8> {
    // To hs2's station, from hs1's; an ethertype of local experiments would be filtered.
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    frame.extend([2, 0, 0, 0, 0, 1, 10, 244, 1, 10, 0, 0, 0, 0, 0, 0, 10, 244]);
    frame.extend(u16::try_from(number).unwrap().to_be_bytes());
    frame.resize(60, 0);
    frame
}

fn received(socket: &mut PacketSocket, wanted: usize) -> Vec<Vec<u8>> {
    let until = Instant::now() + Duration::from_secs(10);
    let (mut frames, mut frame) = (Vec::new(), Vec::new());
    while frames.len() < wanted && Instant::now() < until {
        if socket.recv(&mut frame).unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        } else if frame[12..14] == [8, 6] {
            frames.push(frame.clone());
        }
    }
    frames
}

#[test]
fn frames_pass_and_devices_come_and_go() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making network namespaces needs root");
        return;
    }
    let (dataplane, one, two) = (NetNs::anonymous(), NetNs::anonymous(), NetNs::anonymous());
    let (dataplane, one, two) = (dataplane.unwrap(), one.unwrap(), two.unwrap());
    veth(&dataplane, "hs1", &one);

    // A file that names the namespace as `--dataplane-netns` would.
    let path = format!("/proc/self/fd/{}", dataplane.as_fd().as_raw_fd());
    let wires = Arc::new(Wires::new(Namespaces::open(None, Some(&path)).unwrap()).unwrap());
    let backend = Node::Reference(Box::new(Reference::with_io(Box::new(WireIo(Arc::clone(&wires))))));
    let clock = Arc::new(|| Timestamp(loxi_linux::clock::now()));
    let engine = Arc::new(Local::new(backend, clock));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.yaml");
    std::fs::write(&file, PIPELINE).unwrap();
    pipeline_file::apply(&engine, Path::new(&file)).unwrap();
    let keeper = Arc::new(Keeper::new(folder.path().join("state"), Default::default()));
    let mut attacher =
        Attacher::new(Arc::clone(&engine), Traffic::Wires(Arc::clone(&wires)), Arc::clone(&keeper));
    assert_eq!(attacher.look(), 1, "hs2 has no device yet; the tunnel needs none");
    veth(&dataplane, "hs2", &two);
    assert_eq!(attacher.look(), 0);

    let packets = PacketThread::start(Arc::clone(&engine), Arc::clone(&wires)).unwrap();
    let mut sender = one.run(|| PacketSocket::open("eth0").unwrap()).unwrap();
    let mut taker = two.run(|| PacketSocket::open("eth0").unwrap()).unwrap();
    let sent: Vec<_> = (0..500).map(frame).collect();
    for frame in &sent {
        sender.send(frame).unwrap();
    }
    assert_eq!(received(&mut taker, sent.len()), sent, "all, whole, and in order");

    // Taken away and made anew: attached again, and frames pass.
    dataplane.run(|| Rtnl::open().unwrap().link_del("hs2").unwrap()).unwrap();
    drop(taker);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(attacher.look(), 1, "its device is gone");
    let two = NetNs::anonymous().unwrap();
    veth(&dataplane, "hs2", &two);
    assert_eq!(attacher.look(), 0);
    let mut taker = two.run(|| PacketSocket::open("eth0").unwrap()).unwrap();
    sender.send(&frame(1000)).unwrap();
    assert_eq!(received(&mut taker, 1), [frame(1000)]);

    // Detached by hand, it stays so.
    let hs2 = PortName::new("hs2").unwrap();
    keeper.set_detached(&hs2, true);
    engine.detach(&hs2).unwrap();
    assert_eq!(attacher.look(), 0);
    assert!(wires.of(&hs2).is_none());

    let rx = engine.counters().ports[&PortName::new("hs1").unwrap()].rx_packets;
    assert!(rx > 500, "{rx}");
    packets.stop();
}

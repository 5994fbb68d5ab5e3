//! The daemon between real devices: two pods in namespaces of their own, whose
//! frames pass through it, with each backend. Needs root; skipped, saying so, without it.

#![allow(clippy::unwrap_used)]

use clap::Parser;
use loxi_core::dataplane::Local;
use loxi_core::net::PortName;
use loxi_core::packet::Timestamp;
use loxi_core::reason::PuntReason;
use loxi_linux::netns::NetNs;
use loxi_linux::packet::{FrameIo, PacketSocket};
use loxi_linux::rtnetlink::{LinkChange, Rtnl, VethEnd};
use loxilightd::attach::Attacher;
use loxilightd::backend;
use loxilightd::keep::Keeper;
use loxilightd::node::Node;
use loxilightd::options::Options;
use loxilightd::pipeline_file;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
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
    received_within(Duration::from_secs(10), socket, wanted)
}

fn received_within(time: Duration, socket: &mut PacketSocket, wanted: usize) -> Vec<Vec<u8>> {
    received_of([8, 6], time, socket, wanted)
}

/// An IPv4 packet with a router alert (RFC 2113), which programs leave to the slow path.
fn with_an_option() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x46, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 244, 1, 10, 10, 244, 1, 11, 0x94, 4, 0, 0]);
    let sum: u32 = frame[14..].chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let check = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    frame
}

fn received_of(kind: [u8; 2], time: Duration, socket: &mut PacketSocket, wanted: usize) -> Vec<Vec<u8>> {
    let until = Instant::now() + time;
    let (mut frames, mut frame) = (Vec::new(), Vec::new());
    while frames.len() < wanted && Instant::now() < until {
        if socket.recv(&mut frame).unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        } else if frame[12..14] == kind {
            frames.push(frame.clone());
        }
    }
    frames
}

/// A bpf file system of the test's.
struct Bpffs(PathBuf);

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn the_reference_passes_frames_and_devices_come_and_go() {
    frames_pass_and_devices_come_and_go("reference");
}

#[test]
fn the_programs_pass_frames_and_devices_come_and_go() {
    frames_pass_and_devices_come_and_go("ebpf");
}

fn frames_pass_and_devices_come_and_go(backend: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making network namespaces needs root");
        return;
    }
    let (dataplane, one, two) = (NetNs::anonymous(), NetNs::anonymous(), NetNs::anonymous());
    let (dataplane, one, two) = (dataplane.unwrap(), one.unwrap(), two.unwrap());
    veth(&dataplane, "hs1", &one);

    // A file that names the namespace as `--dataplane-netns` would.
    let path = format!("/proc/self/fd/{}", dataplane.as_fd().as_raw_fd());
    let folder = tempfile::tempdir().unwrap();
    let bpffs = Bpffs(folder.path().join("bpf"));
    std::fs::create_dir(&bpffs.0).unwrap();
    let arguments =
        ["loxilightd", "--backend", backend, "--dataplane-netns", &path, "--instance", "wires-test"];
    let sizes = ["--flows-v4", "1000", "--flows-v6", "1000", "--bpffs", bpffs.0.to_str().unwrap()];
    let options = Options::try_parse_from(arguments.into_iter().chain(sizes)).unwrap();
    let traffic = backend::traffic(&options).unwrap();
    let node = backend::open(&options, &traffic).unwrap();
    let clock = Arc::new(|| Timestamp(loxi_linux::clock::now()));
    let engine = Arc::new(Local::new(node, clock));
    let file = folder.path().join("node.yaml");
    std::fs::write(&file, PIPELINE).unwrap();
    pipeline_file::apply(&engine, Path::new(&file)).unwrap();
    let keeper = Arc::new(Keeper::new(folder.path().join("state"), Default::default()));
    let mut attacher = Attacher::new(Arc::clone(&engine), traffic.clone(), Arc::clone(&keeper));
    assert_eq!(attacher.look(), 1, "hs2 has no device yet; the tunnel needs none");
    veth(&dataplane, "hs2", &two);
    assert_eq!(attacher.look(), 0);

    let packets = traffic.start(&engine).unwrap();
    let mut sender = one.run(|| PacketSocket::open("eth0").unwrap()).unwrap();
    let mut taker = two.run(|| PacketSocket::open("eth0").unwrap()).unwrap();
    let sent: Vec<_> = (0..500).map(frame).collect();
    for frame in &sent {
        sender.send(frame).unwrap();
    }
    assert_eq!(received(&mut taker, sent.len()), sent, "all, whole, and in order");

    if backend == "ebpf" {
        sender.send(&with_an_option()).unwrap();
        assert_eq!(received_of([8, 0], Duration::from_secs(10), &mut taker, 1), [with_an_option()]);
        let counted = engine.with_backend(|node| match node {
            Node::Ebpf(backend) => backend.slow_path_counters().unwrap(),
            Node::Reference(_) => unreachable!(),
        });
        let hs1 = &counted[&"hs1".parse::<PortName>().unwrap()];
        assert_eq!(hs1.finished.get(&PuntReason::IpOptions), Some(&1), "{counted:?}");
        assert!(hs1.handed_on >= hs1.finished.values().sum(), "{counted:?}");
    }

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
    sender.send(&frame(1001)).unwrap();
    assert_eq!(received_within(Duration::from_millis(200), &mut taker, 1), [] as [Vec<u8>; 0]);

    let rx = engine.counters().ports[&PortName::new("hs1").unwrap()].rx_packets;
    assert!(rx > 500, "{rx}");
    packets.stop();
    backend::remove(&engine).unwrap();
    assert!(backend != "ebpf" || bpffs.0.join("loxi").read_dir().unwrap().next().is_none(), "pins are left");
}

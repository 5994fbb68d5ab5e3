//! The node layout on the real kernel.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod fixture;

use fixture::{Folder, await_frame, json, privileged, run, socket};
use loxi_linux::layout::{Instance, Layout, LayoutSpec, PodSpec, cleanup, mac_for};
use loxi_linux::netns::{self, NetNs};
use loxi_linux::packet::FrameIo;
use loxi_linux::sys::{Ns, RealSys};
use loxi_linux::{Prefix, nftables, sysctl};

/// A node: its root namespace with an uplink, a run folder, and a pod's namespace.
struct Node {
    root: NetNs,
    pod: NetNs,
    wire: NetNs,
    spec: LayoutSpec,
    _folder: Folder,
}

impl Node {
    fn new() -> Self {
        let folder = Folder::new();
        let run = folder.0.clone();
        let root = NetNs::create_at(run.join("root")).unwrap();
        let pod = NetNs::create_at(run.join("pod")).unwrap();
        let wire = NetNs::anonymous().unwrap();
        fixture::veth(&root, "eth0", &wire, "w");
        root.run(|| sysctl::write("net.ipv6.conf.default.disable_ipv6", "0").unwrap()).unwrap();
        let ip = |text: &str| text.parse().unwrap();
        let net = |text: &str| -> Prefix { text.parse().unwrap() };
        let instance = Instance { name: "t1".into(), root: Ns::at(run.join("root")), run: run.join("run") };
        let spec = LayoutSpec {
            switch: vec![ip("10.244.1.1"), ip("fd00:10:244:1::1")],
            host: vec![ip("10.244.1.2"), ip("fd00:10:244:1::2")],
            pod_cidrs: vec![net("10.244.1.0/24"), net("fd00:10:244:1::/64")],
            cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:10:244::/48")],
            service_cidrs: vec![net("10.96.0.0/16"), net("fd00:10:96::/112")],
            masquerade: true,
            ..LayoutSpec::new(instance, "eth0")
        };
        Self { root, pod, wire, spec, _folder: folder }
    }

    fn pod_spec(&self) -> PodSpec {
        PodSpec {
            port: "hs1".into(),
            netns: Ns::at(self._folder.0.join("pod")),
            ifname: "eth0".into(),
            addresses: vec!["10.244.1.10/24".parse().unwrap(), "fd00:10:244:1::a/64".parse().unwrap()],
            gateways: self.spec.switch.clone(),
            mac: mac_for("n1", "pod1"),
            local_ports: Vec::new(),
        }
    }

    /// Everything that a layout could leave behind, as text; indices, times and
    /// counters left out.
    fn state(&self) -> String {
        let mut text = String::new();
        for ns in [&self.root, &self.pod] {
            for link in json(ns, "ip", &["-j", "link"]).as_array().unwrap() {
                text += &format!("{} {} {}\n", link["ifname"], link["mtu"], link["address"]);
            }
            for args in [&["-4", "route"][..], &["-6", "route"], &["-br", "addr"]] {
                text += &run(ns, "ip", args);
            }
            text += &run(ns, "nft", &["list", "ruleset"]);
            let _guard = netns::enter(ns).unwrap();
            for key in [
                "net.ipv4.ip_forward",
                "net.ipv6.conf.all.forwarding",
                "net.ipv6.conf.eth0.accept_ra",
                "net.ipv4.icmp_ratelimit",
                "net.ipv6.icmp.ratelimit",
            ] {
                text += &format!("{key} {:?}\n", sysctl::read(key).ok());
            }
        }
        text + &format!("{:?}", files(&self.spec.instance.run))
    }
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        all.extend(files(&path));
        // The folder of `ip netns` is everybody's.
        if !path.ends_with("netns") {
            all.push(path);
        }
    }
    all
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = cleanup(&RealSys, &self.spec.instance);
        for ns in [&self.root, &self.pod] {
            let _ = NetNs::delete_at(ns.path().unwrap());
        }
    }
}

#[test]
fn it_is_made_twice_and_leaves_nothing() {
    if !privileged("it_is_made_twice_and_leaves_nothing") {
        return;
    }
    let node = Node::new();
    // A pod's loopback is up by its runtime.
    run(&node.pod, "ip", &["link", "set", "lo", "up"]);
    run(&node.root, "ip", &["link", "set", "lo", "up"]);
    std::fs::create_dir_all(&node.spec.instance.run).unwrap();
    let before = node.state();
    let layout = Layout::ensure(&RealSys, &node.spec).unwrap();
    let port = layout.add_pod(&RealSys, &node.pod_spec()).unwrap();
    assert_eq!(port.name, "hs1");
    let dataplane = NetNs::open(layout.netns().path()).unwrap();
    let by_name = NetNs::open(node.spec.instance.run.join("netns/loxilight")).unwrap();
    assert_eq!(by_name.id().unwrap(), dataplane.id().unwrap());
    let made = node.state() + &inside(&dataplane);
    Layout::ensure(&RealSys, &node.spec).unwrap();
    layout.add_pod(&RealSys, &node.pod_spec()).unwrap();
    assert_eq!(node.state() + &inside(&dataplane), made, "a second time changes nothing");

    for wanted in ["hs1", "hsvlan110", "hsvxlan100", "loxi_host", "tun0"] {
        assert!(made.contains(wanted), "{wanted} is not in\n{made}");
    }
    let route = json(&node.root, "ip", &["-j", "route", "get", "10.244.7.7"]);
    assert_eq!((&route[0]["dev"], &route[0]["gateway"]), (&"loxi_host".into(), &"10.244.1.1".into()));
    assert_eq!(route[0]["prefsrc"], "10.244.1.2");
    let route = json(&node.root, "ip", &["-j", "-6", "route", "get", "fd00:10:96::5"]);
    assert_eq!((&route[0]["dev"], &route[0]["gateway"]), (&"loxi_host".into(), &"fd00:10:244:1::1".into()));
    assert!(run(&node.pod, "ip", &["route"]).contains("default via 10.244.1.1 dev eth0"));
    assert!(run(&dataplane, "ip", &["-4", "route"]).is_empty());
    dataplane.run(|| assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "0")).unwrap();

    layout.remove_pod(&RealSys, "hs1").unwrap();
    layout.add_pod(&RealSys, &node.pod_spec()).unwrap();
    drop((dataplane, by_name));
    layout.remove(&RealSys).unwrap();
    assert_eq!(node.state(), before);
    cleanup(&RealSys, &node.spec.instance).unwrap();
}

fn inside(ns: &NetNs) -> String {
    let links = json(ns, "ip", &["-j", "link"]);
    let names =
        links.as_array().unwrap().iter().map(|l| {
            format!("{} {} {} {} {}\n", l["ifname"], l["mtu"], l["address"], l["flags"], l["ifalias"])
        });
    names.collect::<String>()
        + &run(ns, "ip", &["-br", "addr"])
        + &run(ns, "ip", &["route"])
        + &run(ns, "nft", &["list", "tables"])
}

#[test]
fn the_kernel_says_nothing_and_the_dataplane_hears_all() {
    if !privileged("the_kernel_says_nothing_and_the_dataplane_hears_all") {
        return;
    }
    let node = Node::new();
    let layout = Layout::ensure(&RealSys, &node.spec).unwrap();
    layout.add_pod(&RealSys, &node.pod_spec()).unwrap();
    let dataplane = NetNs::open(layout.netns().path()).unwrap();
    let mut port = socket(&dataplane, "hs1");
    // ARP for the switch address, which the kernel in there has on another interface.
    let ping = ["-c", "1", "-W", "1", "10.244.1.1"];
    let place = loxi_linux::place::Place { net: Some(&node.pod), mounts: None };
    let output = place.output(std::process::Command::new("ping").args(ping)).unwrap();
    assert!(!output.status.success(), "nobody answers yet");
    let arp = |f: &[u8]| f.len() >= 42 && f[12..14] == [8, 6] && f[38..42] == [10, 244, 1, 1];
    let (request, _) = await_frame(&mut port, arp).expect("the dataplane hears the request");
    assert_eq!(request[6..12], node.pod_spec().mac.0);
    let neighbour = run(&node.pod, "ip", &["neigh", "show", "10.244.1.1"]);
    assert!(!neighbour.contains("lladdr"), "the kernel has answered: {neighbour}");

    // A tunnel's packet at the uplink: the socket gets it, the kernel would have said
    // "port unreachable".
    let mut uplink = socket(&node.root, "eth0");
    let mut wire = socket(&node.wire, "w");
    run(&node.root, "ip", &["addr", "add", "172.18.0.1/24", "dev", "eth0"]);
    let mut tunnel = eth0_mac(&node.root).to_vec();
    tunnel.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    tunnel.extend([0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0, 172, 18, 0, 2, 172, 18, 0, 1]);
    let sum: u32 = tunnel[14..34].chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
    let check = !(((sum & 0xffff) + (sum >> 16)) as u16);
    tunnel[24..26].copy_from_slice(&check.to_be_bytes());
    tunnel.extend([0x30, 0x39, 0x12, 0xb5, 0, 16, 0, 0, 8, 0, 0, 0, 0, 0, 100, 0]);
    wire.send(&tunnel).unwrap();
    assert!(await_frame(&mut uplink, |f| f == tunnel).is_some());
    let rules = node.root.run(|| nftables::list_json().unwrap()).unwrap();
    let dropped = rules.contains("\"packets\": 1, \"bytes\": 36");
    assert!(dropped, "the rule has dropped it behind the socket: {rules}");
}

fn eth0_mac(ns: &NetNs) -> [u8; 6] {
    let shown = json(ns, "ip", &["-j", "link", "show", "eth0"]);
    shown[0]["address"].as_str().unwrap().parse::<loxi_linux::MacAddr>().unwrap().0
}

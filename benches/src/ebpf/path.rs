//! The paths as data: pipeline, packets, where they leave.

use loxi_backend_ebpf::measure::Hook;
use loxi_ebpf_layout::bench::source;

/// A way through the pipeline.
#[derive(Debug)]
pub struct Path {
    /// Its name.
    pub name: &'static str,
    /// The pipeline of the conformance rows on which it is; none: all of it is in `with`.
    pub(super) pipeline: Option<&'static str>,
    /// Entities besides.
    pub(super) with: &'static str,
    /// Port by which the packets come in.
    pub(super) ingress: &'static str,
    /// Port by which they leave.
    pub(super) egress: &'static str,
    /// Frame of a client, with `{src}` and `{port}`, for each family. TCP flags stand behind it.
    pub(super) frames: [&'static str; 2],
    /// Prefix of the clients' addresses, for each family.
    pub(super) clients: [&'static str; 2],
    /// Hooks at which it is measured.
    pub hooks: &'static [Hook],
    /// Whether the number of flows makes a difference.
    pub flows: bool,
    /// Whether programs change the frame's length.
    pub(super) resized: Resized,
    /// Whether the floors are measured with its flows.
    pub(super) floors: bool,
}

/// What programs do to the length of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resized {
    /// Nothing.
    No,
    /// They make it longer.
    Longer,
    /// They make it shorter.
    Shorter,
}

const BOTH: &[Hook] = &Hook::ALL;

/// A bridge where everything is configured, as an agent does it, and a client with many addresses
/// behind `hs1`.
const CLIENT: &str = "bridges: [{name: br0, zone: pods, proxy_neighbors: true, learning: false}]
ports:
  - {name: hs1, kind: pod, mac: \"02:00:00:00:01:01\", mtu: 1450, attachment: {bridge: {bridge: br0}},
     anti_spoof: {addresses: [10.244.64.0/18, \"fd00:10:244:1::/64\"]}}
";

const POD: [&str; 2] = ["10.244", "fd00:10:244:1::"];

static PATHS: [Path; 8] = [
    Path {
        name: "pod_to_pod_policy",
        pipeline: Some("node"),
        with: "version: 1
policy_isolations: [{policy: bench, direction: ingress, subject: {ports: [hs3]}}]
policy_rules:
  - {direction: ingress, tier: network_policy, priority: 1, subject: {ports: [hs3]}, peer: any, protocol: tcp, action: allow}
CLIENT
",
        ingress: "hs1",
        egress: "hs3",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:03 / ipv4 {src}>10.244.1.12 / tcp {port}>80 ",
            "eth 02:00:00:00:01:01>02:00:00:00:01:03 / ipv6 {src}>fd00:10:244:1::12 / tcp {port}>80 ",
        ],
        clients: POD,
        hooks: BOTH,
        flows: true,
        resized: Resized::No,
        floors: false,
    },
    Path {
        name: "cluster_ip_dnat",
        pipeline: Some("node"),
        with: "version: 1
services:
  - {vrf: pods, vip: 10.96.0.1, protocol: tcp, ports: 80, backends: [web-1]}
  - {vrf: pods, vip: \"fd00:10:96::1\", protocol: tcp, ports: 80, backends: [web6-1]}
CLIENT
",
        ingress: "hs1",
        egress: "hs2",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 {src}>10.96.0.1 / tcp {port}>80 ",
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 {src}>fd00:10:96::1 / tcp {port}>80 ",
        ],
        clients: POD,
        hooks: BOTH,
        flows: true,
        resized: Resized::No,
        floors: true,
    },
    Path {
        name: "lb_dsr_ipip",
        pipeline: None,
        with: "version: 1
zones: [{name: lb}]
vrfs: [{name: main, zone: lb, snat_address_v4: 172.18.0.1, snat_address_v6: \"fd00:172:18::1\"}]
ports:
  - {name: eth0, kind: uplink, mac: \"02:00:00:00:01:e0\", mtu: 1500, attachment: {vrf: main}, scope: external}
interfaces:
  - {name: uplink, on: {port: eth0}, vrf: main, mac: \"02:00:00:00:01:e0\", mtu: 1500,
     addresses: [172.18.0.1, \"fd00:172:18::1\"]}
neighbors:
  - {interface: uplink, address: 172.18.0.2, mac: \"02:00:00:00:02:e0\"}
  - {interface: uplink, address: \"fd00:172:18::2\", mac: \"02:00:00:00:02:e0\"}
next_hops: [{name: wire, action: {direct: {interface: uplink}}}]
routes:
  - {vrf: main, prefix: 172.18.0.0/24, target: {next_hop: wire}}
  - {vrf: main, prefix: \"fd00:172:18::/64\", target: {next_hop: wire}}
vips:
  - {vrf: main, address: 203.0.113.1, mode: {exclusive: {echo: true}}}
  - {vrf: main, address: \"2001:db8::1\", mode: {exclusive: {echo: true}}}
backends:
  - {name: real, address: 172.18.0.2, port: 80}
  - {name: real6, address: \"fd00:172:18::2\", port: 80}
services:
  - {vrf: main, vip: 203.0.113.1, protocol: tcp, ports: 80, backends: [real], mode: dsr_ipip}
  - {vrf: main, vip: \"2001:db8::1\", protocol: tcp, ports: 80, backends: [real6], mode: dsr_ipip}
",
        ingress: "eth0",
        egress: "eth0",
        frames: [
            "eth 02:00:00:00:0c:01>02:00:00:00:01:e0 / ipv4 {src}>203.0.113.1 / tcp {port}>80 ",
            "eth 02:00:00:00:0c:01>02:00:00:00:01:e0 / ipv6 {src}>2001:db8::1 / tcp {port}>80 ",
        ],
        clients: ["198.51", "2001:db8:c::"],
        hooks: BOTH,
        flows: true,
        resized: Resized::Longer,
        floors: false,
    },
    Path {
        name: "routed",
        pipeline: Some("node"),
        with: "version: 1
CLIENT
",
        ingress: "hs1",
        egress: "hs3",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 {src}>10.244.1.12 / tcp {port}>80 ",
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 {src}>fd00:10:244:1::12 / tcp {port}>80 ",
        ],
        clients: POD,
        hooks: BOTH,
        flows: true,
        resized: Resized::No,
        floors: false,
    },
    Path {
        name: "vxlan_encapsulate",
        pipeline: Some("node"),
        with: "version: 1
CLIENT
",
        ingress: "hs1",
        egress: "eth0",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 {src}>10.244.2.10 / tcp {port}>80 ",
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 {src}>fd00:10:244:2::10 / tcp {port}>80 ",
        ],
        clients: POD,
        hooks: BOTH,
        flows: true,
        resized: Resized::Longer,
        floors: false,
    },
    Path {
        name: "vxlan_decapsulate",
        pipeline: Some("node"),
        with: "version: 1
bridges: [{name: br0, zone: pods, proxy_neighbors: true, learning: false}]
",
        ingress: "eth0",
        egress: "hs1",
        frames: [
            "eth 02:00:00:00:02:e0>02:00:00:00:01:e0 / ipv4 172.18.0.2>172.18.0.1 df / udp 50000>4789 csum=0 / vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv4 {src}>10.244.1.10 / tcp {port}>80 ",
            "eth 02:00:00:00:02:e0>02:00:00:00:01:e0 / ipv4 172.18.0.2>172.18.0.1 df / udp 50000>4789 csum=0 / vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv6 {src}>fd00:10:244:1::10 / tcp {port}>80 ",
        ],
        clients: ["10.244", "fd00:10:244:2::"],
        hooks: BOTH,
        flows: true,
        resized: Resized::Shorter,
        floors: false,
    },
    Path {
        name: "bridge_untracked",
        pipeline: Some("switch"),
        with: "version: 1
fdb: [{bridge: sw, vlan: 10, mac: \"02:00:00:00:01:02\", target: {port: p2}}]
",
        ingress: "p1",
        egress: "p2",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 {src}>10.0.0.2 / tcp {port}>80 ",
            "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv6 {src}>fd00::2 / tcp {port}>80 ",
        ],
        clients: ["10.0", "fd00::"],
        hooks: BOTH,
        flows: false,
        resized: Resized::No,
        floors: false,
    },
    Path {
        name: "routed_untracked",
        pipeline: Some("router"),
        with: "version: 1\n",
        ingress: "l1",
        egress: "l2",
        frames: [
            "eth 02:00:00:00:0b:01>02:00:00:00:0a:01 / ipv4 {src}>198.51.100.9 / tcp {port}>80 ",
            "eth 02:00:00:00:0b:01>02:00:00:00:0a:01 / ipv6 {src}>2001:db8:2::9 / tcp {port}>80 ",
        ],
        clients: ["192.0", "2001:db8:1::"],
        hooks: BOTH,
        flows: false,
        resized: Resized::No,
        floors: false,
    },
];

/// Every path.
#[must_use]
pub fn paths() -> &'static [Path] {
    &PATHS
}

/// Bytes of payload: frames are as long as the wrapper restores at least.
const PAYLOAD: usize = 80;

impl Path {
    /// Entities besides the pipeline's.
    pub(super) fn with(&self) -> String {
        self.with.replace("CLIENT\n", CLIENT)
    }

    /// The frame of flow `i`, in the notation of the rows.
    pub(super) fn frame(&self, v6: bool, i: u32, flags: &str) -> String {
        let (port, _) = source(i);
        let text = self.frames[usize::from(v6)];
        let text = text.replace("{src}", &self.client(v6, i)).replace("{port}", &port.to_string());
        format!("{text}{flags} / fill {PAYLOAD}")
    }

    /// Source address of flow `i`.
    pub(super) fn client(&self, v6: bool, i: u32) -> String {
        let (_, low) = source(i);
        let prefix = self.clients[usize::from(v6)];
        if v6 { format!("{prefix}{low:x}") } else { format!("{prefix}.{}.{}", low >> 8, low & 255) }
    }
}

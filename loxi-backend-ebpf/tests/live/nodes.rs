//! Two nodes joined by a wire, a pod on each, and a third machine behind the second node, which it reaches by routes.

use crate::fixture::run;
use crate::machines::{address, dataplane, dropped, host, join, join_by_wire, offload};
use loxi_backend_ebpf::{Ebpf, Mode};
use loxi_core::dataplane::Local;
use loxi_linux::netns::NetNs;

/// Largest packet of pods: what fits into VXLAN over IPv6 over 1500 bytes.
pub const MTU: u16 = 1430;

/// Whose pod, and the third machine.
pub const FIRST: u8 = 1;
pub const SECOND: u8 = 2;
pub const THIRD: u8 = 3;

/// An address of one of them.
pub fn addr(n: u8, v6: bool) -> String {
    if v6 { format!("fd00:{n}::2") } else { format!("10.{n}.0.2") }
}

/// The same with a port.
pub fn at(n: u8, v6: bool, port: u16) -> String {
    if v6 { format!("[{}]:{port}", addr(n, v6)) } else { format!("{}:{port}", addr(n, v6)) }
}

fn pod_mac(n: u8) -> String {
    format!("02:00:00:00:0{n}:02")
}

/// The MAC that admits to L3 on a pod's link.
pub fn gateway_mac(n: u8) -> String {
    format!("02:00:00:00:0{n}:01")
}

pub struct Nodes {
    /// By [`FIRST`], [`SECOND`], [`THIRD`] less one.
    pub hosts: [NetNs; 3],
    pub nodes: [NetNs; 2],
    pub planes: [Local<Ebpf>; 2],
}

/// What is between the nodes, and beyond the second.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Outer packets are IPv6.
    pub v6: bool,
    /// Hook of the uplinks.
    pub mode: Mode,
    /// `ip_in_ip` instead of VXLAN.
    pub bare: bool,
    /// Switches of the first node's end of the wire.
    pub wire: &'a str,
    /// Switches of the second node's end towards the third machine.
    pub out: &'a str,
    /// More of the first node's pipeline.
    pub more: &'a str,
    /// More of the second node's.
    pub more_second: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            v6: false,
            mode: Mode::Tc,
            bare: false,
            wire: "tso on",
            out: "tso on",
            more: "",
            more_second: "",
        }
    }
}

impl Nodes {
    pub fn new(setup: Setup<'_>) -> Self {
        let hosts = [FIRST, SECOND, THIRD].map(|_| host());
        let nodes = [FIRST, SECOND].map(|_| crate::machines::quiet());
        for n in [FIRST, SECOND] {
            let (node, pod) = (&nodes[usize::from(n) - 1], &hosts[usize::from(n) - 1]);
            join((node, "hs1", "02:00:00:00:ee:01"), (pod, "eth0", &pod_mac(n)), MTU);
        }
        let macs = [FIRST, SECOND].map(|n| format!("02:00:00:00:0{n}:e0"));
        join_by_wire((&nodes[0], "wire", &macs[0]), (&nodes[1], "wire", &macs[1]), 1500);
        join_by_wire((&nodes[1], "out", "02:00:00:00:02:03"), (&hosts[2], "eth0", &pod_mac(THIRD)), MTU);
        for (n, pod) in (1..).zip(&hosts) {
            let addresses = [format!("10.{n}.0.2/24"), format!("fd00:{n}::2/64")];
            let gateways = [format!("10.{n}.0.1"), format!("fd00:{n}::1")];
            let mac = if n == THIRD { "02:00:00:00:02:03".to_owned() } else { gateway_mac(n) };
            address(
                pod,
                &addresses.each_ref().map(String::as_str),
                &gateways.each_ref().map(String::as_str),
                &mac,
            );
        }
        if setup.mode != Mode::Tc {
            // Both ends have queues, without which a veth takes no frames from XDP.
            offload(&nodes[0], "wire", "gro on");
            offload(&nodes[0], "wire-in", "gro on");
            offload(&nodes[1], "wire", "gro on");
            offload(&nodes[0], "wire-far", "gro on");
        }
        offload(&nodes[0], "wire", setup.wire);
        offload(&nodes[1], "out", setup.out);
        let planes = [
            dataplane(&nodes[0], setup.mode, &(pipeline(1, setup) + setup.more)),
            dataplane(&nodes[1], setup.mode, &(pipeline(2, setup) + setup.more_second)),
        ];
        Self { hosts, nodes, planes }
    }

    pub fn host(&self, n: u8) -> &NetNs {
        &self.hosts[usize::from(n) - 1]
    }

    /// What both have dropped.
    pub fn dropped(&self) -> [Vec<String>; 2] {
        self.planes.each_ref().map(dropped)
    }

    /// Nothing was dropped but what stacks say by themselves (router solicitations, multicast reports).
    pub fn dropped_nothing(&self) {
        let harmless = ["router_solicitation", "unclaimed", "no_route", "fdb_miss", "link_local"];
        for (n, dropped) in (1..).zip(self.dropped()) {
            let bad: Vec<_> =
                dropped.iter().filter(|line| !harmless.iter().any(|word| line.contains(word))).collect();
            assert!(bad.is_empty(), "node {n} has dropped {bad:?}");
        }
    }

    /// Prints what a failed test wants to know.
    pub fn tell(&self) -> String {
        let links = self.nodes.each_ref().map(|node| run(node, "ip -s -br link"));
        format!("{:?}\n{}\n{}", self.dropped(), links[0], links[1])
    }
}

fn pipeline(n: u8, setup: Setup<'_>) -> String {
    let o = 3 - n;
    let wire = |n: u8| if setup.v6 { format!("2001:db8::{n}") } else { format!("192.0.2.{n}") };
    let (local, remote) = (wire(n), wire(o));
    let prefix = if setup.v6 { "2001:db8::/64" } else { "192.0.2.0/24" };
    let (pod, gateway) = (pod_mac(n), gateway_mac(n));
    let third = if n == 2 {
        format!(
            "  - {{interface: out, address: 10.3.0.2, mac: '{0}'}}
  - {{interface: out, address: 'fd00:3::2', mac: '{0}'}}",
            pod_mac(THIRD)
        )
    } else {
        String::new()
    };
    let (out_port, out_interface, out_hop) = if n == 2 {
        (
            format!(
                "  - {{name: out, kind: representor, mac: '02:00:00:00:02:03', mtu: {MTU}, attachment: {{vrf: pods}}}}"
            ),
            format!(
                "  - {{name: out, on: {{port: out}}, vrf: pods, mac: '02:00:00:00:02:03', mtu: {MTU}, addresses: [10.3.0.1, 'fd00:3::1']}}"
            ),
            "  - {name: third, action: {direct: {interface: out}}}",
        )
    } else {
        (String::new(), String::new(), "  - {name: third, action: {tunnel: peer}}")
    };
    let (kind, matches) =
        if setup.bare { ("ipip", "ipip") } else { ("{vxlan: {vni: 100}}", "{vxlan: {vni: 100}}") };
    let inner = if setup.bare { String::new() } else { format!(", inner_dst_mac: '02:00:00:00:0{o}:f0'") };
    format!(
        "version: 1
zones: [{{name: pods}}]
vrfs: [{{name: pods, zone: pods, snat_address_v4: 10.{n}.0.9, snat_address_v6: 'fd00:{n}::9'}}, {{name: underlay}}]
bridges: [{{name: br0, zone: pods, learning: false, unknown_unicast: drop, broadcast: drop, multicast: drop}}]
ports:
  - {{name: hs1, kind: pod, mac: '{pod}', mtu: {MTU}, attachment: {{bridge: {{bridge: br0}}}}}}
  - {{name: wire, kind: uplink, mac: '02:00:00:00:0{n}:e0', attachment: {{vrf: underlay}}, underlay: true}}
  - {{name: vx, kind: tunnel, mac: '02:00:00:00:0{n}:f0', mtu: {MTU}, attachment: {{vrf: pods}}}}
{out_port}
interfaces:
  - {{name: sw, on: {{bridge: {{bridge: br0}}}}, vrf: pods, mac: '{gateway}', mtu: {MTU}, addresses: [10.{n}.0.1, 'fd00:{n}::1']}}
  - {{name: uplink, on: {{port: wire}}, vrf: underlay, mac: '02:00:00:00:0{n}:e0', addresses: ['{local}']}}
{out_interface}
neighbors:
  - {{interface: sw, address: 10.{n}.0.2, mac: '{pod}'}}
  - {{interface: sw, address: 'fd00:{n}::2', mac: '{pod}'}}
  - {{interface: uplink, address: '{remote}', mac: '02:00:00:00:0{o}:e0'}}
{third}
fdb: [{{bridge: br0, mac: '{pod}', target: {{port: hs1}}}}]
tunnels:
  - {{name: peer, kind: {kind}, underlay_vrf: underlay, local: '{local}', remote: '{remote}', port: vx{inner}}}
terminations:
  - {{name: ends, vrf: underlay, dst: '{local}', matches: {matches}, peers: ['{remote}'], port: vx}}
next_hops:
  - {{name: pods, action: {{direct: {{interface: sw}}}}}}
  - {{name: wire, action: {{direct: {{interface: uplink}}}}}}
  - {{name: peer, action: {{tunnel: peer}}}}
{out_hop}
routes:
  - {{vrf: pods, prefix: 10.{n}.0.0/16, target: {{next_hop: pods}}}}
  - {{vrf: pods, prefix: 'fd00:{n}::/64', target: {{next_hop: pods}}}}
  - {{vrf: pods, prefix: 10.{o}.0.0/16, target: {{next_hop: peer}}}}
  - {{vrf: pods, prefix: 'fd00:{o}::/64', target: {{next_hop: peer}}}}
  - {{vrf: pods, prefix: 10.3.0.0/16, target: {{next_hop: third}}}}
  - {{vrf: pods, prefix: 'fd00:3::/64', target: {{next_hop: third}}}}
  - {{vrf: underlay, prefix: '{prefix}', target: {{next_hop: wire}}}}
"
    )
}

//! Checksums that a stack leaves to its device (`CHECKSUM_PARTIAL`): right after translations and encapsulations,
//! as the receiving stack finds and as every frame shows once something has completed them.

use crate::capture::{Capture, able};
use crate::dissect::{Seen, Sum};
use crate::fixture::{Asked, Lan, address, mac, run, serve};
use crate::gso::{between, right};
use crate::machines::{checksum_errors, dataplane, dropped, offload};
use crate::nodes::{FIRST, Nodes, SECOND, Setup, THIRD, addr, at};
use loxi_backend_ebpf::Mode;
use loxi_conformance::build;
use loxi_linux::netns::NetNs;
use loxi_linux::packet::{FrameIo, PacketSocket};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const PORT: u16 = 8080;
const VIP_PORT: u16 = 80;
const BYTES: usize = 256 << 10;

/// Who asks, and who answers.
struct Case {
    name: &'static str,
    client: u8,
    server: u8,
    /// The service's last group; 0: the server itself.
    vip: u8,
    setup: Setup<'static>,
}

/// Services of the first node: 10.96.0.1, and 10.96.0.2 with the source translated too.
const SERVICES: &str = "
vips:
  - {vrf: pods, address: 10.96.0.1, mode: {exclusive: {}}}
  - {vrf: pods, address: 'fd00:96::1', mode: {exclusive: {}}}
  - {vrf: pods, address: 10.96.0.2, mode: {exclusive: {}}}
  - {vrf: pods, address: 'fd00:96::2', mode: {exclusive: {}}}
backends:
  - {name: one, address: 10.2.0.2, port: 8080}
  - {name: one6, address: 'fd00:2::2', port: 8080}
services:
  - {vrf: pods, vip: 10.96.0.1, protocol: tcp, ports: 80, backends: [one]}
  - {vrf: pods, vip: 10.96.0.1, protocol: udp, ports: 80, backends: [one]}
  - {vrf: pods, vip: 'fd00:96::1', protocol: tcp, ports: 80, backends: [one6]}
  - {vrf: pods, vip: 'fd00:96::1', protocol: udp, ports: 80, backends: [one6]}
  - {vrf: pods, vip: 10.96.0.2, protocol: tcp, ports: 80, mode: full_nat, backends: [one]}
  - {vrf: pods, vip: 10.96.0.2, protocol: udp, ports: 80, mode: full_nat, backends: [one]}
  - {vrf: pods, vip: 'fd00:96::2', protocol: tcp, ports: 80, mode: full_nat, backends: [one6]}
  - {vrf: pods, vip: 'fd00:96::2', protocol: udp, ports: 80, mode: full_nat, backends: [one6]}
";

/// Rules of the first node that give its pod another address towards the third machine.
const RULES: &str = "
nat_rules:
  - {vrf: pods, priority: 10, matches: {src: [10.1.0.0/16], dst: [10.3.0.0/16]}, action: {snat: {pool: [10.1.0.77], ports: 2000-3000}}}
  - {vrf: pods, priority: 20, matches: {src: ['fd00:1::/64'], dst: ['fd00:3::/64']}, action: {snat: {pool: ['fd00:1::77'], ports: 2000-3000}}}
";

/// A request and its answer by UDP.
fn echoes(client: &NetNs, to: &str, server: &NetNs, on: &str) {
    let socket = server.run(|| UdpSocket::bind(on).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let asks = client
        .run(|| UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).unwrap())
        .unwrap();
    asks.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let to: SocketAddr = to.parse().unwrap();
    let mut buffer = [0; 2048];
    // Even and odd lengths; the second of a flow goes the short way.
    for length in [1, 2, 77, 1000, 1001] {
        let sent: Vec<u8> = (0..length).map(|n| n as u8 ^ 0x5a).collect();
        asks.send_to(&sent, to).unwrap();
        let (got, from) =
            socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{to}, {length}: {error}"));
        assert_eq!(buffer[..got], sent);
        socket.send_to(&sent, from).unwrap();
        let (got, from) = asks.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{to}, back: {error}"));
        assert_eq!((&buffer[..got], from), (&sent[..], to));
    }
}

/// The service's address.
fn target(case: &Case, v6: bool) -> String {
    match (case.vip, v6) {
        (0, _) => at(case.server, v6, PORT),
        (vip, false) => format!("10.96.0.{vip}:{VIP_PORT}"),
        (vip, true) => format!("[fd00:96::{vip}]:{VIP_PORT}"),
    }
}

fn states(seen: &[Seen]) -> (usize, usize) {
    let of = |sum| seen.iter().filter(|seen| seen.sum == sum).count();
    (of(Sum::Partial), of(Sum::Whole))
}

fn holds(case: &Case) {
    let nodes = Nodes::new(case.setup);
    let (client, server) = (nodes.host(case.client), nodes.host(case.server));
    for v6 in [false, true] {
        let what = format!("{}, v6 {v6}", case.name);
        let to = target(case, v6);
        let on = at(case.server, v6, PORT);
        serve(server, &on, "server");
        let captures = [
            Capture::start(&nodes.nodes[0], "wire"),
            Capture::start(server, "eth0"),
            Capture::start(client, "eth0"),
        ];
        echoes(client, &to, server, &on);
        let mut asked =
            Asked::open(client, &to).unwrap_or_else(|error| panic!("{what}: {error}: {}", nodes.tell()));
        asked.echo(BYTES);
        let [wire, there, here] = captures.map(Capture::stop);
        let wire = right(&wire, &format!("{what}, on the wire"));
        let there = right(&there, &format!("{what}, at the server"));
        right(&here, &format!("{what}, at the client"));
        let completed = case.setup.wire.contains("tx off");
        let (partial, whole) =
            states(&wire.iter().filter(|seen| !seen.payload.is_empty()).cloned().collect::<Vec<_>>());
        // The other node's end is as it was: what comes from there is partial on this wire.
        assert!(partial > 0 || completed, "{what}: nothing was partial");
        assert!(whole > 0 || !completed, "{what}: nothing was completed");
        let came = there.iter().filter(|seen| seen.inner().1.to_string() == addr(case.server, v6)).count();
        assert!(came > 10, "{what}: {came} packets came");
        for host in [client, server] {
            assert_eq!(checksum_errors(host), 0, "{what}");
        }
    }
    nodes.dropped_nothing();
}

fn cases(setup: Setup<'static>) -> [Case; 4] {
    let setup = Setup { more: SERVICES, ..setup };
    [
        Case { name: "a pod of the other node", client: FIRST, server: SECOND, vip: 0, setup },
        Case { name: "a service", client: FIRST, server: SECOND, vip: 1, setup },
        Case { name: "a service by full NAT", client: FIRST, server: SECOND, vip: 2, setup },
        Case {
            name: "a machine beyond, by a translated source",
            client: FIRST,
            server: THIRD,
            vip: 0,
            setup: Setup { more: RULES, ..setup },
        },
    ]
}

const COMPLETED: &str = "tx off tso off gso off";

#[test]
fn partial_checksums_are_right_after_translation_and_encapsulation() {
    if !able("partial_checksums_are_right_after_translation_and_encapsulation") {
        return;
    }
    cases(Setup::default()).iter().for_each(holds);
}

#[test]
fn checksums_that_are_completed_afterwards_are_right() {
    if !able("checksums_that_are_completed_afterwards_are_right") {
        return;
    }
    cases(Setup { wire: COMPLETED, out: COMPLETED, ..Setup::default() }).iter().for_each(holds);
    cases(Setup { v6: true, bare: true, wire: COMPLETED, out: COMPLETED, ..Setup::default() })
        .iter()
        .for_each(holds);
}

#[test]
fn a_wrong_checksum_is_noticed() {
    if !able("a_wrong_checksum_is_noticed") {
        return;
    }
    let nodes = Nodes::new(Setup::default());
    let host = nodes.host(SECOND);
    let _socket = host.run(|| UdpSocket::bind("10.2.0.2:8080").unwrap()).unwrap();
    let mut sender = nodes.nodes[1].run(|| PacketSocket::open("hs1").unwrap()).unwrap();
    let eth = "eth 02:00:00:00:02:01>02:00:00:00:02:02 / ipv4 10.1.0.2>10.2.0.2 / udp 1>8080";
    sender.send(&build(&format!("{eth} / data hello")).unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(checksum_errors(host), 0);
    sender.send(&build(&format!("{eth} csum=0x1234 / data hello")).unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(checksum_errors(host), 1);
}

/// A service of the second node whose endpoint is the third machine, on a link of its own.
const DIRECT: &str = "
vips:
  - {vrf: pods, address: 10.96.0.3, mode: {exclusive: {}}}
  - {vrf: pods, address: 'fd00:96::3', mode: {exclusive: {}}}
backends:
  - {name: three, address: 10.3.0.2, port: 0}
  - {name: three6, address: 'fd00:3::2', port: 0}
services:
  - {vrf: pods, vip: 10.96.0.3, protocol: udp, ports: 80, mode: dsr_ipip, backends: [three]}
  - {vrf: pods, vip: 'fd00:96::3', protocol: udp, ports: 80, mode: dsr_ipip, backends: [three6]}
";

#[test]
fn direct_return_in_ip_in_ip_keeps_checksums_right() {
    if !able("direct_return_in_ip_in_ip_keeps_checksums_right") {
        return;
    }
    for (out, wanted) in [("tx on", Sum::Partial), (COMPLETED, Sum::Whole)] {
        let nodes = Nodes::new(Setup { out, more_second: DIRECT, ..Setup::default() });
        let client = nodes.host(SECOND);
        for (vip, v6) in [("10.96.0.3", false), ("fd00:96::3", true)] {
            let capture = Capture::start(nodes.host(THIRD), "eth0");
            let socket = client.run(|| UdpSocket::bind(at(SECOND, v6, 0)).unwrap()).unwrap();
            for length in [1, 2, 77, 1000, 1001] {
                socket.send_to(&vec![7; length], SocketAddr::new(vip.parse().unwrap(), VIP_PORT)).unwrap();
            }
            std::thread::sleep(Duration::from_millis(100));
            let seen = between(&right(&capture.stop(), out), &addr(SECOND, v6), vip);
            let lengths: Vec<usize> = seen.iter().map(|seen| seen.payload.len()).collect();
            assert_eq!(lengths, [1, 2, 77, 1000, 1001], "{out}, v6 {v6}: {}", nodes.tell());
            assert!(
                seen.iter().all(|seen| seen.addresses.len() == 2 && seen.sum == wanted),
                "{out}, v6 {v6}"
            );
        }
        // The machine knows no IP in IP, and says so.
        assert_eq!(nodes.dropped()[1], ["out: icmp_without_flow 10"]);
    }
}

/// A device's frames have whole checksums where XDP gets them, and they stay so.
#[test]
fn checksums_stay_right_at_xdp() {
    if !able("checksums_stay_right_at_xdp") {
        return;
    }
    let lan = Lan::new(3);
    let [client, balancer, endpoint] = lan.hosts.as_slice() else { unreachable!("three hosts") };
    for host in [client, endpoint] {
        offload(host, "eth0", "tx off");
    }
    // Without queues of its own a veth sends nothing that comes from XDP.
    offload(balancer, "eth0", "gro on");
    offload(&lan.switch, "p2", "gro on");
    let (own, own_mac, there, here) = (address(2), mac(2), address(3), address(1));
    let pipeline = format!(
        "version: 1
zones: [{{name: lb}}]
vrfs: [{{name: lb, zone: lb, snat_address_v4: 192.0.2.200}}]
ports: [{{name: eth0, kind: uplink, mac: '{own_mac}', attachment: {{vrf: lb}}}}]
interfaces: [{{name: lan, on: {{port: eth0}}, vrf: lb, mac: '{own_mac}', local: punt, addresses: [{own}]}}]
neighbors:
  - {{interface: lan, address: {there}, mac: '{}'}}
  - {{interface: lan, address: {here}, mac: '{}'}}
next_hops: [{{name: lan, action: {{direct: {{interface: lan}}}}}}]
routes: [{{vrf: lb, prefix: 192.0.2.0/24, target: {{next_hop: lan}}}}]
vips: [{{vrf: lb, address: 198.51.100.1, mode: {{exclusive: {{}}}}}}]
backends: [{{name: one, address: {there}, port: {PORT}}}]
services:
  - {{vrf: lb, vip: 198.51.100.1, protocol: tcp, ports: {VIP_PORT}, mode: full_nat, backends: [one]}}
  - {{vrf: lb, vip: 198.51.100.1, protocol: udp, ports: {VIP_PORT}, mode: full_nat, backends: [one]}}",
        mac(3),
        mac(1)
    );
    let local = dataplane(balancer, Mode::Xdp, &pipeline);
    run(client, "ip route add 198.51.100.0/24 via 192.0.2.2");
    run(endpoint, &format!("ip neigh add 192.0.2.200 lladdr {own_mac} dev eth0 nud permanent"));
    let on = format!("{there}:{PORT}");
    serve(endpoint, &on, "endpoint");
    let captures = [Capture::start(client, "eth0"), Capture::start(endpoint, "eth0")];
    echoes(client, "198.51.100.1:80", endpoint, &on);
    let mut asked = Asked::open(client, "198.51.100.1:80").unwrap();
    asked.echo(BYTES);
    for capture in captures {
        let seen = right(&capture.stop(), "at XDP");
        // Those that the balancer's other end has merged again are to be cut once more.
        let bad = seen.iter().filter(|seen| seen.sum != Sum::Whole && seen.length <= 1514).count();
        assert_eq!(bad, 0, "of {} packets", seen.len());
    }
    for host in [client, endpoint] {
        assert_eq!(checksum_errors(host), 0);
    }
    assert!(dropped(&local).is_empty(), "{:?}", dropped(&local));
}

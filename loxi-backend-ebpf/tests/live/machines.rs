//! Machines in namespaces: hosts with a stack of their own, and nodes whose forwarding is the programs'.

use crate::fixture::{handle, run};
use loxi_backend_ebpf::{Ebpf, Mode, Options, Sizes, clock};
use loxi_core::change::Transaction;
use loxi_core::dataplane::Local;
use loxi_core::ir::{Owner, Port};
use loxi_core::net::PortName;
use loxi_core::text::from_yaml;
use loxi_linux::netns::NetNs;

/// One end of a veth: where, name, MAC.
pub type End<'a> = (&'a NetNs, &'a str, &'a str);

/// Joins two machines.
pub fn join(near: End<'_>, far: End<'_>, mtu: u16) {
    let ((at, name, mac), (there, far_name, far_mac)) = (near, far);
    let inside = handle(there);
    run(
        at,
        &format!(
            "ip link add {name} mtu {mtu} address {mac} type veth peer name {far_name} mtu {mtu} address {far_mac} \
             netns {inside}"
        ),
    );
    run(at, &format!("ip link set {name} up"));
    run(there, &format!("ip link set {far_name} up"));
}

/// Joins two machines by a link that frames really leave by: to a bridge in the first one's own namespace, so that
/// its end is nobody's way around the device (`redirect_peer`), and what is switched off there is done before.
pub fn join_by_wire(near: End<'_>, far: End<'_>, mtu: u16) {
    let (at, name, mac) = near;
    let (inner, outer, bridge) = (format!("{name}-in"), format!("{name}-far"), format!("{name}-br"));
    run(at, &format!("ip link add {bridge} mtu {mtu} type bridge mcast_snooping 0"));
    run(at, &format!("ip link set {bridge} up"));
    run(at, &format!("ip link add {name} mtu {mtu} address {mac} type veth peer name {inner} mtu {mtu}"));
    join((at, &outer, "02:00:00:00:ff:01"), far, mtu);
    for port in [&inner, &outer] {
        run(at, &format!("ip link set {port} master {bridge} up"));
    }
    run(at, &format!("ip link set {name} up"));
}

/// A namespace whose stack says nothing by itself.
pub fn quiet() -> NetNs {
    let ns = NetNs::anonymous().unwrap();
    run(&ns, "sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1");
    ns
}

/// A namespace for a host that speaks both families and is found by static neighbours.
pub fn host() -> NetNs {
    let ns = NetNs::anonymous().unwrap();
    run(&ns, "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0");
    run(&ns, "ip link set lo up");
    ns
}

/// Gives a host's eth0 addresses, and everything else behind a gateway.
pub fn address(ns: &NetNs, addresses: &[&str], gateways: &[&str], mac: &str) {
    for address in addresses {
        run(ns, &format!("ip address add {address} dev eth0"));
    }
    for gateway in gateways {
        run(ns, &format!("ip neigh add {gateway} lladdr {mac} dev eth0 nud permanent"));
        run(ns, &format!("ip route add default via {gateway}"));
    }
}

/// Switches of a device.
pub fn offload(ns: &NetNs, device: &str, switches: &str) {
    run(ns, &format!("ethtool -K {device} {switches}"));
}

/// The dataplane of a node, with all ports that have devices attached.
pub fn dataplane(node: &NetNs, mode: Mode, pipeline: &str) -> Local<Ebpf> {
    let sizes = Sizes { flows_v4: 1000, flows_v6: 1000 };
    let options = Options { mode, sizes, ..Options::default() };
    let local = Local::new(node.run(|| Ebpf::open(options).unwrap()).unwrap(), clock());
    let entities = from_yaml(pipeline).unwrap_or_else(|error| panic!("{error}\n{pipeline}"));
    local.apply(&Transaction::replace("test", Owner::new("test").unwrap(), entities)).unwrap();
    let ports: Vec<PortName> = local.pipeline().ports().map(|port: &Port| port.name.clone()).collect();
    for port in ports {
        local.attach(&port).unwrap();
    }
    local
}

/// What a node has dropped, by port and reason.
pub fn dropped(local: &Local<Ebpf>) -> Vec<String> {
    let counters = local.counters();
    let all = counters.ports.iter().flat_map(|(port, counted)| {
        counted.dropped.iter().map(move |(reason, times)| format!("{port}: {reason} {times}"))
    });
    all.collect()
}

/// A counter of a host's stack.
pub fn counter(ns: &NetNs, name: &str) -> u64 {
    let printed = run(ns, &format!("nstat -asz {name}"));
    let line = printed.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("nstat knows no {name}: {printed}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Packets that a host's stack found wrong.
pub fn checksum_errors(ns: &NetNs) -> u64 {
    ["TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors", "IcmpInCsumErrors", "IpExtInCsumErrors"]
        .iter()
        .map(|name| counter(ns, name))
        .sum()
}

//! A load balancer by direct return on one device, beside whatever else the device is used for:
//! `l4lb DEVICE MAC ADDRESS PREFIX VIP:PORT BACKEND@MAC...`. Clients route the VIP by ADDRESS; backends on PREFIX have
//! the VIP on their loopback and answer by themselves. It ends with its process, and leaves nothing.

use loxi_backend_ebpf::{Ebpf, Options, clock};
use loxi_core::change::Transaction;
use loxi_core::dataplane::Local;
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::text::from_yaml;
use std::error::Error;
use std::net::SocketAddrV4;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, mac, address, prefix, service, backends @ ..] = arguments.as_slice() else {
        return Err("usage: l4lb DEVICE MAC ADDRESS PREFIX VIP:PORT BACKEND@MAC...".into());
    };
    let (service, mut named, mut neighbors) = (service.parse::<SocketAddrV4>()?, vec![], vec![]);
    let (vip, port) = (service.ip(), service.port());
    for (n, backend) in backends.iter().enumerate() {
        let (address, mac) = backend.split_once('@').ok_or("a backend is ADDRESS@MAC")?;
        named.push(format!("{{name: b{n}, address: {address}, port: {port}}}"));
        neighbors.push(format!("{{interface: lan, address: {address}, mac: '{mac}'}}"));
    }
    let names = (0..named.len()).map(|n| format!("b{n}")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "version: 1
zones: [{{name: lb}}]
vrfs: [{{name: lb, zone: lb}}]
ports: [{{name: {device}, kind: uplink, mac: '{mac}', attachment: {{vrf: lb}}}}]
interfaces: [{{name: lan, on: {{port: {device}}}, vrf: lb, mac: '{mac}', local: punt, addresses: [{address}]}}]
neighbors: [{}]
next_hops: [{{name: lan, action: {{direct: {{interface: lan}}}}}}]
routes: [{{vrf: lb, prefix: {prefix}, target: {{next_hop: lan}}}}]
vips: [{{vrf: lb, address: {vip}, mode: {{exclusive: {{}}}}}}]
backends: [{}]
services: [{{vrf: lb, vip: {vip}, protocol: tcp, ports: {port}, mode: dsr_l2, backends: [{names}]}}]",
        neighbors.join(", "),
        named.join(", "),
    );
    let dataplane = Local::new(Ebpf::open(Options::default())?, clock());
    dataplane.apply(&Transaction::replace("l4lb", Owner::new("l4lb")?, from_yaml(&text)?))?;
    dataplane.attach(&PortName::new(device)?)?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        println!("{:?}", dataplane.counters().ports);
    }
}

//! A checksum that a device has taken of a whole frame (`CHECKSUM_COMPLETE`): it is that of the frame which is handed
//! on, too. A kernel vxlan device gives such frames where their outer checksum was verified by software.

use crate::fixture::program::object;
use crate::fixture::{privileged, run};
use crate::machines::{address, dataplane, host, join, offload, quiet};
use aya::programs::{SchedClassifier, TcAttachType};
use loxi_backend_ebpf::Mode;
use loxi_linux::netns::NetNs;
use std::net::UdpSocket;
use std::time::Duration;

const PAYLOAD: usize = 16;

/// What a program at the pod's device drops.
#[derive(Debug, Clone, Copy)]
enum Drops {
    /// Frames that have such a checksum.
    Summed,
    /// Those whose checksum is not theirs.
    Wrong,
}

/// Instructions, eight bytes each: operation, registers (source << 4 | destination), offset, number.
fn code(drops: Drops) -> Vec<u8> {
    let put = |op: u8, registers: u8, offset: i16, number: i32| {
        let mut bytes = vec![op, registers];
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes
    };
    // IPv6, UDP, payload.
    let length = 40 + 8 + PAYLOAD as i32;
    let fold = |register: u8| {
        // r1 = r >> 16; r &= 0xffff; r += r1
        [
            put(0xbf, register << 4 | 1, 0, 0),
            put(0x77, 1, 0, 16),
            put(0x57, register, 0, 0xffff),
            put(0x0f, 1 << 4 | register, 0, 0),
        ]
    };
    let mut all = vec![
        put(0xbf, 1 << 4 | 6, 0, 0), // r6 = r1
        put(0xb7, 2, 0, 0),          // r2 = 0
        put(0x85, 0, 0, 40),         // csum_update: the sum, or an error
        put(0xbf, 7, 0, 0),          // r7 = r0
    ];
    let pass = [put(0xb7, 0, 0, -1), put(0x95, 0, 0, 0)];
    let drop = [put(0xb7, 0, 0, 2), put(0x95, 0, 0, 0)];
    match drops {
        Drops::Summed => {
            all.push(put(0x65, 7, 2, -1)); // if r7 s> -1: drop
            all.extend(pass);
            all.extend(drop);
        }
        Drops::Wrong => {
            let mut check = vec![
                put(0x61, 6 << 4 | 3, 76, 0), // r3 = data
                put(0x61, 6 << 4 | 2, 80, 0), // r2 = data_end
                put(0xbf, 3 << 4 | 1, 0, 0),
                put(0x07, 1, 0, 14 + length),
            ];
            let mut rest = vec![
                put(0x07, 3, 0, 14), // to: the IPv6 header
                put(0xb7, 1, 0, 0),
                put(0xb7, 2, 0, 0),
                put(0xb7, 4, 0, length),
                put(0xb7, 5, 0, 0),
                put(0x85, 0, 0, 28), // csum_diff
                put(0xbf, 8, 0, 0),  // r8 = r0
            ];
            for register in [7, 7, 8, 8] {
                rest.extend(fold(register));
            }
            // if r7 != r8: drop
            rest.push(put(0x5d, 8 << 4 | 7, 2, 0));
            // if data + 14 + length > data_end: pass, behind everything that checks.
            check.push(put(0x2d, 2 << 4 | 1, rest.len() as i16, 0));
            // if r7 s< 0: pass
            all.push(put(0xc5, 7, (check.len() + rest.len()) as i16, 0));
            all.extend(check);
            all.extend(rest);
            all.extend(pass);
            all.extend(drop);
        }
    }
    all.concat()
}

/// Puts such a program at a host's eth0; it goes with the value.
fn attach(at: &NetNs, drops: Drops) -> aya::Ebpf {
    let mut loaded = aya::Ebpf::load(&object("classifier", "checker", &code(drops))).unwrap();
    let program: &mut SchedClassifier = loaded.program_mut("checker").unwrap().try_into().unwrap();
    program.load().unwrap();
    at.run(|| program.attach("eth0", TcAttachType::Ingress).map(drop).unwrap()).unwrap();
    loaded
}

const CLIENT: &str = "02:00:00:00:0a:02";
const UPLINK: &str = "02:00:00:00:0a:01";

/// Client and pod, with a node between: the client behind a kernel vxlan device.
fn machines() -> (NetNs, NetNs, NetNs) {
    let (client, node, pod) = (host(), quiet(), host());
    join((&node, "wire", "02:00:00:00:ee:01"), (&client, "wire", "02:00:00:00:ee:02"), 1500);
    for (ns, own, other, name, mac) in [(&node, 1, 2, "vx0", UPLINK), (&client, 2, 1, "eth0", CLIENT)] {
        // Whole outer checksums, which the other end verifies by software.
        offload(ns, "wire", "tx off");
        run(ns, &format!("ip address add 192.0.2.{own}/24 dev wire"));
        run(
            ns,
            &format!(
                "ip link add {name} address {mac} mtu 1400 type vxlan id 7 local 192.0.2.{own} remote 192.0.2.{other} \
                 dstport 4789 udpcsum dev wire"
            ),
        );
        run(ns, &format!("ip link set {name} up"));
    }
    join((&node, "hs1", "02:00:00:00:ee:03"), (&pod, "eth0", "02:00:00:00:0b:02"), 1400);
    address(&client, &["fd00:a::2/64"], &["fd00:a::1"], UPLINK);
    address(&pod, &["fd00:b::2/64"], &["fd00:b::1"], "02:00:00:00:0b:01");
    (client, node, pod)
}

const PIPELINE: &str = "version: 1
zones: [{name: z}]
vrfs: [{name: r, zone: z}]
ports:
  - {name: vx0, kind: uplink, mac: '02:00:00:00:0a:01', mtu: 1400, attachment: {vrf: r}}
  - {name: hs1, kind: representor, mac: '02:00:00:00:0b:01', mtu: 1400, attachment: {vrf: r}}
interfaces:
  - {name: a, on: {port: vx0}, vrf: r, mac: '02:00:00:00:0a:01', mtu: 1400, addresses: ['fd00:a::1']}
  - {name: b, on: {port: hs1}, vrf: r, mac: '02:00:00:00:0b:01', mtu: 1400, addresses: ['fd00:b::1']}
neighbors:
  - {interface: a, address: 'fd00:a::2', mac: '02:00:00:00:0a:02'}
  - {interface: b, address: 'fd00:b::2', mac: '02:00:00:00:0b:02'}
next_hops:
  - {name: a, action: {direct: {interface: a}}}
  - {name: b, action: {direct: {interface: b}}}
routes:
  - {vrf: r, prefix: 'fd00:a::/64', target: {next_hop: a}}
  - {vrf: r, prefix: 'fd00:b::/64', target: {next_hop: b}}
vips: [{vrf: r, address: 'fd00:96::1', mode: {exclusive: {}}}]
backends: [{name: one, address: 'fd00:b::2', port: 8080}]
services: [{vrf: r, vip: 'fd00:96::1', protocol: udp, ports: 80, backends: [one]}]
";

#[test]
fn a_checksum_of_all_of_a_frame_stays_its_own() {
    if !privileged("a_checksum_of_all_of_a_frame_stays_its_own") {
        return;
    }
    for (to, what) in [("[fd00:b::2]:8080", "routed"), ("[fd00:96::1]:80", "translated")] {
        for (drops, arrives) in [(Drops::Summed, false), (Drops::Wrong, true)] {
            let (client, node, pod) = machines();
            let _plane = dataplane(&node, Mode::Tc, PIPELINE);
            let server = pod.run(|| UdpSocket::bind("[fd00:b::2]:8080").unwrap()).unwrap();
            let patience = |ms| server.set_read_timeout(Some(Duration::from_millis(ms))).unwrap();
            let asks = client.run(|| UdpSocket::bind("[fd00:a::2]:0").unwrap()).unwrap();
            let mut buffer = [0; 64];
            let mut reaches = || {
                asks.send_to(&[0xa7; PAYLOAD], to).unwrap();
                server.recv(&mut buffer).is_ok()
            };
            // Without the program everything arrives. The second of a flow goes the short way.
            patience(3000);
            assert!(reaches(), "{what}");
            patience(if arrives { 3000 } else { 300 });
            let _checker = attach(&pod, drops);
            for n in 0..4 {
                assert_eq!(reaches(), arrives, "{what}, {drops:?}, packet {n}");
            }
        }
    }
}

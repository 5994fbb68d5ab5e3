//! What each row says of its entity, area by area.

#![allow(clippy::unwrap_used)]

use loxi_backend_ebpf::plan::{Plan, Row, RowKey, ServiceRow, compile};
use loxi_core::capability::Capabilities;
use loxi_core::ir::*;
use loxi_ebpf_layout::code::drop;

fn pipeline(yaml: &str) -> Pipeline {
    let entities = loxi_core::text::from_yaml(&format!("version: 1\n{yaml}")).unwrap();
    let pipeline = Pipeline::from_entities(&Owner::new("test").unwrap(), entities);
    loxi_core::validate::validate(&pipeline).unwrap();
    pipeline
}

fn compiled(pipeline: &Pipeline) -> Plan {
    compile(pipeline, &Capabilities::full("test", 1 << 20)).unwrap()
}

/// The lines of a pipeline's plan that begin so.
fn lines(yaml: &str, starts: &[&str]) -> Vec<String> {
    let dump = compiled(&pipeline(yaml)).to_string();
    let wanted = |line: &&str| starts.iter().any(|start| line.starts_with(start));
    dump.lines().filter(wanted).map(str::to_owned).collect()
}

#[test]
fn zones() {
    let yaml = "zones:
  - name: z
    max_flows: 7
    max_half_open: 3
    max_per_source: 2
    mid_stream_pickup: true
    timeouts: {tcp_syn_sent_s: 1, tcp_syn_received_s: 2, tcp_established_s: 3, tcp_fin_wait_s: 4, tcp_close_wait_s: 5,
      tcp_last_ack_s: 6, tcp_time_wait_s: 7, tcp_close_s: 8, sctp_setup_s: 9, sctp_established_s: 10,
      sctp_shutdown_s: 11, udp_s: 12, udp_stream_s: 13, icmp_s: 14, other_s: 15}
";
    let expected = "zone z: max_flows 7 max_half_open 3 max_per_source 2 pickup true timeouts \
                    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]";
    assert_eq!(lines(yaml, &["zone"]), [expected]);
}

#[test]
fn ports_of_every_kind_and_flag() {
    let yaml = "zones: [{name: z}, {name: y}]
vrfs: [{name: v, zone: y}]
bridges: [{name: b, zone: z}, {name: deaf, learning: false}]
ports:
  - {name: p1, kind: pod, mac: '02:00:00:00:00:01', attachment: {bridge: {bridge: b, vlan: {access: 7}, split_horizon: 0}},
     anti_spoof: {addresses: [10.0.0.1, 'fd00::/64'], macs: ['02:00:00:00:00:99'], dhcp_client: true}}
  - {name: p2, kind: host, mac: '02:00:00:00:00:02', attachment: {bridge: {bridge: deaf}}, admin: down, unclaimed: drop}
  - {name: p3, kind: uplink, mac: '02:00:00:00:00:03', attachment: {vrf: v}, underlay: true, scope: external}
  - {name: p4, kind: tunnel, mac: '02:00:00:00:00:04', mtu: 1400, anti_spoof: {addresses: []}}
  - {name: p5, kind: representor, mac: '02:00:00:00:00:05', unclaimed: punt,
     attachment: {bridge: {bridge: b, vlan: {trunk: {allowed: [5, 7], native: 3}}, learning: false}}}
  - {name: p6, kind: representor, mac: '02:00:00:00:00:06', attachment: {bridge: {bridge: b, vlan: {trunk: {allowed: [5], native: 5}}}}}
  - {name: p7, kind: representor, mac: '02:00:00:00:00:07', attachment: {bridge: {bridge: b, vlan: {trunk: {allowed: [4]}}}}}
interfaces:
  - {name: i1, on: {bridge: {bridge: b, vlan: 7}}, vrf: v, mac: '02:00:00:00:01:01'}
  - {name: i2, on: {bridge: {bridge: b, vlan: 5}}, vrf: v, mac: '02:00:00:00:01:02'}
  - {name: i3, on: {port: p3}, vrf: v, mac: '02:00:00:00:01:03'}
";
    let expected = [
        "member guard p1 10.0.0.1/32: present",
        "member guard p1 fd00::/64: present",
        "port_mac p1 02:00:00:00:00:99: present",
        "port p1: pod exists|up|guarded|dhcp|guard_macs|learn|bridged|split mac 02:00:00:00:00:01 mtu 1500 zone z \
         bridge b vlan 7 interface i1 gateway 02:00:00:00:01:01 split 0",
        "port p2: host exists|bridged mac 02:00:00:00:00:02 mtu 1500 bridge deaf vlan 1",
        "port p3: uplink exists|up|underlay|punt|external|routed mac 02:00:00:00:00:03 mtu 1500 zone y vrf v \
         interface i3 gateway 02:00:00:00:01:03",
        "port p4: tunnel exists|up|guarded mac 02:00:00:00:00:04 mtu 1400",
        "port_vlan p5 3: native",
        "port_vlan p5 5: tagged",
        "port_vlan p5 7: tagged",
        "port p5: representor exists|up|punt|trunk|native|bridged mac 02:00:00:00:00:05 mtu 1500 zone z \
         bridge b vlan 3",
        "port_vlan p6 5: tagged|native",
        "port p6: representor exists|up|trunk|native|learn|bridged mac 02:00:00:00:00:06 mtu 1500 zone z \
         bridge b vlan 5 interface i2 gateway 02:00:00:00:01:02",
        "port_vlan p7 4: tagged",
        "port p7: representor exists|up|trunk|learn|bridged mac 02:00:00:00:00:07 mtu 1500 zone z bridge b",
    ];
    assert_eq!(lines(yaml, &["port", "member guard"]), expected);
}

#[test]
fn bridges_and_stations() {
    let yaml = "zones: [{name: z}]
vrfs: [{name: v}]
bridges:
  - {name: a, ageing_s: 10, max_macs: 5, unknown_unicast: drop, multicast: drop, broadcast: drop}
  - {name: b, zone: z, any_ethertype: true, proxy_neighbors: true}
ports:
  - {name: p, kind: pod, mac: '02:00:00:00:00:01', attachment: {bridge: {bridge: a}}}
  - {name: t, kind: tunnel, mac: '02:00:00:00:00:02', attachment: {vrf: v}}
tunnels: [{name: n, kind: {vxlan: {vni: 1}}, underlay_vrf: v, local: 1.1.1.1, remote: 1.1.1.2, port: t}]
fdb:
  - {bridge: a, mac: '02:00:00:00:00:01', target: {port: p}}
  - {bridge: a, vlan: 2, mac: '02:00:00:00:00:03', target: {tunnel: n}}
";
    let expected = [
        "bridge a: exists ageing 10 s stations 5",
        "bridge b: exists|flood_unknown|flood_multicast|flood_broadcast|any_ethertype|proxy zone z ageing 300 s stations 4096",
        "station a vlan 1 02:00:00:00:00:01: port p",
        "station a vlan 2 02:00:00:00:00:03: port t tunnel n",
    ];
    assert_eq!(lines(yaml, &["bridge", "station"]), expected);
}

#[test]
fn routing() {
    let yaml = "zones: [{name: z}]
vrfs:
  - {name: v, zone: z, snat_address_v4: 10.0.0.9, snat_address_v6: 'fd00::9', node_local: [10.0.0.9]}
  - {name: w}
bridges: [{name: b}]
ports: [{name: t, kind: tunnel, mac: '02:00:00:00:00:02', attachment: {vrf: w}}]
interfaces:
  - {name: i, on: {bridge: {bridge: b, vlan: 2}}, vrf: v, mac: '02:00:00:00:01:01', mtu: 1400, local: punt,
     addresses: [10.0.0.2, 10.0.0.1, 'fe80::2', 'fd00::1']}
  - {name: j, on: {bridge: {bridge: b}}, vrf: w, mac: '02:00:00:00:01:02'}
neighbors: [{interface: i, address: 10.0.0.5, mac: '02:00:00:00:00:55'}]
tunnels: [{name: n, kind: ipip, underlay_vrf: v, local: 1.1.1.1, remote: 1.1.1.2, port: t}]
next_hops:
  - {name: direct, action: {direct: {interface: i}}}
  - {name: gateway, action: {direct: {interface: i, gateway: 10.0.0.5}}}
  - {name: host, action: host}
  - {name: none, action: blackhole}
  - {name: tunnel, action: {tunnel: n}}
next_hop_groups: [{name: g, seed: 5, members: [{next_hop: host, weight: 3}, {next_hop: direct}, {next_hop: host}]}]
routes:
  - {vrf: v, prefix: 10.0.0.0/8, target: {group: g}}
  - {vrf: v, prefix: 'fd00::/8', target: {next_hop: direct}}
";
    let expected = [
        "vrf v: node_local true zone z snat 10.0.0.9 snat fd00::9",
        "member node_local v 10.0.0.9/32: present",
        "vrf w: node_local false",
        "interface i: on bridge b vlan 2 vrf v mac 02:00:00:00:01:01 mtu 1400 punt address 10.0.0.1 address fd00::1",
        "interface j: on bridge b vlan 1 vrf w mac 02:00:00:00:01:02 mtu 1500",
        "neighbor i 10.0.0.5: 02:00:00:00:00:55",
        "next_hop direct: by i",
        "next_hop gateway: by i gateway 10.0.0.5",
        "next_hop host: host",
        "next_hop none: blackhole",
        "next_hop tunnel: tunnel n",
        "group g: seed 5 host*3 direct*1 host*1",
        "route v 10.0.0.0/8: group g",
        "route v fd00::/8: next_hop direct",
    ];
    let starts = ["vrf", "member", "interface", "neighbor", "next_hop", "group", "route"];
    assert_eq!(lines(yaml, &starts), expected);
}

const TUNNELS: &str = "vrfs: [{name: v}]
ports:
  - {name: t1, kind: tunnel, mac: '02:00:00:00:00:01', mtu: 1400, attachment: {vrf: v}}
  - {name: t2, kind: tunnel, mac: '02:00:00:00:00:02', attachment: {vrf: v}}
tunnels:
  - {name: n1, kind: {vxlan: {vni: 5}}, underlay_vrf: v, local: 1.1.1.1, remote: 1.1.1.2, port: t1,
     inner_dst_mac: '02:00:00:00:00:77', ttl: inherit, dscp: inherit, df: inherit, udp_checksum: computed, source_ports: 50000-50001}
  - {name: n2, kind: {vxlan: {vni: 6}}, underlay_vrf: v, local: 1.1.1.1, remote: 1.1.1.2, port: t1, dscp: {fixed: 46}, df: clear}
  - {name: n3, kind: ipip, underlay_vrf: v, local: 1.1.1.1, remote: 1.1.1.2, port: t2, ttl: {fixed: 3}, udp_checksum: computed}
terminations:
  - {name: e1, vrf: v, dst: 1.1.1.1, matches: {vxlan: {vni: 5}}, peers: [1.1.1.2, 1.1.2.0/24], port: t1}
  - {name: e2, vrf: v, dst: 1.1.1.1, matches: {vxlan: {vni: 6}}, peers: [1.1.1.2], port: t2, exclusive: true}
  - {name: e3, vrf: v, dst: 1.1.1.1, matches: {vxlan: {vni: 5, port: 8472}}, peers: [1.1.1.2], port: t1}
  - {name: e4, vrf: v, dst: 1.1.1.1, matches: ipip, peers: [1.1.1.2], port: t2, exclusive: true}
";

#[test]
fn tunnels() {
    let expected = [
        "endpoint 1.1.1.2: present",
        "tunnel n1: vxlan udp 4789 vni 5 vrf v 1.1.1.1 > 1.1.1.2 port t1 mtu 1400 ttl_inherit|dscp_inherit|df_inherit|checksum \
         ttl 0 tos 0x0 source_ports 50000-50001 inner 02:00:00:00:00:01 > 02:00:00:00:00:77",
        "tunnel n2: vxlan udp 4789 vni 6 vrf v 1.1.1.1 > 1.1.1.2 port t1 mtu 1400 0x0 \
         ttl 64 tos 0xb8 source_ports 49152-65535 inner 02:00:00:00:00:01 > 00:00:00:00:00:00",
        // It has no UDP header whose checksum could be computed.
        "tunnel n3: ipip vni 0 vrf v 1.1.1.1 > 1.1.1.2 port t2 mtu 1500 df \
         ttl 3 tos 0x0 source_ports 49152-65535 inner 02:00:00:00:00:02 > 00:00:00:00:00:00",
        "back t1 1.1.1.2: tunnel n1",
        "back t2 1.1.1.2: tunnel n3",
        "outer v vxlan udp 4789 1.1.1.1 > 1.1.1.2: tunnel n1",
        "outer v ipip 1.1.1.1 > 1.1.1.2: tunnel n3",
    ];
    assert_eq!(lines(TUNNELS, &["endpoint", "tunnel", "back", "outer"]), expected);
}

#[test]
fn terminations() {
    let expected = [
        "bare_udp 4789: present",
        "bare_udp 8472: present",
        "member peers e1 1.1.1.2/32: present",
        "member peers e1 1.1.2.0/24: present",
        "member peers e2 1.1.1.2/32: present",
        "member peers e3 1.1.1.2/32: present",
        "member peers e4 1.1.1.2/32: present",
        "end v 1.1.1.1 vxlan udp 4789 vni 5: port t1 by e1",
        "end v 1.1.1.1 vxlan udp 4789 vni 6: port t2 by e2",
        "end v 1.1.1.1 vxlan udp 8472 vni 5: port t1 by e3",
        "end v 1.1.1.1 ipip vni 0: port t2 by e4",
        "end v 1.1.1.1 vxlan udp 4789 any: 0x1",
        "end v 1.1.1.1 vxlan udp 8472 any: 0x0",
        // It has no keys that could be unknown.
        "end v 1.1.1.1 ipip any: 0x0",
    ];
    assert_eq!(lines(TUNNELS, &["bare_udp", "member", "end "]), expected);
}

#[test]
fn nat() {
    let yaml = "zones: [{name: z}]
vrfs: [{name: v, zone: z}, {name: w, zone: z}]
bridges: [{name: b}]
interfaces: [{name: i, on: {bridge: {bridge: b}}, vrf: v, mac: '02:00:00:00:01:01'}]
nat_rules:
  - {vrf: v, priority: 10, action: no_nat, matches: {src: [10.0.0.0/8], egress: i}}
  - {vrf: v, priority: 4294967295, action: {masquerade: {}}}
  - {vrf: v, priority: 9, action: {snat: {pool: ['fd00::2', 10.0.0.2, 'fd00::1', 10.0.0.1], ports: 5000-6000}}}
  - {vrf: v, priority: 11, action: {one_to_one: {internal: 10.0.0.0/24, external: 192.168.0.0/24}}}
  - {vrf: v, priority: 0, action: {dnat: {address: 10.0.0.7, port: 80}},
     matches: {dst: [1.1.1.1, 1.1.1.2], protocol: tcp, dst_ports: 8000-8001}}
  - {vrf: w, priority: 0, action: no_nat}
";
    let expected = [
        "member nat src v 10 10.0.0.0/8: present",
        "member nat dst v 0 1.1.1.1/32: present",
        "member nat dst v 0 1.1.1.2/32: present",
        "nat v: 5 rule(s); v 0 protocol 6 ports 8000-8001 dst dnat 10.0.0.7 80; \
         v 9 snat [10.0.0.1, 10.0.0.2, fd00::1, fd00::2] 5000-6000; v 10 egress i src no_nat; \
         v 11 one_to_one 10.0.0.0/24 192.168.0.0/24; v 4294967295 masquerade 1024-65535",
        "nat w: 1 rule(s); w 0 no_nat",
    ];
    assert_eq!(lines(yaml, &["nat", "member"]), expected);
}

#[test]
fn services() {
    let yaml = "zones: [{name: z}]
vrfs: [{name: v, zone: z, snat_address_v4: 10.0.0.9}]
vips:
  - {vrf: v, address: 10.96.0.1, mode: {exclusive: {other: drop, echo: true}}}
  - {vrf: v, address: 10.96.0.2, mode: {exclusive: {}}}
  - {vrf: v, address: 10.96.0.3, mode: shared}
backends:
  - {name: a, address: 10.0.0.1, port: 8080, locality: local, weight: 3}
  - {name: b, address: 10.0.0.2, port: 0, state: draining}
  - {name: c, address: 10.0.0.3, port: 1, state: down}
services:
  - {vrf: v, vip: 10.96.0.1, protocol: tcp, ports: 1, backends: [a, b, c], algorithm: {maglev: {table_size: 251}}}
  - {vrf: v, vip: 10.96.0.1, protocol: udp, ports: 2, backends: [b, c], algorithm: source_hash, mode: full_nat,
     affinity: {timeout_s: 9}, source_ranges: [10.0.0.0/8]}
  - {vrf: v, vip: 10.96.0.2, protocol: tcp, ports: 3, scope: external, backends: [a], algorithm: round_robin, mode: dsr_ipip}
  - {vrf: v, vip: 10.96.0.2, protocol: tcp, ports: 4, scope: internal, backends: [a], algorithm: random, mode: dsr_l2}
  - {vrf: v, vip: 10.96.0.2, protocol: tcp, ports: 5, backends: [a], algorithm: least_connections}
  - {vrf: v, vip: 10.96.0.3, protocol: tcp, ports: 1-9, backends: [c], algorithm: source_hash, on_no_backend: drop}
  - {vrf: v, vip: 10.96.0.3, protocol: tcp, ports: 10, backends: [b], traffic_policy: local, on_no_backend: drop}
  - {vrf: v, vip: 10.96.0.3, protocol: tcp, ports: 11, backends: [b], traffic_policy: local, on_no_local_backend: drop}
";
    let expected = [
        "backend a: 10.0.0.1 port 8080 weight 3 local",
        "backend b: 10.0.0.2 port 0 weight 1",
        "backend c: 10.0.0.3 port 1 weight 1 down",
        "vip v 10.96.0.1: exclusive|echo",
        "vip v 10.96.0.2: exclusive|reject",
        "vip v 10.96.0.3: ranges",
        "service v 10.96.0.1:1 tcp: nat maglev table 251; a 10.0.0.1 8080 *3; b idle; c idle",
        "member sources v 10.96.0.1:2 udp 10.0.0.0/8: present",
        "service v 10.96.0.1:2 udp: full_nat source_hash sources affinity 9 table 16381; b 10.0.0.2 0 *1; c idle",
        "service v 10.96.0.2:3 tcp external: dsr_ipip round_robin; a 10.0.0.1 8080 *3",
        "service v 10.96.0.2:4 tcp internal: dsr_l2 random; a 10.0.0.1 8080 *3",
        "service v 10.96.0.2:5 tcp: nat least_connections; a 10.0.0.1 8080 *3",
        "service v 10.96.0.3:1-9 tcp: nat source_hash refusal 60; c idle",
        "service v 10.96.0.3:10 tcp: nat random refusal 61 reject; b idle",
        "service v 10.96.0.3:11 tcp: nat random refusal 61; b idle",
    ];
    assert_eq!(lines(yaml, &["backend", "vip", "service", "member"]), expected);
}

const STATES: [BackendState; 3] = [BackendState::Active, BackendState::Draining, BackendState::Down];
const PLACES: [Locality; 2] = [Locality::Local, Locality::Remote];

/// A service of three endpoints in all their states and places.
fn every_three() -> impl Iterator<Item = [(BackendState, Locality); 3]> {
    let one = || STATES.into_iter().flat_map(|state| PLACES.into_iter().map(move |place| (state, place)));
    one().flat_map(move |a| one().flat_map(move |b| one().map(move |c| [a, b, c])))
}

/// Who may be used, or the reason why nobody.
fn expected(policy: TrafficPolicy, all: &[(BackendState, Locality); 3]) -> Result<Vec<usize>, u8> {
    let of = |state: BackendState, local: bool| -> Vec<usize> {
        let wanted = |n: &usize| all[*n].0 == state && (!local || all[*n].1 == Locality::Local);
        (0..3).filter(wanted).collect()
    };
    let first = |tries: &[(BackendState, bool)]| {
        tries.iter().map(|(state, local)| of(*state, *local)).find(|found| !found.is_empty())
    };
    use BackendState::{Active, Draining};
    let anywhere = first(&[(Active, false), (Draining, false)]).ok_or(drop::NO_BACKEND.get())?;
    match policy {
        TrafficPolicy::Cluster => Ok(anywhere),
        TrafficPolicy::Local => {
            first(&[(Active, true), (Draining, true)]).ok_or(drop::NO_LOCAL_BACKEND.get())
        }
        TrafficPolicy::PreferLocal => Ok(first(&[(Active, true)]).unwrap_or(anywhere)),
    }
}

#[test]
fn endpoints_are_eligible_by_state_place_and_policy() {
    let base = pipeline(
        "zones: [{name: z}]
vrfs: [{name: v, zone: z}]
vips: [{vrf: v, address: 10.96.0.1, mode: shared}]
backends: [{name: b, address: 10.0.0.1, port: 80}]
services: [{vrf: v, vip: 10.96.0.1, protocol: tcp, ports: 80, on_no_local_backend: drop}]
",
    );
    let (backend, service) = (base.backends().next().unwrap(), base.services().next().unwrap());
    let names: Vec<loxi_core::net::BackendName> = ["b0", "b1", "b2"].map(|name| name.parse().unwrap()).into();
    let mut judged = 0;
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local, TrafficPolicy::PreferLocal] {
        for all in every_three() {
            let mut pipeline = base.clone();
            let owner = || Owner::new("test").unwrap();
            for (name, (state, locality)) in names.iter().zip(all) {
                let backend = LbBackend { name: name.clone(), state, locality, ..backend.clone() };
                pipeline.put(owner(), backend.into());
            }
            let backends = names.iter().cloned().collect();
            let service = LbService { backends, traffic_policy: policy, ..service.clone() };
            pipeline.put(owner(), service.clone().into());
            let plan = compiled(&pipeline);
            let found = plan.rows().find(|(key, _)| **key == RowKey::Service(service.key()));
            let Some((_, Row::Service(row))) = found else { panic!("no row") };
            let (list, refusal) = match expected(policy, &all) {
                Ok(list) => (list, 0),
                Err(reason) => (Vec::new(), reason),
            };
            let listed: Vec<usize> = row.list.iter().map(|(name, ..)| index_of(&names, name)).collect();
            assert_eq!((&listed, row.refusal), (&list, refusal), "{policy:?} {all:?}");
            assert_eq!(row.reject, refusal == drop::NO_BACKEND.get(), "{policy:?} {all:?}");
            assert!(names_all(row, &names), "{row:?}");
            judged += 1;
        }
    }
    assert_eq!(judged, 3 * 216);
}

fn index_of<T: PartialEq>(all: &[T], one: &T) -> usize {
    all.iter().position(|other| other == one).unwrap()
}

fn names_all(row: &ServiceRow, names: &[loxi_core::net::BackendName]) -> bool {
    let mut named: Vec<_> = row.backends().cloned().collect();
    named.sort();
    named == names && row.idle.is_sorted()
}

#[test]
fn a_table_over_endpoints_without_weight_has_nobody_to_choose() {
    let mut pipeline = pipeline(
        "zones: [{name: z}]
vrfs: [{name: v, zone: z}]
vips: [{vrf: v, address: 10.96.0.1, mode: shared}]
backends: [{name: b, address: 10.0.0.1, port: 80}]
services:
  - {vrf: v, vip: 10.96.0.1, protocol: tcp, ports: 1, backends: [b], algorithm: source_hash}
  - {vrf: v, vip: 10.96.0.1, protocol: tcp, ports: 2, backends: [b], algorithm: least_connections}
",
    );
    let backend = LbBackend { weight: 0, ..pipeline.backends().next().unwrap().clone() };
    pipeline.put(Owner::new("test").unwrap(), backend.into());
    let dump = compiled(&pipeline).to_string();
    let services: Vec<&str> = dump.lines().filter(|line| line.starts_with("service")).collect();
    let expected = [
        "service v 10.96.0.1:1 tcp: nat source_hash refusal 60 reject; b idle",
        "service v 10.96.0.1:2 tcp: nat least_connections; b 10.0.0.1 80 *0",
    ];
    assert_eq!(services, expected);
}

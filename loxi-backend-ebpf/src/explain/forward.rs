//! Stage 10: route what is for our MAC, bridge the rest.

use super::hash::Tuple;
use super::resolve::Resolved;
use super::{Step, Walk, is_group, is_link_local, unclaimed, words};
use crate::sys::{BRIDGES, INTERFACES, LOCAL_ADDRS, STATIONS, TUNNELS};
use loxi_core::ir::{EntityKey, FdbKey};
use loxi_core::net::VlanId;
use loxi_core::packet::{Stage, TraceEntry};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::code::{drop, program, punt};
use loxi_ebpf_layout::flow::translation;
use loxi_ebpf_layout::l2::{Link, Port, Station, StationAt, bridge, kind, port};
use loxi_ebpf_layout::l3::{Interface, VrfAddr, interface};
use loxi_ebpf_layout::scratch::{flag, l4, tracking, way};
use loxi_ebpf_layout::tunnel::Tunnel;

impl Walk<'_> {
    pub(super) fn forward(&mut self) -> Step<u32> {
        self.meet(Stage::Forward);
        let Some(port) = self.port_of(self.p.port) else { return Err(drop::PORT_DOWN) };
        if self.p.flags & flag::TO_US == 0 {
            if self.p.bridge == 0 {
                // A routed port knows no other stations.
                let foreign = self.p.family == 0 && self.p.kind != l4::ARP;
                return Err(unclaimed(&port, if foreign { drop::UNSUPPORTED_L2 } else { drop::WRONG_MAC }));
            }
            self.bridged(&port)?;
        } else if self.p.family == 0 {
            return Err(unclaimed(&port, drop::NO_L3));
        } else {
            self.routed(&port)?;
        }
        if self.p.way == way::TUNNEL {
            self.under_tunnel()?;
        } else if self.p.way == way::IPIP {
            self.under_ipip()?;
        }
        let effect = self.way();
        self.saw(self.summary(), None, effect);
        Ok(program::SNAT)
    }

    /// The way out in words.
    fn way(&self) -> String {
        let p = &self.p;
        let port = self.port_name(p.out_port);
        let out = match p.way {
            way::TUNNEL => {
                let name = words::name(&self.t.names.tunnels, p.out_tunnel);
                let remote =
                    self.tunnel_of(p.out_tunnel).map(|tunnel| words::ip(tunnel.family, tunnel.remote));
                let to = remote.map(|remote| format!(" to {remote}")).unwrap_or_default();
                format!("tunnel {name}{to} by port {port}")
            }
            way::IPIP => {
                let (src, dst) =
                    (words::ip(p.outer_family, p.outer_src), words::ip(p.outer_family, p.dsr_target));
                format!("ipip {src} -> {dst} by port {port}")
            }
            _ => format!("port {port}"),
        };
        if p.routed != 0 && p.way != way::IPIP {
            format!("{out}, routed to {}, mtu {}", words::mac(p.new_dmac), p.mtu)
        } else if p.routed != 0 {
            format!("{out}, routed, mtu {}", p.mtu)
        } else {
            format!("{out}, bridged, mtu {}", p.mtu)
        }
    }

    /// A tunnel's attributes.
    pub(super) fn tunnel_of(&self, number: u16) -> Option<Tunnel> {
        self.t.current(TUNNELS, number.into())
    }

    /// An interface's attributes.
    pub(super) fn interface_of(&self, number: u16) -> Option<Interface> {
        self.t.current(INTERFACES, number.into())
    }

    /// A station that hasn't been forgotten.
    pub(super) fn station(&self, key: &Station) -> Option<StationAt> {
        self.t.look(STATIONS, key).filter(|at| at.fixed != 0 || at.expires > self.p.now)
    }

    /// Notes where a station is.
    pub(super) fn saw_station(&mut self, key: &Station, at: Option<&StationAt>) {
        let bridge = words::name(&self.t.names.bridges, key.link.id);
        let text = format!("{bridge} vlan {} {}", key.link.vlan, words::mac(key.mac));
        let Some(at) = at else { return self.saw(text, None, "unknown") };
        let entry = if at.fixed != 0 { self.station_entry(key) } else { words::learned("learned station") };
        let port = match self.port_of(at.port) {
            Some(_) => self.port_name(at.port),
            None => format!("{}, beyond the table's end", at.port),
        };
        let tunnel = match at.tunnel {
            0 => String::new(),
            number => format!(", tunnel {}", words::name(&self.t.names.tunnels, number)),
        };
        self.saw(text, entry, format!("port {port}{tunnel}"));
    }

    fn station_entry(&self, key: &Station) -> Option<TraceEntry> {
        let bridge = self.t.names.bridges.live(key.link.id.into()).cloned();
        let vlan = VlanId::new(key.link.vlan).ok();
        let key = bridge
            .zip(vlan)
            .map(|(bridge, vlan)| EntityKey::Fdb(FdbKey { bridge, vlan, mac: words::mac(key.mac) }));
        words::entity(key, || "fdb of no bridge".to_owned())
    }

    fn bridged(&mut self, ingress: &Port) -> Step {
        let Some(config) = self.t.current(BRIDGES, self.p.bridge.into()) else {
            let entry = words::learned(format!("bridge {}, beyond the table's end", self.p.bridge));
            return Err(self.refuse(self.summary(), entry, drop::WRONG_MAC));
        };
        let [a, b, c, d, e, f] = self.p.dmac;
        if [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && f < 16 {
            return Err(drop::RESERVED_MULTICAST);
        }
        if self.p.family == 0 && self.p.kind != l4::ARP && config.flags & bridge::ANY_ETHERTYPE == 0 {
            return Err(unclaimed(ingress, drop::UNSUPPORTED_L2));
        }
        let flood = |bit: u32| if config.flags & bit != 0 { punt::MULTICAST } else { drop::FDB_MISS };
        if self.p.dmac == [0xff; 6] {
            return Err(flood(bridge::FLOOD_BROADCAST));
        }
        if a & 1 != 0 {
            return Err(flood(bridge::FLOOD_MULTICAST));
        }
        let link = Link { id: self.p.bridge, vlan: self.p.vlan };
        let key = Station { link, mac: self.p.dmac, reserved: 0 };
        let found = self.station(&key);
        self.saw_station(&key, found.as_ref());
        let Some(at) = found else { return Err(flood(bridge::FLOOD_UNKNOWN)) };
        let Some(egress) = self.port_of(at.port) else { return Err(flood(bridge::FLOOD_UNKNOWN)) };
        let split = ingress.flags & egress.flags & port::SPLIT != 0 && ingress.split == egress.split;
        if at.port == self.p.port || split {
            return Err(drop::SPLIT_HORIZON);
        }
        let p = &mut self.p;
        p.ages |= u8::from(at.fixed == 0);
        (p.new_dmac, p.new_smac) = (p.dmac, p.smac);
        if at.tunnel != 0 {
            p.way = way::TUNNEL;
            p.out_tunnel = at.tunnel;
            p.mtu = u16::MAX;
        } else {
            p.way = way::PORT;
            p.out_port = at.port;
            p.subject = at.port;
            p.mtu = if egress.flags & port::EXISTS == 0 { u16::MAX } else { egress.mtu };
        }
        Ok(())
    }

    fn routed(&mut self, ingress: &Port) -> Step {
        if self.p.vrf == 0 {
            return Err(drop::NO_ROUTE);
        }
        self.local()?;
        let family = self.p.family;
        if is_group(family, &self.p.new_dst) {
            return Err(unclaimed(ingress, drop::NO_ROUTE));
        }
        if is_link_local(family, &self.p.new_dst) || is_link_local(family, &self.p.new_src) {
            return Err(drop::LINK_LOCAL_ROUTED);
        }
        self.p.routed = 1;
        let known = matches!(self.p.tracking, tracking::ESTABLISHED | tracking::RELATED);
        let reply = self.p.flags & flag::REPLY != 0;
        if known && reply && self.back() {
            return Ok(());
        }
        let tuple = match self.route_tuple(reply) {
            Some(tuple) => tuple,
            None => {
                self.p.way = way::IPIP;
                return Ok(());
            }
        };
        let mut found = Resolved::default();
        self.resolve(self.p.vrf, &tuple, &mut found)?;
        if found.port != 0 || found.tunnel != 0 {
            self.take(&found);
            return Ok(());
        }
        if self.p.translation == translation::DSR_L2 && self.p.dsr_target != Addr::ZERO {
            return Err(drop::NO_ROUTE);
        }
        let punts = ingress.flags & port::PUNT != 0;
        Err(if punts { punt::NOT_OURS_UNCLAIMED } else { self.answered(drop::NO_ROUTE) })
    }

    /// What a route is looked up for; `None`: IP in IP goes to the endpoint itself.
    fn route_tuple(&self, reply: bool) -> Option<Tuple> {
        let p = &self.p;
        let (mut dst, mut family) = (p.new_dst, p.family);
        if p.dsr_target != Addr::ZERO && !reply {
            if p.translation == translation::DSR_IPIP {
                return None;
            }
            dst = p.dsr_target;
            family = p.outer_family_or(p.family);
        }
        // A way is chosen by the source as it came, and by ports only of what is whole.
        let whole = p.flags & flag::FRAGMENT == 0;
        let icmp = p.protocol == 1 || p.protocol == 58;
        let dport = if icmp { p.dport } else { p.new_dport };
        let (sport, dport) = if whole { (p.sport, dport) } else { (0, 0) };
        Some(Tuple { family, src: p.src, dst, protocol: p.protocol, sport, dport })
    }

    /// Whether the packet is for an address of an interface that leaves such packets to the host.
    pub(super) fn is_hosts(&self) -> bool {
        let key = VrfAddr { vrf: self.p.vrf.into(), family: self.p.family.into(), addr: self.p.dst };
        let own = self.t.look(LOCAL_ADDRS, &key).and_then(|number| self.t.current(INTERFACES, number));
        own.is_some_and(|own| own.flags & interface::PUNT != 0)
    }

    /// Packets for an address of our own.
    fn local(&mut self) -> Step {
        let p = &self.p;
        let key = VrfAddr { vrf: p.vrf.into(), family: p.family.into(), addr: p.new_dst };
        let Some(number) = self.t.look(LOCAL_ADDRS, &key) else { return Ok(()) };
        let text = format!("local address {}", words::ip(p.family, p.new_dst));
        let named = self.t.names.interfaces.live(number).cloned().map(EntityKey::Interface);
        let entry = words::entity(named, || format!("interface {}", words::nameless(number)));
        let Some(own) = self.t.current(INTERFACES, number) else {
            self.saw(text, entry, "an interface beyond the table's end");
            return Ok(());
        };
        if own.flags & interface::PUNT != 0 {
            return Err(self.refuse(text, entry, punt::NOT_OURS_LOCAL));
        }
        self.saw(text, entry, "ours to answer");
        self.refused = true;
        let echo = is_echo(self.p.kind, self.p.detail);
        if echo && self.p.flags & flag::FRAGMENT == 0 {
            return Err(punt::ICMP_TO_BUILD);
        }
        let tcp = self.p.kind == l4::TCP;
        Err(if tcp { punt::ICMP_TO_BUILD } else { self.answered(drop::NO_SERVICE) })
    }

    /// A reply leaves where its flow's first packet came in. Whether it does.
    fn back(&mut self) -> bool {
        let (family, place) = (self.p.family, self.p.place);
        let found = self.entry(family, place).and_then(|entry| self.cold_of(family, entry.word, place));
        let Some((cold, original)) = found else { return false };
        let number = cold.in_port;
        let Some(egress) = self.port_of(number).filter(|port| port.flags & port::EXISTS != 0) else {
            let entry = words::learned(format!("flow {}", self.flow_name(family, original)));
            let effect = format!("its port {} is none any more", self.port_name(number));
            self.saw("reply".to_owned(), entry, effect);
            return false;
        };
        if egress.kind == kind::TUNNEL {
            let there = cold.in_tunnel != 0
                && self.tunnel_of(cold.in_tunnel).is_some_and(|tunnel| tunnel.exists != 0);
            if !there {
                return false;
            }
            self.p.way = way::TUNNEL;
            self.p.out_tunnel = cold.in_tunnel;
            self.p.mtu = u16::MAX;
        } else if egress.flags & port::TRUNK != 0 {
            return false;
        } else {
            self.back_by_port(&egress, number, cold.in_mac);
        }
        let entry = words::learned(format!("flow {}", self.flow_name(family, original)));
        let effect = format!("back by port {}", self.port_name(number));
        self.saw("reply".to_owned(), entry, effect);
        true
    }

    fn back_by_port(&mut self, egress: &Port, number: u16, mac: [u8; 6]) {
        let own = egress.interface;
        let interface = self.interface_of(own).filter(|_| own != 0);
        let p = &mut self.p;
        p.way = way::PORT;
        p.out_port = number;
        p.subject = number;
        (p.out_interface, p.egress) = (own, own);
        p.new_dmac = mac;
        (p.new_smac, p.mtu) = (egress.mac, egress.mtu);
        if let Some(interface) = interface {
            p.new_smac = interface.mac;
            p.mtu = interface.mtu.min(egress.mtu);
        }
    }
}

fn is_echo(kind: u8, detail: u8) -> bool {
    kind == l4::REQUEST && (detail == 8 || detail == 128)
}

//! ARP and neighbour discovery, inside stage 10.

use super::frame::{ETH, ethertype, fold, is_unicast, sum};
use super::send::tagged;
use super::{Step, UNTAGGED, Walk, words};
use crate::sys::{BRIDGES, INTERFACES, LINK_ADDRS, NEIGHBORS, PORT_VLANS, PROXIES};
use loxi_core::ir::{EntityKey, NeighborKey as NeighborName};
use loxi_core::packet::{Output, Stage, TraceEntry};
use loxi_ebpf_layout::code::{consumed, drop, program, punt};
use loxi_ebpf_layout::l2::{Link, LinkAddr, PortVlan, bridge, carried, kind, port};
use loxi_ebpf_layout::l3::{NeighborKey, interface, neighbor};
use loxi_ebpf_layout::limits::ND_OPTIONS;
use loxi_ebpf_layout::scratch::l4;
use loxi_ebpf_layout::{Addr, family};

/// Length of an advertisement with its option.
const ADVERT: u32 = 32;

/// Who has an address that was asked for.
struct Told {
    target: Addr,
    asker: Addr,
    mac: [u8; 6],
    /// It is our own address, not one that we answer for.
    own: bool,
}

impl Walk<'_> {
    /// What a link's stations say about their addresses. Passes what is not for us.
    pub(super) fn neighbor(&mut self) -> Step<u32> {
        self.meet(Stage::Forward);
        let Some(told) = self.heard_or_asked()? else { return Ok(program::FORWARD) };
        let fate = if self.p.kind == l4::ARP { consumed::ARP_REPLY } else { consumed::ND_ADVERT };
        // Nothing leaves by a tunnel port, nor by one that is closed.
        let egress = if self.p.ended == 0 { self.open(self.p.port) } else { None };
        if let Some(egress) = egress {
            let frame = if self.p.kind == l4::ARP { self.arp_reply(&told) } else { self.advert(&told) };
            let mut tag = UNTAGGED;
            if egress.flags & port::TRUNK != 0 {
                let key = PortVlan { port: self.p.port, vlan: self.p.vlan };
                if self.t.look(PORT_VLANS, &key).unwrap_or(0) & carried::NATIVE == 0 {
                    tag = if self.p.tag == UNTAGGED { 0 } else { self.p.tag & 0xe000 } | self.p.vlan;
                }
            }
            if let Some(name) = self.t.names.ports.live(self.p.port.into()) {
                self.outputs.push(Output { port: name.clone(), bytes: tagged(&frame, tag) });
            }
        }
        self.refused = true;
        Err(fate)
    }

    fn heard_or_asked(&mut self) -> Step<Option<Told>> {
        let Some(ingress) = self.port_of(self.p.port) else { return Err(drop::PORT_DOWN) };
        if self.p.kind == l4::ARP {
            let Some(mac) = self.bytes(usize::from(self.p.l3) + 8) else { return Err(drop::TRUNCATED) };
            let is_answer = self.p.detail == 2;
            let (sender, target) = (self.p.src, self.p.dst);
            self.heard(family::V4, &target, &sender, mac, is_answer)?;
            return if is_answer { Ok(None) } else { self.asked(family::V4, target, sender) };
        }
        if self.p.detail == 133 && ingress.kind == kind::POD {
            return Err(drop::ROUTER_SOLICITATION);
        }
        if self.p.detail != 135 && self.p.detail != 136 {
            return Ok(None);
        }
        let at = usize::from(self.p.l4);
        let end = usize::from(self.p.l3) + self.p.ip_len as usize;
        let Some(target) = self.addr6(at + 8).filter(|_| at + 24 <= end) else { return Ok(None) };
        let (src, dst, mac) = (self.p.src, self.p.dst, self.p.smac);
        if self.p.detail == 135 {
            if src != Addr::ZERO {
                self.heard(family::V6, &target, &src, mac, false)?;
            }
            return self.asked(family::V6, target, src);
        }
        let mac = self.target_mac(at + 24)?.unwrap_or(mac);
        self.heard(family::V6, &dst, &target, mac, true)?;
        Ok(None)
    }

    /// The target link-layer address option of an advertisement, if it has one.
    fn target_mac(&self, first: usize) -> Step<Option<[u8; 6]>> {
        let end = self.p.end as usize;
        let mut option = first;
        for _ in 0..ND_OPTIONS {
            if option + 1 >= end {
                return Ok(None);
            }
            let Some([kind, units]) = self.bytes::<2>(option) else { return Err(punt::PARSE) };
            let length = usize::from(units) * 8;
            if length == 0 || option + length > end {
                return Ok(None);
            }
            if kind == 2 {
                return Ok(self.bytes(option + 2));
            }
            option += length;
        }
        Err(punt::PARSE)
    }

    fn link(&self) -> Link {
        let p = &self.p;
        if p.bridge != 0 { Link { id: p.bridge, vlan: p.vlan } } else { Link { id: p.port, vlan: 0 } }
    }

    fn interface_entry(&self, number: u32) -> Option<TraceEntry> {
        let key = self.t.names.interfaces.live(number).cloned().map(EntityKey::Interface);
        words::entity(key, || format!("interface {}", words::nameless(number)))
    }

    /// A station has told its address, to one of ours.
    fn heard(&mut self, family: u8, ours: &Addr, sender: &Addr, mac: [u8; 6], is_answer: bool) -> Step {
        let key = LinkAddr { link: self.link(), family: family.into(), addr: *ours };
        let Some(number) = self.t.look(LINK_ADDRS, &key) else { return Ok(()) };
        let key = NeighborKey { interface: number, family: family.into(), addr: *sender };
        let known = self.t.look(NEIGHBORS, &key);
        let fixed = known.is_some_and(|known| known.state == neighbor::FIXED);
        let usable = is_unicast(mac) && *sender != Addr::ZERO && sender != ours;
        let text = format!("{} is at {}", words::ip(family, *sender), words::mac(mac));
        // An answer that nobody asked for teaches nothing (RFC 4861 section 7.2.5).
        if usable && !fixed && (known.is_some() || !is_answer) {
            let interface = words::name(&self.t.names.interfaces, number);
            let effect = format!("learned neighbor {interface} {}", words::ip(family, *sender));
            self.saw(text.clone(), self.interface_entry(number), effect);
        }
        if !is_answer {
            return Ok(());
        }
        let own = self.t.current(INTERFACES, u32::from(number as u16));
        let punts = own.is_some_and(|own| own.flags & interface::PUNT != 0);
        let fate = if punts { punt::NOT_OURS_LOCAL } else { consumed::NEIGHBOR_LEARNED };
        let entry = self.interface_entry(number);
        Err(self.refuse(text, entry, fate))
    }

    /// A station asks who has an address.
    fn asked(&mut self, family: u8, target: Addr, asker: Addr) -> Step<Option<Told>> {
        let key = LinkAddr { link: self.link(), family: family.into(), addr: target };
        let text = format!("who has {}", words::ip(family, target));
        if let Some(number) = self.t.look(LINK_ADDRS, &key) {
            let entry = self.interface_entry(number);
            let Some(own) = self.t.current(INTERFACES, u32::from(number as u16)) else {
                self.saw(text, entry, "an interface beyond the table's end");
                return Ok(None);
            };
            if own.flags & interface::PUNT != 0 {
                return Err(self.refuse(text, entry, punt::NOT_OURS_LOCAL));
            }
            self.saw(text, entry, "ours to answer");
            return Ok(Some(Told { target, asker, mac: own.mac, own: true }));
        }
        let bridge = self.t.current(BRIDGES, self.p.bridge.into());
        if self.p.bridge == 0 || bridge.is_none_or(|bridge| bridge.flags & bridge::PROXY == 0) {
            return Ok(None);
        }
        let Some(number) = self.t.look(PROXIES, &key) else { return Ok(None) };
        let key = NeighborKey { interface: number, family: family.into(), addr: target };
        // Its own station asks whether anybody else has the address.
        let known = self.t.look(NEIGHBORS, &key);
        let Some(known) = known.filter(|known| known.state == neighbor::FIXED && known.mac != self.p.smac)
        else {
            return Ok(None);
        };
        let interface = self.t.names.interfaces.live(number).cloned();
        let address = words::ip(family, target);
        let key = interface.map(|interface| EntityKey::Neighbor(NeighborName { interface, address }));
        let entry = words::entity(key, || format!("neighbor of interface {}", words::nameless(number)));
        self.saw(text, entry, format!("{} has it", words::mac(known.mac)));
        Ok(Some(Told { target, asker, mac: known.mac, own: false }))
    }

    fn arp_reply(&self, told: &Told) -> Vec<u8> {
        let ([o0, o1, o2, o3, ..], [a0, a1, a2, a3, ..]) = (told.target.octets(), told.asker.octets());
        let (mac, asker) = (told.mac, self.p.smac);
        let head = self.bytes::<6>(usize::from(self.p.l3)).unwrap_or([0; 6]);
        [
            &asker[..],
            &mac[..],
            &ethertype::ARP.to_ne_bytes()[..],
            &head[..],
            &[0, 2][..],
            &mac[..],
            &[o0, o1, o2, o3][..],
            &asker[..],
            &[a0, a1, a2, a3][..],
        ]
        .concat()
    }

    fn advert(&self, told: &Told) -> Vec<u8> {
        let dad = told.asker == Addr::ZERO;
        // DAD is answered to all nodes, unsolicited (RFC 4861 section 7.2.4).
        let (dst, dmac) = if dad {
            (Addr([0xff02_0000u32.to_be(), 0, 0, 1u32.to_be()]), [0x33, 0x33, 0, 0, 0, 1])
        } else {
            (told.asker, self.p.smac)
        };
        let flags = (u32::from(told.own) << 31 | u32::from(!dad) << 30 | u32::from(told.own) << 29).to_be();
        let m = told.mac;
        let option = [u32::from_ne_bytes([2, 1, m[0], m[1]]), u32::from_ne_bytes([m[2], m[3], m[4], m[5]])];
        let head = u32::from_ne_bytes([136, 0, 0, 0]);
        let total = sum(&[head, flags, ADVERT.to_be(), 58u32.to_be()])
            + sum(&option)
            + 2 * sum(&told.target.0)
            + sum(&dst.0);
        let head = head | u32::from(!fold(total)) << 16;
        let ip = [0x6000_0000u32.to_be(), (ADVERT << 16 | 58 << 8 | 255).to_be()];
        let words = [&ip[..], &told.target.0, &dst.0, &[head, flags], &told.target.0, &option].concat();
        let mut frame = Vec::with_capacity(ETH + 40 + ADVERT as usize);
        frame.extend_from_slice(&dmac);
        frame.extend_from_slice(&m);
        frame.extend_from_slice(&ethertype::IPV6.to_ne_bytes());
        frame.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        frame
    }
}

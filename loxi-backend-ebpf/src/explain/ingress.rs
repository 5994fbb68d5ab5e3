//! Stages 1, 3 and 4: the port and its VLANs; the source guard and tunnels' ends are next door.

use super::{Step, UNTAGGED, Walk, unclaimed, words};
use crate::sys::{ADMITS, INTERFACES, LINKS, PORT_VLANS};
use loxi_core::packet::Stage;
use loxi_ebpf_layout::code::{drop, program};
use loxi_ebpf_layout::l2::{Link, Port, PortVlan, Station, port};
use loxi_ebpf_layout::scratch::{flag, l4};

impl Walk<'_> {
    /// The stages of ingress; an inner packet passes here again.
    pub(super) fn ingress(&mut self) -> Step<u32> {
        self.meet(Stage::Port);
        let Some(port) = self.port_of(self.p.port) else {
            let key = self.port_name(self.p.port);
            return Err(self.refuse(key, words::learned("no such place"), drop::PORT_DOWN));
        };
        if port.flags & port::UP == 0 {
            let (key, entry) = (self.port_name(self.p.port), self.port_entry(self.p.port));
            return Err(self.refuse(key, entry, drop::PORT_DOWN));
        }
        self.attach(&port)?;
        let key = format!("{} {}", self.port_name(self.p.port), self.summary());
        let to_us = if self.p.flags & flag::TO_US != 0 { "for our MAC" } else { "for another station" };
        let vrf =
            if self.p.vrf == 0 { String::new() } else { format!(", vrf {}", self.vrf_name(self.p.vrf)) };
        let zone = if self.p.zone == 0 { String::new() } else { format!(", zone {}", self.zone_name()) };
        self.saw(key, self.port_entry(self.p.port), format!("{to_us}{vrf}{zone}"));
        if port.flags & port::GUARDED != 0 {
            self.meet(Stage::AntiSpoof);
            let key = format!("{} {}", words::mac(self.p.smac), self.summary());
            let entry = self.port_entry(self.p.port);
            match self.guard(&port) {
                Ok(()) => self.saw(key, entry, "pass"),
                Err(fate) => return Err(self.refuse(key, entry, fate)),
            }
        }
        let p = &self.p;
        let ends = port.flags & port::UNDERLAY != 0 && p.flags & flag::TO_US != 0 && p.family != 0;
        if ends && p.vrf != 0 && self.terminate()? {
            return Ok(self.fast_inner().unwrap_or(program::INGRESS));
        }
        Ok(if self.p.family != 0 {
            program::CONNTRACK
        } else if self.p.kind == l4::ARP {
            program::NEIGHBOR
        } else {
            program::FORWARD
        })
    }

    /// Stage 1: what the frame enters.
    fn attach(&mut self, port: &Port) -> Step {
        let vid = self.p.tag & 0x0fff;
        let tagged = self.p.tag != UNTAGGED && vid != 0;
        if port.flags & port::BRIDGED != 0 {
            let vlan = self.vlan_of(port, vid, tagged)?;
            let link = Link { id: port.bridge, vlan };
            self.p.vlan = vlan;
            self.p.bridge = port.bridge;
            self.p.zone = port.zone;
            let admitted = self.t.look(ADMITS, &Station { link, mac: self.p.dmac, reserved: 0 });
            if admitted.is_some() {
                self.p.flags |= flag::TO_US;
            }
            self.p.interface = admitted.or_else(|| self.t.look(LINKS, &link)).unwrap_or(0) as u16;
            let interface = self.t.current(INTERFACES, self.p.interface.into());
            self.p.vrf = interface.filter(|_| self.p.interface != 0).map_or(0, |interface| interface.vrf);
            return Ok(());
        }
        if port.flags & port::ROUTED == 0 {
            return Err(unclaimed(port, drop::UNCLAIMED));
        }
        // A routed port carries no VLANs.
        if tagged {
            return Err(unclaimed(port, drop::VLAN_FILTERED));
        }
        let link = Link { id: self.p.port, vlan: 0 };
        self.p.interface = match self.t.look(ADMITS, &Station { link, mac: self.p.dmac, reserved: 0 }) {
            Some(interface) => {
                self.p.flags |= flag::TO_US;
                interface as u16
            }
            None => port.interface,
        };
        if self.p.dmac == port.mac {
            self.p.flags |= flag::TO_US;
        }
        (self.p.zone, self.p.vrf) = (port.zone, port.vrf);
        Ok(())
    }

    /// The VLAN of a frame that enters a bridge.
    fn vlan_of(&mut self, port: &Port, vid: u16, tagged: bool) -> Step<u16> {
        if port.flags & port::TRUNK == 0 {
            return if tagged { Err(drop::VLAN_FILTERED) } else { Ok(port.vlan) };
        }
        if tagged {
            let key = PortVlan { port: self.p.port, vlan: vid };
            let allowed = self.t.look(PORT_VLANS, &key).unwrap_or(0);
            return if allowed & 1 == 0 { Err(drop::VLAN_FILTERED) } else { Ok(vid) };
        }
        if port.flags & port::NATIVE != 0 { Ok(port.vlan) } else { Err(drop::VLAN_FILTERED) }
    }
}

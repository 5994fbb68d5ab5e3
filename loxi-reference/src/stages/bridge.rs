//! Bridging: learning, and where a frame goes in its VLAN (IEEE 802.1Q section 8).
//!
//! A source is learned after the frame was admitted, never from static
//! entries' stations, and not at all while the bridge has as many addresses
//! as it may. Frames never leave by the port or the split-horizon group that
//! they came by. Frames for 01:80:c2:00:00:00-0f are never forwarded.

use super::egress::{CopyTo, Way, WayOut};
use super::ingress::Packet;
use super::lookup::Station;
use super::{Run, Step, drop, entity, learned, step};
use loxi_core::ir::{Bridge, EntityKey, Fdb, FdbKey, Flooding, Port, Tunnel};
use loxi_core::net::{BridgeName, PortName, VlanId};
use loxi_core::packet::{FdbEntry, TraceEntry};
use loxi_core::reason::DropReason;

impl Run<'_> {
    pub(super) fn learn(&mut self, packet: &Packet) {
        let Some(bridge) = packet.bridge.as_ref().and_then(|name| self.config.get::<Bridge>(name)).cloned()
        else {
            return;
        };
        let learns = bridge.learning && packet.port.bridge().is_some_and(|member| member.learning);
        let key = FdbKey { bridge: bridge.name.clone(), vlan: packet.vlan, mac: packet.view.src };
        if !learns || self.config.get::<Fdb>(&key).is_some() {
            return;
        }
        let expires = self.now.plus_s(bridge.ageing_s);
        let entry = FdbEntry {
            key: key.clone(),
            port: packet.port.name.clone(),
            tunnel: packet.tunnel.clone(),
            expires,
        };
        let known = self.state.station(&key).is_some();
        if !known && self.state.stations(&bridge.name, self.now) >= u64::from(bridge.max_macs) {
            step!(self, Forward, None, ("learn {key}"), ("not learned: fdb_limit"));
            return;
        }
        self.state.put_station(entry);
    }

    /// The way of a frame within its bridge.
    pub(super) fn bridge_way(&mut self, packet: &Packet) -> Step<Way> {
        let Some(bridge) = packet.bridge.as_ref().and_then(|name| self.config.get::<Bridge>(name)).cloned()
        else {
            return drop(DropReason::WrongMac);
        };
        let octets = packet.view.dst.octets();
        if octets[..5] == [0x01, 0x80, 0xc2, 0, 0] && octets[5] < 16 {
            return drop(DropReason::ReservedMulticast);
        }
        if Self::is_foreign(packet) && !bridge.any_ethertype {
            return self.unclaimed(packet, DropReason::UnsupportedL2);
        }
        let dst = packet.view.dst;
        if dst.is_group() {
            let mode = if dst.is_broadcast() { bridge.broadcast } else { bridge.multicast };
            return self.flood_way(packet, &bridge, mode);
        }
        let key = FdbKey { bridge: bridge.name.clone(), vlan: packet.vlan, mac: dst };
        let Some(station) = self.station(&key) else {
            step!(
                self,
                Forward,
                None,
                ("{key}"),
                (
                    "{}",
                    if bridge.unknown_unicast == Flooding::Flood {
                        "unknown: flood"
                    } else {
                        "unknown: drop"
                    }
                )
            );
            return self.flood_way(packet, &bridge, bridge.unknown_unicast);
        };
        step!(self, Forward, self.fdb_entry(&station, &key), ("{key}"), ("port {}", station.port));
        if station.port == packet.port.name || self.split(packet, &station.port) {
            return drop(DropReason::SplitHorizon);
        }
        match station.tunnel.and_then(|name| self.config.get::<Tunnel>(&name).cloned()) {
            Some(tunnel) => self.tunnel_way(tunnel, false),
            None => {
                let mtu = self.config.get::<Port>(&station.port).map_or(u16::MAX, |port| port.mtu.get());
                Ok(Way { out: WayOut::Port(station.port), macs: None, mtu, interface: None })
            }
        }
    }

    /// The entry that told where a station is.
    pub(super) fn fdb_entry(&self, station: &Station, key: &FdbKey) -> Option<TraceEntry> {
        if !station.fixed {
            return learned("learned fdb");
        }
        let origin = self.config.get::<Fdb>(key).map(|fdb| fdb.origin.clone()).unwrap_or_default();
        entity(EntityKey::Fdb(key.clone()), &origin)
    }

    fn flood_way(&mut self, packet: &Packet, bridge: &Bridge, mode: Flooding) -> Step<Way> {
        if mode == Flooding::Drop {
            return drop(DropReason::FdbMiss);
        }
        let copies = self.copies(&bridge.name, packet.vlan, Some(packet));
        step!(
            self,
            Forward,
            entity(EntityKey::Bridge(bridge.name.clone()), &bridge.origin),
            ("{} vlan {} {}", bridge.name, packet.vlan, packet.view.dst),
            ("flood to {} member(s)", copies.len())
        );
        if copies.is_empty() {
            return drop(DropReason::FdbMiss);
        }
        // The MTU of each copy's port is looked at when it is sent.
        Ok(Way { out: WayOut::Flood(copies), macs: None, mtu: u16::MAX, interface: None })
    }

    /// Where a routed packet goes whose next hop's bridge port isn't known.
    pub(super) fn flood_unknown(&mut self, bridge: &BridgeName, vlan: VlanId) -> Step<Vec<CopyTo>> {
        let mode = self.config.get::<Bridge>(bridge).map_or(Flooding::Drop, |bridge| bridge.unknown_unicast);
        let copies = self.copies(bridge, vlan, None);
        if mode == Flooding::Drop || copies.is_empty() { drop(DropReason::FdbMiss) } else { Ok(copies) }
    }

    fn copies(&self, bridge: &BridgeName, vlan: VlanId, from: Option<&Packet>) -> Vec<CopyTo> {
        let admits = |port: &PortName| {
            from.is_none_or(|packet| *port != packet.port.name && !self.split(packet, port))
        };
        let ports =
            self.members(bridge, vlan).filter(|port| self.is_device(&port.name) && admits(&port.name));
        let mut copies: Vec<CopyTo> = ports.map(|port| CopyTo::Port(port.name.clone())).collect();
        let tunnels = self.config.get::<Bridge>(bridge).map(|bridge| bridge.flood_tunnels.clone());
        for tunnel in tunnels.iter().flatten().filter_map(|name| self.config.get::<Tunnel>(name)) {
            if admits(&tunnel.port) {
                copies.push(CopyTo::Tunnel(Box::new(tunnel.clone())));
            }
        }
        copies
    }

    /// Whether ingress and egress are of one split-horizon group.
    fn split(&self, packet: &Packet, to: &PortName) -> bool {
        let group = packet.port.bridge().and_then(|member| member.split_horizon);
        let other = self
            .config
            .get::<Port>(to)
            .and_then(|port| port.bridge())
            .and_then(|member| member.split_horizon);
        group.is_some() && group == other
    }
}

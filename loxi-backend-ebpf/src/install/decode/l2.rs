//! Bridges, ports, stations, and what stands on links.

use super::{Reader, ip_of, mac, optional};
use crate::plan::{BridgeRow, PortRow, Row, RowKey, SetRef};
use crate::sys::{
    ADMITS, BRIDGES, GUARD_MACS, KernelError, LINK_ADDRS, LINKS, PORT_VLANS, PORTS, PROXIES, STATIONS, Table,
    bytes,
};
use loxi_core::ir::FdbKey;
use loxi_core::net::VlanId;
use loxi_ebpf_layout::l2::{LinkAddr, Port, Station, bridge, port};

impl Reader<'_> {
    pub(super) fn l2(&mut self) -> Result<(), KernelError> {
        let (kernel, names) = (self.kernel, self.names);
        for number in 1..kernel.length(BRIDGES) {
            let value = *kernel.at(BRIDGES, number).current();
            if value.flags & bridge::EXISTS == 0 {
                continue;
            }
            let row = names.bridges.live(number).and_then(|name| {
                let row = BridgeRow {
                    flags: value.flags,
                    zone: optional(&names.zones, value.zone)?,
                    ageing_s: u32::try_from(value.ageing / 1_000_000_000).ok()?,
                    max_stations: u32::try_from(value.max_stations).ok()?,
                };
                Some((RowKey::Bridge(name.clone()), Row::Bridge(row)))
            });
            self.note(Table::Bridges, bytes(&number), row);
        }
        for number in 1..kernel.length(PORTS) {
            let value = *kernel.at(PORTS, number).pair.current();
            if value.flags & port::EXISTS != 0 {
                let row = self.port_row(number, &value);
                self.note(Table::Ports, bytes(&number), row);
            }
        }
        self.on_links()?;
        self.of_ports()
    }

    fn port_row(&self, number: u32, value: &Port) -> Option<(RowKey, Row)> {
        let names = self.names;
        let name = names.ports.live(number)?.clone();
        let guarded = value.flags & port::GUARDED != 0;
        if guarded && names.sets.live(value.guard) != Some(&SetRef::Guard(name.clone())) {
            return None;
        }
        let row = PortRow {
            mac: mac(value.mac),
            kind: value.kind,
            flags: value.flags & !port::OPEN,
            vlan: value.vlan,
            mtu: value.mtu,
            zone: optional(&names.zones, value.zone.into())?,
            bridge: optional(&names.bridges, value.bridge.into())?,
            vrf: optional(&names.vrfs, value.vrf.into())?,
            interface: optional(&names.interfaces, value.interface.into())?,
            gateway: mac(value.gateway),
            split: (value.flags & port::SPLIT != 0).then_some(value.split),
        };
        Some((RowKey::Port(name), Row::Port(row)))
    }

    fn on_links(&mut self) -> Result<(), KernelError> {
        let (kernel, names) = (self.kernel, self.names);
        let interface = |number: u32| names.interfaces.live(number).cloned().map(Row::Is);
        for (key, number) in kernel.all(LINKS)? {
            let row = self.link(key).zip(interface(number)).map(|(on, is)| (RowKey::FirstOn(on), is));
            self.note(Table::Links, bytes(&key), row);
        }
        for (key, number) in kernel.all(ADMITS)? {
            let row = self.link(key.link).zip(interface(number));
            let row = row.map(|(on, is)| (RowKey::Admit(on, mac(key.mac)), is));
            self.note(Table::Admits, bytes(&key), row);
        }
        for (table, typed) in [(Table::LinkAddrs, LINK_ADDRS), (Table::Proxies, PROXIES)] {
            for (key, number) in kernel.all(typed)? {
                let named = |key: &LinkAddr| Some((self.link(key.link)?, ip_of(key.family, key.addr)?));
                let row = named(&key).zip(interface(number)).map(|((on, addr), is)| {
                    let key = match table {
                        Table::Proxies => RowKey::Proxy(on, addr),
                        _ => RowKey::LinkAddr(on, addr),
                    };
                    (key, is)
                });
                self.note(table, bytes(&key), row);
            }
        }
        for (key, value) in kernel.all(STATIONS)? {
            if value.fixed == 0 {
                continue;
            }
            let row = self.fdb_key(&key).and_then(|key| {
                let tunnel = optional(&names.tunnels, value.tunnel.into())?;
                Some((RowKey::Station(key), Row::At(self.port(value.port)?, tunnel)))
            });
            self.note(Table::Stations, bytes(&key), row);
        }
        Ok(())
    }

    fn fdb_key(&self, key: &Station) -> Option<FdbKey> {
        let bridge = self.names.bridges.live(key.link.id.into())?.clone();
        Some(FdbKey { bridge, vlan: VlanId::new(key.link.vlan).ok()?, mac: mac(key.mac) })
    }

    fn of_ports(&mut self) -> Result<(), KernelError> {
        for (key, flags) in self.kernel.all(PORT_VLANS)? {
            let row = self.port(key.port).map(|port| (RowKey::PortVlan(port, key.vlan), Row::Flags(flags)));
            self.note(Table::PortVlans, bytes(&key), row);
        }
        for (key, _) in self.kernel.all(GUARD_MACS)? {
            let row = match self.names.sets.live(key.set) {
                Some(SetRef::Guard(port)) => {
                    Some((RowKey::PortMac(port.clone(), mac(key.mac)), Row::Present))
                }
                _ => None,
            };
            self.note(Table::GuardMacs, bytes(&key), row);
        }
        Ok(())
    }
}

//! Tunnels, where they end, and what leads back.

use super::{Reader, ip_of, mac};
use crate::install::encode::tunnel::{encap_of, overhead, vni_of};
use crate::plan::{Encap, EndRow, Row, RowKey, SetRef, TunnelRow};
use crate::sys::{BACKS, BARE_UDP, ENDINGS, ENDPOINTS, KernelError, OUTERS, TUNNELS, Table, bytes};
use loxi_core::net::L4Ports;
use loxi_ebpf_layout::tunnel::{ANY_KEY, EndKey, Ending, Tunnel, kind};

fn encap(of: u8, port: u16) -> Option<Encap> {
    match of {
        kind::VXLAN => Some(Encap::Vxlan(u16::from_be(port))),
        kind::IPIP if port == 0 => Some(Encap::Ipip),
        _ => None,
    }
}

fn vni(word: u32) -> u32 {
    u32::from_be(word) >> 8
}

impl Reader<'_> {
    pub(super) fn tunnels(&mut self) -> Result<(), KernelError> {
        let (kernel, names) = (self.kernel, self.names);
        for (key, number) in kernel.all(ENDPOINTS)? {
            let addr =
                ip_of(key.family, key.addr).filter(|addr| names.endpoints.number(addr) == Some(number));
            let row = addr.map(|addr| (RowKey::Endpoint(addr), Row::Present));
            self.note(Table::Endpoints, bytes(&key), row);
        }
        for number in 1..kernel.length(TUNNELS) {
            let value = *kernel.at(TUNNELS, number).current();
            if value.exists != 0 {
                let row = names.tunnels.live(number).cloned().zip(self.tunnel_row(&value));
                let row = row.map(|(name, row)| (RowKey::Tunnel(name), Row::Tunnel(row)));
                self.note(Table::Tunnels, bytes(&number), row);
            }
        }
        for (key, number) in kernel.all(BACKS)? {
            let row = self.port(key.port).and_then(|port| {
                let by = Row::By(names.tunnels.live(number)?.clone());
                Some((RowKey::Back(port, ip_of(key.family.into(), key.remote)?), by))
            });
            self.note(Table::Backs, bytes(&key), row);
        }
        for (key, number) in kernel.all(OUTERS)? {
            let row = names.vrfs.live(key.vrf.into()).cloned().and_then(|vrf| {
                let (local, remote) =
                    (ip_of(key.family.into(), key.local)?, ip_of(key.family.into(), key.remote)?);
                let by = Row::By(names.tunnels.live(number)?.clone());
                Some((RowKey::Outer(vrf, encap(key.kind, key.port)?, local, remote), by))
            });
            self.note(Table::Outers, bytes(&key), row);
        }
        for (key, _) in kernel.all(BARE_UDP)? {
            let port = u16::try_from(key).ok().map(u16::from_be);
            self.note(Table::BareUdp, bytes(&key), port.map(|port| (RowKey::BareUdp(port), Row::Present)));
        }
        for (key, value) in kernel.all(ENDINGS)? {
            let row = self.end_row(&key, &value);
            self.note(Table::Endings, bytes(&key), row);
        }
        Ok(())
    }

    fn tunnel_row(&self, value: &Tunnel) -> Option<TunnelRow> {
        let family = value.family.into();
        let (encap, remote) = (encap(value.kind, value.port)?, ip_of(family, value.remote)?);
        let row = TunnelRow {
            encap,
            vni: vni(value.vni),
            vrf: self.names.vrfs.live(value.vrf.into())?.clone(),
            local: ip_of(family, value.local)?,
            remote,
            port: self.port(value.in_port)?,
            mtu: value.mtu,
            inner_dst: mac(value.inner_dst),
            inner_src: mac(value.inner_src),
            flags: value.flags,
            ttl: value.ttl,
            tos: value.tos,
            source_ports: L4Ports::new(value.first, value.last).ok()?,
        };
        let same = self.names.endpoints.number(&remote) == Some(value.endpoint)
            && overhead(encap, remote) == value.overhead
            && vni_of(row.vni) == value.vni
            && encap_of(encap) == (value.kind, value.port);
        same.then_some(row)
    }

    fn end_row(&self, key: &EndKey, value: &Ending) -> Option<(RowKey, Row)> {
        let vrf = self.names.vrfs.live(key.vrf.into())?.clone();
        let dst = ip_of(key.family.into(), key.dst)?;
        let encap = encap(key.kind & !ANY_KEY, key.port)?;
        if key.kind & ANY_KEY != 0 {
            return Some((RowKey::EndAny(vrf, dst, encap), Row::Flags(value.exclusive.into())));
        }
        let Some(SetRef::Peers(name)) = self.names.sets.live(value.peers) else { return None };
        let row = EndRow { port: self.port(value.port)?, name: name.clone() };
        Some((RowKey::End(vrf, dst, encap, vni(key.vni)), Row::End(row)))
    }
}

//! Tunnels and terminations.

use super::source::OuterHeader;
use super::{Source, members};
use crate::plan::{Encap, EndRow, Row, RowKey, Rows, SetRef, TunnelRow};
use loxi_core::ir::{
    OuterDf, OuterDscp, OuterTtl, PipelineEntity, Port, TerminationKey, Tunnel, TunnelKind,
    TunnelTermination, UdpChecksum,
};
use loxi_core::net::{MacAddr, PortName, TerminationName, TunnelName, Vni, VrfName};
use loxi_ebpf_layout::tunnel::flag;
use std::net::IpAddr;

/// An encapsulation and its key.
pub(super) fn encap_of(kind: TunnelKind) -> (Encap, u32) {
    match kind {
        TunnelKind::Vxlan { vni, port } => (Encap::Vxlan(port), vni.get()),
        TunnelKind::Ipip => (Encap::Ipip, 0),
    }
}

pub(super) fn tunnel(source: &Source<'_>, name: &TunnelName, rows: &mut Rows) {
    let Some(config) = source.pipeline.get::<Tunnel>(name) else { return };
    let Some(port) = source.pipeline.get::<Port>(&config.port) else { return };
    let (encap, vni) = encap_of(config.kind);
    let flags = [
        (flag::TTL_INHERIT, config.ttl == OuterTtl::Inherit),
        (flag::DSCP_INHERIT, config.dscp == OuterDscp::Inherit),
        (flag::DF, config.df == OuterDf::Set),
        (flag::DF_INHERIT, config.df == OuterDf::Inherit),
        // IP in IP has no UDP header.
        (flag::CHECKSUM, config.udp_checksum == UdpChecksum::Computed && encap != Encap::Ipip),
    ];
    let row = TunnelRow {
        encap,
        vni,
        vrf: config.underlay_vrf.clone(),
        local: config.local,
        remote: config.remote,
        port: config.port.clone(),
        mtu: port.mtu.get(),
        inner_dst: config.inner_dst_mac.unwrap_or(MacAddr::ZERO),
        inner_src: port.mac,
        flags: flags.iter().filter(|(_, on)| *on).fold(0, |all, (bit, _)| all | bit),
        ttl: match config.ttl {
            OuterTtl::Fixed(ttl) => ttl,
            OuterTtl::Inherit => 0,
        },
        tos: match config.dscp {
            OuterDscp::Fixed(dscp) => dscp << 2,
            OuterDscp::Inherit => 0,
        },
        source_ports: config.source_ports,
    };
    rows.insert(RowKey::Tunnel(name.clone()), Row::Tunnel(row));
}

pub(super) fn endpoint(source: &Source<'_>, address: IpAddr, rows: &mut Rows) {
    if source.is_remote(address) {
        rows.insert(RowKey::Endpoint(address), Row::Present);
    }
}

pub(super) fn back(source: &Source<'_>, port: &PortName, remote: IpAddr, rows: &mut Rows) {
    if let Some(tunnel) = source.tunnel_back(port, remote) {
        rows.insert(RowKey::Back(port.clone(), remote), Row::By(tunnel.name.clone()));
    }
}

pub(super) fn outer(source: &Source<'_>, header: OuterHeader<'_>, rows: &mut Rows) {
    if let Some(tunnel) = source.tunnel_of(header) {
        let (vrf, encap, local, remote) = header;
        rows.insert(RowKey::Outer(vrf.clone(), encap, local, remote), Row::By(tunnel.name.clone()));
    }
}

pub(super) fn bare_udp(source: &Source<'_>, port: u16, rows: &mut Rows) {
    if source.ends_vxlan(port) {
        rows.insert(RowKey::BareUdp(port), Row::Present);
    }
}

pub(super) fn peers(source: &Source<'_>, name: &TerminationName, rows: &mut Rows) {
    if let Some(termination) = source.termination(name) {
        members(rows, &SetRef::Peers(name.clone()), &termination.peers);
    }
}

pub(super) fn end(
    source: &Source<'_>,
    (vrf, dst, encap, vni): (&VrfName, IpAddr, Encap, u32),
    rows: &mut Rows,
) {
    let matches = match encap {
        Encap::Vxlan(port) => match Vni::new(vni) {
            Ok(vni) => TunnelKind::Vxlan { vni, port },
            Err(_) => return,
        },
        Encap::Ipip => TunnelKind::Ipip,
    };
    let key = TerminationKey { vrf: vrf.clone(), dst, matches };
    if let Some(termination) = source.pipeline.get::<TunnelTermination>(&key) {
        let row = EndRow { port: termination.port.clone(), name: termination.name.clone() };
        rows.insert(RowKey::End(vrf.clone(), dst, encap, vni), Row::End(row));
    }
}

/// Whether something ends there at all, and whether unknown keys do. IP in IP has no keys.
pub(super) fn end_any(source: &Source<'_>, vrf: &VrfName, dst: IpAddr, encap: Encap, rows: &mut Rows) {
    // IP in IP sorts last.
    let of = |matches| TerminationKey { vrf: vrf.clone(), dst, matches };
    let lowest = Vni::try_from(u64::from(Vni::MIN)).map(|vni| TunnelKind::Vxlan { vni, port: 0 });
    let Ok(lowest) = lowest else { return };
    let here = TunnelTermination::table(source.pipeline).range(of(lowest)..=of(TunnelKind::Ipip));
    let mut found = here.map(|(_, owned)| &owned.entity).filter(|end| encap_of(end.matches).0 == encap);
    let Some(first) = found.next() else { return };
    let exclusive = first.exclusive || found.any(|end| end.exclusive);
    let flags = u32::from(exclusive && encap != Encap::Ipip);
    rows.insert(RowKey::EndAny(vrf.clone(), dst, encap), Row::Flags(flags));
}

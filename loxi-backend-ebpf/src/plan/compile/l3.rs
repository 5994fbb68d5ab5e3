//! Zones, VRFs, interfaces, neighbours, next hops, routes.

use super::{Source, link_of, members, too_many};
use crate::plan::{GroupRow, InterfaceRow, NextHopRow, Row, RowKey, Rows, SetRef, VrfRow, ZoneRow};
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{
    CtTimeouts, CtZone, EntityKey, Interface, LocalDelivery, Neighbor, NeighborKey, NextHop, NextHopAction,
    NextHopGroup, Route, RouteKey, RouteTarget, Vrf,
};
use loxi_core::net::{GroupName, InterfaceName, NextHopName, VrfName, ZoneName};
use loxi_ebpf_layout::flow::state;
use loxi_ebpf_layout::l3::timeout;
use loxi_ebpf_layout::limits::GROUP_MEMBERS;
use std::net::IpAddr;

pub(super) fn zone(source: &Source<'_>, name: &ZoneName, rows: &mut Rows) {
    let Some(config) = source.pipeline.get::<CtZone>(name) else { return };
    let row = ZoneRow {
        max_flows: config.max_flows,
        max_half_open: config.max_half_open,
        max_per_source: config.max_per_source,
        pickup: config.mid_stream_pickup,
        timeouts: timeouts(&config.timeouts),
    };
    rows.insert(RowKey::Zone(name.clone()), Row::Zone(row));
}

fn timeouts(config: &CtTimeouts) -> [u32; 16] {
    let mut by_index = [0; 16];
    for (index, seconds) in [
        (state::SYN_SENT, config.tcp_syn_sent_s),
        (state::SYN_RECEIVED, config.tcp_syn_received_s),
        (state::ESTABLISHED, config.tcp_established_s),
        (state::FIN_WAIT, config.tcp_fin_wait_s),
        (state::CLOSE_WAIT, config.tcp_close_wait_s),
        (state::LAST_ACK, config.tcp_last_ack_s),
        (state::TIME_WAIT, config.tcp_time_wait_s),
        (state::CLOSE, config.tcp_close_s),
        (state::SCTP_SETUP, config.sctp_setup_s),
        (state::SCTP_ESTABLISHED, config.sctp_established_s),
        (state::SCTP_SHUTDOWN, config.sctp_shutdown_s),
        (state::UNREPLIED, config.udp_s),
        (timeout::UDP_STREAM, config.udp_stream_s),
        (timeout::ICMP, config.icmp_s),
        (timeout::OTHER, config.other_s),
    ] {
        by_index[usize::from(index)] = seconds;
    }
    by_index
}

pub(super) fn vrf(source: &Source<'_>, name: &VrfName, rows: &mut Rows) {
    let Some(config) = source.pipeline.get::<Vrf>(name) else { return };
    let row = VrfRow {
        zone: config.zone.clone(),
        snat_v4: config.snat_address_v4,
        snat_v6: config.snat_address_v6,
        node_local: !config.node_local.is_empty(),
    };
    rows.insert(RowKey::Vrf(name.clone()), Row::Vrf(row));
    members(rows, &SetRef::NodeLocal(name.clone()), &config.node_local);
}

pub(super) fn interface(source: &Source<'_>, name: &InterfaceName, rows: &mut Rows) {
    let Some(config) = source.pipeline.get::<Interface>(name) else { return };
    let v4 = config.addresses.iter().find_map(|address| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let v6 = config.addresses.iter().find_map(|address| match address {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    });
    let row = InterfaceRow {
        link: link_of(config),
        vrf: config.vrf.clone(),
        mac: config.mac,
        mtu: config.mtu.get(),
        punt: config.local == LocalDelivery::Punt,
        v4,
        v6,
    };
    rows.insert(RowKey::Interface(name.clone()), Row::Interface(row));
}

pub(super) fn local_address(source: &Source<'_>, vrf: &VrfName, address: IpAddr, rows: &mut Rows) {
    if let Some(interface) = source.interface_with(vrf, address) {
        rows.insert(RowKey::LocalAddr(vrf.clone(), address), Row::Is(interface.name.clone()));
    }
}

pub(super) fn neighbor(source: &Source<'_>, key: &NeighborKey, rows: &mut Rows) {
    if let Some(neighbor) = source.pipeline.get::<Neighbor>(key) {
        rows.insert(RowKey::Neighbor(key.clone()), Row::Mac(neighbor.mac));
    }
}

pub(super) fn next_hop(source: &Source<'_>, name: &NextHopName, rows: &mut Rows) {
    let Some(hop) = source.pipeline.get::<NextHop>(name) else { return };
    let row = match &hop.action {
        NextHopAction::Direct { interface, gateway } => NextHopRow::Direct(interface.clone(), *gateway),
        NextHopAction::Tunnel(tunnel) => NextHopRow::Tunnel(tunnel.clone()),
        NextHopAction::Host => NextHopRow::Host,
        NextHopAction::Blackhole => NextHopRow::Blackhole,
    };
    rows.insert(RowKey::NextHop(name.clone()), Row::NextHop(row));
}

pub(super) fn group(source: &Source<'_>, name: &GroupName, rows: &mut Rows) -> Result<(), CompileError> {
    let Some(config) = source.pipeline.get::<NextHopGroup>(name) else { return Ok(()) };
    let (limit, asked) = (u64::from(GROUP_MEMBERS), config.members.len() as u64);
    if asked > limit {
        return Err(too_many(EntityKey::NextHopGroup(name.clone()), "members", limit, asked));
    }
    let members = config.members.iter().map(|member| (member.next_hop.clone(), member.weight)).collect();
    rows.insert(RowKey::Group(name.clone()), Row::Group(GroupRow { seed: config.seed, members }));
    Ok(())
}

pub(super) fn route(source: &Source<'_>, key: &RouteKey, rows: &mut Rows) {
    let Some(route) = source.pipeline.get::<Route>(key) else { return };
    let row = match &route.target {
        RouteTarget::NextHop(hop) => Row::ToNextHop(hop.clone()),
        RouteTarget::Group(group) => Row::ToGroup(group.clone()),
    };
    rows.insert(RowKey::Route(key.clone()), row);
}

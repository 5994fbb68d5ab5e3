//! Zones, bridges, ports, FDB.

use super::{Checker, Problem};
use crate::ir::{Attachment, EntityKey, FdbTarget};

pub(super) fn check(check: &mut Checker<'_>) {
    zones(check);
    bridges(check);
    ports(check);
    fdb(check);
}

fn zones(check: &mut Checker<'_>) {
    for zone in check.pipeline.zones() {
        let key = EntityKey::Zone(zone.name.clone());
        check.range(&key, "max_flows", zone.max_flows.into(), 1, u32::MAX.into());
        let t = &zone.timeouts;
        for (field, seconds) in [
            ("timeouts.tcp_syn_sent_s", t.tcp_syn_sent_s),
            ("timeouts.tcp_syn_received_s", t.tcp_syn_received_s),
            ("timeouts.tcp_established_s", t.tcp_established_s),
            ("timeouts.tcp_fin_wait_s", t.tcp_fin_wait_s),
            ("timeouts.tcp_close_wait_s", t.tcp_close_wait_s),
            ("timeouts.tcp_last_ack_s", t.tcp_last_ack_s),
            ("timeouts.tcp_time_wait_s", t.tcp_time_wait_s),
            ("timeouts.tcp_close_s", t.tcp_close_s),
            ("timeouts.udp_s", t.udp_s),
            ("timeouts.udp_stream_s", t.udp_stream_s),
            ("timeouts.sctp_setup_s", t.sctp_setup_s),
            ("timeouts.sctp_established_s", t.sctp_established_s),
            ("timeouts.sctp_shutdown_s", t.sctp_shutdown_s),
            ("timeouts.icmp_s", t.icmp_s),
            ("timeouts.other_s", t.other_s),
        ] {
            check.range(&key, field, seconds.into(), 1, 30 * 86_400);
        }
        if let Some(limit) = zone.max_half_open {
            check.range(&key, "max_half_open", limit.into(), 1, zone.max_flows.into());
        }
        if let Some(limit) = zone.max_per_source {
            check.range(&key, "max_per_source", limit.into(), 1, zone.max_flows.into());
        }
    }
}

fn bridges(check: &mut Checker<'_>) {
    for bridge in check.pipeline.bridges() {
        let key = EntityKey::Bridge(bridge.name.clone());
        check.range(&key, "ageing_s", bridge.ageing_s.into(), 10, 1_000_000);
        if let Some(zone) = &bridge.zone {
            check.refers(&key, "zone", EntityKey::Zone(zone.clone()));
        }
        for tunnel in &bridge.flood_tunnels {
            check.refers(&key, "flood_tunnels", EntityKey::Tunnel(tunnel.clone()));
        }
    }
}

fn ports(check: &mut Checker<'_>) {
    for port in check.pipeline.ports() {
        let key = EntityKey::Port(port.name.clone());
        if !port.mac.is_unicast() {
            check.impossible(key.clone(), "mac", format!("{} is no station's address", port.mac));
        }
        match &port.attachment {
            Attachment::Detached => {}
            Attachment::Vrf(vrf) => {
                check.refers(&key, "attachment.vrf", EntityKey::Vrf(vrf.clone()));
            }
            Attachment::Bridge(member) => {
                check.refers(&key, "attachment.bridge.bridge", EntityKey::Bridge(member.bridge.clone()));
                if let crate::ir::VlanMode::Trunk { allowed, native } = &member.vlan
                    && allowed.is_empty()
                    && native.is_none()
                {
                    check.impossible(key.clone(), "attachment.bridge.vlan", "a trunk of no VLAN");
                }
            }
        }
        if port.underlay && !matches!(port.attachment, Attachment::Vrf(_)) {
            check.impossible(key.clone(), "underlay", "an underlay port is attached to a VRF");
        }
        if let Some(guard) = &port.anti_spoof {
            for mac in &guard.macs {
                if !mac.is_unicast() {
                    check.impossible(
                        key.clone(),
                        "anti_spoof.macs",
                        format!("{mac} is no station's address"),
                    );
                }
            }
        }
    }
}

fn fdb(check: &mut Checker<'_>) {
    for entry in check.pipeline.fdb() {
        let key = EntityKey::Fdb(entry.key());
        check.refers(&key, "bridge", EntityKey::Bridge(entry.bridge.clone()));
        if !entry.mac.is_unicast() {
            check.impossible(key.clone(), "mac", format!("{} is no station's address", entry.mac));
        }
        match &entry.target {
            FdbTarget::Tunnel(tunnel) => {
                if check.refers(&key, "target.tunnel", EntityKey::Tunnel(tunnel.clone()))
                    && let Some(tunnel) = check.pipeline.get::<crate::ir::Tunnel>(tunnel)
                    && matches!(tunnel.kind, crate::ir::TunnelKind::Ipip)
                {
                    check.impossible(key, "target.tunnel", "IP in IP carries no Ethernet frames");
                }
            }
            FdbTarget::Port(port) => {
                if !check.refers(&key, "target.port", EntityKey::Port(port.clone())) {
                    continue;
                }
                let member = check.pipeline.get::<crate::ir::Port>(port).and_then(|port| port.bridge());
                if member.is_none_or(|member| member.bridge != entry.bridge) {
                    let why = format!("port {port} is not attached to bridge {}", entry.bridge);
                    check.problem(key, "target.port", Problem::Impossible(why));
                }
            }
        }
    }
}

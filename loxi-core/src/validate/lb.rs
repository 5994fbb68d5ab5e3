//! Virtual addresses, services, backends.

use super::{Checker, Problem};
use crate::ir::{EntityKey, LbBackend, LbMode, LbService, VipKey, Vrf};
use crate::net::{IpProtocol, is_hosts};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) fn check(check: &mut Checker<'_>) {
    for vip in check.pipeline.vips() {
        let key = EntityKey::Vip(vip.key());
        check.refers(&key, "vrf", EntityKey::Vrf(vip.vrf.clone()));
        if !is_hosts(vip.address) {
            check.impossible(key, "address", format!("{} can't be a virtual address", vip.address));
        }
    }
    for backend in check.pipeline.backends() {
        let key = EntityKey::Backend(backend.name.clone());
        check.range(&key, "weight", backend.weight.into(), 1, u16::MAX.into());
        if !is_hosts(backend.address) {
            check.impossible(key, "address", format!("{} can't be an endpoint's address", backend.address));
        }
    }
    let mut by_vip: BTreeMap<(_, IpAddr, IpProtocol), Vec<&LbService>> = BTreeMap::new();
    for service in check.pipeline.services() {
        one(check, service);
        by_vip.entry((service.vrf.clone(), service.vip, service.protocol)).or_default().push(service);
    }
    for services in by_vip.values_mut() {
        overlaps(check, services);
    }
}

fn one(check: &mut Checker<'_>, service: &LbService) {
    let key = EntityKey::Service(service.key());
    check.refers(&key, "vrf", EntityKey::Vrf(service.vrf.clone()));
    check.needs_zone(&key, &service.vrf);
    check.refers(&key, "vip", EntityKey::Vip(VipKey { vrf: service.vrf.clone(), address: service.vip }));
    if !service.protocol.has_ports() {
        check.impossible(key.clone(), "protocol", format!("{} has no ports", service.protocol));
    }
    check.range(&key, "ports", service.ports.first().into(), 1, u16::MAX.into());
    if let Some(affinity) = service.affinity {
        check.range(&key, "affinity.timeout_s", affinity.timeout_s.into(), 1, 86_400);
    }
    let encapsulated = matches!(service.mode, LbMode::DsrIpip);
    for name in &service.backends {
        if !check.refers(&key, "backends", EntityKey::Backend(name.clone())) {
            continue;
        }
        let Some(backend) = check.pipeline.get::<LbBackend>(name) else {
            continue;
        };
        if !encapsulated && backend.address.is_ipv4() != service.vip.is_ipv4() {
            check.impossible(key.clone(), "backends", format!("{name} is of another IP family than the VIP"));
        }
    }
    let families: Vec<bool> = match service.mode {
        LbMode::FullNat => vec![service.vip.is_ipv4()],
        LbMode::DsrIpip => {
            let names = service.backends.iter();
            names
                .filter_map(|name| check.pipeline.get::<LbBackend>(name))
                .map(|b| b.address.is_ipv4())
                .collect()
        }
        LbMode::Nat | LbMode::DsrL2 => Vec::new(),
    };
    for ipv4 in families {
        let Some(vrf) = check.pipeline.get::<Vrf>(&service.vrf) else {
            continue;
        };
        let missing = if ipv4 { vrf.snat_address_v4.is_none() } else { vrf.snat_address_v6.is_none() };
        if missing {
            let field = if ipv4 { "snat_address_v4" } else { "snat_address_v6" };
            let why = format!("VRF {} has no {field}", vrf.name);
            check.problem(key.clone(), "mode", Problem::Missing(why));
            return;
        }
    }
}

/// Services of one VIP and protocol: two of one scope overlap if their ranges
/// do. `any` beside `internal` or `external` is a default with an exception.
fn overlaps(check: &mut Checker<'_>, services: &mut [&LbService]) {
    services.sort_by_key(|service| (service.scope, service.ports));
    for pair in services.windows(2) {
        // Sorted by first port: if any two of a scope overlap, two neighbours do.
        if let [earlier, later] = pair
            && earlier.scope == later.scope
            && earlier.ports.overlaps(later.ports)
        {
            let other = Box::new(EntityKey::Service(earlier.key()));
            check.problem(EntityKey::Service(later.key()), "ports", Problem::Overlap(other));
        }
    }
}

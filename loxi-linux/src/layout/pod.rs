//! A pod's connection: a veth from the dataplane's namespace to the pod's.

use super::run::{Run, find, step};
use super::{HOST, LayoutError, LayoutSpec, PodPort, PodSpec, mac_for, node};
use crate::Prefix;
use crate::nftables::{self, Family, TableId};
use crate::rtnetlink::Route;
use crate::sys::{End, Sys};
use crate::sysctl::device_key;

pub(super) fn add(sys: &dyn Sys, spec: &LayoutSpec, pod: &PodSpec) -> Result<PodPort, LayoutError> {
    check(pod)?;
    let (ns, dev) = (spec.dataplane(), pod.ifname.as_str());
    let mac = mac_for(&spec.instance.name, &pod.port);
    let mut run = Run::new(sys, &spec.instance);
    let near = End { ns: &ns, name: &pod.port, mac };
    let far = End { ns: &pod.netns, name: dev, mac: pod.mac };
    run.veth(near, far, spec)?;
    node::silence(&mut run, spec, &ns, &pod.port)?;
    for (name, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
        run.sysctl(&pod.netns, &device_key("ipv6", dev, name), value)?;
    }
    run.up(&ns, &pod.port)?;
    run.up(&pod.netns, "lo")?;
    run.up(&pod.netns, dev)?;
    for addr in &pod.addresses {
        run.addr(&pod.netns, dev, *addr)?;
    }
    for gateway in &pod.gateways {
        if !pod.addresses.iter().any(|addr| addr.contains(*gateway)) {
            run.route(&pod.netns, &Route::on_link(Prefix::host(*gateway), dev))?;
        }
        run.route(&pod.netns, &Route::via(Prefix::any(*gateway), *gateway, dev))?;
    }
    if !pod.local_ports.is_empty() {
        // Else the kernel sends nothing out that comes from a loopback address.
        run.sysctl(&spec.instance.root, &device_key("ipv4", HOST, "route_localnet"), "1")?;
        let table = nftables::local_ports(&spec.instance.table(&pod.port), HOST, &pod.local_ports);
        run.table(&spec.instance.root, &table?)?;
    }
    run.keep();
    Ok(PodPort { name: pod.port.clone(), netns: ns, mac })
}

pub(super) fn remove(sys: &dyn Sys, spec: &LayoutSpec, port: &str) -> Result<(), LayoutError> {
    let ns = spec.dataplane();
    if let Some(link) = find(sys, &ns, port)? {
        if link.alias.as_deref() != Some(&spec.instance.label(port)) {
            let instance = spec.instance.name.clone();
            return Err(LayoutError::Foreign { what: format!("link {port}"), instance });
        }
        sys.link_delete(&ns, port).map_err(step(format!("delete {port}")))?;
    }
    for (ns, family) in [(&spec.instance.root, Family::Inet), (&ns, Family::Netdev)] {
        let id = TableId { family, name: spec.instance.table(port) };
        sys.nft_delete(ns, &id).map_err(step(format!("delete table {}", id.name)))?;
    }
    Ok(())
}

fn check(pod: &PodSpec) -> Result<(), LayoutError> {
    let number = pod.port.strip_prefix("hs").unwrap_or_default();
    if number.is_empty() || number.len() > 9 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(LayoutError::Spec { field: "port", value: pod.port.clone() });
    }
    Ok(())
}

//! The node itself, without its pods.

use super::run::{Run, find, step};
use super::{HOST, LayoutError, LayoutSpec, REINJECT, SWITCH, VTEP, mac_for};
use crate::nftables::{self, Drop};
use crate::rtnetlink::Route;
use crate::sys::{End, LinkConfig, Ns, Sys};
use crate::sysctl::device_key;
use crate::{MacAddr, Prefix};

pub(super) fn ensure(sys: &dyn Sys, spec: &LayoutSpec) -> Result<(), LayoutError> {
    let mut run = Run::new(sys, &spec.instance);
    if find(sys, &spec.instance.root, &spec.uplink)?.is_none() {
        return Err(LayoutError::NoUplink { name: spec.uplink.clone() });
    }
    run.folders();
    dataplane(&mut run, spec)?;
    host(&mut run, spec)?;
    uplink(&mut run, spec)?;
    run.keep();
    Ok(())
}

/// The namespace of the dataplane with the interfaces that show it.
fn dataplane(run: &mut Run<'_>, spec: &LayoutSpec) -> Result<(), LayoutError> {
    let ns = spec.dataplane();
    run.ns(&ns)?;
    let link = spec.instance.netns_link(&spec.netns);
    run.symlink(&link, &spec.instance.netns_link_target(&spec.netns))?;
    // Before any link is there: what comes later is silent from its first moment.
    for (key, value) in [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
        ("net.ipv6.conf.default.disable_ipv6", "1"),
        ("net.ipv4.conf.default.arp_ignore", "8"),
    ] {
        run.sysctl(&ns, key, value)?;
    }
    run.up(&ns, "lo")?;

    tap(run, spec, &ns, SWITCH, spec.switch_mac, true)?;
    for addr in &spec.switch {
        run.addr(&ns, SWITCH, Prefix::host(*addr))?;
    }
    tap(run, spec, &ns, VTEP, spec.vtep_mac, false)?;
    tap(run, spec, &ns, REINJECT, mac_for(&spec.instance.name, REINJECT), false)
}

fn tap(
    run: &mut Run<'_>,
    spec: &LayoutSpec,
    ns: &Ns,
    name: &str,
    mac: MacAddr,
    ipv6: bool,
) -> Result<(), LayoutError> {
    run.tap(ns, name)?;
    let label = spec.instance.label(name);
    let to = LinkConfig { mac: Some(mac), mtu: Some(spec.mtu), alias: Some(&label), up: None };
    run.configure(ns, name, to)?;
    if ipv6 {
        // Addresses yes, but no link-local one that would talk.
        run.sysctl(ns, &device_key("ipv6", name, "addr_gen_mode"), "1")?;
    }
    let disable = if ipv6 { "0" } else { "1" };
    run.sysctl(ns, &device_key("ipv6", name, "disable_ipv6"), disable)?;
    run.up(ns, name)
}

/// The host's interface: a veth from the dataplane's namespace to the root's.
fn host(run: &mut Run<'_>, spec: &LayoutSpec) -> Result<(), LayoutError> {
    let (ns, root) = (spec.dataplane(), &spec.instance.root);
    let own = mac_for(&spec.instance.name, "loxi_host.dataplane");
    let near = End { ns: &ns, name: HOST, mac: own };
    let far = End { ns: root, name: HOST, mac: spec.host_mac };
    run.veth(near, far, spec)?;
    silence(run, spec, &ns, HOST)?;

    // Both `all` and the device count, and the larger wins: where the node is strict, be loose.
    let all = run.sys.sysctl_read(root, "net.ipv4.conf.all.rp_filter");
    let all = all.map_err(step("read rp_filter"))?;
    let filter = if all == "0" { "0" } else { "2" };
    run.sysctl(root, &device_key("ipv4", HOST, "rp_filter"), filter)?;
    for (name, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
        run.sysctl(root, &device_key("ipv6", HOST, name), value)?;
    }
    run.up(&ns, HOST)?;
    run.up(root, HOST)?;
    for (switch, host) in spec.families() {
        run.addr(root, HOST, Prefix::host(host))?;
        run.route(root, &Route::on_link(Prefix::host(switch), HOST).with_src(host))?;
        for range in spec.cluster_cidrs.iter().chain(&spec.service_cidrs) {
            if range.is_ipv4() == switch.is_ipv4() {
                let route = Route::via(*range, switch, HOST).with_onlink().with_src(host);
                run.route(root, &route)?;
            }
        }
    }
    Ok(())
}

/// A port of the dataplane: the kernel behind it says nothing.
pub(super) fn silence(run: &mut Run<'_>, spec: &LayoutSpec, ns: &Ns, port: &str) -> Result<(), LayoutError> {
    run.sysctl(ns, &device_key("ipv6", port, "disable_ipv6"), "1")?;
    run.sysctl(ns, &device_key("ipv4", port, "arp_ignore"), "8")?;
    let name = spec.instance.table(port);
    let table = nftables::ingress_drops(&name, &[(port, vec![Drop::All])])?;
    run.table(ns, &table)
}

/// What the root namespace has to leave alone, and what it does for the pods.
fn uplink(run: &mut Run<'_>, spec: &LayoutSpec) -> Result<(), LayoutError> {
    let root = &spec.instance.root;
    let mut ours = vec![Drop::Udp { port: spec.overlay.port, to: spec.underlay.clone() }];
    ours.extend(spec.silent_ports.map(|ports| Drop::Ports { ports, to: spec.underlay.clone() }));
    let name = spec.instance.table("uplink");
    let table = nftables::ingress_drops(&name, &[(spec.uplink.as_str(), ours)])?;
    run.table(root, &table)?;
    if spec.masquerade {
        // A forwarding host ignores router advertisements unless told not to.
        let key = device_key("ipv6", &spec.uplink, "accept_ra");
        if run.sys.sysctl_read(root, &key).is_ok_and(|value| value == "1") {
            run.saved_sysctl(&key, "2")?;
        }
        run.saved_sysctl("net.ipv4.ip_forward", "1")?;
        run.saved_sysctl("net.ipv6.conf.all.forwarding", "1")?;
        let name = spec.instance.table("masquerade");
        let (pods, cluster) = (&spec.pod_cidrs, &spec.cluster_cidrs);
        run.table(root, &nftables::masquerade(&name, &spec.uplink, pods, cluster)?)?;
    }
    Ok(())
}

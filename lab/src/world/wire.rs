//! The wire: a bridge in a namespace of its own, with the outside host and the nodes' uplinks on it.

use loxi_linux::Prefix;
use loxi_linux::layout::mac_for;
use loxi_linux::netns::NetNs;
use loxi_linux::rtnetlink::{AddrFlags, LinkChange, Rtnl};
use loxi_linux::sys::{End, LinkConfig, RealSys, Sys, SysError};

use super::{WorldError, ns, settings};
use crate::plan::{self, Family, NODES, Plan, Spot, WIRE_MTU};

const BRIDGE: &str = "wire";
const UPLINK: &str = "eth0";

/// Joins the outside host and the nodes.
pub(super) fn make(plan: &Plan) -> Result<(), WorldError> {
    let failed = |source| WorldError::Sys { spot: Spot::Wire.to_string(), source };
    let wire = ns(plan, Spot::Wire);
    settings(
        &wire,
        "wire",
        &[
            ("net.ipv6.conf.default.disable_ipv6", "1"),
            // A wire has no firewall.
            ("net.bridge.bridge-nf-call-iptables", "0"),
            ("net.bridge.bridge-nf-call-ip6tables", "0"),
            ("net.bridge.bridge-nf-call-arptables", "0"),
        ],
    )?;
    let inside = NetNs::open(wire.path())?;
    inside.run(bridge)?.map_err(failed)?;
    for spot in std::iter::once(Spot::Outside).chain(NODES.map(Spot::Node)) {
        let name = spot.to_string();
        connect(plan, spot, &name).map_err(|source| WorldError::Sys { spot: name.clone(), source })?;
        inside.run(|| enslave(&name))?.map_err(failed)?;
        machine(plan, spot)?;
    }
    Ok(())
}

fn bridge() -> Result<(), SysError> {
    let mut rtnl = Rtnl::open()?;
    rtnl.bridge_add(BRIDGE)?;
    rtnl.link_set(BRIDGE, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    Ok(())
}

fn enslave(port: &str) -> Result<(), SysError> {
    let mut rtnl = Rtnl::open()?;
    let master = Some(rtnl.link_index(BRIDGE)?);
    rtnl.link_set(port, &LinkChange { master, up: Some(true), ..LinkChange::default() })?;
    Ok(())
}

/// A cable from a machine's uplink to a port of the bridge. Frames on it are as on a real wire: complete
/// checksums, no super-frames.
fn connect(plan: &Plan, spot: Spot, port: &str) -> Result<(), SysError> {
    let (wire, machine) = (ns(plan, Spot::Wire), ns(plan, spot));
    let near = End { ns: &wire, name: port, mac: mac_for(plan.instance(), &format!("wire.{port}")) };
    let far = End { ns: &machine, name: UPLINK, mac: plan.wire_mac(spot) };
    RealSys.veth_create(near, far, WIRE_MTU.into())?;
    for end in [near, far] {
        RealSys.offloads_disable(end.ns, end.name)?;
    }
    Ok(())
}

/// Addresses and settings of a machine on the wire.
fn machine(plan: &Plan, spot: Spot) -> Result<(), WorldError> {
    let (at, name) = (ns(plan, spot), spot.to_string());
    let failed = |source| WorldError::Sys { spot: spot.to_string(), source };
    settings(
        &at,
        &name,
        &[
            ("net.ipv6.conf.eth0.accept_ra", "0"),
            ("net.ipv6.conf.eth0.accept_dad", "0"),
            ("net.ipv4.icmp_ratelimit", "0"),
            ("net.ipv6.icmp.ratelimit", "0"),
        ],
    )?;
    for link in ["lo", UPLINK] {
        let up = LinkConfig { mac: None, mtu: None, alias: None, up: Some(true) };
        RealSys.link_configure(&at, link, up).map_err(failed)?;
    }
    for family in Family::ALL {
        let Some(addr) = spot.address(family) else { continue };
        let addr = Prefix { addr, len: plan::wire(family).len };
        let how = AddrFlags { no_dad: family == Family::V6, no_prefix_route: false };
        RealSys.addr_add(&at, UPLINK, addr, how).map_err(failed)?;
    }
    Ok(())
}

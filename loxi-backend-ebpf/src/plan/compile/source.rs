//! Questions to a pipeline that its keys don't answer.
//!
//! Each answer is found by one pass over the tables of interfaces, tunnels or terminations, made
//! when it is first asked for. Where several entities fit, the first by name does.

use super::tunnel::encap_of;
use crate::plan::{Encap, LinkRef};
use loxi_core::ir::{Interface, InterfaceOn, Pipeline, Tunnel, TunnelKind, TunnelTermination};
use loxi_core::net::{PortName, TerminationName, VrfName};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A pipeline, and what is found out about it on the way.
pub(in crate::plan) struct Source<'a> {
    pub(in crate::plan) pipeline: &'a Pipeline,
    interfaces: OnceCell<Interfaces<'a>>,
    tunnels: OnceCell<Tunnels<'a>>,
    terminations: OnceCell<Terminations<'a>>,
}

#[derive(Default)]
struct Interfaces<'a> {
    by_link: BTreeMap<LinkRef, Vec<&'a Interface>>,
    by_address: BTreeMap<(&'a VrfName, IpAddr), &'a Interface>,
}

/// An outer header: VRF, encapsulation, local, remote.
pub(super) type OuterHeader<'a> = (&'a VrfName, Encap, IpAddr, IpAddr);

#[derive(Default)]
struct Tunnels<'a> {
    back: BTreeMap<(&'a PortName, IpAddr), &'a Tunnel>,
    outer: BTreeMap<OuterHeader<'a>, &'a Tunnel>,
    remotes: BTreeSet<IpAddr>,
}

#[derive(Default)]
struct Terminations<'a> {
    by_name: BTreeMap<&'a TerminationName, &'a TunnelTermination>,
    udp_ports: BTreeSet<u16>,
}

impl<'a> Source<'a> {
    pub(in crate::plan) fn new(pipeline: &'a Pipeline) -> Self {
        Self {
            pipeline,
            interfaces: OnceCell::new(),
            tunnels: OnceCell::new(),
            terminations: OnceCell::new(),
        }
    }

    /// Interfaces on a link, by name.
    pub(in crate::plan) fn interfaces_on(&self, link: &LinkRef) -> &[&'a Interface] {
        self.interfaces().by_link.get(link).map_or(&[], Vec::as_slice)
    }

    /// The interface of a VRF that has an address.
    pub(super) fn interface_with(&self, vrf: &VrfName, address: IpAddr) -> Option<&'a Interface> {
        self.interfaces().by_address.get(&(vrf, address)).copied()
    }

    /// The tunnel back to an outer source by a tunnel port.
    pub(super) fn tunnel_back(&self, port: &PortName, remote: IpAddr) -> Option<&'a Tunnel> {
        self.tunnels().back.get(&(port, remote)).copied()
    }

    /// The tunnel that makes an outer header.
    pub(super) fn tunnel_of(&self, header: OuterHeader<'_>) -> Option<&'a Tunnel> {
        self.tunnels().outer.get(&header).copied()
    }

    /// Whether a tunnel leads to an address.
    pub(super) fn is_remote(&self, address: IpAddr) -> bool {
        self.tunnels().remotes.contains(&address)
    }

    /// The termination of a name.
    pub(super) fn termination(&self, name: &TerminationName) -> Option<&'a TunnelTermination> {
        self.terminations().by_name.get(name).copied()
    }

    /// Whether VXLAN ends at a UDP port.
    pub(super) fn ends_vxlan(&self, port: u16) -> bool {
        self.terminations().udp_ports.contains(&port)
    }

    fn interfaces(&self) -> &Interfaces<'a> {
        self.interfaces.get_or_init(|| {
            let mut found = Interfaces::default();
            for interface in self.pipeline.interfaces() {
                found.by_link.entry(link_of(interface)).or_default().push(interface);
                for address in &interface.addresses {
                    found.by_address.entry((&interface.vrf, *address)).or_insert(interface);
                }
            }
            found
        })
    }

    fn tunnels(&self) -> &Tunnels<'a> {
        self.tunnels.get_or_init(|| {
            let mut found = Tunnels::default();
            for tunnel in self.pipeline.tunnels() {
                found.back.entry((&tunnel.port, tunnel.remote)).or_insert(tunnel);
                let (encap, _) = encap_of(tunnel.kind);
                let header = (&tunnel.underlay_vrf, encap, tunnel.local, tunnel.remote);
                found.outer.entry(header).or_insert(tunnel);
                found.remotes.insert(tunnel.remote);
            }
            found
        })
    }

    fn terminations(&self) -> &Terminations<'a> {
        self.terminations.get_or_init(|| {
            let mut found = Terminations::default();
            for termination in self.pipeline.terminations() {
                found.by_name.entry(&termination.name).or_insert(termination);
                if let TunnelKind::Vxlan { port, .. } = termination.matches {
                    found.udp_ports.insert(port);
                }
            }
            found
        })
    }
}

/// The link that an interface is on.
pub(in crate::plan) fn link_of(interface: &Interface) -> LinkRef {
    match &interface.on {
        InterfaceOn::Bridge { bridge, vlan } => LinkRef::Vlan(bridge.clone(), vlan.get()),
        InterfaceOn::Port(port) => LinkRef::Port(port.clone()),
    }
}

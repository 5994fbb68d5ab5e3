//! Questions to the configuration and to what was learned. Linear scans
//! wherever they are the plainest statement of the rule.

use super::Run;
use loxi_core::ir::{
    Admin, Fdb, FdbKey, FdbTarget, Interface, InterfaceOn, LbService, Neighbor, NeighborKey, Port, PortKind,
    Route, Tunnel, VlanMode,
};
use loxi_core::net::{BridgeName, MacAddr, PortName, TunnelName, VlanId, VrfName};
use loxi_core::packet::NeighborState;
use std::net::IpAddr;

/// Where the FDB says a station is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Station {
    pub(super) port: PortName,
    pub(super) tunnel: Option<TunnelName>,
    pub(super) fixed: bool,
}

/// Whether a port carries a VLAN, and if so whether tagged.
pub(super) fn carries(mode: &VlanMode, vlan: VlanId) -> Option<bool> {
    match mode {
        VlanMode::Access(own) => (*own == vlan).then_some(false),
        VlanMode::Trunk { native: Some(native), .. } if *native == vlan => Some(false),
        VlanMode::Trunk { allowed, .. } => allowed.contains(&vlan).then_some(true),
    }
}

impl<'a> Run<'a> {
    /// The longest prefix that covers `dst`.
    pub(super) fn longest_route(&self, vrf: &VrfName, dst: IpAddr) -> Option<&'a Route> {
        self.config
            .routes()
            .filter(|route| route.vrf == *vrf && route.prefix.contains(dst))
            .max_by_key(|route| route.prefix.len())
    }

    /// The interface of a VRF that has this address.
    pub(super) fn interface_with(&self, vrf: &VrfName, address: IpAddr) -> Option<&'a Interface> {
        self.config
            .interfaces()
            .find(|interface| interface.vrf == *vrf && interface.addresses.contains(&address))
    }

    pub(super) fn interfaces_on_bridge(
        &self,
        bridge: &BridgeName,
        vlan: VlanId,
    ) -> impl Iterator<Item = &'a Interface> {
        self.config.interfaces().filter(move |interface| {
            matches!(&interface.on, InterfaceOn::Bridge { bridge: on, vlan: in_vlan } if on == bridge && *in_vlan == vlan)
        })
    }

    pub(super) fn interfaces_on_port(&self, port: &PortName) -> impl Iterator<Item = &'a Interface> {
        self.config
            .interfaces()
            .filter(move |interface| matches!(&interface.on, InterfaceOn::Port(on) if on == port))
    }

    pub(super) fn station(&self, key: &FdbKey) -> Option<Station> {
        if let Some(entry) = self.config.get::<Fdb>(key) {
            return match &entry.target {
                FdbTarget::Port(port) => Some(Station { port: port.clone(), tunnel: None, fixed: true }),
                FdbTarget::Tunnel(name) => {
                    let port = self.config.get::<Tunnel>(name)?.port.clone();
                    Some(Station { port, tunnel: Some(name.clone()), fixed: true })
                }
            };
        }
        let entry = self.state.station(key).filter(|entry| entry.expires > self.now)?;
        Some(Station { port: entry.port, tunnel: entry.tunnel, fixed: false })
    }

    /// The MAC of a neighbour: configured, else learned.
    pub(super) fn neighbor_mac(&self, key: &NeighborKey) -> Option<MacAddr> {
        if let Some(neighbor) = self.config.get::<Neighbor>(key) {
            return Some(neighbor.mac);
        }
        match self.state.neighbor(key) {
            Some(entry) if entry.expires > self.now => match entry.state {
                NeighborState::Reachable(mac) => Some(mac),
                NeighborState::Incomplete => None,
            },
            _ => None,
        }
    }

    /// Members of a VLAN of a bridge, in name order.
    pub(super) fn members(&self, bridge: &BridgeName, vlan: VlanId) -> impl Iterator<Item = &'a Port> {
        self.config.ports().filter(move |port| {
            port.bridge()
                .is_some_and(|member| member.bridge == *bridge && carries(&member.vlan, vlan).is_some())
        })
    }

    /// The tunnel that leads back to an outer source by the same tunnel port.
    pub(super) fn tunnel_back(&self, port: &PortName, remote: IpAddr) -> Option<&'a Tunnel> {
        self.config.tunnels().find(|tunnel| tunnel.port == *port && tunnel.remote == remote)
    }

    /// Largest outer packet towards a remote: the link's, or a lower path MTU.
    pub(super) fn outer_mtu(&self, remote: IpAddr, link: u16) -> u16 {
        match self.state.path_mtu(remote) {
            Some(entry) if entry.expires > self.now => entry.mtu.min(link),
            _ => link,
        }
    }

    /// Services of an address and protocol, whatever their ports and scope.
    pub(super) fn services_of(&self, vrf: &VrfName, vip: IpAddr) -> impl Iterator<Item = &'a LbService> {
        self.config.services().filter(move |service| service.vip == vip && service.vrf == *vrf)
    }

    /// Whether packets can leave by a port: it exists, is up and attached.
    pub(super) fn is_open(&self, port: &PortName) -> bool {
        self.config.get::<Port>(port).is_some_and(|config| {
            // A tunnel port has no device behind it that could be attached or not.
            config.admin == Admin::Up && (config.kind == PortKind::Tunnel || self.attached.contains(port))
        })
    }
}

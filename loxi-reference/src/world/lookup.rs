//! Questions to the configuration and to what was learned. Linear scans
//! wherever they are the plainest statement of the rule.

use super::World;
use loxi_core::ir::{
    Fdb, FdbKey, FdbTarget, Interface, InterfaceOn, Neighbor, NeighborKey, Port, Route, Tunnel, VlanMode,
};
use loxi_core::net::{BridgeName, MacAddr, PortName, TunnelName, VlanId, VrfName};
use loxi_core::packet::{NeighborState, Timestamp};
use std::net::IpAddr;

/// Where the FDB says a station is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Station {
    pub(crate) port: PortName,
    pub(crate) tunnel: Option<TunnelName>,
    pub(crate) fixed: bool,
}

/// Whether a port carries a VLAN, and if so whether tagged.
pub(crate) fn carries(mode: &VlanMode, vlan: VlanId) -> Option<bool> {
    match mode {
        VlanMode::Access(own) => (*own == vlan).then_some(false),
        VlanMode::Trunk { native: Some(native), .. } if *native == vlan => Some(false),
        VlanMode::Trunk { allowed, .. } => allowed.contains(&vlan).then_some(true),
    }
}

impl World {
    /// The longest prefix that covers `dst`.
    pub(crate) fn route(&self, vrf: &VrfName, dst: IpAddr) -> Option<&Route> {
        self.config
            .routes()
            .filter(|route| route.vrf == *vrf && route.prefix.contains(dst))
            .max_by_key(|route| route.prefix.len())
    }

    /// The interface of a VRF that has this address.
    pub(crate) fn interface_with(&self, vrf: &VrfName, address: IpAddr) -> Option<&Interface> {
        self.config
            .interfaces()
            .find(|interface| interface.vrf == *vrf && interface.addresses.contains(&address))
    }

    pub(crate) fn interfaces_on_bridge<'a>(
        &'a self,
        bridge: &'a BridgeName,
        vlan: VlanId,
    ) -> impl Iterator<Item = &'a Interface> {
        self.config.interfaces().filter(move |interface| {
            matches!(&interface.on, InterfaceOn::Bridge { bridge: on, vlan: in_vlan } if on == bridge && *in_vlan == vlan)
        })
    }

    pub(crate) fn interfaces_on_port<'a>(
        &'a self,
        port: &'a PortName,
    ) -> impl Iterator<Item = &'a Interface> {
        self.config
            .interfaces()
            .filter(move |interface| matches!(&interface.on, InterfaceOn::Port(on) if on == port))
    }

    pub(crate) fn station(&self, key: &FdbKey, now: Timestamp) -> Option<Station> {
        if let Some(entry) = self.get::<Fdb>(key) {
            return match &entry.target {
                FdbTarget::Port(port) => Some(Station { port: port.clone(), tunnel: None, fixed: true }),
                FdbTarget::Tunnel(name) => {
                    let port = self.get::<Tunnel>(name)?.port.clone();
                    Some(Station { port, tunnel: Some(name.clone()), fixed: true })
                }
            };
        }
        let entry = self.fdb.get(key).filter(|entry| entry.expires > now)?;
        Some(Station { port: entry.port.clone(), tunnel: entry.tunnel.clone(), fixed: false })
    }

    /// The MAC of a neighbour: configured, else learned.
    pub(crate) fn neighbor_mac(&self, key: &NeighborKey, now: Timestamp) -> Option<MacAddr> {
        if let Some(neighbor) = self.get::<Neighbor>(key) {
            return Some(neighbor.mac);
        }
        match self.neighbors.get(key) {
            Some(entry) if entry.expires > now => match entry.state {
                NeighborState::Reachable(mac) => Some(mac),
                NeighborState::Incomplete => None,
            },
            _ => None,
        }
    }

    /// Members of a VLAN of a bridge, in name order.
    pub(crate) fn members<'a>(
        &'a self,
        bridge: &'a BridgeName,
        vlan: VlanId,
    ) -> impl Iterator<Item = &'a Port> {
        self.config.ports().filter(move |port| {
            port.bridge()
                .is_some_and(|member| member.bridge == *bridge && carries(&member.vlan, vlan).is_some())
        })
    }

    /// The tunnel that leads back to an outer source by the same tunnel port.
    pub(crate) fn tunnel_back(&self, port: &PortName, remote: IpAddr) -> Option<&Tunnel> {
        self.config.tunnels().find(|tunnel| tunnel.port == *port && tunnel.remote == remote)
    }

    /// Largest outer packet towards a remote: the link's, or a lower path MTU.
    pub(crate) fn outer_mtu(&self, remote: IpAddr, link: u16, now: Timestamp) -> u16 {
        match self.path_mtus.get(&remote) {
            Some(entry) if entry.expires > now => entry.mtu.min(link),
            _ => link,
        }
    }
}

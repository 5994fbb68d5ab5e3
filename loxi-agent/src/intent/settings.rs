//! What of a node's network doesn't change while its agent runs.

use std::net::IpAddr;

use loxi_core::net::{
    BridgeName, InterfaceName, IpPrefix, MacAddr, Mtu, NetError, PortName, Vni, VrfName, ZoneName,
};
use loxi_linux::{Prefix, layout};

/// The tunnels between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlay {
    /// VXLAN's network identifier.
    pub vni: Vni,
    /// VXLAN's UDP port.
    pub port: u16,
}

/// The names that this node's entities of the layout have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The routing domain of pods and services.
    pub pods: VrfName,
    /// The routing domain of the wire.
    pub underlay: VrfName,
    /// The zone of the pods' connections.
    pub zone: ZoneName,
    /// The bridge of the pods.
    pub bridge: BridgeName,
    /// The interface of the pods' gateway.
    pub switch: InterfaceName,
    /// The interface at the wire.
    pub wire: InterfaceName,
    /// The host's port in the pod network.
    pub host: PortName,
    /// The port at which tunnels end.
    pub vtep: PortName,
}

impl Names {
    /// All of them.
    ///
    /// # Errors
    /// None while the constants are names.
    pub fn new() -> Result<Self, NetError> {
        Ok(Self {
            pods: VrfName::new("pods")?,
            underlay: VrfName::new("underlay")?,
            zone: ZoneName::new("pods")?,
            bridge: BridgeName::new("br0")?,
            switch: InterfaceName::new(layout::SWITCH)?,
            wire: InterfaceName::new("uplink")?,
            host: PortName::new(layout::HOST)?,
            vtep: PortName::new(layout::VTEP)?,
        })
    }
}

/// The node's own side of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The names of what it is made from.
    pub names: Names,
    /// The node's name in the cluster.
    pub node: String,
    /// Its addresses on the wire, in order; tunnels begin and end at the first of a family.
    pub node_ips: Vec<IpAddr>,
    /// The topology zone that it is in.
    pub zone: Option<String>,
    /// The networks of its uplink: what is there needs no gateway, and direct routes.
    pub on_link: Vec<IpPrefix>,
    /// The next hop of what is elsewhere, per family.
    pub gateways: Vec<IpAddr>,
    /// Its pods' networks, one per family at most.
    pub pod_cidrs: Vec<IpPrefix>,
    /// The uplink's port, Ethernet address and MTU.
    pub uplink: (PortName, MacAddr, Mtu),
    /// The pods' MTU.
    pub pod_mtu: Mtu,
    /// The Ethernet addresses of the switch, of the host in the pod network, and of the tunnels' end.
    pub macs: Macs,
    /// How nodes are reached.
    pub overlay: Overlay,
    /// Connections that the zone of the pods may have.
    pub max_flows: u32,
}

/// Ethernet addresses of the node's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Macs {
    /// The switch's.
    pub switch: MacAddr,
    /// The host's, in the pod network.
    pub host: MacAddr,
    /// That of the tunnels' end.
    pub vtep: MacAddr,
}

impl Settings {
    /// The switch's address of a family: the first of the pods' network.
    #[must_use]
    pub fn switch(&self, v4: bool) -> Option<IpAddr> {
        self.of_pod_network(v4, 1)
    }

    /// The host's address of a family in the pod network: the second.
    #[must_use]
    pub fn host(&self, v4: bool) -> Option<IpAddr> {
        self.of_pod_network(v4, 2)
    }

    fn of_pod_network(&self, v4: bool, number: u8) -> Option<IpAddr> {
        let prefix = self.pod_cidrs.iter().find(|prefix| prefix.is_ipv4() == v4)?;
        Prefix { addr: prefix.addr(), len: prefix.len() }.nth(number)
    }
}

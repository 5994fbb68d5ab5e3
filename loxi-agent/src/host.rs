//! The machine that the agent runs on: finds its uplink and makes the node's layout.
//!
//! What is found is the root namespace's, by the address that the cluster knows this node by. The layout is the
//! product's (`loxi_linux::layout`); making it again changes nothing.

use std::net::IpAddr;

use loxi_core::net::{IpPrefix, MacAddr, Mtu, NetError, PortName, Vni};
use loxi_linux::layout::{Instance, Layout, LayoutSpec, Offloads, Overlay as LayoutOverlay};
use loxi_linux::netns::{NetNs, NetNsError};
use loxi_linux::rtnetlink::{Link, Route, Rtnl, RtnlError};
use loxi_linux::sys::RealSys;
use loxi_linux::{Prefix, layout};

use crate::cluster::model::Node;
use crate::engine::Prepare;
use crate::intent::{Macs, Names, Overlay, Settings, vtep_mac};

/// What VXLAN over IPv4 and over IPv6 adds to a packet: Ethernet, VXLAN, UDP and IP headers.
const VXLAN_V4: u16 = 50;
const VXLAN_V6: u16 = 70;
/// The least MTU of a link with IPv6 (RFC 8200 section 5).
const LEAST_MTU: u16 = 1280;

/// Why the node's network can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The cluster knows no address of this node.
    #[error("status.addresses has no InternalIP")]
    NoAddress,
    /// No device of this machine has it.
    #[error("no device has the node's address {address}")]
    NoUplink {
        /// The address.
        address: IpAddr,
    },
    /// The device is no Ethernet.
    #[error("uplink {name} has no Ethernet address")]
    NoMac {
        /// Its name.
        name: String,
    },
    /// The uplink takes too small packets for pods behind a tunnel.
    #[error("uplink {name}: an MTU of {mtu} leaves pods less than {LEAST_MTU}")]
    Mtu {
        /// The uplink.
        name: String,
        /// Its MTU.
        mtu: u32,
    },
    /// The root namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The kernel does not say what there is.
    #[error(transparent)]
    Rtnl(#[from] RtnlError),
    /// The layout can't be made.
    #[error(transparent)]
    Layout(#[from] layout::LayoutError),
    /// A name or number that the dataplane has no place for.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// What an operator says of the machine's network.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The label of everything that is made.
    pub instance: Instance,
    /// The node's name.
    pub node: String,
    /// The networks of all pods.
    pub cluster_cidrs: Vec<IpPrefix>,
    /// The networks of the services.
    pub service_cidrs: Vec<IpPrefix>,
    /// VXLAN's network identifier and port.
    pub overlay: (u32, u16),
    /// The pods' MTU; none: what the uplink leaves.
    pub mtu: Option<u16>,
    /// Give pods' traffic to the outside the node's address.
    pub masquerade: bool,
    /// The offloads of pods' links.
    pub offloads: Offloads,
    /// Ports of the node at which its kernel keeps silent.
    pub silent_ports: Option<(u16, u16)>,
    /// Connections that the pods may have.
    pub max_flows: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Host {
    options: HostOptions,
}

/// The root namespace's end of the network.
#[derive(Debug)]
struct Uplink {
    link: Link,
    prefixes: Vec<Prefix>,
    gateways: Vec<IpAddr>,
}

impl Host {
    /// The machine as it is.
    #[must_use]
    pub fn new(options: HostOptions) -> Self {
        Self { options }
    }

    fn make(&self, node: &Node) -> Result<Settings, HostError> {
        let uplink = self.uplink(node)?;
        let settings = self.settings(node, &uplink)?;
        Layout::ensure(&RealSys, &self.spec(&settings))?;
        Ok(settings)
    }

    fn uplink(&self, node: &Node) -> Result<Uplink, HostError> {
        let address = node.internal_ips.first().copied().ok_or(HostError::NoAddress)?;
        let root = NetNs::open(self.options.instance.root.path())?;
        let (links, addresses, routes) = root.run(|| -> Result<_, RtnlError> {
            let mut rtnl = Rtnl::open()?;
            Ok((rtnl.links()?, rtnl.addrs()?, rtnl.routes()?))
        })??;
        let index = addresses.iter().find(|one| one.prefix.addr == address).map(|one| one.index);
        let link = links.into_iter().find(|link| Some(link.index) == index);
        let link = link.ok_or(HostError::NoUplink { address })?;
        let of_it = addresses.iter().filter(|one| one.index == link.index && one.scope == 0);
        let default = |route: &Route| {
            let by = route.dst.len == 0 && route.dev.as_deref() == Some(&*link.name);
            route.via.filter(|_| by)
        };
        Ok(Uplink {
            prefixes: of_it.map(|one| one.prefix).collect(),
            gateways: routes.iter().filter_map(default).collect(),
            link,
        })
    }

    fn settings(&self, node: &Node, uplink: &Uplink) -> Result<Settings, HostError> {
        let options = &self.options;
        let link = &uplink.link;
        let own_mac = link.mac.ok_or_else(|| HostError::NoMac { name: link.name.clone() })?;
        let too_small = || HostError::Mtu { name: link.name.clone(), mtu: link.mtu };
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        let tunnel = if node.internal_ip(true).is_some() { VXLAN_V4 } else { VXLAN_V6 };
        let pod_mtu = match options.mtu {
            Some(mtu) => mtu,
            None => mtu.checked_sub(tunnel).filter(|mtu| *mtu >= LEAST_MTU).ok_or_else(too_small)?,
        };
        let mac = |mac: loxi_linux::MacAddr| MacAddr::new(mac.0);
        let of_layout = |port| mac(layout::mac_for(&options.instance.name, port));
        let on_link = uplink.prefixes.iter().map(|prefix| IpPrefix::containing(prefix.addr, prefix.len));
        Ok(Settings {
            names: Names::new()?,
            node: options.node.clone(),
            node_ips: node.internal_ips.clone(),
            zone: node.zone.clone(),
            on_link: on_link.collect(),
            gateways: uplink.gateways.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
            uplink: (PortName::new(&*link.name)?, mac(own_mac), Mtu::new(mtu)?),
            pod_mtu: Mtu::new(pod_mtu)?,
            macs: Macs {
                switch: of_layout(layout::SWITCH),
                host: of_layout(layout::HOST),
                vtep: vtep_mac(&options.node),
            },
            overlay: Overlay { vni: Vni::new(options.overlay.0)?, port: options.overlay.1 },
            max_flows: options.max_flows,
        })
    }

    /// The layout of a node with these settings.
    #[must_use]
    pub fn spec(&self, settings: &Settings) -> LayoutSpec {
        let options = &self.options;
        let prefixes = |list: &[IpPrefix]| -> Vec<Prefix> {
            list.iter().map(|prefix| Prefix { addr: prefix.addr(), len: prefix.len() }).collect()
        };
        let addresses = |of: fn(&Settings, bool) -> Option<IpAddr>| -> Vec<IpAddr> {
            [true, false].into_iter().filter_map(|v4| of(settings, v4)).collect()
        };
        let mac = |mac: MacAddr| loxi_linux::MacAddr(mac.octets());
        LayoutSpec {
            underlay: settings.node_ips.clone(),
            switch: addresses(Settings::switch),
            host: addresses(Settings::host),
            pod_cidrs: prefixes(&settings.pod_cidrs),
            cluster_cidrs: prefixes(&options.cluster_cidrs),
            service_cidrs: prefixes(&options.service_cidrs),
            mtu: settings.pod_mtu.get().into(),
            overlay: LayoutOverlay { vni: options.overlay.0, port: options.overlay.1 },
            masquerade: options.masquerade,
            offloads: options.offloads,
            silent_ports: options.silent_ports,
            switch_mac: mac(settings.macs.switch),
            host_mac: mac(settings.macs.host),
            vtep_mac: mac(settings.macs.vtep),
            ..LayoutSpec::new(options.instance.clone(), settings.uplink.0.as_str())
        }
    }
}

impl Prepare for Host {
    fn prepare(&self, node: &Node) -> Result<Settings, String> {
        self.make(node).map_err(|error| error.to_string())
    }
}

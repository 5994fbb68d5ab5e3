//! Who is where: names and addresses of everything in a lab.
//!
//! All of it follows from the instance's name. Addresses are those of the architecture's page, so labs of
//! several instances have the same ones; they never meet, because each has namespaces of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use loxi_linux::layout::{self, mac_for};
use loxi_linux::{MacAddr, Prefix};

/// The nodes' numbers.
pub const NODES: [u8; 2] = [1, 2];
/// The pods' numbers on each node; pod N is behind port `hsN`.
pub const PODS: [u8; 3] = [1, 2, 3];
/// The pod whose link takes larger packets than the pod network does.
pub const WIDE_POD: u8 = 3;
/// MTU of the pod network: the wire's less what VXLAN over IPv4 adds.
pub const POD_MTU: u16 = 1450;
/// MTU of the wire.
pub const WIRE_MTU: u16 = 1500;
/// The VXLAN network identifier.
pub const VNI: u32 = 100;
/// The last number of the outside host's addresses.
pub const OUTSIDE: u8 = 100;
/// The TCP and UDP port at which everybody answers.
pub const SERVER_PORT: u16 = 8080;
/// The TCP and UDP port of every service.
pub const SERVICE_PORT: u16 = 80;

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

/// An address of the network `fd00:A:B:C::/64`.
fn v6(a: u16, b: u16, c: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, a, b, c, 0, 0, 0, last))
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// A machine's address on the wire. IPv6 addresses read like the IPv4 ones: `fd00:172:18::100`.
#[must_use]
pub fn on_wire(number: u8, family: Family) -> IpAddr {
    let as_written = match number {
        OUTSIDE => 0x100,
        other => u16::from(other),
    };
    match family {
        Family::V4 => v4(172, 18, 0, number),
        Family::V6 => v6(0x172, 0x18, 0, as_written),
    }
}

/// The wire's network.
#[must_use]
pub fn wire(family: Family) -> Prefix {
    let len = if family == Family::V4 { 24 } else { 64 };
    Prefix { addr: on_wire(0, family), len }
}

fn in_pod_network(node: u8, last: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => v4(10, 244, node, last),
        Family::V6 => v6(0x10, 0x244, u16::from(node), u16::from(last)),
    }
}

/// The network of a node's pods.
#[must_use]
pub fn pod_cidr(node: u8, family: Family) -> Prefix {
    let len = if family == Family::V4 { 24 } else { 64 };
    Prefix { addr: in_pod_network(node, 0, family), len }
}

/// The networks of all nodes' pods.
#[must_use]
pub fn cluster_cidr(family: Family) -> Prefix {
    let len = if family == Family::V4 { 16 } else { 48 };
    Prefix { addr: in_pod_network(0, 0, family), len }
}

/// The network of the services.
#[must_use]
pub fn service_cidr(family: Family) -> Prefix {
    let len = if family == Family::V4 { 16 } else { 112 };
    Prefix { addr: vip(0, family), len }
}

/// A node's switch, its pods' gateway.
#[must_use]
pub fn switch(node: u8, family: Family) -> IpAddr {
    in_pod_network(node, 1, family)
}

/// A node's own address in the pod network, on `loxi_host`.
#[must_use]
pub fn host(node: u8, family: Family) -> IpAddr {
    in_pod_network(node, 2, family)
}

/// A pod's address: pods begin with the tenth of their network.
#[must_use]
pub fn pod(node: u8, pod: u8, family: Family) -> IpAddr {
    in_pod_network(node, 9 + pod, family)
}

/// The virtual address of a service.
#[must_use]
pub fn vip(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => v4(10, 96, 0, number),
        Family::V6 => v6(0x10, 0x96, 0, u16::from(number)),
    }
}

/// A namespace of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spot {
    /// The bridge that is the wire.
    Wire,
    /// The host outside of the cluster.
    Outside,
    /// A node's root namespace.
    Node(u8),
    /// A pod of a node.
    Pod(u8, u8),
}

impl Spot {
    /// Every namespace that the lab makes itself; the dataplanes' are made by the layout.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Wire, Self::Outside];
        for node in NODES {
            all.push(Self::Node(node));
            all.extend(PODS.map(|pod| Self::Pod(node, pod)));
        }
        all
    }

    /// The addresses at which it answers.
    #[must_use]
    pub fn address(self, family: Family) -> Option<IpAddr> {
        match self {
            Self::Wire => None,
            Self::Outside => Some(on_wire(OUTSIDE, family)),
            Self::Node(node) => Some(on_wire(node, family)),
            Self::Pod(node, number) => Some(pod(node, number, family)),
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Wire => "wire".into(),
            Self::Outside => "outside".into(),
            Self::Node(node) => format!("n{node}"),
            Self::Pod(node, pod) => format!("n{node}-pod{pod}"),
        };
        f.pad(&name)
    }
}

/// What carries the instance's name: labels and, seeded by them, Ethernet addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    instance: String,
}

/// A name that can't be an instance's.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} can't name a lab: 1 to 20 of a-z, 0-9 and -, a letter first")]
pub struct BadInstance {
    /// The name.
    pub name: String,
}

impl Plan {
    /// The plan of an instance.
    ///
    /// # Errors
    /// If the name can't be part of a label or would make the paths of sockets too long.
    pub fn new(instance: &str) -> Result<Self, BadInstance> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let starts = instance.starts_with(|c: char| c.is_ascii_lowercase());
        if starts && instance.len() <= 20 && instance.chars().all(plain) {
            Ok(Self { instance: instance.into() })
        } else {
            Err(BadInstance { name: instance.into() })
        }
    }

    /// The instance's name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The instance that a node's layout and daemon have.
    #[must_use]
    pub fn node_instance(&self, node: u8) -> String {
        format!("{}-n{node}", self.instance)
    }

    /// The Ethernet address of the uplink of a machine on the wire.
    #[must_use]
    pub fn wire_mac(&self, spot: Spot) -> MacAddr {
        mac_for(&self.instance, &format!("{spot}.eth0"))
    }

    /// A pod's Ethernet address.
    #[must_use]
    pub fn pod_mac(&self, node: u8, pod: u8) -> MacAddr {
        mac_for(&self.instance, &format!("{}.eth0", Spot::Pod(node, pod)))
    }

    /// The switch's Ethernet address, the one that the layout gives it.
    #[must_use]
    pub fn switch_mac(&self, node: u8) -> MacAddr {
        mac_for(&self.node_instance(node), layout::SWITCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_architecture() {
        let text = |addr: IpAddr| addr.to_string();
        assert_eq!(text(on_wire(OUTSIDE, Family::V4)), "172.18.0.100");
        assert_eq!(text(on_wire(OUTSIDE, Family::V6)), "fd00:172:18::100");
        assert_eq!(text(host(2, Family::V6)), "fd00:10:244:2::2");
        assert_eq!(text(pod(1, 1, Family::V4)), "10.244.1.10");
        assert_eq!(text(pod(1, 1, Family::V6)), "fd00:10:244:1::a");
        assert_eq!(text(vip(3, Family::V6)), "fd00:10:96::3");
        assert!(cluster_cidr(Family::V6).contains(pod(2, 3, Family::V6)));
        assert!(service_cidr(Family::V6).contains(vip(4, Family::V6)));
    }

    #[test]
    fn instances_are_labels() {
        assert!(Plan::new("lab-2").is_ok());
        for bad in ["", "2", "-a", "A", "a_b", "a/b", "twenty-one-characters"] {
            assert!(Plan::new(bad).is_err(), "{bad}");
        }
    }
}

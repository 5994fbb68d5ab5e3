//! L3 interfaces: where a VRF meets a bridge or a port.

use super::Origin;
use crate::net::{BridgeName, InterfaceName, MacAddr, Mtu, PortName, VlanId, VrfName};
use std::collections::BTreeSet;
use std::net::IpAddr;

data! {
    /// What an L3 interface sits on.
    pub enum InterfaceOn {
        /// A VLAN of a bridge.
        Bridge {
            /// The bridge.
            bridge: BridgeName,
            /// The VLAN; 1 unless given.
            #[serde(default)]
            vlan: VlanId,
        },
        /// A port that is attached to the same VRF.
        Port(PortName),
    }
}

data! {
    /// Who answers packets for an interface's own address.
    #[derive(Copy, Default)]
    pub enum LocalDelivery {
        /// The dataplane answers ARP, ND and echo; all else is dropped (`no_service`).
        #[default]
        Answer,
        /// The local stack, which has the same address (`not_ours_local`).
        Punt,
    }
}

data! {
    /// An L3 interface. Key: its name.
    ///
    /// It implies no routes: an on-link prefix is a [`super::Route`] to a
    /// direct [`super::NextHop`] without gateway.
    pub struct Interface {
        /// Its name.
        pub name: InterfaceName,
        /// Bridge or port below.
        pub on: InterfaceOn,
        /// Routing domain above.
        pub vrf: VrfName,
        /// The MAC that admits frames to L3 and is the source of what is sent.
        pub mac: MacAddr,
        /// Its addresses; the first of a family is the source of ICMP and ARP that we make.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        pub addresses: BTreeSet<IpAddr>,
        /// Largest packet sent by it.
        #[serde(default)]
        pub mtu: Mtu,
        /// Who answers for its addresses.
        #[serde(default)]
        pub local: LocalDelivery,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl Interface {
    /// First address of the family, lowest first.
    #[must_use]
    pub fn address(&self, ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv4() == ipv4)
    }
}

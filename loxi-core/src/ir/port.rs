//! Ports: where packets enter and leave the dataplane.

use super::Origin;
use crate::net::{BridgeName, IpPrefix, MacAddr, Mtu, PortName, VlanId, VrfName};
use std::collections::BTreeSet;

data! {
    /// What is at the other end of a port.
    #[derive(Copy)]
    pub enum PortKind {
        /// A pod or container.
        Pod,
        /// The node's own stack.
        Host,
        /// A physical network, shared with the node's own stack.
        Uplink,
        /// The inside of a tunnel: packets enter by termination, leave by a [`super::Tunnel`].
        Tunnel,
        /// An e-switch representor.
        Representor,
    }
}

data! {
    /// Administrative state.
    #[derive(Copy, Default)]
    pub enum Admin {
        /// Packets pass.
        #[default]
        Up,
        /// Packets in either direction are dropped (`port_down`, `egress_down`).
        Down,
    }
}

data! {
    /// Whether clients behind the port count as inside or outside of the
    /// cluster when services are matched.
    #[derive(Copy, Default)]
    pub enum Scope {
        /// Inside.
        #[default]
        Internal,
        /// Outside.
        External,
    }
}

data! {
    /// What happens to packets that no entity claims.
    #[derive(Copy)]
    pub enum Unclaimed {
        /// They go to the local stack as they came (`not_ours_unclaimed`).
        Punt,
        /// They are dropped (`unclaimed`).
        Drop,
    }
}

data! {
    /// How a port takes part in VLANs (IEEE 802.1Q).
    pub enum VlanMode {
        /// Untagged and priority-tagged (VID 0) frames belong to this VLAN; other tags are
        /// dropped (`vlan_filtered`).
        Access(VlanId),
        /// Tagged frames of the allowed VLANs.
        Trunk {
            /// VLANs that may pass.
            allowed: BTreeSet<VlanId>,
            /// VLAN of untagged frames; without one they are dropped.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            native: Option<VlanId>,
        },
    }
}

impl Default for VlanMode {
    fn default() -> Self {
        Self::Access(VlanId::default())
    }
}

data! {
    /// A port's membership in a bridge.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct BridgePort {
        /// The bridge.
        pub bridge: BridgeName,
        /// VLANs of the port.
        #[serde(default)]
        pub vlan: VlanMode,
        /// Whether source addresses are learned here.
        #[serde(default = "crate::defaults::yes")]
        pub learning: bool,
        /// Frames from one port of a group never leave by another port of the
        /// same group (`split_horizon`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub split_horizon: Option<u16>,
    }
}

data! {
    /// What a port's packets enter.
    #[derive(Default)]
    pub enum Attachment {
        /// Nothing: every packet is unclaimed.
        #[default]
        Detached,
        /// A bridge.
        Bridge(BridgePort),
        /// A VRF; the port's own MAC admits to it.
        Vrf(VrfName),
    }
}

data! {
    /// Whom a port may claim to be. A packet with another source is dropped
    /// (`spoof_mac`, `spoof_ip`, `spoof_arp`, `spoof_nd`), as are router
    /// advertisements, redirects and DHCP server messages (RFC 6105, RFC 7610).
    pub struct AntiSpoof {
        /// IP addresses that are the port's.
        pub addresses: BTreeSet<IpPrefix>,
        /// MAC addresses besides the port's own.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        pub macs: BTreeSet<MacAddr>,
        /// Admits 0.0.0.0 → 255.255.255.255, UDP 68 → 67 (RFC 2131).
        #[serde(default)]
        pub dhcp_client: bool,
    }
}

data! {
    /// A place where packets enter and leave. Key: its name.
    pub struct Port {
        /// Interface on the dataplane's side.
        pub name: PortName,
        /// What is behind it.
        pub kind: PortKind,
        /// MAC of the station behind a pod or host port; the port's own MAC for the others.
        pub mac: MacAddr,
        /// Largest L3 packet.
        #[serde(default)]
        pub mtu: Mtu,
        /// Administrative state.
        #[serde(default)]
        pub admin: Admin,
        /// Bridge or VRF.
        #[serde(default)]
        pub attachment: Attachment,
        /// Whether tunnels may end here.
        #[serde(default)]
        pub underlay: bool,
        /// Inside or outside of the cluster.
        #[serde(default)]
        pub scope: Scope,
        /// Source guard; none admits every source.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub anti_spoof: Option<AntiSpoof>,
        /// Fate of what nobody claims; see [`Port::unclaimed`] for the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub unclaimed: Option<Unclaimed>,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl Port {
    /// Fate of what nobody claims: as configured, else punt on uplink and
    /// host ports, drop on the others.
    #[must_use]
    pub fn unclaimed(&self) -> Unclaimed {
        self.unclaimed.unwrap_or(match self.kind {
            PortKind::Uplink | PortKind::Host => Unclaimed::Punt,
            PortKind::Pod | PortKind::Tunnel | PortKind::Representor => Unclaimed::Drop,
        })
    }

    /// The bridge membership, if it has one.
    #[must_use]
    pub fn bridge(&self) -> Option<&BridgePort> {
        match &self.attachment {
            Attachment::Bridge(member) => Some(member),
            Attachment::Vrf(_) | Attachment::Detached => None,
        }
    }
}

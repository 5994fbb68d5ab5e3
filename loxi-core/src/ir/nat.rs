//! NAT rules, for users without a host stack that masquerades for them.

use super::Origin;
use crate::net::{InterfaceName, IpPrefix, IpProtocol, L4Ports, VrfName};
use std::collections::BTreeSet;
use std::net::IpAddr;

data! {
    /// Packets that a rule is about. Every given field must match.
    #[derive(Default)]
    pub struct NatMatch {
        /// Source; empty: any.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        pub src: BTreeSet<IpPrefix>,
        /// Destination after service translation; empty: any.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        pub dst: BTreeSet<IpPrefix>,
        /// Protocol; none: any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub protocol: Option<IpProtocol>,
        /// Destination ports; none: any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub dst_ports: Option<L4Ports>,
        /// Egress L3 interface; none: any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub egress: Option<InterfaceName>,
    }
}

data! {
    /// What a rule does with the packets of a new flow.
    pub enum NatAction {
        /// Leaves the source as it is and ends the search.
        NoNat,
        /// Source from a pool. The port is kept where its tuple is unique (RFC 4787 REQ-3),
        /// else another of `ports`.
        Snat {
            /// Addresses; one is chosen by hash of the source, so a source keeps its own
            /// (RFC 4787 REQ-2).
            pool: BTreeSet<IpAddr>,
            /// Ports, 1024-65535 unless given.
            #[serde(default = "crate::defaults::nat_ports")]
            ports: L4Ports,
        },
        /// Source is the egress interface's first address.
        Masquerade {
            /// Ports, 1024-65535 unless given.
            #[serde(default = "crate::defaults::nat_ports")]
            ports: L4Ports,
        },
        /// Static 1:1 (basic NAT, RFC 3022 section 2.1): sources inside `internal` become the
        /// address at the same offset in `external`; destinations in `external` the reverse. Ports stay.
        OneToOne {
            /// Inside.
            internal: IpPrefix,
            /// Outside, of the same family and length.
            external: IpPrefix,
        },
        /// Destination becomes this address and port, for connections to `matches.dst`.
        Dnat {
            /// New destination.
            address: IpAddr,
            /// New port; 0 keeps it.
            #[serde(default)]
            port: u16,
        },
    }
}

data! {
    /// Key of a NAT rule.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct NatKey {
        /// Routing domain.
        pub vrf: VrfName,
        /// Lower is looked at first.
        pub priority: u32,
    }
}

data! {
    /// A NAT rule: the first match decides, by ascending priority.
    pub struct NatRule {
        /// Routing domain.
        pub vrf: VrfName,
        /// Lower is looked at first.
        pub priority: u32,
        /// Packets it is about.
        #[serde(default)]
        pub matches: NatMatch,
        /// What it does.
        pub action: NatAction,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl NatRule {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> NatKey {
        NatKey { vrf: self.vrf.clone(), priority: self.priority }
    }
}

impl std::fmt::Display for NatKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.vrf, self.priority)
    }
}

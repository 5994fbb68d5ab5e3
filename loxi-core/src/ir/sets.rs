//! Named sets, changed incrementally and swapped atomically.

use super::Origin;
use crate::net::{AddrSetName, IpPrefix, L4Ports, PortSetName};
use std::collections::BTreeSet;

data! {
    /// A set of addresses. Key: its name.
    pub struct AddrSet {
        /// Its name.
        pub name: AddrSetName,
        /// Prefixes that are in it.
        pub members: BTreeSet<IpPrefix>,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl AddrSet {
    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.members.iter().any(|prefix| prefix.contains(address))
    }
}

data! {
    /// A set of L4 ports. Key: its name.
    pub struct PortSet {
        /// Its name.
        pub name: PortSetName,
        /// Ranges that are in it.
        pub members: BTreeSet<L4Ports>,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

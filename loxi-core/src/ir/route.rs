//! Routes: longest prefix match within a VRF.

use super::Origin;
use crate::net::{GroupName, IpPrefix, NextHopName, VrfName};

data! {
    /// Where a route leads.
    pub enum RouteTarget {
        /// One next hop.
        NextHop(NextHopName),
        /// A group of next hops.
        Group(GroupName),
    }
}

data! {
    /// Key of a route.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct RouteKey {
        /// Routing domain.
        pub vrf: VrfName,
        /// Destinations.
        pub prefix: IpPrefix,
    }
}

data! {
    /// A route. The longest prefix wins; a miss is `no_route`, or unclaimed
    /// where the ingress port punts what nobody claims.
    ///
    /// Its next hop may leave by an interface of another VRF (route leaking, as
    /// RFC 4364's import of routes makes it); the packet's zone stays that of
    /// where it came in.
    pub struct Route {
        /// Routing domain.
        pub vrf: VrfName,
        /// Destinations.
        pub prefix: IpPrefix,
        /// Where they go.
        pub target: RouteTarget,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl Route {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> RouteKey {
        RouteKey { vrf: self.vrf.clone(), prefix: self.prefix }
    }
}

impl std::fmt::Display for RouteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.vrf, self.prefix)
    }
}

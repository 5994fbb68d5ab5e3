//! Load-balanced services.

use super::Origin;
use crate::net::{BackendName, IpPrefix, IpProtocol, L4Ports, NetError, VrfName};
use std::collections::BTreeSet;
use std::net::IpAddr;

data! {
    /// Clients for whom a service is.
    #[derive(Copy, Default)]
    pub enum ServiceScope {
        /// Everybody.
        #[default]
        Any,
        /// Clients behind internal ports.
        Internal,
        /// Clients behind external ports.
        External,
    }
}

/// Slots of a Maglev table: a prime from 251 to 131071. The paper (Eisenbud et
/// al., NSDI 2016, section 3.4) wants it above 100 times the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u64", into = "u64")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "u64"))]
pub struct MaglevSize(u32);

impl MaglevSize {
    /// Slots.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for MaglevSize {
    /// 16381, Cilium's default.
    fn default() -> Self {
        Self(16381)
    }
}

impl TryFrom<u64> for MaglevSize {
    type Error = NetError;
    fn try_from(value: u64) -> Result<Self, NetError> {
        let prime = (2..).take_while(|d| d * d <= value).all(|d| !value.is_multiple_of(d));
        match u32::try_from(value) {
            Ok(size) if (251..=131_071).contains(&size) && prime => Ok(Self(size)),
            _ => Err(NetError::Range { what: "Maglev table size (a prime)", value, min: 251, max: 131_071 }),
        }
    }
}

impl From<MaglevSize> for u64 {
    fn from(size: MaglevSize) -> u64 {
        size.0.into()
    }
}

data! {
    /// How a new connection gets its backend.
    #[derive(Copy, Default)]
    pub enum LbAlgorithm {
        /// Consistent hashing of the 5-tuple over a table ([`crate::algo::MaglevTable`]): the same
        /// choice on every node.
        Maglev {
            /// Slots of the table.
            #[serde(default)]
            table_size: MaglevSize,
        },
        /// Consistent hashing of the source address alone.
        SourceHash,
        /// Weighted round robin.
        RoundRobin,
        /// Weighted random.
        #[default]
        Random,
        /// The one with the fewest connections per weight.
        LeastConnections,
    }
}

data! {
    /// Client affinity: new connections of one source address keep their backend.
    #[derive(Copy)]
    pub struct Affinity {
        /// Seconds since the last connection, 1 to 86400.
        pub timeout_s: u32,
    }
}

data! {
    /// Which endpoints are eligible.
    #[derive(Copy, Default)]
    pub enum TrafficPolicy {
        /// All.
        #[default]
        Cluster,
        /// Local ones only (`no_local_backend` without one).
        Local,
        /// Local ones while there are any.
        PreferLocal,
    }
}

data! {
    /// How packets reach the endpoint.
    #[derive(Copy, Default)]
    pub enum LbMode {
        /// Destination rewritten; the reply passes here.
        #[default]
        Nat,
        /// Source rewritten too, to the VRF's `snat_address`.
        FullNat,
        /// Whole packet in IP in IP from the VRF's `snat_address` to the endpoint, which answers the
        /// client directly. The backend's port is not used.
        DsrIpip,
        /// Destination MAC of the endpoint, which is on a link of ours and has the VIP.
        DsrL2,
    }
}

data! {
    /// What a client gets when no endpoint is eligible.
    #[derive(Copy, Default)]
    pub enum OnNoBackend {
        /// RST or ICMP port unreachable.
        #[default]
        Reject,
        /// Silence.
        Drop,
    }
}

data! {
    /// Key of a service.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct ServiceKey {
        /// Routing domain.
        pub vrf: VrfName,
        /// Virtual address.
        pub vip: IpAddr,
        /// Protocol: TCP, UDP or SCTP.
        pub protocol: IpProtocol,
        /// L4 ports.
        pub ports: L4Ports,
        /// Clients.
        pub scope: ServiceScope,
    }
}

data! {
    /// A load-balanced service.
    pub struct LbService {
        /// Routing domain.
        pub vrf: VrfName,
        /// Virtual address; a [`super::VipAddress`] of the same VRF must exist.
        pub vip: IpAddr,
        /// TCP, UDP or SCTP.
        pub protocol: IpProtocol,
        /// L4 ports; a range keeps the packet's port unless the backend names one.
        pub ports: L4Ports,
        /// Clients for whom it is.
        #[serde(default)]
        pub scope: ServiceScope,
        /// Endpoints, in name order.
        #[serde(default)]
        pub backends: BTreeSet<BackendName>,
        /// How an endpoint is chosen.
        #[serde(default)]
        pub algorithm: LbAlgorithm,
        /// Client affinity.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub affinity: Option<Affinity>,
        /// Eligible endpoints.
        #[serde(default)]
        pub traffic_policy: TrafficPolicy,
        /// Clients that are served; empty: all. Others are dropped (`source_range`).
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        pub source_ranges: BTreeSet<IpPrefix>,
        /// How packets reach the endpoint.
        #[serde(default)]
        pub mode: LbMode,
        /// Without any endpoint.
        #[serde(default)]
        pub on_no_backend: OnNoBackend,
        /// With endpoints, but none here and the policy wants a local one.
        #[serde(default)]
        pub on_no_local_backend: OnNoBackend,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl LbService {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            vrf: self.vrf.clone(),
            vip: self.vip,
            protocol: self.protocol,
            ports: self.ports,
            scope: self.scope,
        }
    }
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scope = match self.scope {
            ServiceScope::Any => "",
            ServiceScope::Internal => " internal",
            ServiceScope::External => " external",
        };
        match self.vip {
            IpAddr::V4(v4) => write!(f, "{} {}:{} {}{scope}", self.vrf, v4, self.ports, self.protocol),
            IpAddr::V6(v6) => write!(f, "{} [{}]:{} {}{scope}", self.vrf, v6, self.ports, self.protocol),
        }
    }
}

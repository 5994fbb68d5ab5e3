//! The tables by name, as the objects have them.

use loxi_ebpf_layout::{Addr, Plain, count, flow, l2, l3, lb, meta, pair::Pair, policy, scratch, tunnel};
use std::marker::PhantomData;

/// A table with the types of its keys and values.
pub struct Typed<K, V> {
    /// Which one.
    pub table: Table,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Clone for Typed<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Typed<K, V> {}

macro_rules! tables {
    ($($name:ident = $symbol:ident: $key:ty => $value:ty;)+) => {
        /// A table of the programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)] // the programs document each
        pub enum Table {
            $($name,)+
        }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name in the objects, and under which it is pinned.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($symbol),)+
                }
            }

            /// Bytes of a key and of a value; a value of one processor where there is one each.
            #[must_use]
            pub fn sizes(self) -> (usize, usize) {
                match self {
                    $(Self::$name => (size_of::<$key>(), size_of::<$value>()),)+
                }
            }
        }

        $(
            #[allow(missing_docs)]
            pub const $symbol: Typed<$key, $value> = Typed { table: Table::$name, types: PhantomData };
        )+
    };
}

tables! {
    Globals = GLOBALS: u32 => scratch::Globals;
    Ports = PORTS: u32 => l2::PortPair;
    PortPolicy = PORT_POLICY: u32 => l2::PortPolicy;
    PortVlans = PORT_VLANS: l2::PortVlan => u32;
    GuardMacs = GUARD_MACS: l2::GuardMac => u32;
    Bridges = BRIDGES: u32 => Pair<l2::Bridge>;
    Kept = KEPT: u32 => u64;
    StationCount = STATION_COUNT: u32 => u64;
    Links = LINKS: l2::Link => u32;
    Admits = ADMITS: l2::Station => u32;
    Stations = STATIONS: l2::Station => l2::StationAt;
    LinkAddrs = LINK_ADDRS: l2::LinkAddr => u32;
    Proxies = PROXIES: l2::LinkAddr => u32;
    LocalAddrs = LOCAL_ADDRS: l3::VrfAddr => u32;
    Interfaces = INTERFACES: u32 => Pair<l3::Interface>;
    Neighbors = NEIGHBORS: l3::NeighborKey => l3::Neighbor;
    Vrfs = VRFS: u32 => Pair<l3::Vrf>;
    Sets = SETS: l3::Member => u32;
    Routes = ROUTES: l3::Route => u32;
    NextHops = NEXT_HOPS: u32 => Pair<l3::NextHop>;
    Groups = GROUPS: u32 => Pair<l3::Group>;
    NatRules = NAT_RULES: u32 => l3::NatRule;
    NatPool = NAT_POOL: u32 => Addr;
    Zones = ZONES: u32 => Pair<l3::Zone>;
    ZoneCount = ZONE_COUNT: u32 => l3::ZoneCount;
    Sources = SOURCES: l3::Source => u64;
    Fragments = FRAGMENTS: l3::FragmentKey => l3::Fragment;
    Vips = VIPS: l3::VrfAddr => u32;
    Services = SERVICES: lb::ServiceKey => u32;
    ServiceRanges = SERVICE_RANGES: lb::RangeKey => u32;
    Versions = VERSIONS: u32 => lb::Service;
    Lists = LISTS: u32 => lb::Choice;
    Hashes = HASHES: u32 => u64;
    Backends = BACKENDS: u32 => Pair<lb::Backend>;
    BackendFlows = BACKEND_FLOWS: u32 => u64;
    Turns = TURNS: u32 => u64;
    Affinity = AFFINITY: lb::AffinityKey => lb::Affinity;
    Peers = PEERS: policy::PeerKey => u32;
    PeerRules = PEER_RULES: policy::GroupClass => policy::Rules;
    PortRules = PORT_RULES: policy::GroupPort => policy::Rules;
    Policies = POLICIES: u32 => policy::Group;
    Tunnels = TUNNELS: u32 => Pair<tunnel::Tunnel>;
    Endings = ENDINGS: tunnel::EndKey => tunnel::Ending;
    Backs = BACKS: tunnel::BackKey => u32;
    Outers = OUTERS: tunnel::OuterKey => u32;
    Endpoints = ENDPOINTS: tunnel::EndpointKey => u32;
    PathMtus = PATH_MTUS: u32 => u64;
    BareUdp = BARE_UDP: u32 => u32;
    FlowsV4 = FLOWS_V4: u32 => flow::BucketV4;
    ColdV4 = COLD_V4: u32 => [flow::Cold; 16];
    FlowsV6 = FLOWS_V6: u32 => flow::BucketV6;
    ColdV6 = COLD_V6: u32 => [flow::Cold; 8];
    Answers = ANSWERS: u32 => scratch::Answer;
    Question = QUESTION: u32 => scratch::Question;
    Counters = COUNTERS: u32 => count::PortCount;
    Fates = FATES: u32 => count::Fates;
    Told = TOLD: u32 => u64;
    Meta = META: u32 => meta::Meta;
    Names = NAMES: [u32; 2] => [u8; 256];
}

impl Table {
    /// Bytes of a half, where an entry has two.
    #[must_use]
    pub fn half(self) -> Option<usize> {
        Some(match self {
            Self::Ports => size_of::<l2::Port>(),
            Self::Bridges => size_of::<l2::Bridge>(),
            Self::Interfaces => size_of::<l3::Interface>(),
            Self::Vrfs => size_of::<l3::Vrf>(),
            Self::NextHops => size_of::<l3::NextHop>(),
            Self::Groups => size_of::<l3::Group>(),
            Self::Zones => size_of::<l3::Zone>(),
            Self::Backends => size_of::<lb::Backend>(),
            Self::Tunnels => size_of::<tunnel::Tunnel>(),
            _ => return None,
        })
    }
}

/// Tables whose entries are memory of this process too.
pub const MAPPED: &[Table] = &[
    Table::Globals,
    Table::Ports,
    Table::PortPolicy,
    Table::Bridges,
    Table::Kept,
    Table::StationCount,
    Table::Interfaces,
    Table::Vrfs,
    Table::NextHops,
    Table::Groups,
    Table::NatRules,
    Table::NatPool,
    Table::Zones,
    Table::ZoneCount,
    Table::Versions,
    Table::Lists,
    Table::Hashes,
    Table::Backends,
    Table::BackendFlows,
    Table::Turns,
    Table::Policies,
    Table::Tunnels,
    Table::PathMtus,
    Table::FlowsV4,
    Table::ColdV4,
    Table::FlowsV6,
    Table::ColdV6,
    Table::Question,
    Table::Told,
];

/// Tables whose keys are prefixes.
pub const PREFIXES: &[Table] =
    &[Table::Sets, Table::Routes, Table::ServiceRanges, Table::Peers, Table::PortRules];

/// The bytes of a value.
#[must_use]
pub fn bytes<T: Plain>(value: &T) -> &[u8] {
    super::raw::bytes_of(value)
}

/// A value of bytes; `None` if they are of another length.
#[must_use]
pub fn value<T: Plain>(bytes: &[u8]) -> Option<T> {
    super::raw::value_of(bytes)
}

//! Every table, by the name under which the loader finds and pins it.
//!
//! Sizes that an operator chooses are set by the loader; those here are what
//! the compiler needs to see. Arrays that packets read are memory-mapped ones: only
//! those begin at a page, so that an entry of one line is in one line.

use aya_ebpf::bindings::{bpf_map_def, bpf_map_type::*};
use aya_ebpf::helpers::{bpf_map_delete_elem, bpf_map_lookup_elem, bpf_map_update_elem};
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use loxi_ebpf_layout::scratch::{Answer, Beside, Globals, Packet, Question};
use loxi_ebpf_layout::{count, flow, l2, l3, lb, limits, pair::Pair, policy, tunnel};

const MAPPED: u32 = aya_ebpf::bindings::BPF_F_MMAPABLE;
const ON_DEMAND: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

/// A table of the kernel.
#[repr(transparent)]
pub struct Table<K, V> {
    def: UnsafeCell<bpf_map_def>,
    types: PhantomData<(K, V)>,
}

// SAFETY: the definition is read by the loader and never written by a program; the
// kernel serialises access to the table itself.
unsafe impl<K, V> Sync for Table<K, V> {}

impl<K, V> Table<K, V> {
    /// As the loader is to make it.
    pub const fn new(kind: u32, max_entries: u32, flags: u32) -> Self {
        Self {
            def: UnsafeCell::new(bpf_map_def {
                type_: kind,
                key_size: size_of::<K>() as u32,
                value_size: size_of::<V>() as u32,
                max_entries,
                map_flags: flags,
                id: 0,
                pinning: 0,
            }),
            types: PhantomData,
        }
    }

    /// What helpers take.
    #[inline(always)]
    pub fn raw(&self) -> *mut core::ffi::c_void {
        self.def.get().cast()
    }

    /// The value of a key.
    #[inline(always)]
    pub fn ptr(&self, key: &K) -> Option<*mut V> {
        // SAFETY: the kernel checks that the map is one and the key has its size.
        let value = unsafe { bpf_map_lookup_elem(self.raw(), core::ptr::from_ref(key).cast()) };
        if value.is_null() { None } else { Some(value.cast()) }
    }

    /// The value of a key, for reading.
    #[inline(always)]
    pub fn get(&self, key: &K) -> Option<&V> {
        // SAFETY: values live as long as the program runs; words of them may change under the
        // reader, which every caller reckons with.
        self.ptr(key).map(|value| unsafe { &*value })
    }

    /// Puts a value; `flags` are the kernel's BPF_ANY, BPF_NOEXIST, BPF_EXIST. 0 is success.
    #[inline(always)]
    pub fn put(&self, key: &K, value: &V, flags: u64) -> i64 {
        // SAFETY: both pointers are to whole values of the sizes that the map has.
        unsafe {
            bpf_map_update_elem(
                self.raw(),
                core::ptr::from_ref(key).cast(),
                core::ptr::from_ref(value).cast(),
                flags,
            )
        }
    }

    /// Takes a key out.
    #[inline(always)]
    pub fn remove(&self, key: &K) -> i64 {
        // SAFETY: as above.
        unsafe { bpf_map_delete_elem(self.raw(), core::ptr::from_ref(key).cast()) }
    }
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $key:ty => $value:ty, $kind:ident[$max:expr], $flags:expr;)+) => {
        $(
            $(#[$doc])*
            #[unsafe(link_section = "maps")]
            #[unsafe(export_name = stringify!($name))]
            pub static $name: Table<$key, $value> = Table::new($kind, $max, $flags);
        )+
    };
}

tables! {
    /// What every packet reads.
    GLOBALS: u32 => Globals, BPF_MAP_TYPE_ARRAY[1], MAPPED;
    /// Ports.
    PORTS: u32 => l2::PortPair, BPF_MAP_TYPE_ARRAY[limits::PORTS], MAPPED;
    /// Policies of ports.
    PORT_POLICY: u32 => l2::PortPolicy, BPF_MAP_TYPE_ARRAY[limits::PORTS], MAPPED;
    /// VLANs of trunks: 1 tagged.
    PORT_VLANS: l2::PortVlan => u32, BPF_MAP_TYPE_HASH[limits::LINK_THINGS], ON_DEMAND;
    /// More MACs of guarded ports.
    GUARD_MACS: l2::GuardMac => u32, BPF_MAP_TYPE_HASH[limits::LINK_THINGS], ON_DEMAND;
    /// Bridges.
    BRIDGES: u32 => Pair<l2::Bridge>, BPF_MAP_TYPE_ARRAY[limits::BRIDGES], MAPPED;
    /// What is kept of things that are learned, by [`count::kept`].
    KEPT: u32 => u64, BPF_MAP_TYPE_ARRAY[count::kept::COUNT], MAPPED;
    /// Learned stations per bridge.
    STATION_COUNT: u32 => u64, BPF_MAP_TYPE_ARRAY[limits::BRIDGES], MAPPED;
    /// First L3 interface of each link.
    LINKS: l2::Link => u32, BPF_MAP_TYPE_HASH[limits::LINK_THINGS], ON_DEMAND;
    /// MACs that admit to L3, and their interfaces.
    ADMITS: l2::Station => u32, BPF_MAP_TYPE_HASH[limits::LINK_THINGS], ON_DEMAND;
    /// Stations, configured and learned.
    STATIONS: l2::Station => l2::StationAt, BPF_MAP_TYPE_HASH[limits::STATIONS], ON_DEMAND;
    /// Addresses of interfaces by link.
    LINK_ADDRS: l2::LinkAddr => u32, BPF_MAP_TYPE_HASH[limits::LINK_THINGS], ON_DEMAND;
    /// Static neighbours by link: which interface has each.
    PROXIES: l2::LinkAddr => u32, BPF_MAP_TYPE_HASH[limits::NEIGHBORS], ON_DEMAND;
    /// Addresses of interfaces by VRF.
    LOCAL_ADDRS: l3::VrfAddr => u32, BPF_MAP_TYPE_HASH[limits::LINK_THINGS], ON_DEMAND;
    /// L3 interfaces.
    INTERFACES: u32 => Pair<l3::Interface>, BPF_MAP_TYPE_ARRAY[limits::INTERFACES], MAPPED;
    /// Neighbours, configured and learned.
    NEIGHBORS: l3::NeighborKey => l3::Neighbor, BPF_MAP_TYPE_HASH[limits::NEIGHBORS], ON_DEMAND;
    /// VRFs.
    VRFS: u32 => Pair<l3::Vrf>, BPF_MAP_TYPE_ARRAY[limits::VRFS], MAPPED;
    /// Sets of addresses.
    SETS: l3::Member => u32, BPF_MAP_TYPE_LPM_TRIE[limits::SET_MEMBERS], ON_DEMAND;
    /// Routes: places of next hops, or of groups.
    ROUTES: l3::Route => u32, BPF_MAP_TYPE_LPM_TRIE[limits::ROUTES], ON_DEMAND;
    /// Next hops.
    NEXT_HOPS: u32 => Pair<l3::NextHop>, BPF_MAP_TYPE_ARRAY[limits::NEXT_HOPS], MAPPED;
    /// Groups of next hops.
    GROUPS: u32 => Pair<l3::Group>, BPF_MAP_TYPE_ARRAY[limits::GROUPS], MAPPED;
    /// NAT rules.
    NAT_RULES: u32 => l3::NatRule, BPF_MAP_TYPE_ARRAY[limits::NAT_PLACES], MAPPED;
    /// Addresses of SNAT pools.
    NAT_POOL: u32 => loxi_ebpf_layout::Addr, BPF_MAP_TYPE_ARRAY[limits::NAT_POOL], MAPPED;
    /// Conntrack zones.
    ZONES: u32 => Pair<l3::Zone>, BPF_MAP_TYPE_ARRAY[limits::ZONES + 1], MAPPED;
    /// Flows of zones.
    ZONE_COUNT: u32 => l3::ZoneCount, BPF_MAP_TYPE_ARRAY[limits::ZONES + 1], MAPPED;
    /// Flows of sources, in zones that limit them.
    SOURCES: l3::Source => u64, BPF_MAP_TYPE_HASH[65536], ON_DEMAND;
    /// Fragmented packets.
    FRAGMENTS: l3::FragmentKey => l3::Fragment, BPF_MAP_TYPE_HASH[2 * limits::FRAGMENTS], ON_DEMAND;

    /// Virtual addresses.
    VIPS: l3::VrfAddr => u32, BPF_MAP_TYPE_HASH[limits::VIPS], ON_DEMAND;
    /// Services of one port: places of versions.
    SERVICES: lb::ServiceKey => u32, BPF_MAP_TYPE_HASH[limits::SERVICES], ON_DEMAND;
    /// Services of ranges of ports.
    SERVICE_RANGES: lb::RangeKey => u32, BPF_MAP_TYPE_LPM_TRIE[16 * limits::SERVICES], ON_DEMAND;
    /// Versions of services.
    VERSIONS: u32 => lb::Service, BPF_MAP_TYPE_ARRAY[limits::SERVICES], MAPPED;
    /// Lists of endpoints.
    LISTS: u32 => lb::Choice, BPF_MAP_TYPE_ARRAY[limits::LIST_PLACES], MAPPED;
    /// Tables of hashes: indices into lists.
    HASHES: u32 => u64, BPF_MAP_TYPE_ARRAY[limits::HASH_PLACES / loxi_ebpf_layout::lb::HASHES_PER_WORD], MAPPED;
    /// Endpoints.
    BACKENDS: u32 => Pair<lb::Backend>, BPF_MAP_TYPE_ARRAY[limits::BACKENDS], MAPPED;
    /// Flows of endpoints.
    BACKEND_FLOWS: u32 => u64, BPF_MAP_TYPE_ARRAY[limits::BACKENDS], MAPPED;
    /// Whose turn it is, by service.
    TURNS: u32 => u64, BPF_MAP_TYPE_ARRAY[limits::SERVICES], MAPPED;
    /// Remembered endpoints of clients.
    AFFINITY: lb::AffinityKey => lb::Affinity, BPF_MAP_TYPE_HASH[limits::CLIENTS], ON_DEMAND;

    /// Classes of peers.
    PEERS: policy::PeerKey => u32, BPF_MAP_TYPE_LPM_TRIE[limits::PEERS], ON_DEMAND;
    /// Rules that mean a class.
    PEER_RULES: policy::GroupClass => policy::Rules, BPF_MAP_TYPE_HASH[limits::POLICY_PAIRS], ON_DEMAND;
    /// Rules that mean a protocol and port.
    PORT_RULES: policy::GroupPort => policy::Rules, BPF_MAP_TYPE_LPM_TRIE[limits::POLICY_PAIRS], ON_DEMAND;
    /// Groups of rules.
    POLICIES: u32 => policy::Group, BPF_MAP_TYPE_ARRAY[limits::POLICIES], MAPPED;

    /// Tunnels.
    TUNNELS: u32 => Pair<tunnel::Tunnel>, BPF_MAP_TYPE_ARRAY[limits::TUNNELS], MAPPED;
    /// Where tunnels end.
    ENDINGS: tunnel::EndKey => tunnel::Ending, BPF_MAP_TYPE_HASH[2 * limits::TUNNELS], ON_DEMAND;
    /// Tunnels back to outer sources.
    BACKS: tunnel::BackKey => u32, BPF_MAP_TYPE_HASH[2 * limits::TUNNELS], ON_DEMAND;
    /// Tunnels by their outer headers.
    OUTERS: tunnel::OuterKey => u32, BPF_MAP_TYPE_HASH[2 * limits::TUNNELS], ON_DEMAND;
    /// Numbers of remote addresses.
    ENDPOINTS: tunnel::EndpointKey => u32, BPF_MAP_TYPE_HASH[limits::ENDPOINTS], ON_DEMAND;
    /// Path MTUs by those numbers.
    PATH_MTUS: u32 => u64, BPF_MAP_TYPE_ARRAY[limits::ENDPOINTS], MAPPED;
    /// UDP ports where an IPv6 packet may come without checksum.
    BARE_UDP: u32 => u32, BPF_MAP_TYPE_HASH[limits::BARE_UDP], ON_DEMAND;

    /// IPv4 flows.
    FLOWS_V4: u32 => flow::BucketV4, BPF_MAP_TYPE_ARRAY[1], MAPPED;
    /// What few of their packets need.
    COLD_V4: u32 => [flow::Cold; 16], BPF_MAP_TYPE_ARRAY[1], MAPPED;
    /// IPv6 flows.
    FLOWS_V6: u32 => flow::BucketV6, BPF_MAP_TYPE_ARRAY[1], MAPPED;
    /// What few of their packets need.
    COLD_V6: u32 => [flow::Cold; 8], BPF_MAP_TYPE_ARRAY[1], MAPPED;

    /// Packets between programs.
    PACKETS: u32 => Packet, BPF_MAP_TYPE_PERCPU_ARRAY[1], 0;
    /// What the flow table's functions work on.
    WORK: u32 => crate::table::Work, BPF_MAP_TYPE_PERCPU_ARRAY[1], 0;
    /// What an XDP frame's stub says.
    BESIDE: u32 => Beside, BPF_MAP_TYPE_PERCPU_ARRAY[1], 0;
    /// Answers to questions.
    ANSWERS: u32 => Answer, BPF_MAP_TYPE_PERCPU_ARRAY[1], 0;
    /// The question.
    QUESTION: u32 => Question, BPF_MAP_TYPE_ARRAY[1], MAPPED;
    /// Counters.
    COUNTERS: u32 => count::PortCount, BPF_MAP_TYPE_PERCPU_ARRAY[limits::PORTS], 0;
    /// Fates by port.
    FATES: u32 => count::Fates, BPF_MAP_TYPE_PERCPU_ARRAY[limits::PORTS], 0;
    /// When a drop was last told, in ticks: port × 256 + fate.
    TOLD: u32 => u64, BPF_MAP_TYPE_ARRAY[limits::PORTS * loxi_ebpf_layout::code::FATES], MAPPED;
    /// Drops, for whoever listens.
    DROPS: () => (), BPF_MAP_TYPE_RINGBUF[262144], 0;
    /// Devices of ports, for XDP.
    DEVICES: u32 => u32, BPF_MAP_TYPE_DEVMAP[limits::PORTS + 1], 0;
}

/// Arrays of programs can't be read, only jumped through.
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "PROGRAMS")]
pub static PROGRAMS: Table<u32, u32> =
    Table::new(BPF_MAP_TYPE_PROG_ARRAY, loxi_ebpf_layout::code::program::COUNT, 0);

//! How many of each thing there can be. A pipeline that asks for more than
//! the capabilities say is refused by name before anything is touched; they say
//! half of what there is room for here, since what replaces a thing is made before it goes.

/// Ports, from 1.
pub const PORTS: u32 = 1024;
/// Bridges.
pub const BRIDGES: u32 = 256;
/// VRFs.
pub const VRFS: u32 = 256;
/// Conntrack zones: one byte of a flow's key.
pub const ZONES: u32 = 255;
/// L3 interfaces.
pub const INTERFACES: u32 = 1024;
/// Tunnels.
pub const TUNNELS: u32 = 8192;
/// Next hops.
pub const NEXT_HOPS: u32 = 16_384;
/// Groups of next hops.
pub const GROUPS: u32 = 1024;
/// Members of a next-hop group.
pub const GROUP_MEMBERS: u32 = 64;
/// Routes of all VRFs.
pub const ROUTES: u32 = 262_144;
/// Members of all sets of addresses.
pub const SET_MEMBERS: u32 = 262_144;
/// Stations, configured and learned.
pub const STATIONS: u32 = 262_144;
/// Learned stations of all bridges.
pub const LEARNED_STATIONS: u32 = STATIONS / 2;
/// Neighbours, configured and learned.
pub const NEIGHBORS: u32 = 131_072;
/// Learned neighbours.
pub const LEARNED_NEIGHBORS: u32 = NEIGHBORS / 2;
/// VLANs of all trunks, MACs of all guarded ports, and other things of which a link has a few.
pub const LINK_THINGS: u32 = 32_768;
/// Remote addresses with a path MTU.
pub const ENDPOINTS: u32 = 16_384;
/// UDP ports where an IPv6 packet may come without checksum.
pub const BARE_UDP: u32 = 1024;
/// Virtual addresses.
pub const VIPS: u32 = 65_536;
/// Services.
pub const SERVICES: u32 = 65_536;
/// Endpoints of services.
pub const BACKENDS: u32 = 131_072;
/// Places in lists of endpoints, of all services.
pub const LIST_PLACES: u32 = 1_048_576;
/// Places in tables of hashes, of all services.
pub const HASH_PLACES: u32 = 4_194_304;
/// Clients whose endpoint is remembered.
pub const CLIENTS: u32 = 65_536;
/// Groups of policy rules.
pub const POLICIES: u32 = 8192;
/// Prefixes of peers.
pub const PEERS: u32 = 262_144;
/// Pairs of a group and a class of peers, or a range of ports.
pub const POLICY_PAIRS: u32 = 262_144;
/// Rules of one subject and direction. Each tier starts on a word of 64 bits.
pub const POLICY_RULES: u32 = 512;
/// Words of a rule bitmap.
pub const POLICY_WORDS: usize = (POLICY_RULES / 64) as usize;
/// NAT rules of one VRF.
pub const NAT_RULES: u32 = 64;
/// NAT rules of all VRFs.
pub const NAT_PLACES: u32 = 4096;
/// Addresses of SNAT pools.
pub const NAT_POOL: u32 = 16_384;
/// Free source ports that are tried for one new flow; the slow path goes on.
pub const PORT_TRIES: u32 = 64;
/// Options of a neighbour discovery message.
pub const ND_OPTIONS: u32 = 8;
/// Fragmented packets that are remembered at once.
pub const FRAGMENTS: u32 = 4096;
/// Choices that one packet can make.
pub const CHOICES: usize = 8;
/// Endpoints of one list with a table of hashes: what 16 bits can tell apart.
pub const TABLE_LIST_LENGTH: u32 = 1 << 16;
/// Endpoints of one list: as many as a search that halves eighteen times finds.
pub const LIST_LENGTH: u32 = (1 << 18) - 1;

//! How many of each thing there can be. A pipeline that asks for more is
//! refused by name before anything is touched.

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
/// Members of a next-hop group.
pub const GROUP_MEMBERS: u32 = 64;
/// Rules of one subject and direction. Each tier starts on a word of 64 bits.
pub const POLICY_RULES: u32 = 512;
/// Words of a rule bitmap.
pub const POLICY_WORDS: usize = (POLICY_RULES / 64) as usize;
/// NAT rules of one VRF.
pub const NAT_RULES: u32 = 64;
/// Free source ports that are tried for one new flow; the slow path goes on.
pub const PORT_TRIES: u32 = 64;
/// Options of a neighbour discovery message.
pub const ND_OPTIONS: u32 = 8;
/// Fragmented packets that are remembered at once.
pub const FRAGMENTS: u32 = 4096;
/// Choices that one packet can make.
pub const CHOICES: usize = 8;

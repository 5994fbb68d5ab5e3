//! What one packet's programs hand each other, and what they tell whoever asked.

use crate::{Addr, limits::CHOICES, plain};

/// A packet between its programs. One per processor; programs don't nest.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Packet {
    /// Now, ns.
    pub now: u64,
    /// Source and destination as they are in the packet.
    pub src: Addr,
    /// See `src`.
    pub dst: Addr,
    /// Source and destination as they will be sent.
    pub new_src: Addr,
    /// See `new_src`.
    pub new_dst: Addr,
    /// Tuple by which it is tracked: that of the packet, or of its first fragment.
    pub sport: u16,
    /// See `sport`.
    pub dport: u16,
    /// Ports as they will be sent.
    pub new_sport: u16,
    /// See `new_sport`.
    pub new_dport: u16,
    /// Epoch of the configuration when it came.
    pub epoch: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Ingress port; of an inner packet its tunnel port.
    pub port: u16,
    /// Port at which the frame itself came in.
    pub outer_port: u16,
    /// Bytes of the frame as it came, tag included.
    pub len: u32,
    /// Where the frame, or the inner frame that is looked at, ends.
    pub end: u32,
    /// Where the Ethernet header is: 0, or behind outer headers.
    pub l2: u16,
    /// Where the IP header is.
    pub l3: u16,
    /// Where the transport header is.
    pub l4: u16,
    /// Length of the IP packet. With IPv6's header it may be more than 16 bits hold.
    pub ip_len: u32,
    /// Family; 0: no IP.
    pub family: u8,
    /// Protocol.
    pub protocol: u8,
    /// TTL.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// See [`l4`].
    pub kind: u8,
    /// TCP flags, or ICMP type, or SCTP chunk.
    pub detail: u8,
    /// ICMP code.
    pub code: u8,
    /// Whether the way's path MTU was lowered.
    pub lowered: u8,
    /// Ethertype, network order.
    pub ethertype: u16,
    /// 802.1Q tag that was there, host order; 0xffff: none.
    pub tag: u16,
    /// Identification of a fragmented packet.
    pub fragment_id: u32,
    /// Offset of a fragment in bytes.
    pub fragment_offset: u16,
    /// VLAN on the ingress bridge.
    pub vlan: u16,
    /// Source MAC.
    pub smac: [u8; 6],
    /// Destination MAC.
    pub dmac: [u8; 6],
    /// Bridge of the ingress; 0: none.
    pub bridge: u16,
    /// VRF.
    pub vrf: u16,
    /// L3 interface of the ingress link.
    pub interface: u16,
    /// Tunnel back to the outer source.
    pub back: u16,
    /// Zone.
    pub zone: u8,
    /// See [`tracking`].
    pub tracking: u8,
    /// State of the flow: before the packet, after it.
    pub state: u8,
    /// See `state`.
    pub next_state: u8,
    /// The flow's place in this direction: bucket × 16 + place + 1.
    pub place: u32,
    /// Place of its original direction.
    pub original: u32,
    /// Service's stable number.
    pub service: u32,
    /// Endpoint.
    pub backend: u32,
    /// Endpoint's generation.
    pub backend_generation: u32,
    /// See [`crate::flow::translation`].
    pub translation: u8,
    /// Whether the VRF's address becomes the source.
    pub full_nat: u8,
    /// Whether it is a hairpin.
    pub hairpin: u8,
    /// Inner packets of tunnels so far.
    pub ended: u8,
    /// Address of a DSR endpoint.
    pub dsr_target: Addr,
    /// ns of the service's affinity.
    pub affinity: u64,
    /// See [`way`].
    pub way: u8,
    /// Whether it is routed.
    pub routed: u8,
    /// Whether the way rests on something learned.
    pub ages: u8,
    /// Family of outer header where the way is IP in IP.
    pub outer_family: u8,
    /// Port of the way; of tunnels the underlay's.
    pub out_port: u16,
    /// L3 interface of the way; of tunnels the underlay's.
    pub out_interface: u16,
    /// Tunnel of the way.
    pub out_tunnel: u16,
    /// The half of it by which the way was found: the outer header is of the same one.
    pub tunnel_half: u8,
    /// Largest L3 packet of the way.
    pub mtu: u16,
    /// Port whose policies are concerned; 0: none.
    pub subject: u16,
    /// Link layer of the way (of tunnels the inner frame's).
    pub new_dmac: [u8; 6],
    /// See `new_dmac`.
    pub new_smac: [u8; 6],
    /// Link layer of an outer packet.
    pub outer_dmac: [u8; 6],
    /// See `outer_dmac`.
    pub outer_smac: [u8; 6],
    /// Interface whose route's VRF is meant, in the way of IP in IP.
    pub egress: u16,
    /// Outer source of IP in IP.
    pub outer_src: Addr,
    /// Policy generations under which the flow is admitted: of the source.
    pub source_generation: u32,
    /// And of the destination.
    pub destination_generation: u32,
    /// Random bits for this packet's choices.
    pub random: u32,
    /// Source port that an encapsulation chose.
    pub entropy: u32,
    /// Fate.
    pub fate: u8,
    /// Namespace of the hook.
    pub side: u8,
    /// Choices made so far.
    pub choices: u8,
    /// Program that decided the fate.
    pub by: u8,
    /// Stages met, a bit each.
    pub stages: u32,
    /// Policy group, word and bit that decided.
    pub group: u32,
    /// See `group`.
    pub word: u32,
    /// See `group`.
    pub bit: u64,
}

/// Flags of a packet.
pub mod flag {
    /// Somebody asks what becomes of it.
    pub const ASKED: u32 = 1;
    /// State stays as it is.
    pub const DRY: u32 = 2;
    /// The frame is for our MAC.
    pub const TO_US: u32 = 4;
    /// DF.
    pub const DF: u32 = 8;
    /// It is a fragment.
    pub const FRAGMENT: u32 = 16;
    /// More fragments follow.
    pub const MORE: u32 = 32;
    /// It was translated, or will be.
    pub const NAT: u32 = 64;
    /// It is a reply of its flow.
    pub const REPLY: u32 = 128;
    /// Its generations were stale.
    pub const STALE: u32 = 256;
    /// An endpoint is remembered for its client.
    pub const REMEMBER: u32 = 512;
    /// A chosen value was asked for by whoever asks.
    pub const CHOSEN: u32 = 1024;
    /// Its outer header is IPv6.
    pub const OUTER_V6: u32 = 2048;
    /// It came in IP in IP: there is no inner Ethernet header.
    pub const BARE: u32 = 4096;
    /// The decision may be taken again by the short way.
    pub const FAST: u32 = 8192;
    /// Its tuple is known.
    pub const TUPLE: u32 = 16384;
    /// Its congestion field changes.
    pub const ECN: u32 = 32768;
    /// It has taken its service's turn.
    pub const TURN: u32 = 65536;
    /// A flow was over in whose place another comes; where nothing may change it is still there.
    pub const OVER: u32 = 131_072;
}

/// What follows the IP header.
pub mod l4 {
    /// Nothing that is known.
    pub const OTHER: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 1;
    /// UDP.
    pub const UDP: u8 = 2;
    /// SCTP.
    pub const SCTP: u8 = 3;
    /// ICMP echo or timestamp, a request.
    pub const REQUEST: u8 = 4;
    /// ICMP echo or timestamp, a reply.
    pub const REPLY: u8 = 5;
    /// ICMP error.
    pub const ERROR: u8 = 6;
    /// Neighbour discovery.
    pub const ND: u8 = 7;
    /// Multicast listener discovery.
    pub const MLD: u8 = 8;
    /// Other ICMP.
    pub const ICMP_OTHER: u8 = 9;
    /// A fragment that isn't the first.
    pub const LATER: u8 = 10;
    /// ARP.
    pub const ARP: u8 = 11;
}

/// What conntrack knows.
pub mod tracking {
    /// Nothing.
    pub const UNTRACKED: u8 = 0;
    /// It opens a flow.
    pub const NEW: u8 = 1;
    /// It belongs to one.
    pub const ESTABLISHED: u8 = 2;
    /// It is an error about one.
    pub const RELATED: u8 = 3;
}

/// Ways out.
pub mod way {
    /// By a port.
    pub const PORT: u8 = 1;
    /// In a tunnel.
    pub const TUNNEL: u8 = 2;
    /// In IP in IP to a service's endpoint.
    pub const IPIP: u8 = 3;
}

/// What a program tells whoever asked about a packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer {
    /// The question that it answers.
    pub nonce: u32,
    /// Stages that the packet met, a bit each.
    pub stages: u32,
    /// Fate.
    pub fate: u8,
    /// 1: the frame as it is now leaves by `out_port`.
    pub sent: u8,
    /// Choices made.
    pub choices: u8,
    /// Where it was decided: see [`crate::code::program`].
    pub by: u8,
    /// Port by which it leaves.
    pub out_port: u16,
    /// Tag of what leaves, 0xffff: none.
    pub tag: u16,
    /// Tunnel port by which it came.
    pub in_tunnel: u16,
    /// Tunnel port by which it leaves.
    pub out_tunnel: u16,
    /// Policy group and rule bit that decided; 0: none.
    pub group: u32,
    /// See `group`.
    pub word: u32,
    /// Nothing yet.
    pub reserved: u32,
    /// See `group`.
    pub bit: u64,
    /// Values that were chosen.
    pub values: [u64; CHOICES],
    /// What each was: see [`choice`].
    pub points: [u8; CHOICES],
    /// Bounds of a choice of ports: first, last, preferred.
    pub bounds: [[u16; 4]; CHOICES],
    /// Service's place that chose.
    pub service: u32,
    /// Preferred endpoint of that service, or all ones.
    pub preferred: u32,
}

/// Kinds of choices.
pub mod choice {
    /// An endpoint.
    pub const BACKEND: u8 = 1;
    /// A source port.
    pub const SNAT_PORT: u8 = 2;
    /// A hairpin's source port.
    pub const HAIRPIN_PORT: u8 = 3;
    /// An outer source port.
    pub const ENTROPY: u8 = 4;
    /// An identification.
    pub const IDENTIFICATION: u8 = 5;
}

/// What somebody asks. The question's number travels beside the packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Question {
    /// Values to be chosen, in order.
    pub values: [u64; CHOICES],
    /// How many of them there are.
    pub count: u32,
    /// 1: what is not given is what needs no randomness; else it is random.
    pub first: u32,
    /// 1: the random bits are those below.
    pub seeded: u32,
    /// Random bits.
    pub random: u32,
}

/// What a program is told beside the packet when somebody asks: the words of a
/// socket buffer's `cb`, or of an XDP frame's metadata.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside {
    /// Port at which it comes in.
    pub port: u32,
    /// [`flag::ASKED`], [`flag::DRY`], or nothing.
    pub flags: u32,
    /// Now, ns: low word, high word.
    pub now: [u32; 2],
    /// The question's number.
    pub nonce: u32,
}

/// What every packet reads.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Globals {
    /// Epoch of the configuration: one word, changed after everything else.
    pub epoch: u64,
    /// CLOCK_BOOTTIME less the clock that the programs read, ns.
    pub clock_offset: u64,
    /// Device of the crossing in the root namespace.
    pub crossing_root: u64,
    /// Device of the crossing in the dataplane's namespace.
    pub crossing_dataplane: u64,
    /// Device of the slow path, in the dataplane's namespace.
    pub slow_path: u64,
    /// 1: no program at TC follows one at XDP.
    pub xdp_only: u64,
    /// Until when somebody finishes what is handed on, ns.
    pub attended: u64,
    /// Nothing yet.
    pub reserved: u64,
}

plain! { Answer = 184, Question = 80, Beside = 20, Globals = 64 }

impl Packet {
    /// Family of a DSR endpoint; that of the packet unless it is known to be another.
    #[must_use]
    #[inline(always)]
    pub const fn outer_family_or(&self, own: u8) -> u8 {
        if self.outer_family == 0 { own } else { self.outer_family }
    }
}

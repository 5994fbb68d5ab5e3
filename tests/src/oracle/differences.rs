//! What the reference does otherwise than Linux, on purpose.
//!
//! Each entry is explained in `docs/differences.md` under its name; a test holds the two lists to each other.
//! A scenario names the differences that it provokes. Any other difference fails it, and so does a
//! named one that did not occur.

use crate::wire::{self, ETH, set_word, word};

/// How a difference shows.
#[derive(Clone, Copy)]
pub enum Shape {
    /// The kernel sends something for the packet, the reference nothing.
    KernelOnly,
    /// The reference sends something for the packet, the kernel nothing.
    ReferenceOnly,
    /// Both send the same but for what this function makes equal.
    Bytes(fn(&mut [u8])),
    /// Both send, and what they send is not comparable: only the number of frames is.
    Count,
}

macro_rules! known {
    ($($(#[doc = $doc:literal])+ $name:ident: $shape:expr,)+) => {
        /// A known difference.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Known {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Known {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// How it shows.
            #[must_use]
            pub fn shape(self) -> Shape {
                match self {
                    $(Self::$name => $shape,)+
                }
            }
        }
    };
}

known! {
    /// A bridge of Linux does not look at IP; stage 0 drops what is malformed or martian everywhere.
    BridgedMalformed: Shape::KernelOnly,
    /// A bridge of Linux lets frames be 4 bytes longer than the MTU, for a tag that isn't there.
    BridgeMtuSlack: Shape::KernelOnly,
    /// A bridge of Linux without VLAN filtering carries tags; an access port drops them.
    VlanTag: Shape::KernelOnly,
    /// A bridge of Linux without STP forwards BPDUs; IEEE 802.1Q section 8.6.3 never does.
    BpduForwarded: Shape::KernelOnly,
    /// A router of Linux does not look at transport headers; stage 0 verifies them.
    TransportUnverified: Shape::KernelOnly,
    /// Linux routes IPv4 link-local addresses; RFC 3927 section 7 forbids it.
    Ipv4LinkLocalRouted: Shape::KernelOnly,
    /// Linux tells about link-local IPv6 addresses that it can't route; the reference is silent.
    Ipv6LinkLocalSilent: Shape::KernelOnly,
    /// A router of Linux does not look at the source MAC; IEEE 802.3 allows no group there.
    GroupSourceMac: Shape::KernelOnly,
    /// Linux drops packets from an address of its own; the reference leaves sources to anti-spoof.
    OwnSource: Shape::ReferenceOnly,
    /// Linux derives the broadcast address of a prefix; a route of ours has none.
    DirectedBroadcast: Shape::ReferenceOnly,
    /// Linux tells about later fragments of IPv6 packets too; the design tells about none.
    Ipv6LaterFragment: Shape::KernelOnly,
    /// Linux copies the TOS of a packet into an ICMP error about it; RFC 1812 section 4.3.2.5 wants 0xc0.
    IcmpErrorTos: Shape::Bytes(clear_icmp_tos),
    /// Linux sends ICMPv6 errors with traffic class 0; the reference with 0xc0, as for IPv4.
    Icmpv6ErrorClass: Shape::Bytes(clear_icmp_class),
    /// Linux routes what it answers; the reference sends it to the MAC that the packet came from.
    AnswerToSender: Shape::Bytes(clear_icmp_mac),
    /// Linux asks for IPv6 neighbours from its link-local address; the reference from the one it is configured with.
    SolicitationSource: Shape::Bytes(clear_solicitation_source),
    /// Linux keeps the packets for which it asks for a neighbour; the reference drops them.
    QueuedForNeighbor: Shape::KernelOnly,
    /// Linux drops a TCP packet that its table of states calls invalid; the reference passes what is of a flow.
    TcpStateStrict: Shape::ReferenceOnly,
    /// Linux gives the translated address to an error of any router on the way; RFC 5508 to the endpoint's only.
    IcmpErrorOuterSource: Shape::Bytes(clear_icmp_source),
    /// Linux tells that it doesn't know a protocol; the reference rejects everything but TCP as an unreachable port.
    ProtocolUnreachable: Shape::Bytes(clear_icmp_kind),
    /// Linux with conntrack puts IPv6 fragments together and cuts them anew, with another identification.
    Ipv6FragmentId: Shape::Bytes(clear_fragment_id),
    /// Linux shows ECT(0) outside where "congestion experienced" is inside (RFC 3168); RFC 6040 copies it.
    EcnEncapsulateCe: Shape::Bytes(clear_outer_ecn),
    /// Linux drops VXLAN with reserved bits set; RFC 7348 section 5 has them ignored.
    VxlanReservedBits: Shape::ReferenceOnly,
    /// A VXLAN device of Linux takes packets from anybody; a termination only from its peers.
    UntrustedPeer: Shape::KernelOnly,
    /// Linux pads options that later fragments don't need; the reference leaves them out.
    FragmentOptions: Shape::Count,
}

fn clear_icmp_tos(frame: &mut [u8]) {
    if wire::is_v4(frame) && wire::is_icmp_error(frame) {
        frame[ETH + 1] = 0;
        wire::fix_header(frame);
    }
    inside(frame, clear_icmp_tos);
}

fn clear_icmp_class(frame: &mut [u8]) {
    if wire::is_v6(frame) && wire::is_icmp_error(frame) {
        let first = word(frame, ETH);
        set_word(frame, ETH, first & 0xf00f);
    }
    inside(frame, clear_icmp_class);
}

/// Patches the ICMP error inside a tunnel, and the ECN that the outer header has from it.
fn inside(frame: &mut [u8], patch: fn(&mut [u8])) {
    let Some(at) = wire::encapsulated(frame) else { return };
    if wire::is_icmp_error(&frame[at..]) {
        patch(&mut frame[at..]);
        frame[ETH + 1] &= !3;
        wire::fix_header(frame);
    }
}

fn clear_icmp_source(frame: &mut [u8]) {
    if !wire::is_icmp_error(frame) {
        return;
    }
    if wire::is_v4(frame) {
        frame[ETH + 12..ETH + 16].fill(0);
        wire::fix_header(frame);
    } else {
        frame[ETH + 8..ETH + 24].fill(0);
        // The source is in the sum.
        set_word(frame, ETH + 42, 0);
    }
}

/// Type, code, checksum and the word behind: of unreachables and of unknown next headers.
fn clear_icmp_kind(frame: &mut [u8]) {
    let kind = match wire::transport(frame) {
        Some((1, at)) if frame.get(at) == Some(&3) && matches!(frame.get(at + 1), Some(2 | 3)) => at,
        Some((58, at)) if matches!(frame.get(at..at + 2), Some([1, 4] | [4, 1])) => at,
        _ => return,
    };
    frame[kind..kind + 8].fill(0);
}

fn clear_fragment_id(frame: &mut [u8]) {
    if wire::is_v6(frame) && frame[ETH + 6] == 44 {
        set_word(frame, ETH + 44, 0);
        set_word(frame, ETH + 46, 0);
    }
}

/// Of VXLAN packets whose inner packet is marked.
fn clear_outer_ecn(frame: &mut [u8]) {
    let Some(inner) = wire::encapsulated(frame).map(|at| at + ETH) else { return };
    let marked = match word(frame, inner - 2) {
        0x0800 => frame.get(inner + 1).is_some_and(|tos| tos & 3 == 3),
        0x86dd => word(frame, inner) >> 4 & 3 == 3,
        _ => false,
    };
    if marked {
        frame[ETH + 1] &= !3;
        wire::fix_header(frame);
    }
}

fn clear_icmp_mac(frame: &mut [u8]) {
    if wire::is_icmp_error(frame) {
        frame[..6].fill(0);
    }
}

fn clear_solicitation_source(frame: &mut [u8]) {
    if wire::is_v6(frame) && frame[ETH + 6] == 58 && frame.get(ETH + 40) == Some(&135) {
        frame[ETH + 8..ETH + 24].fill(0);
        set_word(frame, ETH + 42, 0);
    }
}

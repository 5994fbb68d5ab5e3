//! Reading a frame.

use super::{ETH, be16, ethertype, finish, pseudo, sum};
use etherparse::err;
use loxi_core::net::{IpProtocol, MacAddr};
use loxi_core::packet::FlowTuple;
use loxi_core::reason::DropReason;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6 extension headers of a packet at most. RFC 8200 names seven kinds, each to occur once but for
/// destination options.
const MAX_EXTENSION_HEADERS: usize = 8;

/// What is asked of transport checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksums {
    /// Whether they are verified.
    pub(crate) verify: bool,
    /// UDP ports where an IPv6 packet may come without one (tunnels, RFC 6935).
    pub(crate) zero_udp: BTreeSet<u16>,
}

/// What a frame holds. Positions are from the frame's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) dst: MacAddr,
    pub(crate) src: MacAddr,
    pub(crate) l3: L3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum L3 {
    Arp(Arp),
    Ip(Ip),
    Other(u16),
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) request: bool,
    pub(crate) sender_mac: MacAddr,
    pub(crate) sender_ip: Ipv4Addr,
    pub(crate) target_ip: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) ttl: u8,
    /// TOS or traffic class.
    pub(crate) tos: u8,
    pub(crate) dont_fragment: bool,
    /// Length of the packet by its own header.
    pub(crate) len: usize,
    /// Where the transport header or the fragment's payload starts.
    pub(crate) l4_at: usize,
    pub(crate) protocol: IpProtocol,
    pub(crate) fragment: Option<FragmentInfo>,
    pub(crate) l4: L4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FragmentInfo {
    pub(crate) id: u32,
    /// Offset in bytes.
    pub(crate) offset: u32,
    pub(crate) more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum L4 {
    Tcp {
        src: u16,
        dst: u16,
        syn: bool,
        ack: bool,
        fin: bool,
        rst: bool,
    },
    Udp {
        src: u16,
        dst: u16,
    },
    Sctp {
        src: u16,
        dst: u16,
        chunk: Option<u8>,
    },
    Icmp(Icmp),
    /// Another protocol.
    Other,
    /// A fragment that isn't the first.
    LaterFragment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Icmp {
    /// Echo or timestamp: a pair of request and reply with an identifier.
    Query { request: bool, echo: bool, id: u16 },
    /// An error; the quoted packet starts at `at`. The word is MTU, pointer or unused.
    Error { kind: u8, code: u8, word: u32, at: usize },
    /// Neighbor discovery (types 133 to 137), with the target where it has one.
    Nd { kind: u8, target: Option<Ipv6Addr> },
    /// Multicast listener discovery.
    Mld,
    /// Anything else.
    Other,
}

fn mac(bytes: &[u8]) -> MacAddr {
    let mut octets = [0; 6];
    octets.copy_from_slice(&bytes[..6]);
    MacAddr::new(octets)
}

impl View {
    /// Reads an untagged frame.
    pub(crate) fn parse(frame: &[u8], checksums: &Checksums) -> Result<Self, DropReason> {
        if frame.len() < ETH {
            return Err(DropReason::Truncated);
        }
        let (dst, src) = (mac(frame), mac(&frame[6..]));
        if !src.is_unicast() {
            return Err(DropReason::MartianMac);
        }
        let l3 = match be16(frame, 12) {
            ethertype::ARP => L3::Arp(arp(frame)?),
            ethertype::IPV4 => L3::Ip(ipv4(frame, checksums)?),
            ethertype::IPV6 => L3::Ip(ipv6(frame, checksums)?),
            other => L3::Other(other),
        };
        Ok(Self { dst, src, l3 })
    }

    /// What it is, in a word or two.
    pub(crate) fn kind(&self) -> String {
        match &self.l3 {
            L3::Arp(arp) => if arp.request { "arp request" } else { "arp reply" }.to_owned(),
            L3::Other(kind) => format!("ethertype 0x{kind:04x}"),
            L3::Ip(ip) => {
                let part = match ip.fragment {
                    Some(fragment) if fragment.offset > 0 => ", later fragment",
                    Some(_) => ", first fragment",
                    None => "",
                };
                format!("{} {}{part}", if ip.is_ipv4() { "ipv4" } else { "ipv6" }, ip.protocol)
            }
        }
    }

    pub(crate) fn ip(&self) -> Option<&Ip> {
        match &self.l3 {
            L3::Ip(ip) => Some(ip),
            L3::Arp(_) | L3::Other(_) => None,
        }
    }
}

impl Ip {
    pub(crate) fn is_ipv4(&self) -> bool {
        self.src.is_ipv4()
    }

    /// Ports or identifier, for what can be tracked by more than addresses.
    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        match &self.l4 {
            L4::Tcp { src, dst, .. } | L4::Udp { src, dst } | L4::Sctp { src, dst, .. } => Some((*src, *dst)),
            L4::Icmp(Icmp::Query { id, .. }) => Some((*id, *id)),
            _ => None,
        }
    }

    pub(crate) fn tuple(&self) -> FlowTuple {
        let (src_port, dst_port) = self.ports().unwrap_or((0, 0));
        FlowTuple { src: self.src, dst: self.dst, protocol: self.protocol, src_port, dst_port }
    }

    pub(crate) fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }

    /// Traffic that is never tracked: ND, MLD, IGMP.
    pub(crate) fn is_link_protocol(&self) -> bool {
        self.protocol == IpProtocol::IGMP || matches!(self.l4, L4::Icmp(Icmp::Nd { .. } | Icmp::Mld))
    }

    pub(crate) fn is_group(&self) -> bool {
        match self.dst {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_multicast(),
        }
    }
}

fn arp(frame: &[u8]) -> Result<Arp, DropReason> {
    let packet = etherparse::ArpPacketSlice::from_slice(&frame[ETH..]).map_err(|_| DropReason::Truncated)?;
    let packet = packet.to_packet();
    let ipv4 = packet.try_eth_ipv4().map_err(|_| DropReason::UnsupportedL3)?;
    let request = match ipv4.operation {
        etherparse::ArpOperation::REQUEST => true,
        etherparse::ArpOperation::REPLY => false,
        _ => return Err(DropReason::UnsupportedL3),
    };
    Ok(Arp {
        request,
        sender_mac: MacAddr::new(ipv4.sender_mac),
        sender_ip: ipv4.sender_ipv4.into(),
        target_ip: ipv4.target_ipv4.into(),
    })
}

fn ipv4(frame: &[u8], checksums: &Checksums) -> Result<Ip, DropReason> {
    let packet = &frame[ETH..];
    let header = etherparse::Ipv4HeaderSlice::from_slice(packet).map_err(|error| match error {
        err::ipv4::HeaderSliceError::Len(_) => DropReason::Truncated,
        err::ipv4::HeaderSliceError::Content(err::ipv4::HeaderError::UnexpectedVersion { .. }) => {
            DropReason::UnsupportedL3
        }
        err::ipv4::HeaderSliceError::Content(_) => DropReason::BadHeaderLength,
    })?;
    let (header_len, len) = (header.slice().len(), usize::from(header.total_len()));
    if len < header_len {
        return Err(DropReason::BadHeaderLength);
    }
    if len > packet.len() {
        return Err(DropReason::Truncated);
    }
    if finish(sum(header.slice())) != 0 {
        return Err(DropReason::BadChecksumL3);
    }
    let (src, dst) = (header.source_addr(), header.destination_addr());
    let to_group = dst.is_multicast() || dst.is_broadcast();
    // A host without an address may speak to a group: DHCP (RFC 2131), IGMPv3 (RFC 3376 4.2.13).
    if src.is_multicast() || src.is_broadcast() || src.is_loopback() || (src.is_unspecified() && !to_group) {
        return Err(DropReason::MartianSource);
    }
    if dst.is_loopback() || dst.is_unspecified() {
        return Err(DropReason::MartianDestination);
    }
    let offset = u32::from(header.fragments_offset().value()) * 8;
    let more = header.more_fragments();
    let fragment =
        (offset > 0 || more).then(|| FragmentInfo { id: header.identification().into(), offset, more });
    let protocol = IpProtocol(header.protocol().0);
    let mut ip = Ip {
        src: src.into(),
        dst: dst.into(),
        ttl: header.ttl(),
        tos: packet[1],
        dont_fragment: header.dont_fragment(),
        len,
        l4_at: ETH + header_len,
        protocol,
        fragment,
        l4: L4::LaterFragment,
    };
    // Offset and length together may not exceed what reassembly can hold (ping of death).
    if offset as usize + (len - header_len) > 65_535 {
        return Err(DropReason::BadHeaderLength);
    }
    if offset == 0 {
        ip.l4 = l4(&ip, &packet[header_len..len], checksums)?;
    }
    Ok(ip)
}

fn ipv6(frame: &[u8], checksums: &Checksums) -> Result<Ip, DropReason> {
    let packet = &frame[ETH..];
    let header = etherparse::Ipv6HeaderSlice::from_slice(packet).map_err(|error| match error {
        err::ipv6::HeaderSliceError::Len(_) => DropReason::Truncated,
        err::ipv6::HeaderSliceError::Content(_) => DropReason::UnsupportedL3,
    })?;
    let fixed = header.slice().len();
    let len = fixed + usize::from(header.payload_length());
    if len > packet.len() {
        return Err(DropReason::Truncated);
    }
    let (src, dst) = (header.source_addr(), header.destination_addr());
    // `::` speaks to groups only: DAD (RFC 4862 5.4.2) and MLD (RFC 3590).
    if src.is_multicast() || src.is_loopback() || (src.is_unspecified() && !dst.is_multicast()) {
        return Err(DropReason::MartianSource);
    }
    if dst.is_loopback() || dst.is_unspecified() {
        return Err(DropReason::MartianDestination);
    }
    let mut ip = ipv6_header(&header);
    extension_headers(&mut ip, &packet[..len])?;
    if !ip.is_later_fragment() {
        ip.l4 = l4(&ip, &packet[ip.l4_at - ETH..len], checksums)?;
    }
    Ok(ip)
}

/// A packet of which only the fixed header has been read.
fn ipv6_header(header: &etherparse::Ipv6HeaderSlice<'_>) -> Ip {
    let fixed = header.slice().len();
    Ip {
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        ttl: header.hop_limit(),
        tos: header.traffic_class(),
        dont_fragment: true,
        len: fixed + usize::from(header.payload_length()),
        l4_at: ETH + fixed,
        protocol: IpProtocol(header.next_header().0),
        fragment: None,
        l4: L4::LaterFragment,
    }
}

/// Walks IPv6 extension headers (RFC 8200 section 4) up to the transport header.
fn extension_headers(ip: &mut Ip, packet: &[u8]) -> Result<(), DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    let mut at = ip.l4_at - ETH;
    for index in 0.. {
        let rest = &packet[at..];
        let next = match ip.protocol.0 {
            HOP_BY_HOP if index > 0 => return Err(DropReason::BadExtensionHeader),
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION if index >= MAX_EXTENSION_HEADERS => {
                return Err(DropReason::BadExtensionHeader);
            }
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let header = etherparse::Ipv6RawExtHeaderSlice::from_slice(rest)
                    .map_err(|_| DropReason::BadExtensionHeader)?;
                at += header.slice().len();
                header.next_header().0
            }
            AUTHENTICATION => {
                let header = etherparse::IpAuthHeaderSlice::from_slice(rest)
                    .map_err(|_| DropReason::BadExtensionHeader)?;
                at += header.slice().len();
                header.next_header().0
            }
            FRAGMENT => {
                let header = etherparse::Ipv6FragmentHeaderSlice::from_slice(rest)
                    .map_err(|_| DropReason::BadExtensionHeader)?;
                if ip.fragment.is_some() {
                    return Err(DropReason::BadExtensionHeader);
                }
                let offset = u32::from(header.fragment_offset().value()) * 8;
                let more = header.more_fragments();
                // An atomic fragment is no fragment (RFC 6946).
                if offset > 0 || more {
                    ip.fragment = Some(FragmentInfo { id: header.identification(), offset, more });
                }
                at += header.slice().len();
                if offset > 0 {
                    // What follows is payload, whatever it looks like.
                    ip.protocol = IpProtocol(header.next_header().0);
                    break;
                }
                header.next_header().0
            }
            _ => break,
        };
        ip.protocol = IpProtocol(next);
    }
    ip.l4_at = ETH + at;
    Ok(())
}

/// Reads a transport header, and verifies its checksum where that is asked for; of a first fragment it can't be.
fn l4(ip: &Ip, bytes: &[u8], checksums: &Checksums) -> Result<L4, DropReason> {
    let whole = ip.fragment.is_none();
    let verified = whole && checksums.verify;
    let verify = |length: usize| {
        if !verified {
            return Ok(());
        }
        let total = pseudo(ip.src, ip.dst, ip.protocol.0, length) + sum(&bytes[..length]);
        if finish(total) == 0 { Ok(()) } else { Err(DropReason::BadChecksumL4) }
    };
    match ip.protocol {
        IpProtocol::TCP => {
            let header = etherparse::TcpHeaderSlice::from_slice(bytes).map_err(|error| match error {
                err::tcp::HeaderSliceError::Len(_) => DropReason::Truncated,
                err::tcp::HeaderSliceError::Content(_) => DropReason::BadHeaderLength,
            })?;
            verify(bytes.len())?;
            Ok(L4::Tcp {
                src: header.source_port(),
                dst: header.destination_port(),
                syn: header.syn(),
                ack: header.ack(),
                fin: header.fin(),
                rst: header.rst(),
            })
        }
        IpProtocol::UDP => {
            let header = etherparse::UdpHeaderSlice::from_slice(bytes).map_err(|_| DropReason::Truncated)?;
            let length = usize::from(header.length());
            if length < 8 {
                return Err(DropReason::BadHeaderLength);
            }
            if whole && length > bytes.len() {
                return Err(DropReason::Truncated);
            }
            let none = header.checksum() == 0;
            if none && !ip.is_ipv4() && !checksums.zero_udp.contains(&header.destination_port()) {
                return Err(DropReason::BadChecksumL4);
            }
            if !none && verified {
                verify(length)?;
            }
            Ok(L4::Udp { src: header.source_port(), dst: header.destination_port() })
        }
        IpProtocol::SCTP => {
            if bytes.len() < 12 {
                return Err(DropReason::Truncated);
            }
            if verified && super::rewrite::sctp_checksum(bytes) != bytes[8..12] {
                return Err(DropReason::BadChecksumL4);
            }
            Ok(L4::Sctp { src: be16(bytes, 0), dst: be16(bytes, 2), chunk: bytes.get(12).copied() })
        }
        IpProtocol::ICMP if ip.is_ipv4() => {
            if bytes.len() < 8 {
                return Err(DropReason::Truncated);
            }
            if verified && finish(sum(bytes)) != 0 {
                return Err(DropReason::BadChecksumL4);
            }
            Ok(L4::Icmp(icmp_v4(ip, bytes)))
        }
        IpProtocol::ICMPV6 if !ip.is_ipv4() => {
            if bytes.len() < 8 {
                return Err(DropReason::Truncated);
            }
            verify(bytes.len())?;
            Ok(L4::Icmp(icmp_v6(ip, bytes)))
        }
        // Either ICMP in the other family's packets means nothing (RFC 4443 1).
        IpProtocol::ICMP | IpProtocol::ICMPV6 => Err(DropReason::UnsupportedL4),
        _ => Ok(L4::Other),
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from(be16(bytes, 4)) << 16 | u32::from(be16(bytes, 6))
}

fn icmp_v4(ip: &Ip, bytes: &[u8]) -> Icmp {
    let id = be16(bytes, 4);
    match bytes[0] {
        8 => Icmp::Query { request: true, echo: true, id },
        0 => Icmp::Query { request: false, echo: true, id },
        13 => Icmp::Query { request: true, echo: false, id },
        14 => Icmp::Query { request: false, echo: false, id },
        kind @ (3 | 4 | 5 | 11 | 12) => {
            Icmp::Error { kind, code: bytes[1], word: word(bytes), at: ip.l4_at + 8 }
        }
        _ => Icmp::Other,
    }
}

fn icmp_v6(ip: &Ip, bytes: &[u8]) -> Icmp {
    let id = be16(bytes, 4);
    match bytes[0] {
        128 => Icmp::Query { request: true, echo: true, id },
        129 => Icmp::Query { request: false, echo: true, id },
        130..=132 | 143 => Icmp::Mld,
        // Only from the link itself (RFC 4861 6.1, 7.1).
        kind @ 133..=137 if ip.ttl == 255 => {
            let target = (kind >= 135).then(|| bytes.get(8..24)).flatten().map(|target| {
                let mut octets = [0; 16];
                octets.copy_from_slice(target);
                Ipv6Addr::from(octets)
            });
            Icmp::Nd { kind, target }
        }
        // Types below 128 are errors (RFC 4443 2.1).
        kind @ 0..=127 => Icmp::Error { kind, code: bytes[1], word: word(bytes), at: ip.l4_at + 8 },
        _ => Icmp::Other,
    }
}

/// The tuple of the packet that an ICMP error quotes, with the positions of
/// its headers. `None` if too little is quoted, or if it was an error itself.
pub(crate) fn embedded_tuple(frame: &[u8], at: usize, ipv4: bool) -> Option<(FlowTuple, usize)> {
    let quoted = frame.get(at..)?;
    let (src, dst, protocol, header_len): (IpAddr, IpAddr, IpProtocol, usize) = if ipv4 {
        let header = etherparse::Ipv4HeaderSlice::from_slice(quoted).ok()?;
        if header.fragments_offset().value() > 0 {
            return None;
        }
        let protocol = IpProtocol(header.protocol().0);
        (header.source_addr().into(), header.destination_addr().into(), protocol, header.slice().len())
    } else {
        let header = etherparse::Ipv6HeaderSlice::from_slice(quoted).ok()?;
        let mut ip = ipv6_header(&header);
        extension_headers(&mut ip, quoted).ok()?;
        if ip.is_later_fragment() {
            return None;
        }
        (ip.src, ip.dst, ip.protocol, ip.l4_at - ETH)
    };
    // Of a packet without ports the addresses say all; it may have been shorter than what is
    // quoted at least (RFC 792).
    let l4 = || quoted.get(header_len..header_len + 8);
    let (src_port, dst_port) = match protocol {
        protocol if protocol.has_ports() => l4().map(|l4| (be16(l4, 0), be16(l4, 2)))?,
        IpProtocol::ICMP | IpProtocol::ICMPV6 => {
            let l4 = l4()?;
            let query = if protocol == IpProtocol::ICMP {
                matches!(l4[0], 0 | 8 | 13 | 14)
            } else {
                matches!(l4[0], 128 | 129)
            };
            query.then(|| (be16(l4, 4), be16(l4, 4)))?
        }
        _ => (0, 0),
    };
    Some((FlowTuple { src, dst, protocol, src_port, dst_port }, at + header_len))
}

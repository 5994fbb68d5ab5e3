//! Just enough reading and patching of frames to judge and answer them. It shares no code
//! with the reference.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of an Ethernet header.
pub const ETH: usize = 14;

/// Two bytes in network order; 0 beyond the end.
#[must_use]
pub fn word(frame: &[u8], at: usize) -> u16 {
    frame.get(at..at + 2).map_or(0, |w| u16::from_be_bytes([w[0], w[1]]))
}

/// Writes two bytes.
pub fn set_word(frame: &mut [u8], at: usize, value: u16) {
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Whether it is IPv4.
#[must_use]
pub fn is_v4(frame: &[u8]) -> bool {
    word(frame, 12) == 0x0800 && frame.len() >= ETH + 20
}

/// Whether it is IPv6.
#[must_use]
pub fn is_v6(frame: &[u8]) -> bool {
    word(frame, 12) == 0x86dd && frame.len() >= ETH + 40
}

/// Source and destination of an IP packet.
#[must_use]
pub fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if is_v4(frame) {
        let at = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
        Some((at(ETH + 12).into(), at(ETH + 16).into()))
    } else if is_v6(frame) {
        let at = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 16] = frame.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        };
        Some((at(ETH + 8)?, at(ETH + 24)?))
    } else {
        None
    }
}

/// Protocol and position of the transport header; fragment headers are passed, other extension
/// headers are not.
#[must_use]
pub fn transport(frame: &[u8]) -> Option<(u8, usize)> {
    if is_v4(frame) {
        Some((frame[ETH + 9], ETH + usize::from(frame[ETH] & 15) * 4))
    } else if is_v6(frame) {
        let next = frame[ETH + 6];
        if next == 44 { Some((*frame.get(ETH + 40)?, ETH + 48)) } else { Some((next, ETH + 40)) }
    } else {
        None
    }
}

/// Whether it is an ICMP or ICMPv6 error.
#[must_use]
pub fn is_icmp_error(frame: &[u8]) -> bool {
    match transport(frame) {
        Some((1, at)) => matches!(frame.get(at), Some(3 | 4 | 5 | 11 | 12)),
        Some((58, at)) => frame.get(at).is_some_and(|kind| *kind < 128),
        _ => false,
    }
}

/// Source port, or the identifier of an ICMP query.
#[must_use]
pub fn source_port(frame: &[u8]) -> Option<u16> {
    match transport(frame)? {
        (6 | 17 | 132, at) => Some(word(frame, at)),
        (1 | 58, at) => Some(word(frame, at + 4)),
        _ => None,
    }
}

/// Destination port.
#[must_use]
pub fn destination_port(frame: &[u8]) -> Option<u16> {
    match transport(frame)? {
        (6 | 17 | 132, at) => Some(word(frame, at + 2)),
        _ => None,
    }
}

/// Ones' complement checksum (RFC 1071).
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            total = (total & 0xffff) + (total >> 16);
        }
    }
    !(total as u16)
}

/// The frame inside a VXLAN packet over IPv4 without options.
#[must_use]
pub fn encapsulated(frame: &[u8]) -> Option<usize> {
    let inner = ETH + 20 + 8 + 8;
    let vxlan = is_v4(frame) && frame[ETH] == 0x45 && frame[ETH + 9] == 17 && word(frame, ETH + 22) == 4789;
    (vxlan && frame.len() > inner + ETH).then_some(inner)
}

/// Corrects the header checksum of an IPv4 packet.
pub fn fix_header(frame: &mut [u8]) {
    let end = ETH + usize::from(frame[ETH] & 15) * 4;
    if is_v4(frame) && frame.len() >= end {
        set_word(frame, ETH + 10, 0);
        let sum = checksum(&[&frame[ETH..end]]);
        set_word(frame, ETH + 10, sum);
    }
}

/// As text: `02:00:…` as hexadecimal digits.
#[must_use]
pub fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

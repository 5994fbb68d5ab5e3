//! Whether a captured frame is right: lengths, headers' checksums, transport checksums, down to the innermost packet.
//!
//! It shares no code with what made the frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// State of a transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// It covers the packet, and is right.
    Whole,
    /// It is the pseudo header's, and right as that: a device is to complete it (`CHECKSUM_PARTIAL`).
    Partial,
    /// UDP without one.
    None,
}

/// A packet that is right.
#[derive(Clone)]
pub struct Seen {
    /// 802.1Q tag of the frame.
    pub tag: Option<u16>,
    /// The frame's length.
    pub length: usize,
    /// Source and destination, from the outermost packet to the innermost.
    pub addresses: Vec<(IpAddr, IpAddr)>,
    /// Source and destination port of the innermost.
    pub ports: (u16, u16),
    /// Its transport checksum.
    pub sum: Sum,
    /// Its protocol.
    pub protocol: u8,
    /// Sequence number of TCP.
    pub seq: u32,
    /// What it carries.
    pub payload: Vec<u8>,
    /// Length of the innermost IP packet.
    pub ip_length: usize,
}

impl Seen {
    /// Innermost source and destination.
    pub fn inner(&self) -> (IpAddr, IpAddr) {
        *self.addresses.last().unwrap()
    }
}

/// UDP port of VXLAN (RFC 7348).
const VXLAN: u16 = 4789;

fn short(bytes: &[u8], at: usize) -> Result<u16, String> {
    let two = bytes.get(at..at + 2).ok_or("cut off")?;
    Ok(u16::from_be_bytes([two[0], two[1]]))
}

/// Ones' complement sum of 16-bit words (RFC 1071).
pub fn sum(bytes: &[u8], mut total: u64) -> u16 {
    for pair in bytes.chunks(2) {
        total += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// What is known of a frame; what is wrong with it. A frame without IP is none.
pub fn dissect(frame: &[u8]) -> Result<Option<Seen>, String> {
    let mut seen = Seen {
        tag: None,
        length: frame.len(),
        addresses: Vec::new(),
        ports: (0, 0),
        sum: Sum::None,
        protocol: 0,
        seq: 0,
        payload: Vec::new(),
        ip_length: 0,
    };
    let mut at = 12;
    if short(frame, at)? == 0x8100 {
        seen.tag = Some(short(frame, at + 2)?);
        at += 4;
    }
    let found = ethernet(&frame[at..], &mut seen)?;
    Ok(found.then_some(seen))
}

/// From an ethertype on. Whether it is IP.
fn ethernet(bytes: &[u8], seen: &mut Seen) -> Result<bool, String> {
    match short(bytes, 0)? {
        0x0800 => ipv4(&bytes[2..], seen).map(|()| true),
        0x86dd => ipv6(&bytes[2..], seen).map(|()| true),
        _ => Ok(false),
    }
}

fn ipv4(packet: &[u8], seen: &mut Seen) -> Result<(), String> {
    let header = packet.get(..20).ok_or("a cut off IPv4 header")?;
    if header[0] != 0x45 || short(header, 6)? & 0x3fff != 0 {
        return Err("options or a fragment, which nobody sends here".into());
    }
    let length = usize::from(short(header, 2)?);
    if length != packet.len() {
        return Err(format!("an IPv4 length of {length} where {} bytes are", packet.len()));
    }
    if sum(header, 0) != 0xffff {
        return Err(format!("an IPv4 header whose checksum is wrong: {:#06x}", short(header, 10)?));
    }
    let address =
        |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    seen.addresses.push((address(12), address(16)));
    seen.ip_length = length;
    transport(header[9], sum(&header[12..20], 0), &packet[20..], seen)
}

fn ipv6(packet: &[u8], seen: &mut Seen) -> Result<(), String> {
    let header: &[u8; 40] = packet.first_chunk().ok_or("a cut off IPv6 header")?;
    let length = 40 + usize::from(short(header, 4)?);
    if length != packet.len() {
        return Err(format!("an IPv6 length of {length} where {} bytes are", packet.len()));
    }
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().unwrap();
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    seen.addresses.push((address(8), address(24)));
    seen.ip_length = length;
    transport(header[6], sum(&header[8..40], 0), &packet[40..], seen)
}

fn transport(protocol: u8, addresses: u16, packet: &[u8], seen: &mut Seen) -> Result<(), String> {
    seen.protocol = protocol;
    let pseudo = u64::from(addresses) + u64::from(protocol) + packet.len() as u64;
    match protocol {
        6 => {
            let header = usize::from(packet.get(12).ok_or("a cut off TCP header")? >> 4) * 4;
            seen.sum = checked("TCP", packet, 16, pseudo)?;
            seen.ports = (short(packet, 0)?, short(packet, 2)?);
            seen.seq = u32::from(short(packet, 4)?) << 16 | u32::from(short(packet, 6)?);
            seen.payload = packet.get(header..).ok_or("a TCP header longer than its packet")?.to_vec();
        }
        17 => {
            let length = usize::from(short(packet, 4)?);
            if length != packet.len() {
                return Err(format!("a UDP length of {length} where {} bytes are", packet.len()));
            }
            seen.ports = (short(packet, 0)?, short(packet, 2)?);
            seen.sum = if short(packet, 6)? == 0 { Sum::None } else { checked("UDP", packet, 6, pseudo)? };
            if seen.ports.1 == VXLAN {
                if packet.get(8).ok_or("a cut off VXLAN header")? & 8 == 0 {
                    return Err("VXLAN without its flag".into());
                }
                ethernet(packet.get(16 + 12..).ok_or("a cut off inner frame")?, seen)?;
                return Ok(());
            }
            seen.payload = packet[8..].to_vec();
        }
        4 => return ipv4(packet, seen),
        41 => return ipv6(packet, seen),
        1 => {
            seen.sum = checked("ICMP", packet, 2, 0)?;
            seen.payload = packet[4..].to_vec();
        }
        58 => {
            seen.sum = checked("ICMPv6", packet, 2, pseudo)?;
            seen.payload = packet[4..].to_vec();
        }
        other => return Err(format!("protocol {other}, which nobody sends here")),
    }
    Ok(())
}

fn checked(what: &str, packet: &[u8], field: usize, pseudo: u64) -> Result<Sum, String> {
    let found = short(packet, field)?;
    if sum(packet, pseudo) == 0xffff {
        return Ok(Sum::Whole);
    }
    if found == sum(&[], pseudo) {
        return Ok(Sum::Partial);
    }
    Err(format!("a {what} checksum {found:#06x} that is neither the packet's nor the pseudo header's"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loxi_conformance::build;

    const LAYERS: [&str; 4] = [
        "ipv4 10.1.0.2>10.2.0.2 / tcp 1>2 A / data hello",
        "ipv6 fd00::1>fd00::2 / udp 1>2 / data hello",
        "ipv4 192.0.2.1>192.0.2.2 / udp 50000>4789 csum=0 / vxlan 7 / eth 02:00:00:00:00:03>02:00:00:00:00:04 / \
         ipv6 fd00::1>fd00::2 / tcp 1>2 A / data hello",
        "ipv4 192.0.2.1>192.0.2.2 / ipv4 10.1.0.2>10.2.0.2 / udp 1>2 / data hello",
    ];

    fn frame(layers: &str) -> Vec<u8> {
        build(&format!("eth 02:00:00:00:00:01>02:00:00:00:00:02 / vlan 10 / {layers}")).unwrap()
    }

    #[test]
    fn right_frames_are_right() {
        for layers in LAYERS {
            let seen = dissect(&frame(layers)).unwrap().unwrap();
            assert_eq!((seen.tag, seen.sum, seen.ports), (Some(10), Sum::Whole, (1, 2)), "{layers}");
            assert_eq!(seen.payload, b"hello", "{layers}");
        }
    }

    #[test]
    fn every_byte_from_the_addresses_on_counts() {
        // What nothing covers: MACs, tag, and of the outer packet all but an IPv4 header and lengths.
        for layers in LAYERS {
            let right = frame(layers);
            let inner = right.len() - 5;
            for at in [inner, inner + 4, right.len() - 9] {
                let mut wrong = right.clone();
                wrong[at] ^= 0x10;
                assert!(dissect(&wrong).is_err(), "{}", layers);
            }
            assert!(dissect(&right[..right.len() - 1]).is_err(), "{}", layers);
            assert!(dissect(&[right, vec![0]].concat()).is_err(), "{}", layers);
        }
        let mut wrong = frame(LAYERS[0]);
        wrong[18 + 8] ^= 1;
        assert!(dissect(&wrong).is_err(), "{}", "a TTL that its checksum doesn't know");
    }

    #[test]
    fn a_partial_checksum_is_the_pseudo_headers() {
        let mut partial = frame(LAYERS[0]);
        let (ip, tcp) = (18, 38);
        let length = (partial.len() - tcp) as u64;
        let pseudo = sum(&partial[ip + 12..ip + 20], 6 + length);
        partial[tcp + 16..tcp + 18].copy_from_slice(&pseudo.to_be_bytes());
        assert_eq!(dissect(&partial).unwrap().unwrap().sum, Sum::Partial);
        partial[tcp + 17] ^= 1;
        assert!(dissect(&partial).is_err());
    }
}

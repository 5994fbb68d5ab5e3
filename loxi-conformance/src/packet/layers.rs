//! Layers: read from words, written to bytes from the inside out.

use super::tokens::{Tokens, number};
use loxi_core::net::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) enum Layer {
    Eth {
        src: MacAddr,
        dst: MacAddr,
        kind: Option<u16>,
    },
    Vlan {
        vid: u16,
        pcp: u16,
    },
    Arp {
        operation: u16,
        sender: (MacAddr, Ipv4Addr),
        target: (MacAddr, Ipv4Addr),
    },
    Ipv4(Ipv4),
    Ipv6 {
        src: Ipv6Addr,
        dst: Ipv6Addr,
        hop: u8,
        class: u8,
        next: Option<u8>,
        len: Option<u16>,
        version: u8,
    },
    Extension {
        kind: u8,
        next: Option<u8>,
    },
    Frag {
        id: u32,
        offset: u16,
        more: bool,
        next: Option<u8>,
    },
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        offset: u8,
        checksum: Option<u16>,
    },
    Udp {
        src: u16,
        dst: u16,
        len: Option<u16>,
        checksum: Option<u16>,
    },
    Sctp {
        src: u16,
        dst: u16,
        tag: u32,
        chunk: u8,
        checksum: Option<u32>,
    },
    Icmp {
        v6: bool,
        kind: u8,
        code: u8,
        word: u32,
        checksum: Option<u16>,
    },
    Vxlan {
        vni: u32,
        flags: u8,
    },
    Bytes(Vec<u8>),
    /// Padding behind everything, which no length counts.
    Pad(usize),
}

pub(super) struct Ipv4 {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ttl: u8,
    tos: u8,
    id: u16,
    flags: u16,
    protocol: Option<u8>,
    len: Option<u16>,
    ihl: u8,
    checksum: Option<u16>,
    version: u8,
}

/// What a layer knows of those around it.
#[derive(Clone, Copy, Default)]
pub(super) struct Around {
    addresses: Option<(IpAddr, IpAddr)>,
    /// Transport checksums can't be known in a fragment.
    fragment: bool,
}

/// A number that must fit its field.
fn fit<T: TryFrom<u64>>(value: Option<u64>, default: T) -> Result<T, String> {
    match value {
        Some(value) => T::try_from(value).map_err(|_| format!("{value} does not fit its field")),
        None => Ok(default),
    }
}

fn optional<T: TryFrom<u64>>(value: Option<u64>) -> Result<Option<T>, String> {
    value.map(|value| T::try_from(value).map_err(|_| format!("{value} does not fit its field"))).transpose()
}

fn station(text: &str) -> Result<(MacAddr, Ipv4Addr), String> {
    let (mac, ip) = text.split_once('/').ok_or_else(|| format!("`{text}` is not MAC/IP"))?;
    Ok((
        mac.parse().map_err(|_| format!("`{mac}` is not a MAC"))?,
        ip.parse().map_err(|_| format!("`{ip}` is not an IP"))?,
    ))
}

pub(super) fn parse(mut t: Tokens<'_>) -> Result<Layer, String> {
    let layer = match t.name {
        "eth" => {
            let (src, dst) = t.pair("MAC")?;
            Layer::Eth { src, dst, kind: optional(t.number("type")?)? }
        }
        "vlan" => {
            let vid = fit(Some(number(t.word("VLAN ID")?)?), 0)?;
            Layer::Vlan { vid, pcp: fit(t.number("pcp")?, 0)? }
        }
        "arp" => {
            let operation = match t.word("operation")? {
                "request" => 1,
                "reply" => 2,
                other => return Err(format!("`{other}` is neither request nor reply")),
            };
            let word = t.word("stations")?;
            let (sender, target) = word.split_once('>').ok_or("stations are MAC/IP>MAC/IP")?;
            Layer::Arp { operation, sender: station(sender)?, target: station(target)? }
        }
        "ipv4" => {
            let (src, dst) = t.pair("IPv4 address")?;
            let offset: u16 = fit(t.number("off")?, 0)?;
            let flags = (u16::from(t.flag("df")) << 14) | (u16::from(t.flag("mf")) << 13) | (offset / 8);
            Layer::Ipv4(Ipv4 {
                src,
                dst,
                ttl: fit(t.number("ttl")?, 64)?,
                tos: fit(t.number("tos")?, 0)?,
                id: fit(t.number("id")?, 0)?,
                flags,
                protocol: optional(t.number("proto")?)?,
                len: optional(t.number("len")?)?,
                ihl: fit(t.number("ihl")?, 5)?,
                checksum: optional(t.number("csum")?)?,
                version: fit(t.number("ver")?, 4)?,
            })
        }
        "ipv6" => {
            let (src, dst) = t.pair("IPv6 address")?;
            Layer::Ipv6 {
                src,
                dst,
                hop: fit(t.number("hop")?, 64)?,
                class: fit(t.number("tc")?, 0)?,
                next: optional(t.number("nh")?)?,
                len: optional(t.number("len")?)?,
                version: fit(t.number("ver")?, 6)?,
            }
        }
        "hbh" => Layer::Extension { kind: 0, next: optional(t.number("nh")?)? },
        "dst" => Layer::Extension { kind: 60, next: optional(t.number("nh")?)? },
        "frag" => Layer::Frag {
            id: fit(t.number("id")?, 0)?,
            offset: fit(t.number("off")?, 0)?,
            more: t.flag("mf"),
            next: optional(t.number("nh")?)?,
        },
        "tcp" => {
            let (src, dst) = t.pair("port")?;
            let mut flags = 0;
            for flag in t.word("flags")?.chars() {
                flags |= match flag {
                    'F' => 1,
                    'S' => 2,
                    'R' => 4,
                    'P' => 8,
                    'A' => 16,
                    '-' => 0,
                    other => return Err(format!("`{other}` is no TCP flag (F S R P A)")),
                };
            }
            Layer::Tcp {
                src,
                dst,
                flags,
                seq: fit(t.number("seq")?, 1000)?,
                ack: fit(t.number("ack")?, 0)?,
                window: fit(t.number("win")?, 8192)?,
                offset: fit(t.number("doff")?, 5)?,
                checksum: optional(t.number("csum")?)?,
            }
        }
        "udp" => {
            let (src, dst) = t.pair("port")?;
            Layer::Udp { src, dst, len: optional(t.number("len")?)?, checksum: optional(t.number("csum")?)? }
        }
        "sctp" => {
            let (src, dst) = t.pair("port")?;
            Layer::Sctp {
                src,
                dst,
                tag: fit(t.number("vtag")?, 1)?,
                chunk: fit(t.number("chunk")?, 1)?,
                checksum: optional(t.number("csum")?)?,
            }
        }
        name @ ("icmp" | "icmp6") => {
            let kind = fit(Some(number(t.word("type")?)?), 0)?;
            let code = fit(Some(number(t.word("code")?)?), 0)?;
            let (id, seq): (u32, u32) = (fit(t.number("id")?, 0)?, fit(t.number("seq")?, 0)?);
            let word = fit(t.number("word")?, id << 16 | seq)?;
            Layer::Icmp { v6: name == "icmp6", kind, code, word, checksum: optional(t.number("csum")?)? }
        }
        "vxlan" => {
            let vni = fit(Some(number(t.word("VNI")?)?), 0)?;
            Layer::Vxlan { vni, flags: fit(t.number("flags")?, 8)? }
        }
        "data" => return Ok(Layer::Bytes(t.rest.as_bytes().to_vec())),
        "fill" => {
            let n: usize = fit(Some(number(t.word("length")?)?), 0)?;
            Layer::Bytes((0..n).map(|i| (i % 251) as u8).collect())
        }
        "hex" => {
            return loxi_core::packet::parse_hex(t.rest).map(Layer::Bytes).map_err(|error| error.to_string());
        }
        "pad" => Layer::Pad(fit(Some(number(t.word("length")?)?), 0)?),
        other => return Err(format!("there is no layer `{other}`")),
    };
    t.done().map(|()| layer)
}

/// Protocol number of the layer that follows an IP header.
fn protocol_of(layers: &[Layer]) -> u8 {
    match layers.first() {
        Some(Layer::Tcp { .. }) => 6,
        Some(Layer::Udp { .. }) => 17,
        Some(Layer::Sctp { .. }) => 132,
        Some(Layer::Icmp { v6, .. }) => {
            if *v6 {
                58
            } else {
                1
            }
        }
        Some(Layer::Ipv4(_)) => 4,
        Some(Layer::Ipv6 { .. }) => 41,
        Some(Layer::Extension { kind, .. }) => *kind,
        Some(Layer::Frag { .. }) => 44,
        // "No next header", or experimental (RFC 3692): nothing is known of what follows.
        None => 59,
        _ => 253,
    }
}

fn ethertype_of(layers: &[Layer]) -> u16 {
    match layers.first() {
        Some(Layer::Vlan { .. }) => 0x8100,
        Some(Layer::Arp { .. }) => 0x0806,
        Some(Layer::Ipv4(_)) => 0x0800,
        Some(Layer::Ipv6 { .. }) => 0x86dd,
        // Local experimental (IEEE 802, table 1).
        _ => 0x88b5,
    }
}

/// Ones' complement sum and complement, the plain way (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut total: u32 = 0;
    for part in parts {
        for (index, byte) in part.iter().enumerate() {
            total += u32::from(*byte) << if index % 2 == 0 { 8 } else { 0 };
            total = (total & 0xffff) + (total >> 16);
        }
    }
    !(total as u16)
}

fn pseudo(around: Around, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    match around.addresses {
        Some((IpAddr::V4(src), IpAddr::V4(dst))) => {
            bytes.extend_from_slice(&src.octets());
            bytes.extend_from_slice(&dst.octets());
            bytes.extend_from_slice(&[0, protocol]);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        Some((IpAddr::V6(src), IpAddr::V6(dst))) => {
            bytes.extend_from_slice(&src.octets());
            bytes.extend_from_slice(&dst.octets());
            bytes.extend_from_slice(&(len as u32).to_be_bytes());
            bytes.extend_from_slice(&[0, 0, 0, protocol]);
        }
        _ => {}
    }
    bytes
}

fn set16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes layers. Padding is put behind the whole frame.
pub(super) fn emit(layers: &[Layer], around: Around) -> Vec<u8> {
    let Some((layer, inner)) = layers.split_first() else { return Vec::new() };
    let mut out = Vec::new();
    match layer {
        Layer::Eth { src, dst, kind } => {
            out.extend_from_slice(&dst.octets());
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&kind.unwrap_or_else(|| ethertype_of(inner)).to_be_bytes());
            out.extend(emit(inner, around));
        }
        Layer::Vlan { vid, pcp } => {
            out.extend_from_slice(&(pcp << 13 | vid).to_be_bytes());
            out.extend_from_slice(&ethertype_of(inner).to_be_bytes());
            out.extend(emit(inner, around));
        }
        Layer::Arp { operation, sender, target } => {
            out.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
            out.extend_from_slice(&operation.to_be_bytes());
            for (mac, ip) in [sender, target] {
                out.extend_from_slice(&mac.octets());
                out.extend_from_slice(&ip.octets());
            }
            out.extend(emit(inner, around));
        }
        Layer::Ipv4(ip) => out = emit_ipv4(ip, inner),
        Layer::Ipv6 { src, dst, hop, class, next, len, version } => {
            // A quoted packet's fragment header is not this one's.
            let own = inner.iter().take_while(|l| matches!(l, Layer::Extension { .. } | Layer::Frag { .. }));
            let fragment = own.into_iter().any(|layer| matches!(layer, Layer::Frag { .. }));
            let around = Around { addresses: Some(((*src).into(), (*dst).into())), fragment };
            let (payload, padding) = split_padding(inner, around);
            out.extend_from_slice(&[version << 4 | class >> 4, class << 4, 0, 0]);
            out.extend_from_slice(&len.unwrap_or(payload.len() as u16).to_be_bytes());
            out.extend_from_slice(&[next.unwrap_or_else(|| protocol_of(inner)), *hop]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            out.extend(payload);
            out.extend(padding);
        }
        Layer::Extension { next, .. } => {
            out.push(next.unwrap_or_else(|| protocol_of(inner)));
            // Length 8 bytes, filled by a PadN option (RFC 8200 section 4.2).
            out.extend_from_slice(&[0, 1, 4, 0, 0, 0, 0]);
            out.extend(emit(inner, around));
        }
        Layer::Frag { id, offset, more, next } => {
            out.extend_from_slice(&[next.unwrap_or_else(|| protocol_of(inner)), 0]);
            out.extend_from_slice(&(offset & !7 | u16::from(*more)).to_be_bytes());
            out.extend_from_slice(&id.to_be_bytes());
            out.extend(emit(inner, around));
        }
        Layer::Bytes(bytes) => {
            out.extend_from_slice(bytes);
            out.extend(emit(inner, around));
        }
        Layer::Pad(n) => out.resize(*n, 0),
        Layer::Vxlan { vni, flags } => {
            out.extend_from_slice(&[*flags, 0, 0, 0]);
            out.extend_from_slice(&(vni << 8).to_be_bytes());
            out.extend(emit(inner, Around::default()));
        }
        transport => out = emit_transport(transport, inner, around),
    }
    out
}

fn split_padding(inner: &[Layer], around: Around) -> (Vec<u8>, Vec<u8>) {
    match inner.split_last() {
        Some((Layer::Pad(n), rest)) => (emit(rest, around), vec![0; *n]),
        _ => (emit(inner, around), Vec::new()),
    }
}

fn emit_ipv4(ip: &Ipv4, inner: &[Layer]) -> Vec<u8> {
    let fragment = ip.flags & 0x3fff != 0;
    let around = Around { addresses: Some((ip.src.into(), ip.dst.into())), fragment };
    let (payload, padding) = split_padding(inner, around);
    let header_len = usize::from(ip.ihl.max(5)) * 4;
    let mut out = vec![0; header_len];
    out[0] = ip.version << 4 | ip.ihl;
    out[1] = ip.tos;
    set16(&mut out, 2, ip.len.unwrap_or((header_len + payload.len()) as u16));
    set16(&mut out, 4, ip.id);
    set16(&mut out, 6, ip.flags);
    out[8] = ip.ttl;
    out[9] = ip.protocol.unwrap_or_else(|| protocol_of(inner));
    out[12..16].copy_from_slice(&ip.src.octets());
    out[16..20].copy_from_slice(&ip.dst.octets());
    // Options, where the header has room for them: no-operation.
    out[20..].fill(1);
    let sum = checksum(&[&out]);
    set16(&mut out, 10, ip.checksum.unwrap_or(sum));
    out.extend(payload);
    out.extend(padding);
    out
}

fn emit_transport(layer: &Layer, inner: &[Layer], around: Around) -> Vec<u8> {
    let payload = emit(inner, Around::default());
    let mut out = Vec::new();
    let (at, protocol, given) = match layer {
        Layer::Tcp { src, dst, flags, seq, ack, window, offset, checksum } => {
            out.extend_from_slice(&src.to_be_bytes());
            out.extend_from_slice(&dst.to_be_bytes());
            out.extend_from_slice(&seq.to_be_bytes());
            out.extend_from_slice(&ack.to_be_bytes());
            out.extend_from_slice(&[offset << 4, *flags]);
            out.extend_from_slice(&window.to_be_bytes());
            out.extend_from_slice(&[0; 4]);
            (16, 6, *checksum)
        }
        Layer::Udp { src, dst, len, checksum } => {
            out.extend_from_slice(&src.to_be_bytes());
            out.extend_from_slice(&dst.to_be_bytes());
            out.extend_from_slice(&len.unwrap_or((8 + payload.len()) as u16).to_be_bytes());
            out.extend_from_slice(&[0; 2]);
            (6, 17, *checksum)
        }
        Layer::Icmp { v6, kind, code, word, checksum } => {
            out.extend_from_slice(&[*kind, *code, 0, 0]);
            out.extend_from_slice(&word.to_be_bytes());
            (2, if *v6 { 58 } else { 1 }, *checksum)
        }
        Layer::Sctp { src, dst, tag, chunk, checksum } => {
            out.extend_from_slice(&src.to_be_bytes());
            out.extend_from_slice(&dst.to_be_bytes());
            out.extend_from_slice(&tag.to_be_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&[*chunk, 0]);
            out.extend_from_slice(&((4 + payload.len()) as u16).to_be_bytes());
            out.extend(payload);
            let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&out);
            out[8..12].copy_from_slice(&checksum.unwrap_or(crc).to_le_bytes());
            return out;
        }
        _ => return payload,
    };
    out.extend(payload);
    let header = if protocol == 1 { Vec::new() } else { pseudo(around, protocol, out.len()) };
    let mut sum = checksum(&[&header, &out]);
    if protocol == 17 && sum == 0 {
        sum = 0xffff;
    }
    let unknown = around.fragment && given.is_none();
    set16(&mut out, at, if unknown { 0x1234 } else { given.unwrap_or(sum) });
    out
}

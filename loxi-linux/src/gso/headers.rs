//! Where the headers of a super-frame are.

use super::{GsoError, GsoKind};

/// Offsets into a frame. All headers named are whole and inside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers {
    pub(super) l3: usize,
    /// Length of the IPv4 header with options; 40 and extensions for IPv6.
    pub(super) l3_len: usize,
    pub(super) l4: usize,
    pub(super) payload: usize,
    pub(super) ipv4: bool,
    pub(super) tcp: bool,
}

impl Headers {
    pub(super) fn parse(frame: &[u8], kind: GsoKind) -> Result<Self, GsoError> {
        let bad = |header| move || GsoError::BadHeader { header };
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let mut l3 = 14;
        let mut ethertype = word(12).ok_or_else(bad("ethernet"))?;
        while matches!(ethertype, 0x8100 | 0x88a8) {
            ethertype = word(l3 + 2).ok_or_else(bad("ethernet"))?;
            l3 += 4;
        }
        let wrong = || GsoError::WrongKind { kind };
        let (ipv4, l3_len, protocol) = match ethertype {
            0x0800 => {
                let first = *frame.get(l3).ok_or_else(bad("ipv4"))?;
                let length = usize::from(first & 15) * 4;
                if first >> 4 != 4 || length < 20 || frame.len() < l3 + length {
                    return Err(bad("ipv4")());
                }
                (true, length, frame[l3 + 9])
            }
            0x86dd => {
                let (length, protocol) = ipv6(frame, l3).ok_or_else(bad("ipv6"))?;
                (false, length, protocol)
            }
            _ => return Err(wrong()),
        };
        let tcp = match (kind, ipv4, protocol) {
            (GsoKind::Tcp4, true, 6) | (GsoKind::Tcp6, false, 6) => true,
            (GsoKind::UdpL4, _, 17) => false,
            _ => return Err(wrong()),
        };
        let l4 = l3 + l3_len;
        let l4_len = if tcp {
            let first = *frame.get(l4 + 12).ok_or_else(bad("tcp"))?;
            usize::from(first >> 4) * 4
        } else {
            8
        };
        if l4_len < if tcp { 20 } else { 8 } || frame.len() < l4 + l4_len {
            return Err(bad(if tcp { "tcp" } else { "udp" })());
        }
        Ok(Self { l3, l3_len, l4, payload: l4 + l4_len, ipv4, tcp })
    }
}

/// Length of the IPv6 header with its extensions, and the protocol after them.
fn ipv6(frame: &[u8], l3: usize) -> Option<(usize, u8)> {
    if frame.get(l3)? >> 4 != 6 || frame.len() < l3 + 40 {
        return None;
    }
    let mut next = frame[l3 + 6];
    let mut length = 40;
    // Hop-by-hop, routing, destination options: what a sender may put before TCP.
    while matches!(next, 0 | 43 | 60) {
        let header = frame.get(l3 + length..l3 + length + 2)?;
        next = header[0];
        length += (usize::from(header[1]) + 1) * 8;
    }
    (frame.len() >= l3 + length).then_some((length, next))
}

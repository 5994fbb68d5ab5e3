//! Finishing in software what the kernel leaves to a device: checksums and segmentation.
//!
//! Pure functions on bytes: no system call, no panic on any input, no allocation but the caller's
//! buffer. The results follow the kernel's own segmentation (`tcp_gso_segment`,
//! `__udp_gso_segment`): IPv4 identifications count up, FIN and PSH are on the last
//! segment only, CWR on the first only.

mod checksum;
mod headers;

pub use checksum::complete_checksum;
use checksum::{fold, pseudo_header, sum};
use headers::Headers;

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Kind of a super-frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of one flow (`UDP_SEGMENT`), over either family.
    UdpL4,
}

/// Why a frame can't be finished. It has to be dropped: it is not what goes on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GsoError {
    /// The checksum's place is outside the frame.
    #[error("checksum from {start} at +{offset} in a frame of {len} bytes")]
    ChecksumOutside {
        /// Where the checksummed bytes start.
        start: usize,
        /// Where the field is, counted from there.
        offset: usize,
        /// The frame's length.
        len: usize,
    },
    /// A header is cut off or has an impossible length.
    #[error("bad {header} header in a super-frame")]
    BadHeader {
        /// `ethernet`, `ipv4`, `ipv6`, `tcp` or `udp`.
        header: &'static str,
    },
    /// The frame's headers are not those of its kind: a tunnel's super-frame, for one.
    #[error("a super-frame of kind {kind:?} has other headers")]
    WrongKind {
        /// The kind announced.
        kind: GsoKind,
    },
    /// Segments of no size.
    #[error("segment size 0")]
    ZeroSize,
}

/// Cuts the super-frame `frame` into segments of at most `size` bytes of TCP or UDP payload and
/// calls `emit` with each, finished, in order. `transport` is where the kernel says that
/// the TCP or UDP header starts, if it says so.
///
/// # Errors
/// If the headers are not those of `kind`; then `emit` was not called.
pub fn segment(
    frame: &[u8],
    kind: GsoKind,
    size: usize,
    transport: Option<usize>,
    mut emit: impl FnMut(&[u8]),
) -> Result<(), GsoError> {
    if size == 0 {
        return Err(GsoError::ZeroSize);
    }
    let at = Headers::parse(frame, kind)?;
    if transport.is_some_and(|start| start != at.l4) {
        return Err(GsoError::WrongKind { kind });
    }
    let (head, payload) = frame.split_at(at.payload);
    let mut out = Vec::with_capacity(head.len() + size.min(payload.len()));
    let mut chunks = payload.chunks(size).enumerate().peekable();
    if chunks.peek().is_none() {
        out.extend_from_slice(head);
        finish(&mut out, &at, 0, 0, true);
        emit(&out);
        return Ok(());
    }
    while let Some((index, chunk)) = chunks.next() {
        out.clear();
        out.extend_from_slice(head);
        out.extend_from_slice(chunk);
        finish(&mut out, &at, index, index * size, chunks.peek().is_none());
        emit(&out);
    }
    Ok(())
}

/// Corrects lengths, numbers, flags and checksums of the segment `index`, whose payload starts at
/// `offset` of the whole. [`Headers::parse`] has checked that every index is inside.
fn finish(out: &mut [u8], at: &Headers, index: usize, offset: usize, last: bool) {
    let l4_len = out.len() - at.l4;
    if at.ipv4 {
        let total = (out.len() - at.l3) as u16;
        put16(out, at.l3 + 2, total);
        let id = get16(out, at.l3 + 4).wrapping_add(index as u16);
        put16(out, at.l3 + 4, id);
        put16(out, at.l3 + 10, 0);
        let check = !fold(sum(&out[at.l3..at.l3 + at.l3_len]));
        put16(out, at.l3 + 10, check);
    } else {
        let length = (out.len() - at.l3 - 40) as u16;
        put16(out, at.l3 + 4, length);
    }
    let field = if at.tcp {
        let seq = u32::from_be_bytes([out[at.l4 + 4], out[at.l4 + 5], out[at.l4 + 6], out[at.l4 + 7]])
            .wrapping_add(offset as u32);
        out[at.l4 + 4..at.l4 + 8].copy_from_slice(&seq.to_be_bytes());
        if !last {
            out[at.l4 + 13] &= !(TCP_FIN | TCP_PSH);
        }
        if index > 0 {
            out[at.l4 + 13] &= !TCP_CWR;
        }
        at.l4 + 16
    } else {
        put16(out, at.l4 + 4, l4_len as u16);
        at.l4 + 6
    };
    put16(out, field, 0);
    let protocol = if at.tcp { 6 } else { 17 };
    let pseudo = pseudo_header(out, at.l3, at.ipv4, protocol, l4_len);
    let mut check = !fold(pseudo + sum(&out[at.l4..]));
    if check == 0 && !at.tcp {
        check = 0xffff;
    }
    put16(out, field, check);
}

fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;

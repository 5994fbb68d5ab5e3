//! The Internet checksum (RFC 1071).

use super::GsoError;

/// Where the checksum of a UDP header is; a checksum of 0 means "none" there and only there.
const UDP_CHECK: usize = 6;

/// The sum of the 16-bit words; 64 KB can't overflow the 64 bits.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let mut total: u64 = words.by_ref().map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    if let [odd] = words.remainder() {
        total += u64::from(*odd) << 8;
    }
    total
}

pub(super) fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Sum of the pseudo header of the IP header at `l3`, which the caller has checked.
pub(super) fn pseudo_header(frame: &[u8], l3: usize, ipv4: bool, protocol: u8, len: usize) -> u64 {
    let addresses = if ipv4 { &frame[l3 + 12..l3 + 20] } else { &frame[l3 + 8..l3 + 40] };
    sum(addresses) + u64::from(protocol) + len as u64
}

/// Completes a partial checksum: the field at `start + offset` holds the pseudo header's sum,
/// and the bytes from `start` to the end are still to be added.
///
/// # Errors
/// If the field is outside the frame; the frame is then as it was.
pub fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) -> Result<(), GsoError> {
    let len = frame.len();
    let outside = GsoError::ChecksumOutside { start, offset, len };
    let field = start.checked_add(offset).ok_or(outside)?;
    if field.checked_add(2).is_none_or(|end| end > len) {
        return Err(outside);
    }
    let mut check = !fold(sum(&frame[start..]));
    if check == 0 && offset == UDP_CHECK {
        check = 0xffff;
    }
    frame[field..field + 2].copy_from_slice(&check.to_be_bytes());
    Ok(())
}

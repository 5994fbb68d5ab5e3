//! Fragmentation of IPv4 (RFC 791 section 3.2).

use super::{ETH, be16, finish, put16, sum};

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes. Options with the
/// copy bit are kept in every fragment, the others in the first. `None` if the
/// MTU leaves no room for payload.
pub(crate) fn fragment_ipv4(frame: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let header_len = usize::from(frame.get(ETH)? & 15) * 4;
    let len = usize::from(be16(frame, ETH + 2));
    let header = frame.get(ETH..ETH + header_len)?;
    let payload = frame.get(ETH + header_len..ETH + len)?;
    let flags_offset = be16(frame, ETH + 6);
    let (offset, more) = (usize::from(flags_offset & 0x1fff) * 8, flags_offset & 0x2000 != 0);
    let later_header = copied_options(header);
    let mut fragments = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let header = if at == 0 { header.to_vec() } else { later_header.clone() };
        let room = mtu.checked_sub(header.len())? & !7;
        if room == 0 {
            return None;
        }
        let rest = payload.len() - at;
        let last = rest + header.len() <= mtu;
        let take = if last { rest } else { room };
        let mut fragment = frame[..ETH].to_vec();
        fragment.extend_from_slice(&header);
        fragment.extend_from_slice(&payload[at..at + take]);
        // All within 65535: the whole packet's length is.
        put16(&mut fragment, ETH + 2, (header.len() + take) as u16);
        let flag = if last && !more { 0 } else { 0x2000 };
        put16(&mut fragment, ETH + 6, flag | ((offset + at) / 8) as u16);
        put16(&mut fragment, ETH + 10, 0);
        let checksum = finish(sum(&fragment[ETH..ETH + header.len()]));
        put16(&mut fragment, ETH + 10, checksum);
        fragments.push(fragment);
        at += take;
    }
    Some(fragments)
}

/// The header of later fragments: only options whose copy bit is set.
fn copied_options(header: &[u8]) -> Vec<u8> {
    let mut kept = header[..20].to_vec();
    let mut options = &header[20..];
    while let Some(kind) = options.first() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(options.get(1).copied().unwrap_or(0)),
        };
        if length == 0 || length > options.len() {
            break;
        }
        if kind & 0x80 != 0 {
            kept.extend_from_slice(&options[..length]);
        }
        options = &options[length..];
    }
    while !kept.len().is_multiple_of(4) {
        kept.push(0);
    }
    // At most 60 bytes: no longer than the original header, rounded to 4.
    kept[0] = 0x40 | (kept.len() / 4) as u8;
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        let mut frame = vec![0u8; ETH];
        frame.extend_from_slice(&[0x45, 0, 0, 0, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend((0..3000u32).map(|i| i as u8));
        let len = (frame.len() - ETH) as u16;
        put16(&mut frame, ETH + 2, len);
        let fragments = fragment_ipv4(&frame, 1400).unwrap();
        assert_eq!(fragments.len(), 3);
        let mut payload = Vec::new();
        for (index, fragment) in fragments.iter().enumerate() {
            assert_eq!(finish(sum(&fragment[ETH..ETH + 20])), 0);
            let word = be16(fragment, ETH + 6);
            assert_eq!(usize::from(word & 0x1fff) * 8, payload.len());
            assert_eq!(word & 0x2000 != 0, index < 2);
            assert!(fragment.len() - ETH <= 1400);
            payload.extend_from_slice(&fragment[ETH + 20..]);
        }
        assert_eq!(payload, frame[ETH + 20..]);
        assert!(fragment_ipv4(&frame, 24).is_none());
    }
}

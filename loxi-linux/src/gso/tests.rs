use super::*;
use proptest::prelude::*;

/// A super-frame with Ethernet, an optional tag, IP (with options or an extension) and TCP or UDP.
#[derive(Debug)]
struct Frame {
    ipv4: bool,
    tcp: bool,
    tagged: bool,
    long_ip: bool,
    payload: Vec<u8>,
}

const SEQ: u32 = u32::MAX - 1000;
const ID: u16 = u16::MAX - 1;

impl Frame {
    fn kind(&self) -> GsoKind {
        match (self.tcp, self.ipv4) {
            (true, true) => GsoKind::Tcp4,
            (true, false) => GsoKind::Tcp6,
            (false, _) => GsoKind::UdpL4,
        }
    }

    fn l3(&self) -> usize {
        if self.tagged { 18 } else { 14 }
    }

    fn l3_len(&self) -> usize {
        (if self.ipv4 { 20 } else { 40 }) + if self.long_ip { 8 } else { 0 }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut f = vec![2; 12];
        if self.tagged {
            f.extend([0x81, 0, 0, 7]);
        }
        let protocol = if self.tcp { 6 } else { 17 };
        if self.ipv4 {
            f.extend([8, 0, 0x45 + if self.long_ip { 2 } else { 0 }, 0, 0, 0]);
            f.extend(ID.to_be_bytes());
            f.extend([0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            if self.long_ip {
                f.extend([1; 8]);
            }
        } else {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0]);
            f.extend([if self.long_ip { 60 } else { protocol }, 64]);
            f.extend([0xfd; 32]);
            if self.long_ip {
                f.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
            }
        }
        if self.tcp {
            f.extend([0x12, 0x34, 0, 80]);
            f.extend(SEQ.to_be_bytes());
            f.extend([0, 0, 0, 9, 0x60, 0x99, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0]);
        } else {
            f.extend([0x12, 0x34, 0, 53, 0, 0, 0, 0]);
        }
        f.extend(&self.payload);
        f
    }
}

/// Another reading of RFC 1071, byte by byte, so that the tests don't judge by what they test.
fn plain_sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for (i, byte) in bytes.iter().enumerate() {
        total += u32::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn l4_is_right(f: &[u8], l3: usize, l3_len: usize, ipv4: bool, protocol: u8) -> bool {
    let mut all = if ipv4 { f[l3 + 12..l3 + 20].to_vec() } else { f[l3 + 8..l3 + 40].to_vec() };
    all.extend([0, protocol]);
    all.extend(((f.len() - l3 - l3_len) as u16).to_be_bytes());
    all.extend(&f[l3 + l3_len..]);
    plain_sum(&all) == 0xffff
}

fn frames() -> impl Strategy<Value = (Frame, usize)> {
    (any::<[bool; 4]>(), prop::collection::vec(any::<u8>(), 0..20_000), 1..3000usize).prop_map(
        |([ipv4, tcp, tagged, long_ip], payload, size)| (Frame { ipv4, tcp, tagged, long_ip, payload }, size),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn segments_are_frames_and_carry_everything((frame, size) in frames()) {
        let bytes = frame.bytes();
        let (l3, l3_len) = (frame.l3(), frame.l3_len());
        let l4 = l3 + l3_len;
        let head = l4 + if frame.tcp { 24 } else { 8 };
        let mut parts = Vec::new();
        segment(&bytes, frame.kind(), size, Some(l4), |s| parts.push(s.to_vec())).unwrap();
        let count = frame.payload.len().div_ceil(size).max(1);
        prop_assert_eq!(parts.len(), count);
        let mut joined = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            prop_assert!(part.len() - head <= size);
            prop_assert_eq!(&part[..l3], &bytes[..l3]);
            if frame.ipv4 {
                prop_assert_eq!(plain_sum(&part[l3..l4]), 0xffff);
                prop_assert_eq!(usize::from(get16(part, l3 + 2)), part.len() - l3);
                prop_assert_eq!(get16(part, l3 + 4), ID.wrapping_add(i as u16));
            } else {
                prop_assert_eq!(usize::from(get16(part, l3 + 4)), part.len() - l3 - 40);
            }
            let protocol = if frame.tcp { 6 } else { 17 };
            prop_assert!(l4_is_right(part, l3, l3_len, frame.ipv4, protocol));
            if frame.tcp {
                let seq = u32::from_be_bytes(part[l4 + 4..l4 + 8].try_into().unwrap());
                prop_assert_eq!(seq, SEQ.wrapping_add(joined.len() as u32));
                let mut flags = 0x90;
                if i + 1 < count { flags &= !9 } else { flags |= 9 }
                if i > 0 { flags &= !0x80 }
                prop_assert_eq!(part[l4 + 13], flags, "segment {} of {}", i, count);
            } else {
                prop_assert_eq!(usize::from(get16(part, l4 + 4)), part.len() - l4);
            }
            joined.extend_from_slice(&part[head..]);
        }
        prop_assert_eq!(joined, frame.payload);
    }

    #[test]
    fn a_partial_checksum_becomes_right((frame, _) in frames()) {
        let mut bytes = frame.bytes();
        let l4 = frame.l3() + frame.l3_len();
        let (protocol, offset) = if frame.tcp { (6, 16) } else { (17, 6) };
        let len = bytes.len() - l4;
        if !frame.tcp {
            put16(&mut bytes, l4 + 4, len as u16);
        }
        let seed = fold(pseudo_header(&bytes, frame.l3(), frame.ipv4, protocol, len));
        put16(&mut bytes, l4 + offset, seed);
        complete_checksum(&mut bytes, l4, offset).unwrap();
        prop_assert!(l4_is_right(&bytes, frame.l3(), frame.l3_len(), frame.ipv4, protocol));
        prop_assert!(frame.tcp || get16(&bytes, l4 + 6) != 0, "0 means no checksum in UDP");
    }

    #[test]
    fn no_input_panics(
        (frame, size) in frames(),
        cut in 0..200usize,
        noise in prop::collection::vec((0..80usize, any::<u8>()), 0..6),
        kind in 0..3u8,
    ) {
        let mut bytes = frame.bytes();
        for (at, value) in noise {
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
        }
        bytes.truncate(cut);
        let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::UdpL4][usize::from(kind)];
        let mut emitted = 0;
        if segment(&bytes, kind, size, None, |_| emitted += 1).is_err() {
            prop_assert_eq!(emitted, 0);
        }
        let _ = complete_checksum(&mut bytes, cut, size);
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ones() {
    // The words sum up to 0xffff, whose complement is the zero that UDP reserves.
    let mut bytes = [0xff, 0xf0, 0, 0, 0, 0, 0, 0x0f];
    complete_checksum(&mut bytes, 0, 6).unwrap();
    assert_eq!(get16(&bytes, 6), 0xffff);
    let mut bytes = [0xff, 0xf0, 0, 0x0f];
    complete_checksum(&mut bytes, 0, 2).unwrap();
    assert_eq!(get16(&bytes, 2), 0, "only in UDP");
}

#[test]
fn what_is_not_of_the_kind_is_refused() {
    let frame = Frame { ipv4: true, tcp: true, tagged: false, long_ip: false, payload: vec![0; 100] };
    let bytes = frame.bytes();
    let cut = |kind, size, transport| segment(&bytes, kind, size, transport, |_| ());
    assert_eq!(cut(GsoKind::Tcp6, 10, None), Err(GsoError::WrongKind { kind: GsoKind::Tcp6 }));
    assert_eq!(cut(GsoKind::Tcp4, 0, None), Err(GsoError::ZeroSize));
    // The kernel's transport header is an inner one: a tunnel's super-frame.
    assert_eq!(cut(GsoKind::Tcp4, 10, Some(84)), Err(GsoError::WrongKind { kind: GsoKind::Tcp4 }));
    let mut short = bytes;
    assert!(matches!(complete_checksum(&mut short, 150, 16), Err(GsoError::ChecksumOutside { .. })));
}

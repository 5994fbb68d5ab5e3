//! The Internet checksum (RFC 1071), and its incremental update (RFC 1624).

use std::net::IpAddr;

/// Ones' complement sum of the bytes as 16-bit words, an odd last byte padded with zero.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let mut total: u64 = words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    if let [last] = words.remainder() {
        total += u64::from(*last) << 8;
    }
    total
}

/// Sum of the pseudo header (RFC 768, RFC 8200 section 8.1).
pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> u64 {
    let address = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    address(src) + address(dst) + u64::from(protocol) + length as u64
}

/// Folds a sum to 16 bits and complements it: the value of a checksum field.
/// Over data that includes a correct checksum it is 0.
pub(crate) fn finish(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    // Folded to 16 bits just above.
    !(total as u16)
}

/// The checksum after `old` bytes became `new` ones (RFC 1624, equation 3).
/// Both start at an even offset of the summed data.
pub(crate) fn update(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let inverted: Vec<u8> = old.iter().map(|byte| !byte).collect();
    // An odd length is padded with zero in the sum; its complement would be 0xff.
    let padding = if old.len() % 2 == 1 { 0xff } else { 0 };
    finish(u64::from(!checksum) + sum(&inverted) + padding + sum(new))
}

/// The checksum of data whose sum was `old` and is now `new`, both without the
/// checksum itself: wrong by as much as `checksum` was, so that the receiver
/// sees the damage that nobody looked for here.
pub(crate) fn carry(checksum: u16, old: u64, new: u64) -> u16 {
    // Of the two zeros a right one is that which computing gives.
    if finish(old + u64::from(checksum)) == 0 {
        return finish(new);
    }
    finish(u64::from(!checksum) + u64::from(finish(old)) + new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(finish(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285, HC' = 0x0000.
        assert_eq!(update(0xdd2f, &[0x55, 0x55], &[0x32, 0x85]), 0x0000);
    }

    proptest! {
        #[test]
        fn incremental_equals_whole(mut data in proptest::collection::vec(any::<u8>(), 20..80), new: [u8; 4]) {
            data[0] = 1; // all-zero data has two representations of zero
            let before = finish(sum(&data));
            let old: [u8; 4] = data[4..8].try_into().unwrap();
            data[4..8].copy_from_slice(&new);
            prop_assert_eq!(update(before, &old, &new), finish(sum(&data)));
        }

        #[test]
        fn carrying_keeps_the_error(old in 0u64..1 << 24, new in 0u64..1 << 24, error: u16) {
            // What a receiver computes: 0 where all is right.
            let seen = |total: u64, checksum: u16| finish(total + u64::from(checksum));
            let checksum = finish(old + u64::from(error));
            let carried = carry(checksum, old, new);
            // 0xffff is the other zero.
            prop_assert_eq!(seen(new, carried) % 0xffff, seen(old, checksum) % 0xffff);
            if seen(old, checksum) == 0 {
                prop_assert_eq!(carried, finish(new));
            }
        }
    }
}

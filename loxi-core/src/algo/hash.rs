//! The one hash of flows: MurmurHash3 x86 32-bit over 32-bit words.
//!
//! Chosen because it needs only 32-bit multiplications and rotations, which
//! every target has, and because its input is a whole number of words.

use crate::packet::FlowTuple;
use std::net::IpAddr;

fn mix(hash: u32, word: u32) -> u32 {
    let k = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ k).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

fn finish(mut hash: u32, words: u32) -> u32 {
    hash ^= words * 4;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn words(addr: IpAddr) -> ([u32; 4], usize) {
    match addr {
        IpAddr::V4(v4) => ([v4.to_bits(), 0, 0, 0], 1),
        IpAddr::V6(v6) => {
            let o = v6.octets();
            let word = |i: usize| u32::from_be_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
            ([word(0), word(4), word(8), word(12)], 4)
        }
    }
}

/// Hash of a 5-tuple. Words in order: source (1 or 4 words, network order),
/// destination, source port << 16 | destination port, protocol.
#[must_use]
pub fn flow_hash(seed: u32, tuple: &FlowTuple) -> u32 {
    let mut hash = seed;
    let mut count = 2;
    for addr in [tuple.src, tuple.dst] {
        let (words, n) = words(addr);
        for word in &words[..n] {
            hash = mix(hash, *word);
            count += 1;
        }
    }
    hash = mix(hash, u32::from(tuple.src_port) << 16 | u32::from(tuple.dst_port));
    hash = mix(hash, u32::from(tuple.protocol.0));
    finish(hash, count)
}

/// Hash of an address alone.
#[must_use]
pub fn address_hash(seed: u32, addr: IpAddr) -> u32 {
    let (words, n) = words(addr);
    let mut hash = seed;
    for word in &words[..n] {
        hash = mix(hash, *word);
    }
    // n is 1 or 4.
    finish(hash, n as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_published_murmur3() {
        // MurmurHash3_x86_32 of the 4 bytes "test" with seed 0 is 0xba6bd213
        // (a value quoted by many implementations); its block is little-endian.
        let word = u32::from_le_bytes(*b"test");
        assert_eq!(finish(mix(0, word), 1), 0xba6b_d213);
    }

    #[test]
    fn seed_and_every_field_matter() {
        let base = FlowTuple {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            protocol: crate::net::IpProtocol::TCP,
            src_port: 1,
            dst_port: 2,
        };
        let hash = flow_hash(0, &base);
        assert_ne!(hash, flow_hash(1, &base));
        assert_ne!(hash, flow_hash(0, &base.reversed()));
        assert_ne!(hash, flow_hash(0, &FlowTuple { protocol: crate::net::IpProtocol::UDP, ..base }));
        assert_ne!(hash, flow_hash(0, &FlowTuple { dst_port: 3, ..base }));
    }
}

//! Names of entities from names of the cluster, which are longer.

use loxi_core::net::{NextHopName, TunnelName};

/// The longest name of an entity, in bytes.
const MAX: usize = 63;
/// Digits of the hash in a name that was cut.
const DIGITS: usize = 16;

/// A text as the name of an entity: itself behind `prefix`, or where that is too long or has other characters its
/// beginning with a hash of it.
pub(super) fn fit(prefix: &str, text: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._:/@-".contains(c);
    if prefix.len() + text.len() <= MAX && text.chars().all(legal) {
        return format!("{prefix}{text}");
    }
    let room = MAX.saturating_sub(prefix.len() + DIGITS + 1);
    let begin: String = text.chars().filter(|c| legal(*c)).take(room).collect();
    format!("{prefix}{begin}@{:0DIGITS$x}", hash(text))
}

/// FNV-1a of 64 bits: names must be the same after a restart, and with another compiler.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The tunnel to a node.
pub(super) fn tunnel(node: &str) -> Option<TunnelName> {
    TunnelName::new(fit("vxlan:", node)).ok()
}

/// The next hop by which a node's pods are reached.
pub(super) fn next_hop(node: &str) -> Option<NextHopName> {
    NextHopName::new(fit("node:", node)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_and_long_ones_differ() {
        assert_eq!(fit("node:", "n1.example"), "node:n1.example");
        let long = |last: &str| fit("node:", &format!("{}{last}", "a".repeat(250)));
        assert_eq!(long("x").len(), MAX);
        assert_ne!(long("x"), long("y"));
        // 63 are as they are, one more is not.
        assert_eq!(fit("node:", &"a".repeat(58)), format!("node:{}", "a".repeat(58)));
        assert!(fit("node:", &"a".repeat(59)).contains('@'));
        for text in [&*"a".repeat(300), "with space", "ü"] {
            assert!(next_hop(text).is_some() && tunnel(text).is_some(), "{text}");
        }
    }
}

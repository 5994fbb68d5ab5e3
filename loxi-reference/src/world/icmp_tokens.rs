//! How many ICMP errors may be sent: a token bucket per port, as RFC 4443
//! section 2.4 f wants it.

use loxi_core::net::PortName;
use loxi_core::packet::Timestamp;
use std::collections::BTreeMap;

/// ICMP errors per second and port, and how many at once: Linux' `icmp_msgs_per_sec` and
/// `icmp_msgs_burst`.
const PER_SECOND: u64 = 1000;
const BURST: u64 = 50;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Nanoseconds' worth of tokens.
    credit: u64,
    filled: Timestamp,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct IcmpTokens {
    buckets: BTreeMap<PortName, Bucket>,
}

impl IcmpTokens {
    /// Takes a token for an ICMP error about a packet of this port.
    pub(crate) fn take(&mut self, port: &PortName, now: Timestamp) -> bool {
        const COST: u64 = Timestamp::SECOND / PER_SECOND;
        let full = Bucket { credit: BURST * COST, filled: now };
        let bucket = self.buckets.entry(port.clone()).or_insert(full);
        let since = now.0.saturating_sub(bucket.filled.0);
        bucket.credit = bucket.credit.saturating_add(since).min(BURST * COST);
        bucket.filled = bucket.filled.max(now);
        if bucket.credit < COST {
            return false;
        }
        bucket.credit -= COST;
        true
    }

    /// Forgets the ports that aren't wanted any more.
    pub(crate) fn keep(&mut self, wanted: impl Fn(&PortName) -> bool) {
        self.buckets.retain(|port, _| wanted(port));
    }
}

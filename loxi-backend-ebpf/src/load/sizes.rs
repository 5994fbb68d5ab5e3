//! Sizes that an operator chooses.

use loxi_ebpf_layout::flow::{PLACES_V4, PLACES_V6, load};

/// Room for connections. It is reserved as a whole at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// IPv4 connections, 1 to 2^24.
    pub flows_v4: u32,
    /// IPv6 connections, 1 to 2^24.
    pub flows_v6: u32,
}

impl Default for Sizes {
    /// 131,072 IPv4 and 65,536 IPv6 connections: about 160 MiB.
    fn default() -> Self {
        Self { flows_v4: 131_072, flows_v6: 65_536 }
    }
}

/// Connections of a family at most.
const MOST: u32 = 1 << 24;

impl Sizes {
    /// Buckets for the IPv4 table.
    pub(crate) fn buckets_v4(self) -> u32 {
        buckets(self.flows_v4, PLACES_V4)
    }

    /// Buckets for the IPv6 table.
    pub(crate) fn buckets_v6(self) -> u32 {
        buckets(self.flows_v6, PLACES_V6)
    }
}

/// Buckets of `places` for two entries per connection, so few that nearly every key finds a place; a power
/// of two.
fn buckets(flows: u32, places: u32) -> u32 {
    let entries = u64::from(flows.clamp(1, MOST)) * 2;
    let (full, of) = load(places);
    let least = (entries * u64::from(of)).div_ceil(u64::from(places) * u64::from(full)).max(2);
    u32::try_from(least.next_power_of_two()).unwrap_or(1 << 31)
}

/// Connections for which there are so many buckets.
pub(crate) fn flows(buckets: u32, places: u32) -> u32 {
    let (full, of) = load(places);
    let entries = u64::from(buckets) * u64::from(places) * u64::from(full) / u64::from(of);
    u32::try_from(entries / 2).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_is_asked_for() {
        for flows in [1, 100, 4096, 131_072, 1_000_000, MOST] {
            let sizes = Sizes { flows_v4: flows, flows_v6: flows };
            for (buckets, places) in [(sizes.buckets_v4(), 15), (sizes.buckets_v6(), 7)] {
                assert!(buckets.is_power_of_two());
                assert!(super::flows(buckets, places) >= flows, "{flows} in {buckets}");
            }
        }
    }
}

//! Which of a podCIDR's addresses pods get.

use std::net::IpAddr;

use loxi_linux::Prefix;
use serde_json::{Value, json};

/// The first of a podCIDR's addresses for a pod: those before it are the switch's, the host's, and spare.
const FIRST: u8 = 10;

/// A podCIDR has no room for pods, or its gateway is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("podCIDR {subnet} with gateway {gateway}: {reason}")]
pub struct RangeError {
    /// The podCIDR.
    pub subnet: Prefix,
    /// The gateway.
    pub gateway: IpAddr,
    /// What is wrong.
    pub reason: &'static str,
}

/// A podCIDR with the gateway of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    subnet: Prefix,
    start: IpAddr,
    gateway: IpAddr,
}

impl Range {
    /// The range of a podCIDR: pods' addresses start at the tenth.
    ///
    /// # Errors
    /// If the tenth address or the gateway is not in it.
    pub fn new(subnet: Prefix, gateway: IpAddr) -> Result<Self, RangeError> {
        let error = |reason| RangeError { subnet, gateway, reason };
        let subnet = subnet.network();
        let start = subnet.nth(FIRST).ok_or_else(|| error("it is too small for a tenth address"))?;
        if !subnet.contains(gateway) {
            return Err(error("the gateway is not in it"));
        }
        Ok(Self { subnet, start, gateway })
    }

    /// A range that nobody has, for operations that go by the container alone but are refused without one.
    pub(super) fn of_documentation() -> Self {
        let at = |last| IpAddr::from([192, 0, 2, last]);
        Self { subnet: Prefix { addr: at(0), len: 24 }, start: at(FIRST), gateway: at(1) }
    }

    /// The podCIDR.
    #[must_use]
    pub fn subnet(&self) -> Prefix {
        self.subnet
    }

    /// The gateway.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    pub(super) fn config(&self) -> Value {
        json!({ "subnet": self.subnet.to_string(), "rangeStart": self.start, "gateway": self.gateway })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, gateway: &str) -> Result<Range, RangeError> {
        Range::new(subnet.parse().unwrap(), gateway.parse().unwrap())
    }

    #[test]
    fn pods_start_at_the_tenth_address() {
        let config = range("10.244.1.0/24", "10.244.1.1").unwrap().config();
        assert_eq!(
            config,
            json!({ "subnet": "10.244.1.0/24", "rangeStart": "10.244.1.10", "gateway": "10.244.1.1" })
        );
        assert_eq!(range("fd00:1::/64", "fd00:1::1").unwrap().config()["rangeStart"], "fd00:1::a");
        assert_eq!(range("10.0.0.64/26", "10.0.0.65").unwrap().config()["rangeStart"], "10.0.0.74");
    }

    #[test]
    fn what_has_no_room_is_refused() {
        assert!(range("10.0.0.0/29", "10.0.0.1").is_err());
        assert!(range("255.255.255.252/30", "255.255.255.253").is_err());
        assert!(range("10.0.0.0/24", "10.0.1.1").is_err());
        assert!(range("10.0.0.0/24", "fd00::1").is_err());
    }
}

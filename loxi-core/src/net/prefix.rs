//! IP prefixes without host bits.

use super::NetError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 prefix in CIDR form (RFC 4632, RFC 4291 section 2.3).
/// Bits beyond the length are zero: `10.0.0.1/8` is refused, not rounded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct IpPrefix {
    addr: IpAddr,
    len: u8,
}

fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - u32::from(len)) }
}

impl IpPrefix {
    /// The prefix `addr/len`.
    ///
    /// # Errors
    /// [`NetError::Range`] if `len` exceeds the family's width,
    /// [`NetError::HostBits`] if `addr` has bits beyond `len`.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, NetError> {
        let max = width(addr);
        if len > max {
            return Err(NetError::Range {
                what: "prefix length",
                value: len.into(),
                min: 0,
                max: max.into(),
            });
        }
        let network = Self::containing(addr, len);
        if network.addr != addr {
            return Err(NetError::HostBits { given: format!("{addr}/{len}"), network: network.to_string() });
        }
        Ok(network)
    }

    /// The prefix of `len` bits that contains `addr`; a length beyond the
    /// family's width counts as the width.
    #[must_use]
    pub fn containing(addr: IpAddr, len: u8) -> Self {
        let len = len.min(width(addr));
        let kept = bits(addr) & mask(len);
        let addr = match addr {
            // The address was shifted up by 96, so the upper 32 bits are it.
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(kept >> 96).unwrap_or(0))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(kept)),
        };
        Self { addr, len }
    }

    /// The prefix that holds just this address.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: width(addr) }
    }

    /// First address of the prefix.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length in bits, 0 to 32 or 128.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it is an IPv4 prefix.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether `addr` is of the same family and inside.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && bits(addr) & mask(self.len) == bits(self.addr)
    }

    /// Whether every address of `other` is inside this prefix.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }

    /// The address at the same offset in `to` as `addr` is in `self`: how a
    /// static 1:1 translation maps (RFC 3022, section 2.1). `None` unless both
    /// prefixes are of one family and length and `addr` is inside.
    #[must_use]
    pub fn map(&self, addr: IpAddr, to: &Self) -> Option<IpAddr> {
        if !self.contains(addr) || self.len != to.len || self.is_ipv4() != to.is_ipv4() {
            return None;
        }
        let mapped = bits(to.addr) | (bits(addr) & !mask(self.len));
        Some(match addr {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(mapped >> 96).ok()?)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(mapped)),
        })
    }
}

impl std::fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}/{}", self.addr, self.len))
    }
}

impl std::fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for IpPrefix {
    type Err = NetError;
    /// Accepts `ADDRESS/LENGTH` and a bare address, which is its host prefix.
    fn from_str(text: &str) -> Result<Self, NetError> {
        let refuse = || NetError::Prefix(text.to_owned());
        match text.split_once('/') {
            None => Ok(Self::host(text.parse().map_err(|_| refuse())?)),
            Some((addr, len)) => {
                if len.is_empty() || len.len() > 3 || !len.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(refuse());
                }
                let addr = addr.parse().map_err(|_| refuse())?;
                Self::new(
                    addr,
                    u8::try_from(len.parse::<u16>().map_err(|_| refuse())?).map_err(|_| refuse())?,
                )
            }
        }
    }
}

impl TryFrom<String> for IpPrefix {
    type Error = NetError;
    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}

impl From<IpPrefix> for String {
    fn from(prefix: IpPrefix) -> String {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn refuses_what_is_no_prefix() {
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "::1/64", "10.0.0.0/", "10.0.0.0/+8", "x/8", "::/129", ""] {
            assert!(bad.parse::<IpPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn families_never_mix() {
        assert!(!p("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(!p("::/0").contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn static_mapping_keeps_the_offset() {
        let mapped = p("10.1.0.0/16").map("10.1.2.3".parse().unwrap(), &p("192.168.0.0/16"));
        assert_eq!(mapped, Some("192.168.2.3".parse().unwrap()));
        assert_eq!(p("10.1.0.0/16").map("10.2.0.0".parse().unwrap(), &p("192.168.0.0/16")), None);
    }

    proptest! {
        #[test]
        fn containing_contains(addr: u32, len in 0u8..=32) {
            let addr = IpAddr::V4(Ipv4Addr::from_bits(addr));
            let prefix = IpPrefix::containing(addr, len);
            prop_assert!(prefix.contains(addr));
            prop_assert_eq!(prefix.to_string().parse::<IpPrefix>().unwrap(), prefix);
        }

        #[test]
        fn containing_contains_v6(addr: u128, len in 0u8..=128, flip in 0u32..128) {
            let prefix = IpPrefix::containing(IpAddr::V6(Ipv6Addr::from_bits(addr)), len);
            let flipped = IpAddr::V6(Ipv6Addr::from_bits(addr ^ (1 << (127 - flip))));
            prop_assert_eq!(prefix.contains(flipped), flip >= u32::from(len));
        }
    }
}

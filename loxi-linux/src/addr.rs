//! MAC addresses and IP prefixes, with the texts that `ip` uses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A text is no MAC address or prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseAddrError {
    /// The text as given.
    pub text: String,
    /// What was expected.
    pub expected: &'static str,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseAddrError;
    fn from_str(text: &str) -> Result<Self, ParseAddrError> {
        let error = || ParseAddrError { text: text.into(), expected: "a MAC address" };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

/// An address with a prefix length. The host bits are kept: it says both an
/// interface's address and a network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The address.
    pub addr: IpAddr,
    /// How many leading bits are the network's. Larger than the family's
    /// width is refused by the kernel, not here.
    pub len: u8,
}

impl Prefix {
    /// The address alone: /32 or /128.
    #[must_use]
    pub const fn host(addr: IpAddr) -> Self {
        let len = if addr.is_ipv4() { 32 } else { 128 };
        Self { addr, len }
    }

    /// Everything of the family of `addr`: /0.
    #[must_use]
    pub const fn any(addr: IpAddr) -> Self {
        let addr = if addr.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        Self { addr, len: 0 }
    }

    /// The network: host bits zero.
    #[must_use]
    pub fn network(self) -> Self {
        let addr = match self.addr {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(self.len.into())).unwrap_or(0);
                IpAddr::V4((u32::from(a) & mask).into())
            }
            IpAddr::V6(a) => {
                let shift = 128u32.saturating_sub(self.len.into());
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                IpAddr::V6((u128::from(a) & mask).into())
            }
        };
        Self { addr, len: self.len }
    }

    /// Whether `addr` is in the network.
    #[must_use]
    pub fn contains(self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && Self { addr, len: self.len }.network() == self.network()
    }

    /// The address with this number in the network, its own address being 0; none: it is not in it.
    #[must_use]
    pub fn nth(self, number: u8) -> Option<IpAddr> {
        let nth = match self.network().addr {
            IpAddr::V4(base) => IpAddr::V4(u32::from(base).checked_add(number.into())?.into()),
            IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(number.into())?.into()),
        };
        self.contains(nth).then_some(nth)
    }

    /// Whether the family is IPv4.
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        self.addr.is_ipv4()
    }
}

impl From<(IpAddr, u8)> for Prefix {
    fn from((addr, len): (IpAddr, u8)) -> Self {
        Self { addr, len }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = ParseAddrError;
    fn from_str(text: &str) -> Result<Self, ParseAddrError> {
        let error = || ParseAddrError { text: text.into(), expected: "an IP prefix" };
        let Some((addr, len)) = text.split_once('/') else {
            return text.parse().map(Self::host).map_err(|_| error());
        };
        let addr: IpAddr = addr.parse().map_err(|_| error())?;
        let len: u8 = len.parse().map_err(|_| error())?;
        if len > Self::host(addr).len { Err(error()) } else { Ok(Self { addr, len }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        let mac: MacAddr = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for bad in ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "2:0:0:0:0:0", "0g:00:00:00:00:00"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
        let prefix: Prefix = "10.244.1.7/24".parse().unwrap();
        assert_eq!(prefix.network().to_string(), "10.244.1.0/24");
        assert_eq!("fd00::1".parse::<Prefix>().unwrap().len, 128);
        assert!("10.0.0.0/33".parse::<Prefix>().is_err());
    }

    #[test]
    fn addresses_are_numbered_within_their_network() {
        let nth =
            |prefix: &str, number| prefix.parse::<Prefix>().unwrap().nth(number).map(|addr| addr.to_string());
        assert_eq!(nth("10.244.1.7/24", 10).as_deref(), Some("10.244.1.10"));
        assert_eq!(nth("fd00:1::/64", 10).as_deref(), Some("fd00:1::a"));
        for (outside, number) in [("10.0.0.0/29", 8), ("10.0.0.1/32", 1), ("255.255.255.255/32", 1)] {
            assert_eq!(nth(outside, number), None, "{outside}");
        }
    }

    #[test]
    fn networks_contain_their_addresses() {
        let net: Prefix = "fd00:10:244:1::/64".parse().unwrap();
        assert!(net.contains("fd00:10:244:1::5".parse().unwrap()));
        assert!(!net.contains("fd00:10:244:2::5".parse().unwrap()));
        assert!(!net.contains("10.0.0.1".parse().unwrap()));
        assert!(Prefix::any("10.0.0.1".parse().unwrap()).contains("1.2.3.4".parse().unwrap()));
    }
}

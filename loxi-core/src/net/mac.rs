//! IEEE 802 MAC addresses.

use super::NetError;

/// A 48-bit MAC address (IEEE 802-2014, section 8).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// All ones.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeroes; never a station's address.
    pub const ZERO: Self = Self([0; 6]);

    /// Wraps six octets in transmission order.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Group bit set: multicast or broadcast.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// All ones.
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// A station's address: not a group's and not zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_group() && self != Self::ZERO
    }

    /// The group address that carries an IPv4 multicast group (RFC 1112, section 6.4).
    #[must_use]
    pub fn from_ipv4_multicast(group: std::net::Ipv4Addr) -> Self {
        let o = group.octets();
        Self([0x01, 0x00, 0x5e, o[1] & 0x7f, o[2], o[3]])
    }

    /// The group address that carries an IPv6 multicast group (RFC 2464, section 7).
    #[must_use]
    pub fn from_ipv6_multicast(group: std::net::Ipv6Addr) -> Self {
        let o = group.octets();
        Self([0x33, 0x33, o[12], o[13], o[14], o[15]])
    }
}

impl std::fmt::Display for MacAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl std::fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for MacAddr {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        let refuse = || NetError::Mac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(refuse)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = NetError;
    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_is_strict() {
        let mac: MacAddr = "02:00:00:0a:Ff:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:0a:ff:01");
        for bad in [
            "",
            "02:00:00:0a:ff",
            "02:00:00:0a:ff:01:02",
            "2:0:0:0:0:1",
            "02-00-00-0a-ff-01",
            "+2:00:00:00:00:00",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_map_to_their_macs() {
        assert_eq!(
            MacAddr::from_ipv4_multicast("239.129.2.3".parse().unwrap()).to_string(),
            "01:00:5e:01:02:03"
        );
        assert_eq!(
            MacAddr::from_ipv6_multicast("ff02::1:ff00:7".parse().unwrap()).to_string(),
            "33:33:ff:00:00:07"
        );
    }
}

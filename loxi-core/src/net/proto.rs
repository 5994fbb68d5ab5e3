//! Protocol numbers, port ranges, VLAN identifiers, VNIs, MTUs.

use super::NetError;

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
/// Text form: a name where one is common, else the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// ICMP (RFC 792).
    pub const ICMP: Self = Self(1);
    /// IGMP (RFC 3376).
    pub const IGMP: Self = Self(2);
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: Self = Self(4);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// IPv6 in IP (RFC 4213).
    pub const IPV6: Self = Self(41);
    /// GRE (RFC 2784).
    pub const GRE: Self = Self(47);
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: Self = Self(58);
    /// SCTP (RFC 9260).
    pub const SCTP: Self = Self(132);

    const NAMES: [(&'static str, Self); 9] = [
        ("icmp", Self::ICMP),
        ("igmp", Self::IGMP),
        ("ipip", Self::IPIP),
        ("tcp", Self::TCP),
        ("udp", Self::UDP),
        ("ipv6", Self::IPV6),
        ("gre", Self::GRE),
        ("icmpv6", Self::ICMPV6),
        ("sctp", Self::SCTP),
    ];

    /// Whether the first four bytes of its header are source and destination port.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

impl std::fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Self::NAMES.iter().find(|(_, p)| p == self) {
            Some((name, _)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl std::fmt::Debug for IpProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for IpProtocol {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        match Self::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            Some((_, protocol)) => Ok(*protocol),
            None => text.parse().map(Self).map_err(|_| NetError::Protocol(text.to_owned())),
        }
    }
}

/// A range of L4 ports, both ends included. Text form: `80` or `8000-8100`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct L4Ports {
    first: u16,
    last: u16,
}

impl L4Ports {
    /// Every port, 0 included.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// The range `first..=last`.
    ///
    /// # Errors
    /// [`NetError::Ports`] if `first` is above `last`.
    pub fn new(first: u16, last: u16) -> Result<Self, NetError> {
        if first > last {
            return Err(NetError::Ports(format!("{first}-{last}")));
        }
        Ok(Self { first, last })
    }

    /// The range of one port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is inside.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether the two have a port in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many ports it holds, 1 to 65536.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl std::fmt::Display for L4Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            f.pad(&self.first.to_string())
        } else {
            f.pad(&format!("{}-{}", self.first, self.last))
        }
    }
}

impl std::fmt::Debug for L4Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for L4Ports {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        let refuse = |_| NetError::Ports(text.to_owned());
        match text.split_once('-') {
            None => Ok(Self::one(text.parse().map_err(refuse)?)),
            Some((first, last)) => Self::new(first.parse().map_err(refuse)?, last.parse().map_err(refuse)?),
        }
    }
}

/// Serde for types whose text is a string or, for convenience in files, a bare number.
macro_rules! text_or_number {
    ($type:ty, $expecting:literal, $from_number:expr) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        $from_number(number).map_err(E::custom)
                    }
                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$type, E> {
                        let number =
                            u64::try_from(number).map_err(|_| E::custom(format!("{number} is negative")))?;
                        self.visit_u64(number)
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

text_or_number!(IpProtocol, "a protocol name or number 0-255", |n: u64| {
    u8::try_from(n).map(IpProtocol).map_err(|_| NetError::Protocol(n.to_string()))
});
text_or_number!(L4Ports, "a port or a range of ports", |n: u64| {
    u16::try_from(n).map(L4Ports::one).map_err(|_| NetError::Ports(n.to_string()))
});

macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident, $raw:ty, $what:literal, $min:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "u64"))]
        pub struct $name($raw);

        impl $name {
            /// Lowest legal value.
            pub const MIN: $raw = $min;
            /// Highest legal value.
            pub const MAX: $raw = $max;

            /// Checks the range.
            ///
            /// # Errors
            /// [`NetError::Range`] outside [`Self::MIN`] to [`Self::MAX`].
            pub fn new(value: $raw) -> Result<Self, NetError> {
                Self::try_from(u64::from(value))
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = NetError;
            fn try_from(value: u64) -> Result<Self, NetError> {
                match <$raw>::try_from(value) {
                    Ok(raw) if ($min..=$max).contains(&raw) => Ok(Self(raw)),
                    _ => Err(NetError::Range { what: $what, value, min: $min, max: $max }),
                }
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> u64 {
                value.0.into()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0.to_string())
            }
        }
    };
}

ranged!(
    /// A VLAN identifier that a port can have: 1 to 4094 (IEEE 802.1Q, table 9-2).
    VlanId, u16, "VLAN ID", 1, 4094
);
ranged!(
    /// A VXLAN network identifier, 24 bits (RFC 7348, section 5).
    Vni, u32, "VNI", 0, 0xff_ffff
);
ranged!(
    /// Largest L3 packet of a port or interface in bytes, Ethernet header not
    /// counted. 68 is the least that IPv4 allows (RFC 791); IPv6 needs 1280 (RFC 8200).
    Mtu, u16, "MTU", 68, 65535
);

impl Default for VlanId {
    /// The default VLAN, 1.
    fn default() -> Self {
        Self(1)
    }
}

impl Default for Mtu {
    /// Ethernet's 1500.
    fn default() -> Self {
        Self(1500)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names_and_numbers() {
        assert_eq!("TCP".parse::<IpProtocol>().unwrap(), IpProtocol::TCP);
        assert_eq!("89".parse::<IpProtocol>().unwrap(), IpProtocol(89));
        assert!("256".parse::<IpProtocol>().is_err());
        assert_eq!(IpProtocol(58).to_string(), "icmpv6");
    }

    #[test]
    fn ranges_are_ordered() {
        let ports: L4Ports = "8000-8100".parse().unwrap();
        assert!(ports.contains(8000) && ports.contains(8100) && !ports.contains(8101));
        assert!("10-9".parse::<L4Ports>().is_err());
        assert_eq!(L4Ports::ANY.count(), 65536);
        assert!(VlanId::new(4095).is_err() && VlanId::new(0).is_err());
        assert!(Vni::new(1 << 24).is_err());
        assert!(Mtu::new(67).is_err());
    }
}

//! Names of entities. Each kind of name is its own type, so that a bridge's
//! name can't be passed where a VRF's is meant.

use super::NetError;

fn check(what: &'static str, value: &str, max: usize) -> Result<(), NetError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'@' | b'-');
    // "." and ".." can't name a file or an interface, and names become both.
    if value.is_empty() || value.len() > max || value == "." || value == ".." || !value.bytes().all(legal) {
        return Err(NetError::Name { what, value: value.to_owned(), max });
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
        pub struct $name(String);

        impl $name {
            /// The longest name, in bytes.
            pub const MAX: usize = $max;

            /// Checks and wraps a name.
            ///
            /// # Errors
            /// [`NetError::Name`] if it is empty, longer than [`Self::MAX`], or
            /// holds a character outside `A-Z a-z 0-9 . _ : / @ -`.
            pub fn new(value: impl Into<String>) -> Result<Self, NetError> {
                let value = value.into();
                check($what, &value, Self::MAX)?;
                Ok(Self(value))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NetError;
            fn try_from(value: String) -> Result<Self, NetError> {
                Self::new(value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NetError;
            fn from_str(value: &str) -> Result<Self, NetError> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// Name of a dataplane port: the interface on the dataplane's side, so at
    /// most 15 bytes (`IFNAMSIZ` of `linux/if.h` less its NUL).
    PortName, "port name", 15
);
name_type!(/// Name of a bridge.
    BridgeName, "bridge name", 63);
name_type!(/// Name of a VRF.
    VrfName, "VRF name", 63);
name_type!(/// Name of a conntrack zone.
    ZoneName, "zone name", 63);
name_type!(/// Name of an L3 interface.
    InterfaceName, "interface name", 63);
name_type!(/// Name of a next hop.
    NextHopName, "next hop name", 63);
name_type!(/// Name of a next-hop group.
    GroupName, "next-hop group name", 63);
name_type!(/// Name of a tunnel.
    TunnelName, "tunnel name", 63);
name_type!(/// Name of a tunnel termination.
    TerminationName, "termination name", 63);
name_type!(/// Name of a load-balancer backend.
    BackendName, "backend name", 253);
name_type!(/// Name of a set of addresses.
    AddrSetName, "address set name", 253);
name_type!(/// Name of a set of L4 ports.
    PortSetName, "port set name", 253);
name_type!(/// Name of a policy, for isolation.
    PolicyName, "policy name", 253);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(PortName::new("hs1").is_ok());
        assert!(PortName::new("").is_err());
        assert!(PortName::new("sixteen-bytes-xx").is_err());
        assert!(BridgeName::new("with space").is_err());
        assert!(BridgeName::new("..").is_err());
        assert_eq!(BackendName::new("default/web:80@10.0.0.1").unwrap().as_str(), "default/web:80@10.0.0.1");
    }
}

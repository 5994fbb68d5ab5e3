//! Checked value types of the wire: addresses, prefixes, ports, identifiers.
//!
//! Every type here can only hold legal values. Constructors are fallible and
//! return [`NetError`], serde goes through the same constructors, and nothing
//! in this module panics.

mod error;
mod ident;
mod mac;
mod prefix;
mod proto;

pub use error::NetError;
pub use ident::{
    AddrSetName, BackendName, BridgeName, GroupName, InterfaceName, NextHopName, PolicyName, PortName,
    PortSetName, TerminationName, TunnelName, VrfName, ZoneName,
};
pub use mac::MacAddr;
pub use prefix::IpPrefix;
pub use proto::{IpProtocol, L4Ports, Mtu, VlanId, Vni};

/// Whether an address can be a host's: it is no group's, not loopback and not unspecified.
#[must_use]
pub fn is_hosts(address: std::net::IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
}

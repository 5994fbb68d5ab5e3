//! Addresses of links.

use super::wire::{self, Message, Request};
use super::{Rtnl, RtnlError};
use crate::Prefix;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// How an address is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddrFlags {
    /// IPv6: usable at once, without asking the neighbours.
    pub no_dad: bool,
    /// No route to the address's network comes with it.
    pub no_prefix_route: bool,
}

/// An address as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address and its prefix length.
    pub prefix: Prefix,
    /// `RT_SCOPE_`: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// `IFA_F_` flags.
    pub flags: u32,
}

impl Address {
    fn parse(message: &Message<'_>) -> Option<Self> {
        if message.kind != libc::RTM_NEWADDR {
            return None;
        }
        let body = message.body;
        let (mut address, mut local) = (None, None);
        let mut flags = u32::from(*body.get(2)?);
        for (kind, value) in wire::attrs(body.get(8..)?) {
            match kind {
                IFA_ADDRESS => address = wire::ip(value),
                IFA_LOCAL => local = wire::ip(value),
                IFA_FLAGS => flags = wire::get_u32(value, 0)?,
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the other side.
        let addr = local.or(address)?;
        let prefix = Prefix { addr, len: body[1] };
        Some(Self { index: wire::get_u32(body, 4)?, prefix, scope: body[3], flags })
    }
}

fn ifaddr(prefix: Prefix, index: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[0] = wire::family(prefix.addr);
    bytes[1] = prefix.len;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes
}

impl Rtnl {
    /// Adds an address to a link.
    ///
    /// # Errors
    /// If the link is missing, or has the address already (`is_existing`).
    pub fn addr_add(
        &mut self,
        link: &str,
        prefix: impl Into<Prefix>,
        flags: AddrFlags,
    ) -> Result<(), RtnlError> {
        let prefix = prefix.into();
        let header = ifaddr(prefix, self.link_index(link)?);
        let create = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut request = Request::new(libc::RTM_NEWADDR, create, &header);
        let addr = wire::ip_bytes(prefix.addr);
        request.attr(IFA_LOCAL, &addr);
        request.attr(IFA_ADDRESS, &addr);
        let bits = if flags.no_dad { IFA_F_NODAD } else { 0 }
            | if flags.no_prefix_route { IFA_F_NOPREFIXROUTE } else { 0 };
        request.attr_u32(IFA_FLAGS, bits);
        self.change(request, "add address", &format!("{prefix} on {link}"))
    }

    /// Takes an address off a link.
    ///
    /// # Errors
    /// If the link or the address is missing.
    pub fn addr_del(&mut self, link: &str, prefix: impl Into<Prefix>) -> Result<(), RtnlError> {
        let prefix = prefix.into();
        let header = ifaddr(prefix, self.link_index(link)?);
        let mut request = Request::new(libc::RTM_DELADDR, libc::NLM_F_ACK, &header);
        request.attr(IFA_LOCAL, &wire::ip_bytes(prefix.addr));
        self.change(request, "delete address", &format!("{prefix} on {link}"))
    }

    /// All addresses of the namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn addrs(&mut self) -> Result<Vec<Address>, RtnlError> {
        let dump = || Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8]);
        self.list(dump, "list addresses", Address::parse)
    }
}

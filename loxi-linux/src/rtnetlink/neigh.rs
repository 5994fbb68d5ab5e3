//! Neighbours: who has which address on a link.

use std::net::IpAddr;

use super::wire::{self, Message, Request};
use super::{Rtnl, RtnlError};
use crate::MacAddr;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A neighbour as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbor {
    /// The link.
    pub index: u32,
    /// The IP address.
    pub addr: IpAddr,
    /// The Ethernet address, once known.
    pub mac: Option<MacAddr>,
    /// `NUD_` state bits.
    pub state: u16,
}

impl Neighbor {
    fn parse(message: &Message<'_>) -> Option<Self> {
        let body = message.body;
        let family = i32::from(*body.first()?);
        if message.kind != libc::RTM_NEWNEIGH || !matches!(family, libc::AF_INET | libc::AF_INET6) {
            return None;
        }
        let (mut addr, mut mac) = (None, None);
        for (kind, value) in wire::attrs(body.get(12..)?) {
            match kind {
                NDA_DST => addr = wire::ip(value),
                NDA_LLADDR => mac = value.try_into().ok().map(MacAddr),
                _ => {}
            }
        }
        let (index, state) = (wire::get_u32(body, 4)?, wire::get_u16(body, 8)?);
        Some(Self { index, addr: addr?, mac, state })
    }
}

impl Rtnl {
    /// Adds or replaces a permanent neighbour.
    ///
    /// # Errors
    /// If the link is missing or takes no neighbours.
    pub fn neigh_add(&mut self, link: &str, addr: IpAddr, mac: MacAddr) -> Result<(), RtnlError> {
        let mut header = [0u8; 12];
        header[0] = wire::family(addr);
        header[4..8].copy_from_slice(&self.link_index(link)?.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let replace = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut request = Request::new(libc::RTM_NEWNEIGH, replace, &header);
        request.attr(NDA_DST, &wire::ip_bytes(addr));
        request.attr(NDA_LLADDR, &mac.0);
        self.change(request, "add neighbour", &format!("{addr} on {link}"))
    }

    /// All IP neighbours of the namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn neighbors(&mut self) -> Result<Vec<Neighbor>, RtnlError> {
        let dump = || Request::new(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &[0; 12]);
        self.list(dump, "list neighbours", Neighbor::parse)
    }
}

//! Routes of the main table.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::{self, Message, Request};
use super::{Rtnl, RtnlError};
use crate::Prefix;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTNH_F_ONLINK: u32 = 4;
const RT_SCOPE_LINK: u8 = 253;
const RTPROT_STATIC: u8 = 4;
const RTM_F_CLONED: u32 = 0x200;

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The destination; /0 is the default route.
    pub dst: Prefix,
    /// The gateway, of the same family; `None` is "on this link".
    pub via: Option<IpAddr>,
    /// The link. Missing only in listed routes of several hops.
    pub dev: Option<String>,
    /// The source address for what this machine sends.
    pub src: Option<IpAddr>,
    /// The gateway is on the link though no address says so.
    pub onlink: bool,
    /// The path MTU.
    pub mtu: Option<u32>,
    /// Priority, less is better. For IPv6 the kernel takes 1024 if none is given.
    pub metric: Option<u32>,
}

impl Route {
    /// A route to what is on a link.
    #[must_use]
    pub fn on_link(dst: Prefix, dev: &str) -> Self {
        let dev = Some(dev.into());
        Self { dst: dst.network(), via: None, dev, src: None, onlink: false, mtu: None, metric: None }
    }

    /// A route by a gateway on a link.
    #[must_use]
    pub fn via(dst: Prefix, via: IpAddr, dev: &str) -> Self {
        Self { via: Some(via), ..Self::on_link(dst, dev) }
    }

    /// The same with a source address.
    #[must_use]
    pub fn with_src(self, src: IpAddr) -> Self {
        Self { src: Some(src), ..self }
    }

    /// The same with a gateway that counts as being on the link.
    #[must_use]
    pub fn with_onlink(self) -> Self {
        Self { onlink: true, ..self }
    }

    fn request(&self, kind: u16, flags: i32, index: Option<u32>) -> Request {
        let mut header = [0u8; 12];
        header[0] = wire::family(self.dst.addr);
        header[1] = self.dst.len;
        header[4] = libc::RT_TABLE_MAIN;
        header[5] = RTPROT_STATIC;
        // For IPv4 "nowhere" as scope matches any in a deletion.
        header[6] = match (kind, self.via) {
            (libc::RTM_DELROUTE, _) => libc::RT_SCOPE_NOWHERE,
            (_, None) => RT_SCOPE_LINK,
            (_, Some(_)) => 0,
        };
        header[7] = libc::RTN_UNICAST;
        let onlink = if self.onlink { RTNH_F_ONLINK } else { 0 };
        header[8..12].copy_from_slice(&onlink.to_ne_bytes());
        let mut request = Request::new(kind, flags, &header);
        request.attr(RTA_DST, &wire::ip_bytes(self.dst.network().addr));
        if let Some(index) = index {
            request.attr_u32(RTA_OIF, index);
        }
        if let Some(via) = self.via {
            request.attr(RTA_GATEWAY, &wire::ip_bytes(via));
        }
        if let Some(src) = self.src {
            request.attr(RTA_PREFSRC, &wire::ip_bytes(src));
        }
        if let Some(metric) = self.metric {
            request.attr_u32(RTA_PRIORITY, metric);
        }
        if let Some(mtu) = self.mtu {
            request.nest(RTA_METRICS, &[], |request| request.attr_u32(RTAX_MTU, mtu));
        }
        request
    }

    /// The route with the index of its link.
    fn parse(message: &Message<'_>) -> Option<(Self, Option<u32>)> {
        let body = message.body;
        if message.kind != libc::RTM_NEWROUTE || body.get(7) != Some(&libc::RTN_UNICAST) {
            return None;
        }
        let flags = wire::get_u32(body, 8)?;
        let any: IpAddr = match i32::from(body[0]) {
            libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut table = u32::from(body[4]);
        let mut index = None;
        let mut route = Self {
            dst: Prefix { addr: any, len: body[1] },
            via: None,
            dev: None,
            src: None,
            onlink: flags & RTNH_F_ONLINK != 0,
            mtu: None,
            metric: None,
        };
        for (kind, value) in wire::attrs(body.get(12..)?) {
            match kind {
                RTA_DST => route.dst.addr = wire::ip(value)?,
                RTA_OIF => index = wire::get_u32(value, 0),
                RTA_GATEWAY => route.via = wire::ip(value),
                RTA_PREFSRC => route.src = wire::ip(value),
                RTA_PRIORITY => route.metric = wire::get_u32(value, 0),
                RTA_TABLE => table = wire::get_u32(value, 0)?,
                RTA_METRICS => {
                    route.mtu = wire::attrs(value)
                        .find(|(kind, _)| *kind == RTAX_MTU)
                        .and_then(|(_, value)| wire::get_u32(value, 0));
                }
                _ => {}
            }
        }
        let main = table == u32::from(libc::RT_TABLE_MAIN) && flags & RTM_F_CLONED == 0;
        main.then_some((route, index))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dst)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(dev) = &self.dev {
            write!(f, " dev {dev}")?;
        }
        if let Some(src) = self.src {
            write!(f, " src {src}")?;
        }
        Ok(())
    }
}

impl Rtnl {
    /// Adds a route.
    ///
    /// # Errors
    /// If its link is missing or down, its gateway unreachable, or there is one for
    /// the destination already (`is_existing`).
    pub fn route_add(&mut self, route: &Route) -> Result<(), RtnlError> {
        let create = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.route_change(route, libc::RTM_NEWROUTE, create, "add route")
    }

    /// Adds a route or replaces the one for its destination.
    ///
    /// # Errors
    /// As [`Rtnl::route_add`], without the last.
    pub fn route_replace(&mut self, route: &Route) -> Result<(), RtnlError> {
        let replace = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.route_change(route, libc::RTM_NEWROUTE, replace, "replace route")
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// If there is no such route.
    pub fn route_del(&mut self, route: &Route) -> Result<(), RtnlError> {
        self.route_change(route, libc::RTM_DELROUTE, libc::NLM_F_ACK, "delete route")
    }

    fn route_change(
        &mut self,
        route: &Route,
        kind: u16,
        flags: i32,
        operation: &'static str,
    ) -> Result<(), RtnlError> {
        let index = route.dev.as_deref().map(|dev| self.link_index(dev)).transpose()?;
        let request = route.request(kind, flags, index);
        self.change(request, operation, &route.to_string())
    }

    /// The unicast routes of the main table, of both families.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn routes(&mut self) -> Result<Vec<Route>, RtnlError> {
        let dump = || Request::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; 12]);
        let found = self.list(dump, "list routes", Route::parse)?;
        let links = self.links()?;
        let name = |index: u32| links.iter().find(|l| l.index == index).map(|l| l.name.clone());
        Ok(found.into_iter().map(|(route, index)| Route { dev: index.and_then(name), ..route }).collect())
    }
}

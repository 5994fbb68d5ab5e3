//! Stage 11: TTL once per routed hop, then MTU.
//!
//! The limit is that of the inner packet: encapsulation is already taken off.
//! Too large and routed: IPv4 without DF is fragmented before encapsulation
//! (RFC 791 section 3.2), anything else gets an error with the limit
//! (RFC 1191, RFC 8201). Too large and bridged: dropped without one.

use super::egress::Way;
use super::ingress::Packet;
use super::{Run, Step, drop, step};
use crate::frame::{IcmpError, decrement_ttl};
use loxi_core::reason::DropReason;

/// The MTU that an oversize packet must be cut to; none: it fits.
pub(super) type Pieces = Option<usize>;

impl Run<'_> {
    pub(super) fn s11_ttl_mtu(&mut self, packet: &mut Packet, way: &Way) -> Step<Pieces> {
        let Some(ip) = packet.ip().cloned() else { return self.fits(packet, way) };
        if way.is_routed() {
            if ip.ttl <= 1 {
                step!(self, TtlMtu, None, ("ttl {}", ip.ttl), ("drop ttl, time exceeded"));
                self.answer_error(packet, IcmpError::TimeExceeded)?;
                return drop(DropReason::Ttl);
            }
            decrement_ttl(&mut packet.frame, ip.is_ipv4());
        }
        let mtu = usize::from(way.mtu);
        if ip.len <= mtu {
            let ttl = if way.is_routed() { ip.ttl - 1 } else { ip.ttl };
            step!(
                self,
                TtlMtu,
                None,
                ("ttl {}, length {}, mtu {}", ip.ttl, ip.len, way.mtu),
                ("ttl {ttl}, fits")
            );
            return Ok(None);
        }
        if !way.is_routed() {
            return self.fits(packet, way);
        }
        if ip.dont_fragment {
            step!(self, TtlMtu, None, ("length {}, mtu {}", ip.len, way.mtu), ("drop mtu, too big"));
            self.answer_error(packet, IcmpError::PacketTooBig { mtu: way.mtu })?;
            return drop(DropReason::Mtu);
        }
        step!(self, TtlMtu, None, ("length {}, mtu {}", ip.len, way.mtu), ("fragment"));
        Ok(Some(mtu))
    }

    fn fits(&mut self, packet: &Packet, way: &Way) -> Step<Pieces> {
        if packet.l3_len() > usize::from(way.mtu) {
            step!(self, TtlMtu, None, ("length {}, mtu {}", packet.l3_len(), way.mtu), ("drop mtu"));
            return drop(DropReason::Mtu);
        }
        Ok(None)
    }
}

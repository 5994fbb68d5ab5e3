//! Stage 6 for ICMP errors: the flow whose packet they quote.
//!
//! The quoted packet is one that we sent, so its reverse is a tuple by which
//! the flow is known, and the error travels in that direction. The quoted
//! addresses, ports and checksums are translated in reverse, then the outer
//! destination; the outer source only if it is the translated endpoint's own
//! (RFC 5508 section 4.2).

use super::ingress::{Packet, Tracking};
use super::{Run, Step, ip_of, learned, step};
use crate::frame::{Icmp, L3, L4, embedded_tuple, rewrite_embedded};
use loxi_core::net::ZoneName;
use loxi_core::packet::FlowDirection;
use loxi_core::reason::DropReason;

impl Run<'_> {
    pub(super) fn s06_related(&mut self, packet: &mut Packet, zone: &ZoneName) -> Step {
        let ip = ip_of(&packet.view)?.clone();
        let L4::Icmp(Icmp::Error { at, .. }) = ip.l4 else { return Ok(()) };
        let quoted = embedded_tuple(&packet.frame, at, ip.is_ipv4());
        let found = quoted.and_then(|(tuple, l4_at)| {
            let (direction, flow) = self.state.lookup(zone, &tuple.reversed(), self.now)?;
            Some((tuple, l4_at, direction, flow))
        });
        let Some((tuple, l4_at, direction, flow)) = found else {
            return self.s06_stranger(packet, DropReason::IcmpWithoutFlow);
        };
        // The quoted packet as it came in here, before it was translated.
        let before = match direction {
            FlowDirection::Reply => flow.id.tuple,
            FlowDirection::Original => flow.reply,
        };
        // An error from the far endpoint itself comes, for the near one, from the address it knows.
        let src = if ip.src == tuple.dst { before.dst } else { ip.src };
        step!(
            self,
            Conntrack,
            learned(format!("flow {}", flow.id.tuple)),
            ("zone {zone} error about {tuple}"),
            ("related, {direction}: now about {before}, to {}", before.src)
        );
        packet.tracking = Tracking::Related(flow.id, direction);
        if (tuple, ip.src, ip.dst) == (before, src, before.src) {
            return Ok(());
        }
        rewrite_embedded(&mut packet.frame, &ip, at, l4_at, &before, (src, before.src));
        if let L3::Ip(ip) = &mut packet.view.l3 {
            (ip.src, ip.dst) = (src, before.src);
        }
        Ok(())
    }
}

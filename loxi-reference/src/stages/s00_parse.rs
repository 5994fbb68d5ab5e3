//! Stage 0: headers, lengths, checksums, martians.
//!
//! Lengths and header checksums are checked before anything is believed
//! (RFC 1812 section 5.2.2). Transport checksums are verified of whole
//! packets only, and not at all where a backend is assumed that doesn't; an
//! IPv6 UDP packet without one is accepted where a tunnel ends (RFC 6935), and
//! nowhere else whoever verifies. Padding behind the IP packet is kept as it is.

use super::{Run, Step, drop, step};
use crate::frame::{Checksums, ETH, View, be16, ethertype};
use loxi_core::ir::TunnelKind;
use loxi_core::net::VlanId;
use loxi_core::packet::Fate;
use loxi_core::reason::DropReason;
use std::collections::BTreeSet;

/// A frame without its tag.
pub(super) struct Untagged {
    pub(super) frame: Vec<u8>,
    /// VLAN of the tag; none: untagged or priority-tagged (VID 0).
    pub(super) vid: Option<VlanId>,
    pub(super) priority: u8,
}

impl Run<'_> {
    pub(super) fn s00_untag(&mut self, frame: &[u8]) -> Step<Untagged> {
        if frame.len() < ETH {
            return drop(DropReason::Truncated);
        }
        if be16(frame, 12) != ethertype::VLAN {
            return Ok(Untagged { frame: frame.to_vec(), vid: None, priority: 0 });
        }
        if frame.len() < ETH + 4 {
            return drop(DropReason::Truncated);
        }
        let tag = be16(frame, ETH);
        let vid = match tag & 0x0fff {
            0 => None,
            // 4095 is reserved (IEEE 802.1Q table 9-2).
            vid => Some(VlanId::new(vid).map_err(|_| Fate::Dropped(DropReason::VlanFiltered))?),
        };
        let mut untagged = frame[..12].to_vec();
        untagged.extend_from_slice(&frame[ETH + 2..]);
        // Three bits of sixteen.
        Ok(Untagged { frame: untagged, vid, priority: (tag >> 13) as u8 })
    }

    pub(super) fn s00_parse(&mut self, frame: &[u8]) -> Step<View> {
        let zero_udp: BTreeSet<u16> = self
            .config
            .terminations()
            .filter_map(|termination| match termination.matches {
                TunnelKind::Vxlan { port, .. } => Some(port),
                TunnelKind::Ipip => None,
            })
            .collect();
        match View::parse(frame, &Checksums { verify: self.verify_l4, zero_udp }) {
            Ok(view) => {
                step!(self, Parse, None, ("{} bytes", frame.len()), ("{}", view.kind()));
                Ok(view)
            }
            Err(reason) => {
                step!(self, Parse, None, ("{} bytes", frame.len()), ("drop {reason}"));
                drop(reason)
            }
        }
    }
}

//! Stage 5: fragments.
//!
//! A packet's fragments are known by zone, addresses, identification and
//! protocol, before translation. The first fragment goes through every stage;
//! its record is written when it is through, or dropped, and later fragments
//! share its tuple or its reason. Without a record they are dropped: order is
//! required here, a backend may punt instead.

use super::ingress::{Packet, Tracking};
use super::{Run, Step, drop, ip_of, learned, step};
use loxi_core::packet::{Fate, FragmentEntry, FragmentKey};
use loxi_core::reason::DropReason;

/// Fragmented packets at once (Linux bounds memory instead: 4 MiB).
const LIMIT: usize = 4096;

/// Seconds until a record ends (Linux' `net.ipv4.ipfrag_time`).
const TIMEOUT_S: u32 = 30;

impl Run<'_> {
    /// Gives a later fragment the tuple of its first.
    pub(super) fn s05_fragment(&mut self, packet: &mut Packet) -> Step {
        let Some(zone) = packet.zone.clone() else { return Ok(()) };
        let ip = ip_of(&packet.view)?;
        let Some(fragment) = ip.fragment else { return Ok(()) };
        if ip.is_group() {
            return Ok(());
        }
        let key = FragmentKey { zone, src: ip.src, dst: ip.dst, id: fragment.id, protocol: ip.protocol.0 };
        let text = format!("{} id {} offset {}", ip.tuple(), fragment.id, fragment.offset);
        if fragment.offset == 0 {
            let known = self.state.fragment(&key).is_some();
            if !known && self.state.fragments(self.now) >= LIMIT {
                return drop(DropReason::FragmentLimit);
            }
            return Ok(());
        }
        let Some(entry) = self.state.fragment(&key) else {
            step!(self, Fragment, None, ("{text}"), ("drop fragment_no_first"));
            return drop(DropReason::FragmentNoFirst);
        };
        if entry.expires <= self.now {
            step!(self, Fragment, learned("record"), ("{text}"), ("drop fragment_timeout"));
            return drop(DropReason::FragmentTimeout);
        }
        match entry.first {
            Err(reason) => {
                step!(self, Fragment, learned("record"), ("{text}"), ("drop {reason}, as the first"));
                drop(reason)
            }
            Ok(tuple) => {
                step!(self, Fragment, learned("record"), ("{text}"), ("belongs to {tuple}"));
                packet.tuple = Some(tuple);
                Ok(())
            }
        }
    }

    /// Writes the record of a first fragment.
    pub(super) fn s05_remember_first(&mut self, packet: &Packet, result: Step) {
        let (Some(zone), Some(tuple)) = (&packet.zone, packet.tuple) else { return };
        // The identification survives every translation.
        let Some(fragment) = packet.ip().and_then(|ip| ip.fragment).filter(|f| f.offset == 0) else { return };
        if matches!(packet.tracking, Tracking::Untracked) && result.is_ok() {
            return;
        }
        let first = match result {
            Err(Fate::Dropped(DropReason::FragmentLimit)) => return,
            Err(Fate::Dropped(reason)) => Err(reason),
            _ => Ok(tuple),
        };
        let entry = FragmentEntry {
            zone: zone.clone(),
            src: tuple.src,
            dst: tuple.dst,
            id: fragment.id,
            protocol: tuple.protocol.0,
            first,
            expires: self.now.plus_s(TIMEOUT_S),
        };
        self.state.put_fragment(entry);
    }
}

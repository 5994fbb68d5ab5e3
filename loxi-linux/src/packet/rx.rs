//! From what the kernel hands over to frames as on a wire.

use std::collections::VecDeque;

use super::RxMeta;
use super::vnet::{self, VnetHeader};
use crate::gso;

/// Room for the largest super-frame (64 KB of IP) with its Ethernet header and tags.
pub(super) const BUFFER: usize = 65_536 + 128;
/// Buffers of segments kept for the next super-frame.
const SPARES: usize = 64;

/// What a device has given and what was lost on the way, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RxCounters {
    /// Frames handed over, segments counted singly.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Super-frames that were cut.
    pub super_frames: u64,
    /// Frames longer than the buffer, dropped.
    pub truncated: u64,
    /// Frames that the kernel has dropped because nobody took them in time. Not known of TAPs,
    /// whose device counts them.
    pub overruns: u64,
    /// Frames whose checksum or segments could not be finished, dropped.
    pub unfinished: u64,
}

/// Finishes frames and keeps the segments that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    pending: VecDeque<(Vec<u8>, RxMeta)>,
    spares: Vec<Vec<u8>>,
    pub(super) counters: RxCounters,
}

impl Receiver {
    /// The next frame that is finished already.
    pub(super) fn pop(&mut self, frame: &mut Vec<u8>) -> Option<RxMeta> {
        let (mut segment, meta) = self.pending.pop_front()?;
        std::mem::swap(frame, &mut segment);
        if self.spares.len() < SPARES {
            self.spares.push(segment);
        }
        self.counters.frames += 1;
        self.counters.bytes += frame.len() as u64;
        Some(meta)
    }

    /// Takes what the kernel gave: a virtio header and a frame, and a tag beside it.
    /// Offsets in the header don't count that tag, so it goes in last.
    pub(super) fn push(&mut self, bytes: &mut [u8], vlan: Option<(u16, u16)>) {
        let Some(header) = VnetHeader::parse(bytes) else {
            self.counters.unfinished += 1;
            return;
        };
        let frame = &mut bytes[vnet::LEN..];
        let mut meta = RxMeta { vlan_restored: vlan.is_some(), ..RxMeta::default() };
        if let Some((kind, size)) = header.gso {
            meta.segmented = true;
            meta.checksum_completed = true;
            let (pending, spares) = (&mut self.pending, &mut self.spares);
            let transport = header.partial.map(|(start, _)| start);
            let cut = gso::segment(frame, kind, size, transport, |segment| {
                let mut out = spares.pop().unwrap_or_default();
                copy_tagged(&mut out, segment, vlan);
                pending.push_back((out, meta));
            });
            match cut {
                Ok(()) => self.counters.super_frames += 1,
                Err(_) => self.counters.unfinished += 1,
            }
            return;
        }
        if let Some((start, offset)) = header.partial {
            meta.checksum_completed = true;
            if gso::complete_checksum(frame, start, offset).is_err() {
                self.counters.unfinished += 1;
                return;
            }
        }
        let mut out = self.spares.pop().unwrap_or_default();
        copy_tagged(&mut out, frame, vlan);
        self.pending.push_back((out, meta));
    }
}

fn copy_tagged(out: &mut Vec<u8>, frame: &[u8], vlan: Option<(u16, u16)>) {
    out.clear();
    match vlan {
        Some((tpid, tci)) if frame.len() >= 12 => {
            out.extend_from_slice(&frame[..12]);
            out.extend_from_slice(&tpid.to_be_bytes());
            out.extend_from_slice(&tci.to_be_bytes());
            out.extend_from_slice(&frame[12..]);
        }
        _ => out.extend_from_slice(frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_beside_the_frame_is_put_back() {
        let mut receiver = Receiver::default();
        let mut bytes = vnet::FINISHED.to_vec();
        bytes.extend([1; 6]);
        bytes.extend([2; 6]);
        bytes.extend([8, 0, 0x45]);
        receiver.push(&mut bytes, Some((0x8100, 5)));
        let mut frame = vec![9; 3];
        let meta = receiver.pop(&mut frame).unwrap();
        assert!(meta.vlan_restored && !meta.segmented);
        assert_eq!(frame[12..], [0x81, 0, 0, 5, 8, 0, 0x45]);
        assert!(receiver.pop(&mut frame).is_none());
        assert_eq!((receiver.counters.frames, receiver.counters.bytes), (1, 19));
    }

    #[test]
    fn what_can_not_be_finished_is_counted_and_dropped() {
        let mut receiver = Receiver::default();
        let mut bytes = vnet::FINISHED.to_vec();
        bytes[0] = 1;
        bytes[6] = 200;
        bytes.extend([0; 60]);
        receiver.push(&mut bytes, None);
        bytes[1] = 1;
        receiver.push(&mut bytes, None);
        receiver.push(&mut [0; 3], None);
        assert!(receiver.pop(&mut Vec::new()).is_none());
        assert_eq!(receiver.counters.unfinished, 3);
    }
}

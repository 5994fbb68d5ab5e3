//! Frames of a capture: classic pcap of both byte orders and resolutions, and
//! pcapng with several sections and interfaces.

use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, LegacyPcapReader, Linktype, PcapBlockOwned, PcapError, PcapHeader, PcapNGReader};
use std::io::Cursor;

/// A frame and its time in nanoseconds of the capture's clock; `None` where it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) at: Option<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// Why a capture can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PcapFailure {
    #[error("not a pcap or pcapng file")]
    NoCapture,
    #[error("packet {packet}: link type {found} is not Ethernet")]
    LinkType { packet: usize, found: i32 },
    #[error("packet {packet}: only {have} of {length} bytes were captured")]
    CutOff { packet: usize, have: usize, length: u32 },
    #[error("after packet {packet}: the file is cut off or damaged")]
    Damaged { packet: usize },
}

/// Section header of pcapng, the same in both byte orders.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The largest block that is read.
const BLOCK_MAX: usize = 16 << 20;

/// Every frame of a capture, in order.
pub(crate) fn read(file: &[u8]) -> Result<Vec<Captured>, PcapFailure> {
    // Room for the whole file: the reader asks for no more then.
    let room = file.len().clamp(65_536, BLOCK_MAX);
    if file.starts_with(&PCAPNG) {
        let reader = PcapNGReader::new(room, Cursor::new(file)).map_err(|_| PcapFailure::NoCapture)?;
        frames(reader)
    } else {
        let reader = LegacyPcapReader::new(room, Cursor::new(file)).map_err(|_| PcapFailure::NoCapture)?;
        frames(reader)
    }
}

/// An interface of the current section.
struct Interface {
    linktype: Linktype,
    /// Ticks per second; none where the file states one that is no power.
    resolution: Option<u64>,
    offset: i64,
}

#[derive(Default)]
struct Frames {
    taken: Vec<Captured>,
    legacy: Option<PcapHeader>,
    interfaces: Vec<Interface>,
}

fn frames(mut reader: impl PcapReaderIterator) -> Result<Vec<Captured>, PcapFailure> {
    let mut frames = Frames::default();
    let mut refilled = false;
    loop {
        match reader.next() {
            Ok((used, block)) => {
                frames.take(block)?;
                reader.consume(used);
                refilled = false;
            }
            Err(PcapError::Eof) => return Ok(frames.taken),
            Err(PcapError::Incomplete(_)) if !refilled => {
                let packet = frames.taken.len();
                reader.refill().map_err(|_| PcapFailure::Damaged { packet })?;
                refilled = true;
            }
            Err(_) => return Err(PcapFailure::Damaged { packet: frames.taken.len() }),
        }
    }
}

impl Frames {
    fn take(&mut self, block: PcapBlockOwned<'_>) -> Result<(), PcapFailure> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => self.legacy = Some(header),
            PcapBlockOwned::Legacy(packet) => {
                let Some(header) = &self.legacy else { return Err(PcapFailure::NoCapture) };
                let unit = if header.is_nanosecond_precision() { 1 } else { 1_000 };
                let at = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec) * unit;
                let linktype = header.network;
                self.frame(linktype, Some(at), packet.data, packet.caplen, packet.origlen)?;
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => self.interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => self.interfaces.push(Interface {
                linktype: interface.linktype,
                resolution: interface.ts_resolution(),
                offset: interface.ts_offset(),
            }),
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let (linktype, at) = match self.interfaces.get(packet.if_id as usize) {
                    Some(interface) => {
                        let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                        (interface.linktype, interface.time(ticks))
                    }
                    None => return Err(PcapFailure::Damaged { packet: self.taken.len() }),
                };
                self.frame(linktype, at, packet.packet_data(), packet.caplen, packet.origlen)?;
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let Some(interface) = self.interfaces.first() else {
                    return Err(PcapFailure::Damaged { packet: self.taken.len() });
                };
                let linktype = interface.linktype;
                let caplen = packet.origlen.min(u32::try_from(packet.data.len()).unwrap_or(u32::MAX));
                self.frame(linktype, None, packet.data, caplen, packet.origlen)?;
            }
            // Names, statistics, comments.
            PcapBlockOwned::NG(_) => {}
        }
        Ok(())
    }

    fn frame(
        &mut self,
        linktype: Linktype,
        at: Option<u64>,
        data: &[u8],
        caplen: u32,
        length: u32,
    ) -> Result<(), PcapFailure> {
        let packet = self.taken.len();
        if linktype != Linktype::ETHERNET {
            return Err(PcapFailure::LinkType { packet, found: linktype.0 });
        }
        // Without the padding of the block.
        let bytes = data.get(..caplen as usize).ok_or(PcapFailure::Damaged { packet })?;
        if caplen < length {
            return Err(PcapFailure::CutOff { packet, have: bytes.len(), length });
        }
        self.taken.push(Captured { at, bytes: bytes.to_vec() });
        Ok(())
    }
}

impl Interface {
    fn time(&self, ticks: u64) -> Option<u64> {
        let resolution = u128::from(self.resolution.filter(|resolution| *resolution > 0)?);
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / resolution;
        let offset = i128::from(self.offset) * 1_000_000_000;
        u64::try_from(i128::try_from(nanoseconds).ok()? + offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classic(magic: [u8; 4], linktype: u8) -> Vec<u8> {
        let mut file = magic.to_vec();
        file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, linktype, 0, 0, 0]);
        // 1 s and 500 units; 14 bytes, all captured.
        file.extend([1, 0, 0, 0, 0xf4, 1, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0]);
        file.extend([7; 14]);
        file
    }

    #[test]
    fn classic_captures_in_both_resolutions() {
        for (magic, at) in
            [([0xd4, 0xc3, 0xb2, 0xa1], 1_000_500_000), ([0x4d, 0x3c, 0xb2, 0xa1], 1_000_000_500)]
        {
            let frames = read(&classic(magic, 1)).unwrap();
            assert_eq!(frames, [Captured { at: Some(at), bytes: vec![7; 14] }]);
        }
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, &body, &length].concat()
    }

    #[test]
    fn pcapng_with_its_default_resolution_and_padding() {
        let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
        let packet = [
            &0_u32.to_le_bytes()[..],
            &0_u32.to_le_bytes(),
            &2_000_001_u32.to_le_bytes(),
            &15_u32.to_le_bytes(),
            &15_u32.to_le_bytes(),
            &[9; 15],
        ]
        .concat();
        let file =
            [block(0x0a0d_0d0a, &section), block(1, &[1, 0, 0, 0, 0, 0, 0, 0]), block(6, &packet)].concat();
        assert_eq!(read(&file).unwrap(), [Captured { at: Some(2_000_001_000), bytes: vec![9; 15] }]);
        for cut in 1..file.len() {
            // Whole blocks remain a capture; anything else is said to be damaged.
            if let Ok(frames) = read(&file[..cut]) {
                assert!(frames.is_empty(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_use_is_refused() {
        assert_eq!(read(b""), Err(PcapFailure::NoCapture));
        assert_eq!(read(b"GIF89a and some more bytes, enough for a header"), Err(PcapFailure::NoCapture));
        let raw = classic([0xd4, 0xc3, 0xb2, 0xa1], 101);
        assert_eq!(read(&raw), Err(PcapFailure::LinkType { packet: 0, found: 101 }));
        let mut file = classic([0xd4, 0xc3, 0xb2, 0xa1], 1);
        file.pop();
        assert_eq!(read(&file), Err(PcapFailure::Damaged { packet: 0 }));
    }
}

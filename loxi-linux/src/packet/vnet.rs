//! `struct virtio_net_hdr`, in the machine's byte order, as packet sockets and TAPs use it.

use crate::gso::GsoKind;

/// Length of the header.
pub(super) const LEN: usize = 10;
/// The header of a frame that leaves nothing to do.
pub(super) const FINISHED: [u8; LEN] = [0; LEN];

const F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What the kernel has left to do on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VnetHeader {
    /// Start and offset of a partial checksum.
    pub(super) partial: Option<(usize, usize)>,
    /// Kind and segment size of a super-frame.
    pub(super) gso: Option<(GsoKind, usize)>,
}

impl VnetHeader {
    /// Reads the header at the start of `bytes`. `None` if it is cut off or of a kind unknown here.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; LEN] = bytes.first_chunk()?;
        let word = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
        let kind = match header[1] & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some(GsoKind::Tcp4),
            GSO_TCPV6 => Some(GsoKind::Tcp6),
            GSO_UDP_L4 => Some(GsoKind::UdpL4),
            _ => return None,
        };
        Some(Self {
            partial: (header[0] & F_NEEDS_CSUM != 0).then(|| (word(6), word(8))),
            gso: kind.map(|kind| (kind, word(4))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_kinds_are_read() {
        let mut header = FINISHED;
        assert_eq!(VnetHeader::parse(&header), Some(VnetHeader { partial: None, gso: None }));
        header[0] = F_NEEDS_CSUM;
        header[1] = GSO_TCPV4 | GSO_ECN;
        header[4..6].copy_from_slice(&1448u16.to_ne_bytes());
        header[6..8].copy_from_slice(&34u16.to_ne_bytes());
        header[8..10].copy_from_slice(&16u16.to_ne_bytes());
        let read = VnetHeader::parse(&header).unwrap();
        assert_eq!(read.partial, Some((34, 16)));
        assert_eq!(read.gso, Some((GsoKind::Tcp4, 1448)));
        header[1] = 3;
        assert_eq!(VnetHeader::parse(&header), None, "UFO is not announced by any kernel of today");
        assert_eq!(VnetHeader::parse(&header[..9]), None);
    }
}

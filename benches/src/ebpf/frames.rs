//! From a frame to what the wrapper makes of it, flow by flow.

use anyhow::{Result, ensure};
use loxi_ebpf_layout::bench::{Frames, WORDS, WORDS_AT, resize, shape, source};

/// Frames like `frame`, that of the first flow: TCP in an IP packet, behind the headers of a tunnel if `tunnelled`.
///
/// # Errors
/// If the frame is another.
pub(crate) fn frames(frame: &[u8], v6: bool, tunnelled: bool, flows: u32) -> Result<Frames> {
    let number = usize::from(v6) + if tunnelled { 2 } else { 0 };
    let shape = shape::ALL[number];
    let (port, addr) = source(0);
    let (port, addr) = (u32::from(port.to_be()), u32::from(addr.to_be()));
    let mut bytes = frame.to_vec();
    bytes.resize(bytes.len().max(WORDS_AT + 8 * WORDS), 0);
    let mut take = |at: usize| -> u32 {
        let word = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        bytes[at..at + 2].fill(0);
        word.into()
    };
    ensure!((take(shape.addr), take(shape.port)) == (addr, port), "the frame is not laid out as expected");
    // Ones' complement: what a checksum says without some of its words.
    let without =
        |check: u32, parts: &[u32]| (!check & 0xffff) + parts.iter().map(|part| !part & 0xffff).sum::<u32>();
    let l4_sum = without(take(shape.l4_check), &[addr, port]);
    let ip_sum = if shape.ip_check == 0 { 0 } else { without(take(shape.ip_check), &[addr]) };
    let mut words = [0u64; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes[WORDS_AT..].chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into()?);
    }
    Ok(Frames {
        state: 1,
        mask: flows - 1,
        port: 0,
        len: frame.len() as u32,
        shape: number as u32,
        resize: resize::NONE,
        zone: 0,
        ip_sum,
        l4_sum,
        head: u64::from_ne_bytes(bytes[..8].try_into()?),
        words,
    })
}

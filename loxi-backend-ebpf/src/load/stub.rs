//! The program at a port's hook: it says which port it is, and goes on to the entry program.
//!
//! There is one for each port, written here by hand, since it differs from the others by a number
//! only. All go through one array of one element: writing that element switches the whole node.

use crate::sys::{Map, Program, ProgramKind};
use std::io;
use std::os::fd::AsRawFd;

/// Beginning of the name of every program of ours at a hook.
pub(crate) const PREFIX: &str = "loxi_";

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R6: u8 = 6;
const R10: u8 = 10;

/// An instruction: `struct bpf_insn` of linux/bpf.h.
const fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    code as u64
        | (dst as u64) << 8
        | (src as u64) << 12
        | (offset as u16 as u64) << 16
        | (immediate as u32 as u64) << 32
}

const fn set(dst: u8, value: i32) -> u64 {
    instruction(0xb7, dst, 0, 0, value)
}

const fn copy(dst: u8, src: u8) -> u64 {
    instruction(0xbf, dst, src, 0, 0)
}

const fn add(dst: u8, value: i32) -> u64 {
    instruction(0x07, dst, 0, 0, value)
}

/// `*(u32 *)(dst + offset) = src`.
const fn store(dst: u8, offset: i16, src: u8) -> u64 {
    instruction(0x63, dst, src, offset, 0)
}

const fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

const EXIT: u64 = 0x95;
const LOOK_UP: i32 = 1;
const TAIL_CALL: i32 = 12;

/// `dst = map`: two instructions.
fn map(dst: u8, map: &Map) -> [u64; 2] {
    // BPF_PSEUDO_MAP_FD as source.
    [instruction(0x18, dst, 1, 0, map.fd().as_raw_fd()), 0]
}

/// Offset of `cb[0]` in `struct __sk_buff`.
const CB: i16 = 48;

/// What becomes of frames if there is no entry program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    /// The port is closed.
    Drop,
    /// The local stack has them.
    Pass,
}

/// A stub for TC. `name` is the port's, and becomes a part of the program's.
pub(crate) fn tc(port: u32, name: &str, entry: &Map, without: Without) -> io::Result<Program> {
    const TC_ACT_SHOT: i32 = 2;
    const NEXT: i32 = -1;
    let [low, high] = map(R2, entry);
    let code = [
        set(R2, port as i32),
        store(R1, CB, R2),
        set(R2, 0),
        store(R1, CB + 4, R2),
        low,
        high,
        set(R3, 0),
        call(TAIL_CALL),
        set(R0, if without == Without::Drop { TC_ACT_SHOT } else { NEXT }),
        EXIT,
    ];
    Program::load(ProgramKind::Tc, &code, &program_name(name), 0)
}

/// A stub for XDP: what it says lies in a table of the processor.
pub(crate) fn xdp(port: u32, name: &str, beside: &Map, entry: &Map) -> io::Result<Program> {
    const XDP_PASS: i32 = 2;
    let [beside_low, beside_high] = map(R1, beside);
    let [entry_low, entry_high] = map(R2, entry);
    let code = [
        copy(R6, R1),
        set(R2, 0),
        store(R10, -4, R2),
        copy(R2, R10),
        add(R2, -4),
        beside_low,
        beside_high,
        call(LOOK_UP),
        // if r0 == 0 goto the end, 9 further on
        instruction(0x15, R0, 0, 9, 0),
        set(R2, port as i32),
        store(R0, 0, R2),
        set(R2, 0),
        store(R0, 4, R2),
        copy(R1, R6),
        entry_low,
        entry_high,
        set(R3, 0),
        call(TAIL_CALL),
        set(R0, XDP_PASS),
        EXIT,
    ];
    // All programs of an array are for the same hook.
    const BPF_XDP: u32 = 37;
    Program::load(ProgramKind::Xdp, &code, &program_name(name), BPF_XDP)
}

/// Letters, digits, `_` and `.` are what the kernel takes, 15 of them.
fn program_name(port: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    PREFIX.chars().chain(port.chars().map(legal)).take(15).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_kernel_takes() {
        assert_eq!(program_name("hs1"), "loxi_hs1");
        assert_eq!(program_name("eth0.100@x/very-long"), "loxi_eth0.100_x");
    }
}

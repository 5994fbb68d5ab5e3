//! What the instructions of the objects ask of a kernel: every supported one, not the one that is here.

mod atomics;
mod stack;

use super::Objects;
use anyhow::Result;

/// What is wrong with all objects together.
pub(super) fn violations(objects: &Objects) -> Result<Vec<String>> {
    let mut found = atomics::violations(objects)?;
    found.extend(stack::violations(objects)?);
    Ok(found)
}

/// Every instruction has this many bytes.
const SIZE: usize = 8;
/// Loads 64 bits; the high half follows in the place of an instruction.
const WIDE: u8 = 0x18;

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    opcode: u8,
    to: usize,
    from: usize,
    offset: i16,
    immediate: i32,
}

/// Each instruction with its offset in bytes.
fn instructions(code: &[u8]) -> impl Iterator<Item = (u64, Instruction)> {
    let mut second_half = false;
    code.as_chunks::<SIZE>().0.iter().zip((0..).step_by(SIZE)).filter_map(move |(bytes, at)| {
        let [opcode, registers, offset @ .., a, b, c, d] = *bytes;
        let first = !second_half;
        second_half = first && opcode == WIDE;
        first.then(|| {
            let instruction = Instruction {
                opcode,
                to: usize::from(registers & 0xf),
                from: usize::from(registers >> 4),
                offset: i16::from_le_bytes(offset),
                immediate: i32::from_le_bytes([a, b, c, d]),
            };
            (at, instruction)
        })
    })
}

#[cfg(test)]
mod fixture {
    use object::write::{Object, StandardSection};
    use object::{Architecture, BinaryFormat, Endianness};

    /// The bytes of an instruction.
    pub(super) fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> Vec<u8> {
        let mut bytes = vec![opcode, registers];
        bytes.extend(offset.to_le_bytes());
        bytes.extend(immediate.to_le_bytes());
        bytes
    }

    /// An object without code.
    pub(super) fn empty() -> Object<'static> {
        Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little)
    }

    /// An object of some code that is no function.
    pub(super) fn object(code: &[Vec<u8>]) -> Vec<u8> {
        let mut object = empty();
        let text = object.section_id(StandardSection::Text);
        object.append_section_data(text, &code.concat(), 8);
        object.write().unwrap()
    }
}

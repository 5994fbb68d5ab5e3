//! The atomic operations that the programs really contain.
//!
//! The programs' atomics are intrinsics, and what an intrinsic becomes depends
//! on the compiler. So the instructions themselves are held to what every
//! supported kernel has: 64 bits, and one of the operations below. Newer ones
//! (narrower operands, load-acquire, store-release) and those that the programs
//! don't ask for are violations, and so is the absence of one that they do.

use super::{Instruction, Objects, instructions};
use anyhow::{Context, Result};
use object::{Object, ObjectSection, SectionKind};
use std::collections::BTreeSet;

/// `BPF_STX | BPF_ATOMIC`, and the bits of an opcode besides the operand's size.
const ATOMIC: u8 = 0xc3;
const NOT_SIZE: u8 = 0xe7;
/// `BPF_STX | BPF_ATOMIC | BPF_DW`.
const ATOMIC_64: u8 = 0xdb;

/// A fetch-and-add whose result nobody reads.
const ADD: i32 = 0x00;
const EXPECTED: &[(i32, &str)] =
    &[(0xf1, "compare and exchange"), (0xe1, "exchange"), (0x01, "fetch and add")];

/// What is wrong with the atomic operations of all objects together.
pub(super) fn violations(objects: &Objects) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut present = BTreeSet::new();
    for (program, object) in objects {
        let file = object::File::parse(&**object).with_context(|| format!("reading {program}.o"))?;
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let name = section.name().unwrap_or("?");
            let code = section.data().with_context(|| format!("reading {name} of {program}.o"))?;
            for (offset, Instruction { opcode, immediate: operation, .. }) in atomics(code) {
                if opcode != ATOMIC_64 || (operation != ADD && !is_expected(operation)) {
                    found.push(format!(
                        "{program}.o: {name}+{offset:#x} has the atomic operation {operation:#x} with opcode \
                         {opcode:#x}, which src/atomic.rs does not mean"
                    ));
                }
                present.insert(operation);
            }
        }
    }
    for (operation, meaning) in EXPECTED.iter().filter(|(operation, _)| !present.contains(operation)) {
        found.push(format!("no object has a 64-bit {meaning} (operation {operation:#x})"));
    }
    Ok(found)
}

fn is_expected(operation: i32) -> bool {
    EXPECTED.iter().any(|(expected, _)| *expected == operation)
}

fn atomics(code: &[u8]) -> impl Iterator<Item = (u64, Instruction)> {
    instructions(code).filter(|(_, instruction)| instruction.opcode & NOT_SIZE == ATOMIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf::instructions::{WIDE, fixture};

    fn instruction(opcode: u8, operation: i32) -> Vec<u8> {
        fixture::instruction(opcode, 0x21, 0, operation)
    }

    fn judged(code: &[Vec<u8>]) -> Vec<String> {
        violations(&Objects::from([("tc".into(), fixture::object(code))])).unwrap()
    }

    fn all() -> Vec<Vec<u8>> {
        [0xf1, 0xe1, 0x01].map(|operation| instruction(0xdb, operation)).to_vec()
    }

    #[test]
    fn what_the_programs_ask_for_passes() {
        assert_eq!(judged(&all()), Vec::<String>::new());
        let unread = [all(), vec![instruction(0xdb, 0x00)]].concat();
        assert_eq!(judged(&unread), Vec::<String>::new());
    }

    #[test]
    fn an_absent_operation_is_told() {
        assert_eq!(judged(&all()[1..]), ["no object has a 64-bit compare and exchange (operation 0xf1)"]);
    }

    #[test]
    fn one_object_may_have_what_the_other_lacks() {
        let (first, second) = (fixture::object(&all()[..1]), fixture::object(&all()[1..]));
        let both = Objects::from([("tc".into(), first), ("xdp".into(), second)]);
        assert_eq!(violations(&both).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn other_widths_and_operations_are_told_with_their_place() {
        for (opcode, operation) in [(0xc3, 0xf1), (0xcb, 0x01), (0xdb, 0x100), (0xdb, 0x51)] {
            let code = [all(), vec![instruction(opcode, operation)]].concat();
            let found = judged(&code);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("tc.o: .text+0x18 has the atomic operation"), "{found:?}");
        }
    }

    #[test]
    fn the_second_half_of_a_wide_immediate_is_no_instruction() {
        let wide = vec![instruction(WIDE, 7), instruction(0xc3, 0x100)];
        assert_eq!(judged(&[wide, all()].concat()), Vec::<String>::new());
    }
}

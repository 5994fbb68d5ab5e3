//! The stack that each program needs, with what it calls.
//!
//! A kernel adds up the frames of a program and of the functions below it, each
//! rounded up, and refuses more than 512 bytes (`check_max_stack_depth` in
//! `kernel/bpf/verifier.c`). Kernels differ in what they find to be the frame of
//! the same function, so one that loads a program says little about another. The
//! sum taken here is of what the instructions could use at most.

use super::{Instruction, Objects, SIZE, instructions};
use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSymbol, Relocation, RelocationTarget, SectionKind, SymbolKind};
use std::collections::BTreeMap;

/// `MAX_BPF_STACK`, in bytes.
const LIMIT: u64 = 512;
/// What a frame is rounded up to, in bytes.
const UNIT: u64 = 32;

/// The register that points at the end of a frame.
const FRAME: usize = 10;
const REGISTERS: usize = 16;

/// The bits of an opcode that are its class, and the classes.
const CLASS: u8 = 0x07;
const LOAD_CONSTANT: u8 = 0x00;
const LOAD: u8 = 0x01;
const STORE_CONSTANT: u8 = 0x02;
const STORE: u8 = 0x03;
const ARITHMETIC: u8 = 0x04;
const ARITHMETIC_64: u8 = 0x07;
/// `BPF_ALU64 | BPF_MOV | BPF_X`, `BPF_ALU64 | BPF_ADD | BPF_K`, `BPF_JMP | BPF_CALL`.
const MOVE: u8 = 0xbf;
const ADD_CONSTANT: u8 = 0x07;
const CALL: u8 = 0x85;
/// What is in place of a register if a function of the program is called, not one of the kernel.
const PSEUDO_CALL: usize = 1;

/// A section's index, and an offset there in bytes.
type Place = (usize, u64);

/// Every function of an object, by where it begins.
type Functions = BTreeMap<Place, Function>;

#[derive(Debug)]
struct Function {
    name: String,
    /// Whether a kernel starts it: it has a section of its kind, not `.text`.
    is_entry: bool,
    /// In bytes.
    frame: u64,
    calls: Vec<Place>,
}

/// The programs of all objects that need more stack than there is.
pub(super) fn violations(objects: &Objects) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (program, object) in objects {
        let functions = functions(object).with_context(|| format!("reading {program}.o"))?;
        ensure!(!functions.is_empty(), "{program}.o has no functions");
        for (place, _) in functions.iter().filter(|(_, function)| function.is_entry) {
            let (depth, chain) = deepest(&functions, *place);
            if depth > LIMIT {
                found.push(format!("{program}.o: more than {LIMIT} bytes of stack, {depth}: {chain}"));
            }
        }
    }
    Ok(found)
}

/// The most stack that a function and those below it need, and by which calls.
fn deepest(functions: &Functions, at: Place) -> (u64, String) {
    let Some(function) = functions.get(&at) else { return (0, String::new()) };
    let own = function.frame.max(1).next_multiple_of(UNIT);
    let name = format!("{} has {own}", function.name);
    // Recursion isn't known to the compiler's target, so this ends.
    match function.calls.iter().map(|call| deepest(functions, *call)).max() {
        Some((depth, chain)) => (own + depth, format!("{name}, {chain}")),
        None => (own, name),
    }
}

fn functions(object: &[u8]) -> Result<Functions> {
    let file = object::File::parse(object)?;
    let mut found = Functions::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(index) = symbol.section_index() else { continue };
        let section = file.section_by_index(index)?;
        let (name, begin, size) = (symbol.name()?, symbol.address(), symbol.size());
        let code =
            section.data_range(begin, size)?.with_context(|| format!("{name} is not in its section"))?;
        let is_entry = section.name()? != ".text";
        let function = Function { name: name.to_owned(), is_entry, frame: frame(code), calls: Vec::new() };
        found.insert((index.0, begin), function);
    }
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let relocated: BTreeMap<u64, Relocation> = section.relocations().collect();
        for (at, instruction) in instructions(section.data()?) {
            if instruction.opcode != CALL || instruction.from != PSEUDO_CALL {
                continue;
            }
            // Relocated or not, an instruction counts from the one behind what it names.
            let (index, base) = match relocated.get(&at).map(Relocation::target) {
                Some(RelocationTarget::Symbol(symbol)) => {
                    let symbol = file.symbol_by_index(symbol)?;
                    (symbol.section_index().context("a call of what is not there")?, symbol.address())
                }
                _ => (section.index(), at),
            };
            let further = (i64::from(instruction.immediate) + 1) * SIZE as i64;
            let called = (index.0, base.saturating_add_signed(further));
            ensure!(found.contains_key(&called), "the call at {}+{at:#x} is of no function", section.name()?);
            if let Some((_, caller)) = found.range_mut(..=(section.index().0, at)).next_back() {
                caller.calls.push(called);
            }
        }
    }
    Ok(found)
}

/// How far below its end a frame is used: by offsets from its register, and from copies of that.
fn frame(code: &[u8]) -> u64 {
    let mut copies = [None; REGISTERS];
    copies[FRAME] = Some(0_i64);
    let mut lowest = 0;
    for (_, Instruction { opcode, to, from, offset, immediate }) in instructions(code) {
        let access = |base: Option<i64>| base.map_or(0, |base| base + i64::from(offset));
        match (opcode, opcode & CLASS) {
            (MOVE, _) => copies[to] = copies[from],
            (ADD_CONSTANT, _) => copies[to] = copies[to].map(|base| base + i64::from(immediate)),
            (CALL, _) => copies[..=5].fill(None),
            (_, LOAD) => {
                lowest = lowest.min(access(copies[from]));
                copies[to] = None;
            }
            (_, STORE | STORE_CONSTANT) => lowest = lowest.min(access(copies[to])),
            (_, LOAD_CONSTANT | ARITHMETIC | ARITHMETIC_64) => copies[to] = None,
            _ => {}
        }
        lowest = lowest.min(copies[to].unwrap_or(0));
    }
    lowest.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf::instructions::fixture::{empty, instruction};
    use object::write::{StandardSection, Symbol, SymbolId, SymbolSection};
    use object::{SymbolFlags, SymbolScope, elf};

    /// `BPF_STX | BPF_MEM | BPF_DW` of r1.
    fn store(to: u8, offset: i16) -> Vec<u8> {
        instruction(0x7b, 0x10 | to, offset, 0)
    }

    fn exit() -> Vec<u8> {
        instruction(0x95, 0, 0, 0)
    }

    /// An object whose entry keeps `own` bytes and calls a function that keeps `below`, by a relocation or not.
    fn object_of(own: i16, below: i16, relocated: bool) -> Vec<u8> {
        let mut object = empty();
        let text = object.section_id(StandardSection::Text);
        let tc = object.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
        let mut function = |name: &str, section, code: &[Vec<u8>]| -> (SymbolId, u64) {
            let code = code.concat();
            let value = object.append_section_data(section, &code, 8);
            let symbol = Symbol {
                name: name.as_bytes().to_vec(),
                value,
                size: code.len() as u64,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Section(section),
                flags: SymbolFlags::None,
            };
            (object.add_symbol(symbol), value)
        };
        let called = [store(10, -below), exit()];
        let call = |immediate| instruction(CALL, 0x10, 0, immediate);
        if relocated {
            function("before", text, &[exit()]);
            let (symbol, _) = function("called", text, &called);
            let (_, entry) = function("entry", tc, &[store(10, -own), call(-1), exit()]);
            let flags = object::RelocationFlags::Elf { r_type: elf::R_BPF_64_32 };
            let relocation =
                object::write::Relocation { offset: entry + SIZE as u64, symbol, addend: 0, flags };
            object.add_relocation(tc, relocation).unwrap();
        } else {
            function("called", tc, &called);
            function("entry", tc, &[store(10, -own), call(-4), exit()]);
        }
        object.write().unwrap()
    }

    fn judged(own: i16, below: i16, relocated: bool) -> Vec<String> {
        violations(&Objects::from([("tc".into(), object_of(own, below, relocated))])).unwrap()
    }

    #[test]
    fn frames_are_added_along_the_calls_each_rounded_up() {
        for relocated in [false, true] {
            assert_eq!(judged(416, 96, relocated), Vec::<String>::new());
            assert_eq!(
                judged(424, 72, relocated),
                ["tc.o: more than 512 bytes of stack, 544: entry has 448, called has 96"],
            );
        }
    }

    #[test]
    fn a_frame_is_what_is_reached_by_copies_too() {
        let moved = |register: u8| instruction(MOVE, 0xa0 | register, 0, 0);
        let added = |register, constant| instruction(ADD_CONSTANT, register, 0, constant);
        assert_eq!(frame(&store(10, -24)), 24);
        assert_eq!(frame(&[moved(2), added(2, -40), store(2, 8)].concat()), 40);
        assert_eq!(frame(&[moved(2), store(2, -48)].concat()), 48);
        // A load: what was a copy is none any more.
        assert_eq!(frame(&[moved(2), instruction(0x79, 0x12, 0, 0), added(2, -64)].concat()), 0);
        // The offset of another register.
        assert_eq!(frame(&store(3, -128)), 0);
    }
}

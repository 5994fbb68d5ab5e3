#![no_std]
#![feature(core_intrinsics, asm_experimental_arch)]
#![allow(internal_features)]
//! The programs, for both kinds of hooks: everything is generic over [`ctx::Ctx`]
//! and compiled once for TC and once for XDP.
//!
//! A packet of an established flow whose generations are current is handled by
//! [`fast`] within the entry program. Every other packet goes through the
//! stages, each a tail-called program, which hand each other a
//! [`loxi_ebpf_layout::scratch::Packet`]. The frame itself is changed by the last one only, so that
//! a stage that can't go on can hand on the packet as it came.

pub mod atomic;
pub mod ctx;
pub mod fast;
pub mod finish;
pub mod life;
pub mod maps;
pub mod outer;
pub mod parse;
pub mod stage;
pub mod table;

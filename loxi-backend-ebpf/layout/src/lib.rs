#![no_std]
#![deny(missing_docs)]
//! What the programs in the kernel and the loader in user space both know:
//! keys and values of every table, numbers of stages and reasons, the hash of
//! flows. One definition, compiled for both sides.
//!
//! # Contract
//! - Every type is `repr(C)` without padding, so that a value's bytes are all
//!   defined: the kernel compares keys byte by byte.
//! - Addresses, ports, VNIs and MACs are in network order, as they lie in a
//!   packet; all other numbers are the machine's.
//! - An IPv4 address is the first word of an [`Addr`], the others are zero.
//!   Where both families share a table, its key says which one.
//! - [`VERSION`] changes whenever any of this does: tables of another version
//!   are never touched.
//!
//! Nothing here panics.

pub mod bench;
pub mod code;
pub mod count;
pub mod flow;
pub mod l2;
pub mod l3;
pub mod lb;
pub mod limits;
pub mod meta;
pub mod pair;
pub mod policy;
pub mod scratch;
pub mod tunnel;

/// Version of everything in this crate.
pub const VERSION: u32 = 2;

/// An address in network order; IPv4 in the first word.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// The address of no octets at all.
    pub const ZERO: Self = Self([0; 4]);

    /// An IPv4 address from its four octets in order.
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self([u32::from_ne_bytes(octets), 0, 0, 0])
    }

    /// An IPv6 address from its sixteen octets in order.
    #[must_use]
    pub const fn v6(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// Its sixteen octets; those of an IPv4 address come first.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
            self.0[3].to_ne_bytes(),
        ];
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }
}

/// Family of an address: the number of its IP version.
pub mod family {
    /// IPv4.
    pub const V4: u8 = 4;
    /// IPv6.
    pub const V6: u8 = 6;
}

/// Marks a type whose every bit pattern is a value and which has no padding.
///
/// # Safety
/// The implementor is `repr(C)` (or a primitive), has no padding and no value
/// that is forbidden.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: integers have no padding, and every bit pattern is one.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above, and an array adds nothing between its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Implements [`Plain`] and checks at compile time that the fields fill the type.
#[macro_export]
macro_rules! plain {
    ($($type:ty = $size:literal),+ $(,)?) => {
        $(
            // SAFETY: all fields are integers or plain arrays of them, and the
            // size below is the sum of theirs: no padding.
            unsafe impl $crate::Plain for $type {}
            const _: () = assert!(core::mem::size_of::<$type>() == $size);
        )+
    };
}

plain! { Addr = 16 }

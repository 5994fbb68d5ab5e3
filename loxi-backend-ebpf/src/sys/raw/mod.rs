//! bpf(2) and what belongs to it: the only place with raw system calls.
//!
//! Every function is safe to call: sizes are checked against what the map itself says, pointers
//! are taken from slices that outlive the call, and descriptors are owned.
#![allow(unsafe_code)]

mod link;
mod map;
mod program;

pub(crate) use link::at_tcx;
pub use link::{Link, LinkTarget};
pub(crate) use map::{Map, MapKind};
pub use program::Program;
pub(crate) use program::{Attached, ProgramKind, program_named, program_of};

use loxi_ebpf_layout::Plain;
use std::ffi::CString;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_INFO: libc::c_int = 15;

/// The bytes of a value.
pub(super) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: a plain type has no padding, so each of its bytes is defined; the slice borrows the value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The bytes of a value, to be written.
pub(super) fn bytes_of_mut<T: Plain>(value: &mut T) -> &mut [u8] {
    // SAFETY: as above, and every bit pattern of a plain type is a value, so any byte may be written.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::from_mut(value).cast(), size_of::<T>()) }
}

/// The value of bytes; `None` if they are of another length.
pub(super) fn value_of<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the length is the type's, every bit pattern of a plain type is a value, and the read
    // makes no assumption on alignment.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// All zeroes.
pub(super) fn zero<T: Plain>() -> T {
    // SAFETY: every bit pattern of a plain type is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Processors that may ever be there: tables with a value for each have this many.
///
/// # Errors
/// If the system does not say.
pub fn cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::Error::other("no processors"))
}

/// One call. `attr` is the part of the kernel's union that the command reads; shorter is padded
/// with zeroes by the kernel.
///
/// # Safety
/// Every pointer in `attr` is to memory of the size that the command reads or writes there.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a whole value of the size given; the rest is the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor has just been made by the kernel and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pointer<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Pins an object at a path of a bpf file system.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut attr = Pin { path: path.as_ptr() as u64, fd: fd.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the path ends with a zero and outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

/// The object pinned at a path.
pub(crate) fn get_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut attr = Pin { path: path.as_ptr() as u64, ..Pin::default() };
    // SAFETY: as above.
    owned(unsafe { bpf(OBJ_GET, &mut attr) }?)
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// The object of a number; the command says of which kind.
fn by_id(command: libc::c_int, id: u32) -> io::Result<OwnedFd> {
    let mut attr = ById { id, ..ById::default() };
    // SAFETY: no pointer is passed.
    owned(unsafe { bpf(command, &mut attr) }?)
}

#[repr(C)]
#[derive(Default)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

/// Fills a structure with what the kernel says of an object.
fn info<T>(fd: BorrowedFd<'_>) -> io::Result<T>
where
    T: Plain,
{
    let mut value: T = zero();
    // SAFETY: all zeroes are no pointers.
    unsafe { info_into(fd, &mut value) }?;
    Ok(value)
}

/// Fills a structure likewise; what it has of pointers and lengths says where lists are to go.
///
/// # Safety
/// Every pointer in `value` is to memory of the length beside it.
unsafe fn info_into<T: Plain>(fd: BorrowedFd<'_>, value: &mut T) -> io::Result<()> {
    let mut attr = Info {
        fd: fd.as_raw_fd() as u32,
        len: size_of::<T>() as u32,
        info: std::ptr::from_mut(value) as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `value`, which outlives the call; the rest is the caller's.
    unsafe { bpf(OBJ_INFO, &mut attr) }.map(drop)
}

/// Waits until every section that was reading when this began has ended: `MEMBARRIER_CMD_GLOBAL`,
/// which the kernel implements by a grace period.
pub(crate) fn grace() -> io::Result<()> {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

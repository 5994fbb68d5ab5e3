//! bpf(2) and what belongs to it: the only place with raw system calls.
//!
//! Every function is safe to call: sizes are checked against what the map itself says, pointers
//! are taken from slices that outlive the call, and descriptors are owned.
#![allow(unsafe_code)]

use loxi_ebpf_layout::Plain;
use std::ffi::CString;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const MAP_NEXT_KEY: libc::c_int = 4;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_TEST_RUN: libc::c_int = 10;
const OBJ_INFO: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const PROG_BY_ID: libc::c_int = 13;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

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
    let mut attr = Info {
        fd: fd.as_raw_fd() as u32,
        len: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut value) as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `value`, which outlives the call.
    unsafe { bpf(OBJ_INFO, &mut attr) }?;
    Ok(value)
}

/// Beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// `struct bpf_link_info` as far as links to devices have it.
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
    rest: [u32; 10],
}

loxi_ebpf_layout::plain! { MapInfo = 24, ProgramInfo = 80, LinkInfo = 64 }

const ARRAY: u32 = 2;
const PERCPU_HASH: u32 = 5;
const PERCPU_ARRAY: u32 = 6;
const LRU_PERCPU_HASH: u32 = 10;
const RINGBUF: u32 = 27;

/// A map.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    /// Bytes of a key.
    pub(crate) key: usize,
    /// Bytes of a value; of one processor's where there is one each.
    pub(crate) value: usize,
    /// Entries at most.
    pub(crate) entries: u32,
    /// The kernel's number.
    pub(crate) id: u32,
    kind: u32,
}

#[repr(C)]
#[derive(Default)]
struct Element {
    fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    input: u64,
    output: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
}

/// Kinds of maps that are made here, as the kernel numbers them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MapKind {
    Hash = 1,
    Array = 2,
    Programs = 3,
}

impl Map {
    /// Takes over a map, and asks the kernel for its sizes.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let info: MapInfo = info(fd.as_fd())?;
        Ok(Self {
            key: info.key_size as usize,
            value: info.value_size as usize,
            entries: info.max_entries,
            id: info.id,
            kind: info.kind,
            fd,
        })
    }

    /// Makes a map that no program uses.
    pub(crate) fn create(
        kind: MapKind,
        key: usize,
        value: usize,
        entries: u32,
        name: &str,
    ) -> io::Result<Self> {
        let mut attr = Create {
            kind: kind as u32,
            key_size: key as u32,
            value_size: value as u32,
            max_entries: entries,
            // BPF_F_NO_PREALLOC, which arrays don't know.
            flags: if matches!(kind, MapKind::Hash) { 1 } else { 0 },
            ..Create::default()
        };
        for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: no pointer is passed.
        Self::new(owned(unsafe { bpf(MAP_CREATE, &mut attr) }?)?)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The records that programs write to it.
    pub(crate) fn into_ring(self) -> Result<aya::maps::RingBuf<aya::maps::MapData>, aya::maps::MapError> {
        let map = aya::maps::Map::RingBuf(aya::maps::MapData::from_fd(self.fd)?);
        aya::maps::RingBuf::try_from(map)
    }

    /// Whether all of its memory is taken at once.
    pub(crate) fn is_reserved(&self) -> bool {
        matches!(self.kind, ARRAY | PERCPU_ARRAY | RINGBUF)
    }

    /// Bytes that it takes when it is full, as near as its kind tells.
    pub(crate) fn footprint(&self) -> u64 {
        let each = match self.kind {
            ARRAY => self.value.next_multiple_of(8),
            PERCPU_ARRAY => self.value.next_multiple_of(8) * cpus().unwrap_or(1),
            RINGBUF => 1,
            // A hash element has a header of 48 bytes, an LPM node one of 40.
            _ => 48 + self.key.next_multiple_of(8) + self.value.next_multiple_of(8),
        };
        each as u64 * u64::from(self.entries)
    }

    /// Bytes that a look-up writes.
    fn width(&self) -> io::Result<usize> {
        Ok(if matches!(self.kind, PERCPU_HASH | PERCPU_ARRAY | LRU_PERCPU_HASH) {
            self.value.next_multiple_of(8) * cpus()?
        } else {
            self.value
        })
    }

    fn fits(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let value = value.map_or(Ok(true), |value| Ok::<_, io::Error>(value.len() == self.width()?))?;
        if key.len() == self.key && value { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
    }

    pub(crate) fn put(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.fits(key, Some(value))?;
        let mut attr = Element {
            fd: self.fd.as_raw_fd() as u32,
            key: pointer(key),
            value: pointer(value),
            flags,
            ..Element::default()
        };
        // SAFETY: key and value have the map's sizes, as checked, and outlive the call.
        unsafe { bpf(MAP_UPDATE, &mut attr) }.map(drop)
    }

    pub(crate) fn remove(&self, key: &[u8]) -> io::Result<bool> {
        self.fits(key, None)?;
        let mut attr = Element { fd: self.fd.as_raw_fd() as u32, key: pointer(key), ..Element::default() };
        // SAFETY: as above.
        match unsafe { bpf(MAP_DELETE, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.fits(key, None)?;
        let mut value = vec![0u8; self.width()?];
        let mut attr = Element {
            fd: self.fd.as_raw_fd() as u32,
            key: pointer(key),
            value: value.as_mut_ptr() as u64,
            ..Element::default()
        };
        // SAFETY: the kernel writes as many bytes as `width` says.
        match unsafe { bpf(MAP_LOOKUP, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn next_key(&self, after: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0u8; self.key];
        let mut attr = Element {
            fd: self.fd.as_raw_fd() as u32,
            key: after.map_or(0, pointer),
            value: next.as_mut_ptr() as u64,
            ..Element::default()
        };
        // SAFETY: keys have the map's size; the kernel writes one to `next`.
        match unsafe { bpf(MAP_NEXT_KEY, &mut attr) } {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every entry: in batches where the kernel has them for this kind, else one by one.
    pub(crate) fn entries(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        match self.batches() {
            Err(error) if is_unsupported(&error) => self.one_by_one(),
            other => other,
        }
    }

    fn batches(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (width, most) = (self.width()?, 4096.min(self.entries.max(1)));
        let mut found = Vec::new();
        // Opaque to us: a bucket's number, or a key.
        let mut place = vec![0u8; self.key.max(8)];
        let mut first = true;
        let mut size = most;
        loop {
            let mut next = vec![0u8; self.key.max(8)];
            let mut keys = vec![0u8; self.key * size as usize];
            let mut values = vec![0u8; width * size as usize];
            let mut attr = Batch {
                input: if first { 0 } else { pointer(&place) },
                output: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: size,
                fd: self.fd.as_raw_fd() as u32,
                ..Batch::default()
            };
            // SAFETY: the buffers hold `size` keys and values, and more than the kernel writes as its place.
            let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
            let end = match result {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // A bucket of the kernel has more entries than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    size = size.saturating_mul(2);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (key, value) in keys.chunks(self.key).zip(values.chunks(width)).take(attr.count as usize) {
                found.push((key.to_vec(), value.to_vec()));
            }
            if end {
                return Ok(found);
            }
            place = next;
            first = false;
        }
    }

    fn one_by_one(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = Vec::new();
        let mut last = None;
        while let Some(key) = self.next_key(last.as_deref())? {
            if let Some(value) = self.get(&key)? {
                found.push((key.clone(), value));
            }
            last = Some(key);
        }
        Ok(found)
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    // ENOTSUPP, which libc doesn't name.
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EINVAL | libc::EOPNOTSUPP))
}

/// A loaded program.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

/// Types of programs, as the kernel numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgramKind {
    Tc = 3,
    Xdp = 6,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

impl Program {
    /// Takes over a program.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Loads instructions that were written by hand. `attach_type` 0: none.
    pub(crate) fn load(
        kind: ProgramKind,
        instructions: &[u64],
        name: &str,
        attach_type: u32,
    ) -> io::Result<Self> {
        let license = c"Dual MIT/GPL";
        let mut log = vec![0u8; 4096];
        let mut attr = Load {
            kind: kind as u32,
            count: instructions.len() as u32,
            instructions: pointer(instructions),
            license: license.as_ptr() as u64,
            log_level: 1,
            log_size: log.len() as u32,
            log: log.as_mut_ptr() as u64,
            attach_type,
            ..Load::default()
        };
        for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: instructions, licence and log outlive the call, with the lengths given.
        let result = unsafe { bpf(PROG_LOAD, &mut attr) };
        match result {
            Ok(fd) => Ok(Self { fd: owned(fd)? }),
            Err(error) => {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
                let said = String::from_utf8_lossy(&log[..end]).into_owned();
                Err(io::Error::new(error.kind(), format!("{error}: {said}")))
            }
        }
    }

    /// The same program once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// The kernel's number.
    pub(crate) fn id(&self) -> io::Result<u32> {
        Ok(info::<ProgramInfo>(self.fd.as_fd())?.id)
    }

    /// Bytes of its instructions, and of the machine code that they became.
    pub(crate) fn sizes(&self) -> io::Result<(u32, u32)> {
        let info = info::<ProgramInfo>(self.fd.as_fd())?;
        Ok((info.xlated_len, info.jited_len))
    }

    /// Runs it `repeat` times on a frame, with a context. The frame and the kernel's ns per run afterwards.
    pub(crate) fn test(
        &self,
        frame: &[u8],
        context: &[u8],
        room: usize,
        repeat: u32,
    ) -> io::Result<(i32, Vec<u8>, u32)> {
        let mut out = vec![0u8; room];
        let mut attr = TestRun {
            fd: self.fd.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_size_out: room as u32,
            data_in: pointer(frame),
            data_out: out.as_mut_ptr() as u64,
            repeat,
            ctx_size_in: context.len() as u32,
            ctx_in: if context.is_empty() { 0 } else { pointer(context) },
            ..TestRun::default()
        };
        // SAFETY: input and context outlive the call, and the kernel writes at most `room` bytes to `out`.
        unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
        out.truncate(attr.data_size_out as usize);
        // The kernel gives the program's 32 bits, whatever their sign.
        Ok((attr.retval as i32, out, attr.duration))
    }
}

impl Program {
    /// Runs it on `repeat` frames that really come in at a device of the calling thread's namespace. The kernel's ns per
    /// frame, with all that becomes of it.
    pub(crate) fn test_live(&self, frame: &[u8], ifindex: u32, repeat: u32) -> io::Result<u32> {
        const LIVE_FRAMES: u32 = 2;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, ifindex, 0, 0];
        let mut attr = TestRun {
            fd: self.fd.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_in: pointer(frame),
            repeat,
            ctx_size_in: size_of_val(&context) as u32,
            ctx_in: pointer(&context),
            flags: LIVE_FRAMES,
            ..TestRun::default()
        };
        // SAFETY: frame and context outlive the call; nothing is written.
        unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
        Ok(attr.duration)
    }
}

/// What a link binds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkTarget {
    /// TCX at ingress of a device.
    TcxIngress(u32),
    /// XDP of a device; by its driver where it can.
    Xdp(u32),
}

const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// A program at a hook. It is taken away with the last descriptor or pin of it.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
}

impl Link {
    /// Takes over a link.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Binds a program to a device of the calling thread's namespace.
    pub(crate) fn create(program: &Program, target: LinkTarget) -> io::Result<Self> {
        let (target, attach_type) = match target {
            LinkTarget::TcxIngress(device) => (device, BPF_TCX_INGRESS),
            LinkTarget::Xdp(device) => (device, BPF_XDP),
        };
        let mut attr = LinkCreate {
            program: program.fd.as_raw_fd() as u32,
            target,
            attach_type,
            ..LinkCreate::default()
        };
        // SAFETY: no pointer is passed.
        Ok(Self { fd: owned(unsafe { bpf(LINK_CREATE, &mut attr) }?)? })
    }

    /// Puts another program in its place, at once.
    pub(crate) fn update(&self, program: &Program) -> io::Result<()> {
        let mut attr = LinkUpdate {
            link: self.fd.as_raw_fd() as u32,
            program: program.fd.as_raw_fd() as u32,
            ..LinkUpdate::default()
        };
        // SAFETY: no pointer is passed.
        unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
    }

    /// Its device's index; 0: the device is gone.
    pub(crate) fn device(&self) -> io::Result<u32> {
        Ok(info::<LinkInfo>(self.fd.as_fd())?.ifindex)
    }

    /// The number of its program.
    pub(crate) fn program(&self) -> io::Result<u32> {
        Ok(info::<LinkInfo>(self.fd.as_fd())?.program)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A program at a hook, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) id: u32,
    pub(crate) name: String,
}

/// The programs at TCX ingress of a device of the calling thread's namespace; none where
/// the kernel has no TCX.
pub(crate) fn at_tcx(device: u32) -> io::Result<Vec<Attached>> {
    let mut ids = [0u32; 64];
    let mut attr = Query {
        target: device,
        attach_type: BPF_TCX_INGRESS,
        programs: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: the kernel writes at most `count` numbers.
    match unsafe { bpf(PROG_QUERY, &mut attr) } {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    ids.iter().take(attr.count as usize).map(|id| program_named(*id)).collect()
}

/// The program of a number.
pub(crate) fn program_of(id: u32) -> io::Result<Program> {
    let mut attr = ById { id, ..ById::default() };
    // SAFETY: no pointer is passed.
    Ok(Program::new(owned(unsafe { bpf(PROG_BY_ID, &mut attr) }?)?))
}

/// Number and name of the program of a number.
pub(crate) fn program_named(id: u32) -> io::Result<Attached> {
    let info: ProgramInfo = info(program_of(id)?.fd())?;
    let end = info.name.iter().position(|byte| *byte == 0).unwrap_or(info.name.len());
    Ok(Attached { id, name: String::from_utf8_lossy(&info.name[..end]).into_owned() })
}

/// Waits until every section that was reading when this began has ended: `MEMBARRIER_CMD_GLOBAL`,
/// which the kernel implements by a grace period.
pub(crate) fn grace() -> io::Result<()> {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! Maps and their elements.

use super::*;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const MAP_NEXT_KEY: libc::c_int = 4;
const MAP_BY_ID: libc::c_int = 14;
const MAP_LOOKUP_BATCH: libc::c_int = 24;

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

loxi_ebpf_layout::plain! { MapInfo = 24 }

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

    /// The map of a number.
    pub(crate) fn of(id: u32) -> io::Result<Self> {
        Self::new(by_id(MAP_BY_ID, id)?)
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

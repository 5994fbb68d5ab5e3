//! Programs at the hooks of devices.

use super::program::Attached;
use super::*;

const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

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

loxi_ebpf_layout::plain! { LinkInfo = 64 }

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
struct LinkDetach {
    link: u32,
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

/// A program at a hook. It is taken away by [`Link::detach`], at the latest with the last
/// descriptor or pin of it.
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

    /// Takes the program away, whoever holds the link besides: a pin lets go of it only after a
    /// grace period, and a child that another thread has just forked holds all descriptors.
    pub(crate) fn detach(&self) -> io::Result<()> {
        let mut attr = LinkDetach { link: self.fd.as_raw_fd() as u32 };
        // SAFETY: no pointer is passed.
        unsafe { bpf(LINK_DETACH, &mut attr) }.map(drop)
    }

    /// Its device's index; 0: the device is gone.
    pub(crate) fn device(&self) -> io::Result<u32> {
        Ok(info::<LinkInfo>(self.fd.as_fd())?.ifindex)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The programs at TCX ingress of a device of the calling thread's namespace; `None` where the kernel has
/// no TCX. Asking binds nothing, so no other program at the device can be taken for that.
pub(crate) fn at_tcx(device: u32) -> io::Result<Option<Vec<Attached>>> {
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
        // It doesn't know the hook's number.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        // The first kernels that have it say so of a device where there is none.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Some(Vec::new())),
        other => other?,
    };
    ids.iter().take(attr.count as usize).map(|id| program_named(*id)).collect::<io::Result<_>>().map(Some)
}

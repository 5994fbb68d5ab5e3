//! Programs: loading, running, asking for.

use super::*;

const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_BY_ID: libc::c_int = 13;

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

loxi_ebpf_layout::plain! { ProgramInfo = 80 }

/// A loaded program.
#[derive(Debug)]
pub struct Program {
    pub(super) fd: OwnedFd,
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

    /// Bytes of its instructions, and of the machine code that they became.
    pub(crate) fn sizes(&self) -> io::Result<(u32, u32)> {
        let info = info::<ProgramInfo>(self.fd.as_fd())?;
        Ok((info.xlated_len, info.jited_len))
    }

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

/// A program at a hook, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// The numbers of maps that it uses, of the first few.
    pub(crate) maps: Vec<u32>,
}

/// The program of a number.
pub(crate) fn program_of(id: u32) -> io::Result<Program> {
    by_id(PROG_BY_ID, id).map(Program::new)
}

/// What the kernel says of the program of a number.
pub(crate) fn program_named(id: u32) -> io::Result<Attached> {
    let program = program_of(id)?;
    let mut maps = [0u32; 8];
    let mut info: ProgramInfo = zero();
    info.maps = maps.len() as u32;
    info.map_ids = maps.as_mut_ptr() as u64;
    // SAFETY: the kernel writes at most `info.maps` numbers to `maps`, and to nothing else: all other
    // lengths are zero.
    unsafe { info_into(program.fd(), &mut info) }?;
    let end = info.name.iter().position(|byte| *byte == 0).unwrap_or(info.name.len());
    let name = String::from_utf8_lossy(&info.name[..end]).into_owned();
    Ok(Attached { id, name, maps: maps.into_iter().take(info.maps as usize).collect() })
}

//! `Tap`: a device whose other end is a descriptor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::rx::{BUFFER, Receiver, RxCounters};
use super::{FrameError, FrameIo, RxMeta, vnet};
use crate::ffi;

/// Checksums, TCP over IPv4 and IPv6, UDP datagrams of one flow.
const OFFLOADS: u32 = 0x01 | 0x02 | 0x04;
const UDP_OFFLOADS: u32 = 0x20 | 0x40;

/// How a [`Tap`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapOptions {
    /// The device outlives the descriptor.
    pub persistent: bool,
    /// Take unfinished frames from the kernel (`IFF_VNET_HDR`): fewer reads for bulk
    /// traffic. Without it the kernel finishes each frame; the frames read are the same.
    pub offloads: bool,
}

/// A TAP device. What the kernel sends by the device is received here, and what is
/// sent here the kernel receives.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    vnet: bool,
    buffer: Vec<u8>,
    out: Vec<u8>,
    rx: Receiver,
}

impl Tap {
    /// Opens the TAP `name` of the calling thread's namespace, making it if it is missing.
    /// A device made here is down. It stays in that namespace.
    ///
    /// # Errors
    /// If the name is taken by another kind of device or by a TAP that is open, or
    /// without privilege.
    pub fn open(name: &str, options: TapOptions) -> Result<Self, FrameError> {
        let fail = |operation| move |e: io::Error| FrameError::of(operation, name, 0, e);
        let file = open_tun().map_err(fail("open /dev/net/tun for"))?;
        let vnet = if options.offloads { libc::IFF_VNET_HDR } else { 0 };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | vnet;
        ffi::tun_set_iff(file.as_fd(), name, flags).map_err(fail("make TAP"))?;
        let tap = Self {
            file,
            name: name.into(),
            vnet: options.offloads,
            buffer: vec![0; BUFFER],
            out: Vec::new(),
            rx: Receiver::default(),
        };
        if options.persistent {
            ffi::tun_set_persist(tap.file.as_fd(), true).map_err(fail("make persistent"))?;
        }
        // An earlier user of a persistent device may have left other offloads. Kernels before 6.2
        // don't know those of UDP.
        let offloads = if options.offloads { OFFLOADS } else { 0 };
        let udp = if options.offloads { UDP_OFFLOADS } else { 0 };
        ffi::tun_set_offload(tap.file.as_fd(), offloads | udp)
            .or_else(|_| ffi::tun_set_offload(tap.file.as_fd(), offloads))
            .map_err(fail("set offloads of"))?;
        Ok(tap)
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Deletes the persistent TAP `name` of the calling thread's namespace.
///
/// # Errors
/// If it is open elsewhere or of another kind. A missing one is no error.
pub fn delete_tap(name: &str) -> Result<(), FrameError> {
    let fail = |operation| move |e: io::Error| FrameError::of(operation, name, 0, e);
    let file = open_tun().map_err(fail("open /dev/net/tun for"))?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    ffi::tun_set_iff(file.as_fd(), name, flags).map_err(fail("open TAP"))?;
    ffi::tun_set_persist(file.as_fd(), false).map_err(fail("delete TAP"))
}

fn open_tun() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
}

impl FrameIo for Tap {
    fn recv(&mut self, frame: &mut Vec<u8>) -> Result<Option<RxMeta>, FrameError> {
        loop {
            if let Some(meta) = self.rx.pop(frame) {
                return Ok(Some(meta));
            }
            let room = if self.vnet { 0 } else { vnet::LEN };
            match rustix::io::read(&self.file, &mut self.buffer[room..]) {
                Ok(len) => {
                    // Without a header of the kernel's, the frame is finished.
                    self.buffer[..room].fill(0);
                    self.rx.push(&mut self.buffer[..room + len], None);
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(FrameError::of("receive from", &self.name, 0, error.into()));
                }
            }
        }
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        if frame.len() < 14 {
            return Err(FrameError::BadLength { device: self.name.clone(), len: frame.len() });
        }
        let bytes = if self.vnet {
            self.out.clear();
            self.out.extend_from_slice(&vnet::FINISHED);
            self.out.extend_from_slice(frame);
            &self.out
        } else {
            frame
        };
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.file, bytes)) {
            Ok(_) => Ok(()),
            Err(error) => Err(FrameError::of("send to", &self.name, frame.len(), error.into())),
        }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn counters(&mut self) -> RxCounters {
        self.rx.counters
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

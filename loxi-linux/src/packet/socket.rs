//! `PacketSocket`: the frames of an existing device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::rx::{BUFFER, Receiver, RxCounters};
use super::{FrameError, FrameIo, RxMeta, vnet};
use crate::ffi;

const PACKET_AUXDATA: i32 = 8;
const PACKET_VNET_HDR: i32 = 15;
const PACKET_QDISC_BYPASS: i32 = 20;
const PACKET_IGNORE_OUTGOING: i32 = 23;
/// Frames that the kernel could not describe by a virtio header are skipped, but a call
/// has to end: this many at a time.
const SKIPS: usize = 64;

/// How a [`PacketSocket`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketSocketOptions {
    /// Receive frames for other MAC addresses too.
    pub promiscuous: bool,
    /// Bytes of the kernel's receive queue.
    pub receive_buffer: i32,
    /// Send past the queueing discipline: faster, but a full device drops.
    pub bypass_qdisc: bool,
}

impl Default for PacketSocketOptions {
    fn default() -> Self {
        Self { promiscuous: true, receive_buffer: 16 << 20, bypass_qdisc: false }
    }
}

/// A raw packet socket on one device. It sees what the device receives,
/// not what the socket or anyone else on this machine sends through it.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    device: String,
    buffer: Vec<u8>,
    out: Vec<u8>,
    rx: Receiver,
}

impl PacketSocket {
    /// Opens the device `device` of the calling thread's namespace, with the default options.
    ///
    /// # Errors
    /// See [`PacketSocket::open_with`].
    pub fn open(device: &str) -> Result<Self, FrameError> {
        Self::open_with(device, PacketSocketOptions::default())
    }

    /// Opens a device of the calling thread's namespace. The socket stays in that namespace.
    ///
    /// # Errors
    /// If there is no such device or no privilege.
    pub fn open_with(device: &str, options: PacketSocketOptions) -> Result<Self, FrameError> {
        let fail = |operation| move |e: io::Error| FrameError::of(operation, device, 0, e);
        let fd = ffi::packet_socket().map_err(fail("open packet socket of"))?;
        let ifindex =
            rustix::net::netdevice::name_to_index(&fd, device).map_err(|e| fail("find")(e.into()))?;
        let set = |name, value| ffi::set_int(fd.as_fd(), libc::SOL_PACKET, name, value);
        set(PACKET_VNET_HDR, 1).map_err(fail("set PACKET_VNET_HDR of"))?;
        set(PACKET_AUXDATA, 1).map_err(fail("set PACKET_AUXDATA of"))?;
        set(PACKET_IGNORE_OUTGOING, 1).map_err(fail("set PACKET_IGNORE_OUTGOING of"))?;
        if options.bypass_qdisc {
            set(PACKET_QDISC_BYPASS, 1).map_err(fail("set PACKET_QDISC_BYPASS of"))?;
        }
        // The forced form passes net.core.rmem_max; who lacks the privilege gets the lesser.
        let size = options.receive_buffer;
        ffi::set_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size)
            .or_else(|_| ffi::set_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, size))
            .map_err(fail("set SO_RCVBUF of"))?;
        if options.promiscuous {
            ffi::packet_promiscuous(fd.as_fd(), ifindex).map_err(fail("make promiscuous"))?;
        }
        // Last: from here on frames arrive, and all of them as set above.
        ffi::bind_packet(fd.as_fd(), ifindex).map_err(fail("bind to"))?;
        Ok(Self {
            fd,
            device: device.into(),
            buffer: vec![0; BUFFER],
            out: Vec::new(),
            rx: Receiver::default(),
        })
    }

    /// The device's name when it was opened.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }
}

impl FrameIo for PacketSocket {
    fn recv(&mut self, frame: &mut Vec<u8>) -> Result<Option<RxMeta>, FrameError> {
        for _ in 0..SKIPS {
            if let Some(meta) = self.rx.pop(frame) {
                return Ok(Some(meta));
            }
            match ffi::recv_packet(self.fd.as_fd(), &mut self.buffer) {
                Ok(got) if got.truncated => self.rx.counters.truncated += 1,
                Ok(got) => self.rx.push(&mut self.buffer[..got.len], got.vlan),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EINTR) => {}
                    // A super-frame for which there is no virtio kind; the kernel has dropped it.
                    Some(libc::EINVAL) => self.rx.counters.unfinished += 1,
                    _ => return Err(FrameError::of("receive from", &self.device, 0, error)),
                },
            }
        }
        Ok(self.rx.pop(frame))
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        let bad_length = || FrameError::BadLength { device: self.device.clone(), len: frame.len() };
        if frame.len() < 14 {
            return Err(bad_length());
        }
        self.out.clear();
        self.out.extend_from_slice(&vnet::FINISHED);
        self.out.extend_from_slice(frame);
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, &self.out)) {
            Ok(_) => Ok(()),
            // With a virtio header the kernel says EINVAL for a frame over the MTU.
            Err(rustix::io::Errno::INVAL) => Err(bad_length()),
            Err(error) => Err(FrameError::of("send to", &self.device, frame.len(), error.into())),
        }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn counters(&mut self) -> RxCounters {
        // The kernel forgets the number as it tells it. If it does not, there is nothing to add.
        self.rx.counters.overruns += ffi::packet_drops(self.fd.as_fd()).map_or(0, u64::from);
        self.rx.counters
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

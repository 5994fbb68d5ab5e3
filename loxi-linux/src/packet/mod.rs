//! Raw Ethernet frames in and out: packet sockets and TAP devices.
//!
//! What [`FrameIo::recv`] gives is a frame as a wire would carry it: a VLAN tag that the kernel keeps
//! beside the frame is put back, partial checksums are completed, super-frames are cut into
//! segments ([`crate::gso`]). So a device works with its offloads on or off.
//! A frame that can't be finished is dropped and counted ([`RxCounters`]), never
//! handed over half-made. Nothing here panics on a frame.

mod rx;
mod socket;
mod tap;
mod vnet;

use std::io;
use std::os::fd::BorrowedFd;

pub use rx::RxCounters;
pub use socket::{PacketSocket, PacketSocketOptions};
pub use tap::{Tap, TapOptions, delete_tap};

/// What is known of a received frame beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RxMeta {
    /// The checksum was partial and has been completed here.
    pub checksum_completed: bool,
    /// The frame was cut out of a super-frame here.
    pub segmented: bool,
    /// The VLAN tag came beside the frame and was put back here.
    pub vlan_restored: bool,
}

/// Why a frame could not be received or sent, or a device not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is longer than the device's MTU allows, or shorter than a header.
    #[error("{device}: a frame of {len} bytes can't be sent")]
    BadLength {
        /// The device.
        device: String,
        /// The frame's length.
        len: usize,
    },
    /// The queue is full; the frame was not sent.
    #[error("{device}: the transmit queue is full")]
    Busy {
        /// The device.
        device: String,
    },
    /// The device is down. It may come up again.
    #[error("{device} is down")]
    Down {
        /// The device.
        device: String,
    },
    /// The device is gone for good.
    #[error("{device} is gone")]
    Gone {
        /// The device.
        device: String,
    },
    /// Another answer of the kernel.
    #[error("{operation} {device}: {source}")]
    Os {
        /// What was being done.
        operation: &'static str,
        /// The device.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl FrameError {
    fn of(operation: &'static str, device: &str, len: usize, source: io::Error) -> Self {
        let device = device.to_owned();
        match source.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS) => Self::Busy { device },
            Some(libc::EMSGSIZE) => Self::BadLength { device, len },
            Some(libc::ENETDOWN | libc::EIO) => Self::Down { device },
            Some(libc::ENXIO | libc::ENODEV | libc::EBADFD) => Self::Gone { device },
            _ => Self::Os { operation, device, source },
        }
    }
}

/// Something that takes and gives Ethernet frames without blocking.
pub trait FrameIo: Send {
    /// Replaces `frame` by the next frame, or returns `None` if there is none now.
    ///
    /// Take frames until there are none before waiting for the descriptor: segments of one super-frame
    /// wait here, not in the kernel.
    ///
    /// # Errors
    /// If the device is down or gone or the kernel fails. After `Down` the
    /// next call may succeed.
    fn recv(&mut self, frame: &mut Vec<u8>) -> Result<Option<RxMeta>, FrameError>;

    /// Sends one whole frame, from its Ethernet header on, without the frame check sequence.
    ///
    /// # Errors
    /// If it was not sent; nothing is queued here.
    fn send(&mut self, frame: &[u8]) -> Result<(), FrameError>;

    /// The descriptor to wait for; `None` if there is none (a fake), then poll by `recv`.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// What has been received and lost so far.
    fn counters(&mut self) -> RxCounters;
}

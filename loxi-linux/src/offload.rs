//! Offload switches of a device, as `ethtool -k` shows them.
//!
//! A device with offloads hands over frames whose checksum is not yet there and
//! TCP segments of 64 KB. The names are resolved in the calling thread's namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::ffi;

/// One switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Offload {
    /// Checksums computed by the device on send.
    TxChecksum,
    /// Checksums verified by the device on receive.
    RxChecksum,
    /// Frames in several buffers.
    ScatterGather,
    /// TCP segmentation.
    Tso,
    /// Generic segmentation.
    Gso,
    /// Merging of received segments.
    Gro,
}

impl Offload {
    /// All switches, in the order in which turning them off never needs a later one:
    /// segmentation before the scatter-gather and checksums it rests on.
    pub const ALL: [Self; 6] =
        [Self::Tso, Self::Gso, Self::Gro, Self::ScatterGather, Self::TxChecksum, Self::RxChecksum];

    /// Numbers of `linux/ethtool.h`: get, set.
    fn commands(self) -> (u32, u32) {
        match self {
            Self::RxChecksum => (0x14, 0x15),
            Self::TxChecksum => (0x16, 0x17),
            Self::ScatterGather => (0x18, 0x19),
            Self::Tso => (0x1e, 0x1f),
            Self::Gso => (0x23, 0x24),
            Self::Gro => (0x2b, 0x2c),
        }
    }
}

/// A switch could not be read or set.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {offload:?} of {device}: {source}")]
pub struct OffloadError {
    /// `get` or `set`.
    pub operation: &'static str,
    /// The switch.
    pub offload: Offload,
    /// The device.
    pub device: String,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Whether a switch is on.
///
/// # Errors
/// If there is no such device or it has no such switch.
pub fn get(device: &str, offload: Offload) -> Result<bool, OffloadError> {
    call("get", device, offload, offload.commands().0, 0).map(|value| value != 0)
}

/// Turns a switch.
///
/// # Errors
/// If there is no such device or the switch is fixed.
pub fn set(device: &str, offload: Offload, on: bool) -> Result<(), OffloadError> {
    call("set", device, offload, offload.commands().1, u32::from(on)).map(drop)
}

/// Turns everything off that makes frames differ from what goes over a wire.
/// A switch that the device does not have is off already. The kernel ties the segmentation features that have no
/// switch of their own here (UDP, tunnels, SCTP) to checksums or scatter-gather, and doesn't use them without.
///
/// # Errors
/// If there is no such device or a switch that is on can't be turned off.
pub fn disable_all(device: &str) -> Result<(), OffloadError> {
    for offload in Offload::ALL {
        match set(device, offload, false) {
            Err(error) if error.source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                if get(device, offload).unwrap_or(false) {
                    return Err(error);
                }
            }
            other => other?,
        }
    }
    Ok(())
}

fn call(
    operation: &'static str,
    device: &str,
    offload: Offload,
    command: u32,
    data: u32,
) -> Result<u32, OffloadError> {
    any_socket()
        .and_then(|socket| ffi::ethtool_value(socket.as_fd(), device, command, data))
        .map_err(|source| OffloadError { operation, offload, device: device.into(), source })
}

/// ethtool asks for any socket of the namespace.
fn any_socket() -> io::Result<OwnedFd> {
    let kind = SocketType::DGRAM;
    Ok(rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?)
}

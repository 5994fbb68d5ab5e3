//! The socket: one request, its answers, its acknowledgement.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::RtnlError;
use super::wire::{self, HEADER, Message, Request};
use crate::ffi;

const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// A list that changes while it is read is read again, this many times.
const ATTEMPTS: usize = 8;

/// An rtnetlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Rtnl {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnl {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// If descriptors have run out.
    pub fn open() -> Result<Self, RtnlError> {
        let fail = |operation| move |source| RtnlError::Socket { operation, source };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is the protocol 0.
            None,
        )
        .map_err(|e| fail("open")(e.into()))?;
        rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, 0)).map_err(|e| fail("bind")(e.into()))?;
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] {
            ffi::set_int(fd.as_fd(), SOL_NETLINK, option, 1).map_err(fail("set option"))?;
        }
        // The kernel makes datagrams of at most 32 KB.
        Ok(Self { fd, sequence: 0, buffer: vec![0; 65_536] })
    }

    /// Sends a change and waits for its acknowledgement.
    pub(super) fn change(
        &mut self,
        request: Request,
        operation: &'static str,
        object: &str,
    ) -> Result<(), RtnlError> {
        self.talk(request, operation, object, |_| ()).map(drop)
    }

    /// Reads a list: `each` gets every message, from the start again if the list changed.
    pub(super) fn list<T>(
        &mut self,
        request: impl Fn() -> Request,
        operation: &'static str,
        each: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, RtnlError> {
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            if self.talk(request(), operation, "", |message| found.extend(each(message)))? {
                return Ok(found);
            }
        }
        Err(RtnlError::Unsteady { operation })
    }

    /// One exchange. Returns false if a list changed meanwhile.
    fn talk(
        &mut self,
        request: Request,
        operation: &'static str,
        object: &str,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, RtnlError> {
        let socket = |source: rustix::io::Errno| RtnlError::Socket { operation, source: source.into() };
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let bytes = request.finish(sequence);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty()).map_err(socket)?;
        let mut steady = true;
        loop {
            let (len, _) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty())
            })
            .map_err(socket)?;
            for message in wire::messages(&self.buffer[..len]) {
                if message.sequence != sequence {
                    continue;
                }
                steady &= message.flags & NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(steady),
                    libc::NLMSG_ERROR => {
                        return match refusal(&message) {
                            None => Ok(steady),
                            Some((source, hint)) => {
                                Err(RtnlError::Refused { operation, object: object.into(), source, hint })
                            }
                        };
                    }
                    _ => each(&message),
                }
            }
        }
    }
}

/// The error of an acknowledgement, or `None` if it says that all is well.
fn refusal(message: &Message<'_>) -> Option<(io::Error, Option<String>)> {
    let code = wire::get_u32(message.body, 0).map_or(-libc::EPROTO, |code| code as i32);
    if code == 0 {
        return None;
    }
    let hint = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| {
            let echoed = if message.flags & NLM_F_CAPPED != 0 {
                HEADER
            } else {
                wire::get_u32(message.body, 4)? as usize
            };
            wire::attrs(message.body.get(4 + ((echoed + 3) & !3)..)?)
                .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
                .map(|(_, value)| wire::text(value))
        })
        .flatten();
    Some((io::Error::from_raw_os_error(code.wrapping_neg()), hint))
}

//! The only unsafe code of the crate: system calls that rustix does not type.
//!
//! Every function here is safe to call: arguments are references or owned
//! descriptors, lengths are taken from the slices themselves, and the kernel's
//! answer comes back as `io::Result`. Nothing here panics.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `IFNAMSIZ` of the kernel, with the terminating zero.
const IFNAMSIZ: usize = 16;
const PACKET_AUXDATA: libc::c_int = 8;

/// Gives the calling thread a network namespace of its own.
pub(crate) fn unshare_net() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET)
}

/// Gives the calling thread a copy of the mount namespace (and of the working
/// directory, which the kernel unshares with it).
pub(crate) fn unshare_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)
}

/// Separates the calling thread's root and working directory from the
/// process's: the kernel asks for it before a thread joins a mount namespace.
pub(crate) fn unshare_fs() -> io::Result<()> {
    unshare(libc::CLONE_FS)
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare takes no pointer. None of the flags given above is
    // CLONE_FILES, the one that would invalidate descriptors held by this
    // thread's values.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Joins the namespace behind `fd`, which has to be of the kind `nstype`.
pub(crate) fn setns(fd: BorrowedFd<'_>, nstype: libc::c_int) -> io::Result<()> {
    // SAFETY: setns takes no pointer; `fd` is open for the length of the call.
    check(unsafe { libc::setns(fd.as_raw_fd(), nstype) }).map(drop)
}

/// Opens a non-blocking raw packet socket that receives nothing until bound.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed; the protocol 0 asks for no frames yet.
    let fd = check(unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    })?;
    // SAFETY: the descriptor has just been made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds a packet socket to a device and to all protocols.
pub(crate) fn bind_packet(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data for which all zeroes is a value.
    let mut sll: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    sll.sll_family = libc::AF_PACKET as u16;
    sll.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    sll.sll_ifindex = ifindex as i32;
    // SAFETY: the pointer and the length describe `sll`, which outlives the call.
    check(unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const sll).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    })
    .map(drop)
}

/// Makes the device promiscuous for as long as the socket is open.
pub(crate) fn packet_promiscuous(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: ifindex as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the pointer and the length describe `request`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Sets an integer socket option.
pub(crate) fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// How many frames a packet socket's queue has lost since the last time it was asked.
pub(crate) fn packet_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `stats` and the length to `len`; both
    // are borrowed mutably and outlive the call.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut len,
        )
    })?;
    Ok(stats.tp_drops)
}

/// What `recvmsg` said about one frame of a packet socket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PacketMessage {
    /// Bytes written to the buffer, the virtio header included.
    pub(crate) len: usize,
    /// The frame was longer than the buffer.
    pub(crate) truncated: bool,
    /// TPID and TCI of a tag that the kernel has taken out of the frame.
    pub(crate) vlan: Option<(u16, u16)>,
}

/// Receives one frame with its auxiliary data.
pub(crate) fn recv_packet(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<PacketMessage> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // u64 aligns the space as cmsghdr needs it; 128 bytes hold tpacket_auxdata.
    let mut control = [0u64; 16];
    // SAFETY: msghdr is plain data for which all zeroes is a value.
    let mut msg: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = size_of_val(&control);
    // SAFETY: `msg` points at `iov` and `control`, which outlive the call, and
    // `iov` at `buffer`, which is borrowed mutably and has the length given.
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut got =
        PacketMessage { len: n as usize, truncated: msg.msg_flags & libc::MSG_TRUNC != 0, vlan: None };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR walk `control` within the length
    // the kernel has stored in `msg`; both outlive the loop.
    let mut cmsg = unsafe { libc::CMSG_FIRSTHDR(&raw const msg) };
    while !cmsg.is_null() {
        // SAFETY: a non-null pointer of the walk points at a whole cmsghdr.
        let head = unsafe { cmsg.read_unaligned() };
        let whole = size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>();
        if head.cmsg_level == libc::SOL_PACKET
            && head.cmsg_type == PACKET_AUXDATA
            && head.cmsg_len as usize >= whole
        {
            // SAFETY: cmsg_len has room for a whole tpacket_auxdata, which is
            // plain data; the read makes no assumption on alignment.
            let aux: libc::tpacket_auxdata =
                unsafe { libc::CMSG_DATA(cmsg).cast::<libc::tpacket_auxdata>().read_unaligned() };
            if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                let tpid = if aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                    aux.tp_vlan_tpid
                } else {
                    0x8100
                };
                got.vlan = Some((tpid, aux.tp_vlan_tci));
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR above.
        cmsg = unsafe { libc::CMSG_NXTHDR(&raw const msg, cmsg) };
    }
    Ok(got)
}

/// `struct ifreq` with the flags member of its union.
#[repr(C)]
struct IfreqFlags {
    name: [u8; IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Attaches a `/dev/net/tun` descriptor to the device `name`, making it if need be.
pub(crate) fn tun_set_iff(fd: BorrowedFd<'_>, name: &str, flags: i32) -> io::Result<()> {
    let mut request = IfreqFlags { name: ifname(name)?, flags: flags as libc::c_short, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes one ifreq (40 bytes), the size and
    // layout of `request`, which is borrowed mutably for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }).map(drop)
}

/// Makes a TUN or TAP device outlive its descriptor, or not.
pub(crate) fn tun_set_persist(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST as _, libc::c_ulong::from(on)) }).map(drop)
}

/// Tells the kernel which unfinished frames the reader of a TAP takes.
pub(crate) fn tun_set_offload(fd: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) })
        .map(drop)
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// `struct ifreq` with the data member of its union.
#[repr(C)]
struct IfreqData {
    name: [u8; IFNAMSIZ],
    data: *mut EthtoolValue,
    rest: [u8; 16],
}

/// One ethtool command that takes or gives a number; returns the number after it.
pub(crate) fn ethtool_value(fd: BorrowedFd<'_>, device: &str, cmd: u32, data: u32) -> io::Result<u32> {
    let mut value = EthtoolValue { cmd, data };
    let mut request = IfreqData { name: ifname(device)?, data: &raw mut value, rest: [0; 16] };
    // SAFETY: SIOCETHTOOL reads one ifreq, the layout of `request`, whose data
    // pointer is to an ethtool_value; the commands of `offload` use no more.
    // Both outlive the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) })?;
    Ok(value.data)
}

fn ifname(name: &str) -> io::Result<[u8; IFNAMSIZ]> {
    let mut out = [0; IFNAMSIZ];
    if name.is_empty() || name.len() >= IFNAMSIZ || name.contains(['/', '\0']) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    out[..name.len()].copy_from_slice(name.as_bytes());
    Ok(out)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

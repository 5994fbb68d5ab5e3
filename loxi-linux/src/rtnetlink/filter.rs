//! Filters of traffic control at a device's clsact qdisc (tc-bpf(8)): BPF programs that see its frames.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::wire::{self, Message, Request};
use super::{Rtnl, RtnlError};

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// What the program returns is the frame's fate, not its class.
const ACT_DIRECT: u32 = 1;
/// `TC_H_CLSACT` of linux/pkt_sched.h: the parent of the qdisc.
const CLSACT: u32 = 0xffff_fff1;
/// The qdisc's own handle.
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// Length of `struct tcmsg`.
const TCMSG: usize = 20;
/// [`Filter::protocol`] of a filter for every ethertype: `ETH_P_ALL` of linux/if_ether.h.
pub const EVERY_PROTOCOL: u16 = 3;

/// A side of the qdisc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterAt {
    /// What the device receives.
    Ingress,
    /// What it sends.
    Egress,
}

impl FilterAt {
    fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// A filter as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The chain; frames begin at 0, and come to another by an action only.
    pub chain: u32,
    /// Filters of smaller numbers see a frame first.
    pub priority: u16,
    /// The ethertype that it sees, or [`EVERY_PROTOCOL`].
    pub protocol: u16,
    /// Its number among those of its priority; 0 is the priority itself, which has one kind.
    pub handle: u32,
    /// `bpf`, `u32`, …
    pub kind: String,
    /// Of kind `bpf`: what whoever added it calls it.
    pub name: Option<String>,
    /// Of kind `bpf`: the kernel's number of the program.
    pub program: Option<u32>,
}

impl Filter {
    fn parse(message: &Message<'_>) -> Option<Self> {
        if message.kind != libc::RTM_NEWTFILTER {
            return None;
        }
        let info = wire::get_u32(message.body, 16)?;
        let mut filter = Self {
            chain: 0,
            priority: (info >> 16) as u16,
            protocol: u16::from_be(info as u16),
            handle: wire::get_u32(message.body, 8)?,
            kind: String::new(),
            name: None,
            program: None,
        };
        let mut options = &[][..];
        for (kind, value) in wire::attrs(message.body.get(TCMSG..)?) {
            match kind {
                TCA_KIND => filter.kind = wire::text(value),
                TCA_OPTIONS => options = value,
                TCA_CHAIN => filter.chain = wire::get_u32(value, 0)?,
                _ => {}
            }
        }
        if filter.kind == "bpf" {
            for (kind, value) in wire::attrs(options) {
                match kind {
                    TCA_BPF_NAME => filter.name = Some(wire::text(value)),
                    TCA_BPF_ID => filter.program = wire::get_u32(value, 0),
                    _ => {}
                }
            }
        }
        Some(filter)
    }
}

/// A BPF program that is to be a filter for frames of every protocol, and to decide what becomes of them.
#[derive(Debug, Clone, Copy)]
pub struct BpfFilter<'a> {
    /// [`Filter::priority`].
    pub priority: u16,
    /// [`Filter::handle`], not 0.
    pub handle: u32,
    /// [`Filter::name`], of up to 255 bytes.
    pub name: &'a str,
    /// The program.
    pub program: BorrowedFd<'a>,
}

/// `struct tcmsg`. A device or handle of 0 is any.
fn tcmsg(device: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut bytes = [0; TCMSG];
    for (at, word) in [(4, device), (8, handle), (12, parent), (16, info)] {
        bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(EVERY_PROTOCOL.to_be())
}

impl Rtnl {
    /// Gives a device a clsact qdisc. False: it has one already, or one of kind `ingress`, in the same place and
    /// with the same filters at ingress.
    ///
    /// # Errors
    /// If there is no such device or the kernel has no such qdisc.
    pub fn clsact_add(&mut self, device: u32) -> Result<bool, RtnlError> {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut request = Request::new(libc::RTM_NEWQDISC, flags, &tcmsg(device, CLSACT_HANDLE, CLSACT, 0));
        request.attr_str(TCA_KIND, "clsact");
        match self.change(request, "add clsact to", &format!("device {device}")) {
            Err(error) if error.is_existing() => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Takes the clsact qdisc of a device away, with all filters.
    ///
    /// # Errors
    /// If there is none.
    pub fn clsact_del(&mut self, device: u32) -> Result<(), RtnlError> {
        let header = tcmsg(device, CLSACT_HANDLE, CLSACT, 0);
        let request = Request::new(libc::RTM_DELQDISC, libc::NLM_F_ACK, &header);
        self.change(request, "delete clsact of", &format!("device {device}"))
    }

    /// The indexes of the devices that have a qdisc for filters at ingress.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn clsacts(&mut self) -> Result<Vec<u32>, RtnlError> {
        let dump = || Request::new(libc::RTM_GETQDISC, libc::NLM_F_DUMP, &tcmsg(0, 0, 0, 0));
        let found = self.list(dump, "list qdiscs", |message| {
            let is = message.kind == libc::RTM_NEWQDISC && wire::get_u32(message.body, 12)? == CLSACT;
            if is { wire::get_u32(message.body, 4) } else { None }
        });
        none_without_traffic_control(found)
    }

    /// The filters of a device; none where it has no qdisc for them, or is not there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn filters(&mut self, device: u32, at: FilterAt) -> Result<Vec<Filter>, RtnlError> {
        let header = tcmsg(device, 0, at.parent(), 0);
        let dump = || Request::new(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, &header);
        none_without_traffic_control(self.list(dump, "list filters", Filter::parse))
    }

    /// Adds a filter.
    ///
    /// # Errors
    /// If there is one of its priority and handle, its priority is of another kind, or there is no qdisc.
    pub fn bpf_filter_add(
        &mut self,
        device: u32,
        at: FilterAt,
        filter: &BpfFilter<'_>,
    ) -> Result<(), RtnlError> {
        self.bpf_filter(device, at, filter, libc::NLM_F_EXCL, "add filter to")
    }

    /// Puts a filter in the place of the one of its priority and handle, in one step: every frame meets one of
    /// them. Adds it if there is none.
    ///
    /// # Errors
    /// If its priority is of another kind, or there is no qdisc.
    pub fn bpf_filter_replace(
        &mut self,
        device: u32,
        at: FilterAt,
        filter: &BpfFilter<'_>,
    ) -> Result<(), RtnlError> {
        self.bpf_filter(device, at, filter, libc::NLM_F_REPLACE, "replace filter of")
    }

    fn bpf_filter(
        &mut self,
        device: u32,
        at: FilterAt,
        filter: &BpfFilter<'_>,
        how: i32,
        operation: &'static str,
    ) -> Result<(), RtnlError> {
        let header = tcmsg(device, filter.handle, at.parent(), info(filter.priority));
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | how;
        let mut request = Request::new(libc::RTM_NEWTFILTER, flags, &header);
        request.attr_str(TCA_KIND, "bpf");
        request.nest(TCA_OPTIONS, &[], |request| {
            request.attr_u32(TCA_BPF_FD, filter.program.as_raw_fd() as u32);
            request.attr_str(TCA_BPF_NAME, filter.name);
            request.attr_u32(TCA_BPF_FLAGS, ACT_DIRECT);
        });
        self.change(request, operation, &format!("device {device}"))
    }

    /// Takes a filter of kind `bpf` away, whoever has added it.
    ///
    /// # Errors
    /// If there is none.
    pub fn bpf_filter_del(
        &mut self,
        device: u32,
        at: FilterAt,
        priority: u16,
        handle: u32,
    ) -> Result<(), RtnlError> {
        let header = tcmsg(device, handle, at.parent(), info(priority));
        let mut request = Request::new(libc::RTM_DELTFILTER, libc::NLM_F_ACK, &header);
        request.attr_str(TCA_KIND, "bpf");
        self.change(request, "delete filter of", &format!("device {device}"))
    }
}

/// A kernel without traffic control has none of its objects.
fn none_without_traffic_control<T>(found: Result<Vec<T>, RtnlError>) -> Result<Vec<T>, RtnlError> {
    match found {
        Err(RtnlError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Ok(Vec::new())
        }
        other => other,
    }
}

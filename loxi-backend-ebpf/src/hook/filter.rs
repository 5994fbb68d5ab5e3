//! Stubs at TC of kernels that have no links there (before 6.6): filters of a device's clsact qdisc.
//!
//! # Contract
//! - A filter is the kernel's and stays until it is taken away. All that there is to know of it is read back from the
//!   kernel, so that no record can part from it: its name has the port's, and whether we have made the qdisc; it is this
//!   instance's if its program goes through this instance's array.
//! - A stub whose array is empty is nobody's: its process was killed and has kept nothing. It gives way.
//! - A filter of others is never replaced. A qdisc that others have made, or have filters at, stays.

use super::device::{DeviceError, Found};
use crate::load::stub;
use crate::sys::{Attached, Map, Program, bytes, program_named};
use loxi_linux::netns::NetNs;
use loxi_linux::rtnetlink::{self, BpfFilter, EVERY_PROTOCOL, FilterAt, Rtnl, RtnlError};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Before what is added without a number, which gets large ones, and after what wants to be first.
const PRIORITY: u16 = 10;
/// `loxi`: nobody chooses it by chance.
const HANDLE: u32 = 0x6c6f_7869;

/// A stub at the ingress of a device.
#[derive(Debug)]
pub(crate) struct Filter {
    netns: Arc<NetNs>,
    device: u32,
    label: Label,
    /// The kernel's number of the array that the stub goes through.
    entry: u32,
    /// Whether it outlives this value.
    stays: bool,
}

/// What a filter is called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    /// Under which its device is bound: a port's, or one of ours that no port can have.
    name: String,
    /// Whether the qdisc was made for it.
    made: bool,
}

/// No port's name has a plus.
const MADE: &str = "+clsact";

impl Label {
    fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix(stub::PREFIX)?;
        let made = name.strip_suffix(MADE);
        Some(Self { name: made.unwrap_or(name).to_owned(), made: made.is_some() })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", stub::PREFIX, self.name, if self.made { MADE } else { "" })
    }
}

/// Whose a filter is.
enum Whose {
    Ours(Label),
    /// A stub's without a process.
    Nobodys(Label),
    AnotherInstances(Attached),
    Others,
}

impl Filter {
    /// Binds a stub to a device.
    pub(crate) fn bind(
        netns: &Arc<NetNs>,
        device: &Found,
        name: &str,
        stub: &Program,
        entry: &Map,
        stays: bool,
    ) -> Result<Self, DeviceError> {
        let index = device.link.index;
        let label = netns.run(|| -> Result<Label, DeviceError> {
            let mut rtnl = Rtnl::open()?;
            let was_made = make_way(&mut rtnl, device, entry.id, true)?;
            let made = rtnl.clsact_add(index)? || was_made;
            let label = Label { name: name.to_owned(), made };
            let text = label.to_string();
            let added = rtnl.bpf_filter_add(index, FilterAt::Ingress, &filter(&text, stub));
            if added.is_err() && made {
                let left = remove_if_empty(&mut rtnl, index);
                left.unwrap_or_else(|error| tracing::warn!(device = device.link.name, %error, "clsact"));
            }
            added.map(|()| label).map_err(DeviceError::from)
        })??;
        Ok(Self { netns: Arc::clone(netns), device: index, label, entry: entry.id, stays })
    }

    /// The filters of an instance, by the names under which their devices are bound.
    pub(crate) fn of_instance(netns: &Arc<NetNs>, entry: &Map) -> io::Result<Vec<(String, Self)>> {
        let found = netns.run(|| -> io::Result<Vec<(u32, Label)>> {
            let mut rtnl = Rtnl::open().map_err(io::Error::other)?;
            let devices = rtnl.clsacts().map_err(io::Error::other)?;
            let label = |device| Ok(ours(&mut rtnl, device, entry.id)?.map(|label| (device, label)));
            devices.into_iter().map(label).filter_map(io::Result::transpose).collect()
        });
        let mut filters = Vec::new();
        for (device, label) in found.map_err(io::Error::other)?? {
            let name = label.name.clone();
            filters
                .push((name, Self { netns: Arc::clone(netns), device, label, entry: entry.id, stays: true }));
        }
        Ok(filters)
    }

    /// Puts another stub in its place, at once.
    pub(crate) fn update(&self, stub: &Program) -> io::Result<()> {
        let text = self.label.to_string();
        let replaced = self
            .netns
            .run(|| Rtnl::open()?.bpf_filter_replace(self.device, FilterAt::Ingress, &filter(&text, stub)));
        replaced.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Its device's index; 0: it is not there any more, or its device isn't.
    pub(crate) fn device(&self) -> io::Result<u32> {
        let there =
            self.netns.run(|| ours(&mut Rtnl::open().map_err(io::Error::other)?, self.device, self.entry));
        Ok(if there.map_err(io::Error::other)??.is_some() { self.device } else { 0 })
    }

    /// Takes it away, and the qdisc that was made for it.
    pub(crate) fn detach(&mut self) -> io::Result<()> {
        let gone = self.netns.run(|| -> io::Result<()> {
            let mut rtnl = Rtnl::open().map_err(io::Error::other)?;
            let Some(label) = ours(&mut rtnl, self.device, self.entry)? else { return Ok(()) };
            remove(&mut rtnl, self.device)?;
            if label.made { remove_if_empty(&mut rtnl, self.device) } else { Ok(()) }
        });
        gone.map_err(io::Error::other)??;
        self.stays = true;
        Ok(())
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if !self.stays
            && let Err(error) = self.detach()
        {
            tracing::warn!(name = self.label.name, %error, "letting go of its device");
        }
    }
}

/// Takes a stub of nobody's away where the kernel has links, which don't mind filters.
pub(super) fn make_way_for_link(device: &Found, entry: u32) -> Result<(), DeviceError> {
    let mut rtnl = Rtnl::open()?;
    if make_way(&mut rtnl, device, entry, false)? {
        let failed = |source| DeviceError::Bind { what: "tidy", device: device.link.name.clone(), source };
        remove_if_empty(&mut rtnl, device.link.index).map_err(failed)?;
    }
    Ok(())
}

/// Sees that there is no other instance of ours at the device and, if a filter is `wanted`, nobody else's in its place;
/// takes a stub of nobody's away. Whether the qdisc had been made for that.
fn make_way(rtnl: &mut Rtnl, device: &Found, entry: u32, wanted: bool) -> Result<bool, DeviceError> {
    let (name, index) = (&device.link.name, device.link.index);
    let conflict = |program: String| Err(DeviceError::Conflict { device: name.clone(), program });
    let failed = |source| DeviceError::Bind { what: "ask what is bound to", device: name.clone(), source };
    let mut made = false;
    for found in rtnl.filters(index, FilterAt::Ingress)?.into_iter().filter(|found| found.chain == 0) {
        let (kind, priority) = (&found.kind, found.priority);
        if wanted && priority == PRIORITY && (kind != "bpf" || found.protocol != EVERY_PROTOCOL) {
            return conflict(format!("filter of kind {kind} at priority {priority}"));
        }
        match whose(&found, entry).map_err(failed)? {
            Whose::Nobodys(label) => {
                remove(rtnl, index).map_err(failed)?;
                made |= label.made;
            }
            // What is bound under its own name is replaced, and does not come here.
            Whose::Ours(label) => return conflict(label.to_string()),
            Whose::AnotherInstances(program) => {
                return conflict(format!("{} ({})", program.name, program.id));
            }
            Whose::Others if wanted && priority == PRIORITY && found.handle == HANDLE => {
                let number = found.program.unwrap_or_default();
                let name = found.name.unwrap_or_else(|| format!("filter of kind {kind}"));
                return conflict(format!("{name} ({number})"));
            }
            Whose::Others => {}
        }
    }
    Ok(made)
}

fn whose(filter: &rtnetlink::Filter, entry: u32) -> io::Result<Whose> {
    let Some(id) = filter.program else { return Ok(Whose::Others) };
    let program = match program_named(id) {
        // It has gone in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Whose::Others),
        other => other?,
    };
    if !program.name.starts_with(stub::PREFIX) {
        return Ok(Whose::Others);
    }
    let here = filter.priority == PRIORITY && filter.handle == HANDLE;
    let label = filter.name.as_deref().filter(|_| here).and_then(Label::parse);
    let (Some(label), [array]) = (label, program.maps.as_slice()) else {
        return Ok(Whose::AnotherInstances(program));
    };
    if *array == entry {
        return Ok(Whose::Ours(label));
    }
    let led = Map::of(*array)?.get(bytes(&0u32))?;
    Ok(if led.is_none() { Whose::Nobodys(label) } else { Whose::AnotherInstances(program) })
}

/// The label of an instance's filter at a device.
fn ours(rtnl: &mut Rtnl, device: u32, entry: u32) -> io::Result<Option<Label>> {
    for found in rtnl.filters(device, FilterAt::Ingress).map_err(io::Error::other)? {
        if let Whose::Ours(label) = whose(&found, entry)? {
            return Ok(Some(label));
        }
    }
    Ok(None)
}

fn filter<'a>(name: &'a str, stub: &'a Program) -> BpfFilter<'a> {
    BpfFilter { priority: PRIORITY, handle: HANDLE, name, program: stub.fd() }
}

fn remove(rtnl: &mut Rtnl, device: u32) -> io::Result<()> {
    gone(rtnl.bpf_filter_del(device, FilterAt::Ingress, PRIORITY, HANDLE))
}

fn remove_if_empty(rtnl: &mut Rtnl, device: u32) -> io::Result<()> {
    for at in [FilterAt::Ingress, FilterAt::Egress] {
        if !rtnl.filters(device, at).map_err(io::Error::other)?.is_empty() {
            return Ok(());
        }
    }
    gone(rtnl.clsact_del(device))
}

/// Somebody else may have been quicker, or the device went.
fn gone(removed: Result<(), RtnlError>) -> io::Result<()> {
    match removed {
        Err(error) if error.is_missing() => Ok(()),
        other => other.map_err(io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_they_were_written() {
        for name in ["hs1", "eth0.100", "crossing ", "a_b"] {
            for made in [false, true] {
                let label = Label { name: name.to_owned(), made };
                assert_eq!(Label::parse(&label.to_string()), Some(label));
            }
        }
        assert_eq!(Label::parse("stranger"), None);
    }
}

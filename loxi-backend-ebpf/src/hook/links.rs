//! Binding stubs to devices, and what is bound already.

use super::device::{DeviceError, Found, Namespaces};
use super::filter::{self, Filter};
use crate::load::Loaded;
use crate::load::place::Place;
use crate::load::stub::{self, Without};
use crate::sys::{Link, LinkTarget, Map, Program, at_tcx, get_pinned, pin, program_named};
use std::collections::BTreeMap;
use std::io;

/// Kinds of hooks of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// Ingress of TC.
    Tc,
    /// XDP.
    Xdp,
}

impl At {
    fn suffix(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }

    fn target(self, device: u32) -> LinkTarget {
        match self {
            Self::Tc => LinkTarget::TcxIngress(device),
            Self::Xdp => LinkTarget::Xdp(device),
        }
    }
}

/// What is to be bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound<'a> {
    /// Name under which it is kept: a port's, or one of ours that no port can have.
    pub(crate) name: &'a str,
    /// The number that the stub tells.
    pub(crate) number: u32,
    /// What becomes of frames without programs.
    pub(crate) without: Without,
}

/// A link.
#[derive(Debug)]
struct Kept {
    link: Link,
    /// Whether it is kept without its process.
    outlives: bool,
}

impl Drop for Kept {
    /// The kernel lets go with the last descriptor, of which a child that has not yet executed its program has a copy.
    fn drop(&mut self) {
        if !self.outlives
            && let Err(error) = self.link.detach()
        {
            tracing::debug!(%error, "a link ends with its descriptor");
        }
    }
}

/// What is bound.
#[derive(Debug)]
enum Held {
    Link(Kept),
    /// At TC of a kernel that has no links there.
    Filter(Filter),
}

impl Held {
    fn update(&self, stub: &Program) -> io::Result<()> {
        match self {
            Self::Link(kept) => kept.link.update(stub),
            Self::Filter(filter) => filter.update(stub),
        }
    }

    /// Its device's index; 0: the device is gone.
    fn device(&self) -> io::Result<u32> {
        match self {
            Self::Link(kept) => kept.link.device(),
            Self::Filter(filter) => filter.device(),
        }
    }

    fn detach(&mut self) -> io::Result<()> {
        match self {
            Self::Link(kept) => kept.link.detach(),
            Self::Filter(filter) => filter.detach(),
        }
    }
}

/// Everything that is bound.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    held: BTreeMap<(String, At), Held>,
    /// Filters that a process before this one has bound and that nobody has asked for yet. Links are found by the
    /// names under which they are kept.
    found: BTreeMap<String, Filter>,
    /// Binds at TC as if the kernel had no links there.
    filters: bool,
}

/// A stub for a hook.
struct Stub<'a> {
    at: At,
    program: Program,
    /// The array that it goes through.
    entry: &'a Map,
}

/// A name that the file system takes: it reserves the dot.
fn file_name(name: &str, at: At) -> String {
    let mut text = String::new();
    for c in name.chars() {
        match c {
            '.' | '/' | '~' => text.push_str(&format!("~{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    format!("{text}~{}", at.suffix())
}

fn bind_error<'a>(what: &'static str, device: &'a Found) -> impl FnOnce(io::Error) -> DeviceError + 'a {
    move |source| DeviceError::Bind { what, device: device.link.name.clone(), source }
}

impl Hooks {
    /// Nothing is bound yet. `filters`: binds at TC as if the kernel had no links there.
    pub(crate) fn new(filters: bool) -> Self {
        Self { filters, ..Self::default() }
    }

    /// Finds the filters that a process before this one has bound.
    pub(crate) fn find_filters(&mut self, namespaces: &Namespaces, entry: &Map) -> io::Result<()> {
        for netns in namespaces.each() {
            self.found.extend(Filter::of_instance(netns, entry)?);
        }
        Ok(())
    }

    /// Binds a stub for TC to a device, in place of ours that is there.
    pub(crate) fn bind_tc(
        &mut self,
        place: &Place,
        namespaces: &Namespaces,
        device: &Found,
        what: Bound<'_>,
        programs: &Loaded,
    ) -> Result<(), DeviceError> {
        let stub = stub::tc(what.number, what.name, &programs.entry, what.without);
        let program = stub.map_err(bind_error("write a program for", device))?;
        let stub = Stub { at: At::Tc, program, entry: &programs.entry };
        self.bind(place, namespaces, device, what.name, &stub)
    }

    /// Binds a stub for XDP likewise.
    pub(crate) fn bind_xdp(
        &mut self,
        place: &Place,
        namespaces: &Namespaces,
        device: &Found,
        what: Bound<'_>,
        programs: &Loaded,
        beside: &Map,
    ) -> Result<(), DeviceError> {
        let stub = stub::xdp(what.number, what.name, beside, &programs.entry);
        let program = stub.map_err(bind_error("write a program for", device))?;
        let stub = Stub { at: At::Xdp, program, entry: &programs.entry };
        self.bind(place, namespaces, device, what.name, &stub)
    }

    fn bind(
        &mut self,
        place: &Place,
        namespaces: &Namespaces,
        device: &Found,
        name: &str,
        stub: &Stub<'_>,
    ) -> Result<(), DeviceError> {
        let key = (name.to_owned(), stub.at);
        if let Some(held) = self.kept(place, &key).map_err(bind_error("find what is bound to", device))? {
            if held.device().map_err(bind_error("ask what is bound to", device))? == device.link.index {
                return held.update(&stub.program).map_err(bind_error("renew the program of", device));
            }
            self.unbind_one(place, &key).map_err(bind_error("let go of what was", device))?;
        }
        let netns = namespaces.of(device.side).0;
        let filters = self.filters;
        let held = match netns.run(|| create(device, stub, filters))?? {
            None => {
                Held::Filter(Filter::bind(netns, device, name, &stub.program, stub.entry, place.outlives())?)
            }
            Some(link) => {
                if place.outlives() {
                    let path = place.link(&file_name(name, stub.at));
                    pin(link.fd(), &path).map_err(bind_error("keep what is bound to", device))?;
                }
                Held::Link(Kept { link, outlives: place.outlives() })
            }
        };
        self.held.insert(key, held);
        Ok(())
    }

    /// What is bound by a name, also if a process before this one has bound it.
    fn kept(&mut self, place: &Place, key: &(String, At)) -> io::Result<Option<&mut Held>> {
        let path = place.link(&file_name(&key.0, key.1));
        if place.outlives() && !self.held.contains_key(key) && path.exists() {
            self.held.insert(
                key.clone(),
                Held::Link(Kept { link: Link::new(get_pinned(&path)?), outlives: true }),
            );
        }
        if key.1 == At::Tc
            && let Some(filter) = self.found.remove(&key.0)
        {
            self.held.insert(key.clone(), Held::Filter(filter));
        }
        Ok(self.held.get_mut(key))
    }

    /// The hooks of a device at which a name is bound already.
    pub(crate) fn bound(
        &mut self,
        place: &Place,
        name: &str,
        device: &Found,
    ) -> Result<Vec<At>, DeviceError> {
        let mut found = Vec::new();
        for at in [At::Tc, At::Xdp] {
            let held = self.kept(place, &(name.to_owned(), at));
            let held = held.map_err(bind_error("find what is bound to", device))?;
            if held.is_some_and(|held| held.device().is_ok_and(|index| index == device.link.index)) {
                found.push(at);
            }
        }
        Ok(found)
    }

    /// Lets a device go but at some hooks.
    pub(crate) fn unbind_but(&mut self, place: &Place, name: &str, stay: &[At]) -> io::Result<()> {
        for at in [At::Tc, At::Xdp].into_iter().filter(|at| !stay.contains(at)) {
            self.unbind_one(place, &(name.to_owned(), at))?;
        }
        Ok(())
    }

    /// Lets a device go.
    pub(crate) fn unbind(&mut self, place: &Place, name: &str) -> io::Result<()> {
        self.unbind_but(place, name, &[])
    }

    fn unbind_one(&mut self, place: &Place, key: &(String, At)) -> io::Result<()> {
        if let Some(held) = self.kept(place, key)? {
            held.detach()?;
        }
        if place.outlives() {
            match std::fs::remove_file(place.link(&file_name(&key.0, key.1))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.held.remove(key);
        Ok(())
    }

    /// Whether a device is bound that is still there, and is this one.
    pub(crate) fn holds(&self, name: &str, device: u32) -> bool {
        let held = [At::Tc, At::Xdp].into_iter().filter_map(|at| self.held.get(&(name.to_owned(), at)));
        let mut held =
            held.map(|held| held.device().is_ok_and(|index| index == device && index != 0)).peekable();
        held.peek().is_some() && held.all(|is| is)
    }

    /// Whether something that was bound to a device by a name is gone, though its device is not: filters go with a
    /// qdisc that somebody removes. A kernel that doesn't say is no proof.
    pub(crate) fn has_lost(&mut self, place: &Place, name: &str, device: u32) -> bool {
        [At::Tc, At::Xdp].into_iter().any(|at| {
            let held = self.kept(place, &(name.to_owned(), at));
            held.is_ok_and(|held| held.is_some_and(|held| held.device().is_ok_and(|index| index != device)))
        })
    }
}

/// Takes away the filters of an instance that is given up.
pub(crate) fn let_go(namespaces: &Namespaces, entry: &Map) -> io::Result<()> {
    for netns in namespaces.each() {
        for (_, mut filter) in Filter::of_instance(netns, entry)? {
            filter.detach()?;
        }
    }
    Ok(())
}

/// Binds by a link in the calling thread's namespace. None: it takes a filter, since the kernel has no links
/// there, or is to be used as if it had none.
fn create(device: &Found, stub: &Stub<'_>, filters: bool) -> Result<Option<Link>, DeviceError> {
    if stub.at == At::Tc {
        let there = at_tcx(device.link.index).map_err(bind_error("ask what is bound to", device))?;
        let mut others = there.iter().flatten();
        if let Some(other) = others.find(|other| other.name.starts_with(stub::PREFIX)) {
            let program = format!("{} ({})", other.name, other.id);
            return Err(DeviceError::Conflict { device: device.link.name.clone(), program });
        }
        if there.is_none() || filters {
            return Ok(None);
        }
        filter::make_way_for_link(device, stub.entry.id)?;
    }
    match Link::create(&stub.program, stub.at.target(device.link.index)) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let there = device.link.xdp.and_then(|id| program_named(id).ok());
            let program = there.map_or_else(|| "of XDP".to_owned(), |it| format!("{} ({})", it.name, it.id));
            Err(DeviceError::Conflict { device: device.link.name.clone(), program })
        }
        other => other.map(Some).map_err(bind_error("bind a program to", device)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_unlike_and_without_dots() {
        assert_eq!(file_name("hs1", At::Tc), "hs1~tc");
        assert_eq!(file_name("eth0.100", At::Xdp), "eth0~2e100~xdp");
        assert_ne!(file_name("a.b", At::Tc), file_name("a~2eb", At::Tc));
    }
}

//! Binding stubs to devices, and what is bound already.

use super::device::{DeviceError, Found, Namespaces};
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

/// Everything that is bound.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    links: BTreeMap<(String, At), Link>,
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
        let stub = stub.map_err(bind_error("write a program for", device))?;
        self.bind(place, namespaces, device, what.name, At::Tc, &stub)
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
        let stub = stub.map_err(bind_error("write a program for", device))?;
        self.bind(place, namespaces, device, what.name, At::Xdp, &stub)
    }

    fn bind(
        &mut self,
        place: &Place,
        namespaces: &Namespaces,
        device: &Found,
        name: &str,
        at: At,
        stub: &Program,
    ) -> Result<(), DeviceError> {
        let key = (name.to_owned(), at);
        if let Some(link) = self.kept(place, &key).map_err(bind_error("find what is bound to", device))? {
            if link.device().map_err(bind_error("ask what is bound to", device))? == device.link.index {
                return link.update(stub).map_err(bind_error("renew the program of", device));
            }
            self.unbind_one(place, &key).map_err(bind_error("let go of what was", device))?;
        }
        let link = namespaces.of(device.side).0.run(|| create(device, at, stub))??;
        if place.outlives() {
            let path = place.link(&file_name(name, at));
            pin(link.fd(), &path).map_err(bind_error("keep what is bound to", device))?;
        }
        self.links.insert(key, link);
        Ok(())
    }

    /// What is bound by a name, also if a process before this one has bound it.
    fn kept(&mut self, place: &Place, key: &(String, At)) -> io::Result<Option<&Link>> {
        let path = place.link(&file_name(&key.0, key.1));
        if place.outlives() && !self.links.contains_key(key) && path.exists() {
            self.links.insert(key.clone(), Link::new(get_pinned(&path)?));
        }
        Ok(self.links.get(key))
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
            let link = self.kept(place, &(name.to_owned(), at));
            let link = link.map_err(bind_error("find what is bound to", device))?;
            if link.is_some_and(|link| link.device().is_ok_and(|index| index == device.link.index)) {
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
        if let Some(link) = self.kept(place, key)? {
            link.detach()?;
        }
        if place.outlives() {
            match std::fs::remove_file(place.link(&file_name(&key.0, key.1))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.links.remove(key);
        Ok(())
    }

    /// Whether a device is bound that is still there, and is this one.
    pub(crate) fn holds(&self, name: &str, device: u32) -> bool {
        let is = |link: &Link| link.device().is_ok_and(|index| index == device && index != 0);
        [At::Tc, At::Xdp].iter().any(|at| self.links.get(&(name.to_owned(), *at)).is_some_and(is))
    }
}

/// Binds in the calling thread's namespace.
fn create(device: &Found, at: At, stub: &Program) -> Result<Link, DeviceError> {
    if at == At::Tc {
        let others = at_tcx(device.link.index).map_err(bind_error("ask what is bound to", device))?;
        if let Some(other) = others.into_iter().find(|other| other.name.starts_with(stub::PREFIX)) {
            let program = format!("{} ({})", other.name, other.id);
            return Err(DeviceError::Conflict { device: device.link.name.clone(), program });
        }
    }
    match Link::create(stub, at.target(device.link.index)) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let there = device.link.xdp.and_then(|id| program_named(id).ok());
            let program = there.map_or_else(|| "of XDP".to_owned(), |it| format!("{} ({})", it.name, it.id));
            Err(DeviceError::Conflict { device: device.link.name.clone(), program })
        }
        other => other.map_err(bind_error("bind a program to", device)),
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

//! One run of making things: each step looks first, changes if need be, and notes how to undo it.

use std::path::{Path, PathBuf};

use super::{Instance, LayoutError, LayoutSpec, Offloads};
use crate::Prefix;
use crate::nftables::{Table, TableId};
use crate::rtnetlink::{AddrFlags, Route};
use crate::sys::{End, LinkConfig, LinkState, Ns, Sys, SysError};

enum Undo {
    Ns(Ns),
    Link(Ns, String),
    Table(Ns, TableId),
    Addr(Ns, String, Prefix),
    Route(Ns, Route),
    Sysctl(Ns, String, String),
    Symlink(PathBuf),
    File(PathBuf, Option<String>),
    Folders(PathBuf, PathBuf),
}

/// The steps so far. Dropped without [`Run::keep`], they are undone, the last one first.
pub(super) struct Run<'a> {
    pub(super) sys: &'a dyn Sys,
    pub(super) instance: &'a Instance,
    done: Vec<Undo>,
}

pub(super) fn step(text: impl Into<String>) -> impl FnOnce(SysError) -> LayoutError {
    let step = text.into();
    move |source| LayoutError::Step { step, source }
}

pub(super) fn find(sys: &dyn Sys, ns: &Ns, name: &str) -> Result<Option<LinkState>, LayoutError> {
    let links = sys.links(ns).map_err(step(format!("look for {name}")))?;
    Ok(links.into_iter().find(|link| link.name == name))
}

impl<'a> Run<'a> {
    pub(super) fn new(sys: &'a dyn Sys, instance: &'a Instance) -> Self {
        Self { sys, instance, done: Vec::new() }
    }

    /// All went well: nothing is undone.
    pub(super) fn keep(mut self) {
        self.done.clear();
    }

    fn foreign(&self, what: String) -> LayoutError {
        LayoutError::Foreign { what, instance: self.instance.name.clone() }
    }

    /// The link of a name, if it is there and ours. In a namespace of the instance's own, one
    /// without a label is ours too: it was made, and then the maker was interrupted.
    pub(super) fn own_link(&self, ns: &Ns, name: &str) -> Result<Option<LinkState>, LayoutError> {
        match find(self.sys, ns, name)? {
            Some(link) => {
                let inside = ns.path().parent() == Some(&self.instance.netns_folder());
                let unfinished = inside && link.alias.is_none();
                if unfinished || self.instance.owns_link(link.alias.as_deref()) {
                    Ok(Some(link))
                } else {
                    Err(self.foreign(format!("link {name}")))
                }
            }
            None => Ok(None),
        }
    }

    pub(super) fn folders(&mut self) {
        self.done.push(Undo::Folders(self.instance.netns_folder(), self.instance.folder()));
    }

    pub(super) fn ns(&mut self, ns: &Ns) -> Result<(), LayoutError> {
        let what = || step(format!("make namespace {}", ns.path().display()));
        if !self.sys.ns_exists(ns).map_err(what())? {
            self.sys.ns_create(ns).map_err(what())?;
            self.done.push(Undo::Ns(ns.clone()));
        }
        Ok(())
    }

    pub(super) fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), LayoutError> {
        let what = || step(format!("link {}", path.display()));
        match self.sys.symlink_read(path).map_err(what())? {
            Some(there) if there == target => Ok(()),
            Some(_) => Err(self.foreign(path.display().to_string())),
            None => {
                self.sys.symlink_create(path, target).map_err(what())?;
                self.done.push(Undo::Symlink(path.into()));
                Ok(())
            }
        }
    }

    /// A veth pair. `near` bears the label that tells whether it is there; both ends get one.
    pub(super) fn veth(&mut self, near: End<'_>, far: End<'_>, spec: &LayoutSpec) -> Result<(), LayoutError> {
        let there = self.own_link(near.ns, near.name)?.is_some();
        if !there {
            if find(self.sys, far.ns, far.name)?.is_some() {
                return Err(self.foreign(format!("link {}", far.name)));
            }
            self.sys
                .veth_create(near, far, spec.mtu)
                .map_err(step(format!("make veth {} {}", near.name, far.name)))?;
            self.done.push(Undo::Link(near.ns.clone(), near.name.into()));
        }
        // The far end first: the near one's label says that the pair is complete.
        for end in [far, near] {
            let label = self.instance.label(near.name);
            let to = LinkConfig { mac: Some(end.mac), mtu: Some(spec.mtu), alias: Some(&label), up: None };
            self.configure(end.ns, end.name, to)?;
            let (sys, name) = (self.sys, end.name);
            if spec.offloads != Offloads::On {
                sys.offloads_disable(end.ns, name).map_err(step(format!("turn offloads of {name} off")))?;
            }
            if spec.offloads == Offloads::Merge {
                sys.merging_enable(end.ns, name).map_err(step(format!("let {name} merge segments")))?;
            }
        }
        Ok(())
    }

    pub(super) fn tap(&mut self, ns: &Ns, name: &str) -> Result<(), LayoutError> {
        if self.own_link(ns, name)?.is_none() {
            self.sys.tap_create(ns, name).map_err(step(format!("make TAP {name}")))?;
            self.done.push(Undo::Link(ns.clone(), name.into()));
        }
        Ok(())
    }

    /// Makes a link what it is to be; says nothing to the kernel if it is that already.
    pub(super) fn configure(&self, ns: &Ns, name: &str, to: LinkConfig<'_>) -> Result<(), LayoutError> {
        if let Some(link) = find(self.sys, ns, name)? {
            let same = to.mac.is_none_or(|mac| link.mac == Some(mac))
                && to.mtu.is_none_or(|mtu| link.mtu == mtu)
                && to.alias.is_none_or(|alias| link.alias.as_deref() == Some(alias))
                && to.up.is_none_or(|up| link.up == up);
            if same {
                return Ok(());
            }
        }
        self.sys.link_configure(ns, name, to).map_err(step(format!("configure {name}")))
    }

    pub(super) fn up(&self, ns: &Ns, name: &str) -> Result<(), LayoutError> {
        let to = LinkConfig { mac: None, mtu: None, alias: None, up: Some(true) };
        self.configure(ns, name, to)
    }

    pub(super) fn addr(&mut self, ns: &Ns, dev: &str, addr: Prefix) -> Result<(), LayoutError> {
        let what = || step(format!("add {addr} to {dev}"));
        if !self.sys.addrs(ns, dev).map_err(what())?.contains(&addr) {
            let how = AddrFlags { no_dad: !addr.is_ipv4(), no_prefix_route: is_host(addr) };
            self.sys.addr_add(ns, dev, addr, how).map_err(what())?;
            self.done.push(Undo::Addr(ns.clone(), dev.into(), addr));
        }
        Ok(())
    }

    pub(super) fn route(&mut self, ns: &Ns, route: &Route) -> Result<(), LayoutError> {
        let what = || step(format!("add route {route}"));
        let all = self.sys.routes(ns).map_err(what())?;
        // The kernel gives IPv6 routes a metric of its own, and forgets `onlink` where it
        // has no meaning.
        let same = |other: &&Route| {
            (other.dst, other.via, &other.dev, other.src) == (route.dst, route.via, &route.dev, route.src)
        };
        if all.iter().find(same).is_none() {
            self.sys.route_replace(ns, route).map_err(what())?;
            self.done.push(Undo::Route(ns.clone(), route.clone()));
        }
        Ok(())
    }

    /// A setting that goes with its link or namespace. One of IPv6 may be missing with IPv6.
    pub(super) fn sysctl(&mut self, ns: &Ns, key: &str, value: &str) -> Result<(), LayoutError> {
        self.change_sysctl(ns, key, value, |_, _| Ok(()))
    }

    /// A setting of the root namespace, which is restored when the instance goes.
    pub(super) fn saved_sysctl(&mut self, key: &str, value: &str) -> Result<(), LayoutError> {
        let root = &self.instance.root;
        self.change_sysctl(root, key, value, |run, before| {
            let path = run.instance.saved_sysctls();
            let what = || step(format!("write down {key}"));
            let old = run.sys.file_read(&path).map_err(what())?;
            let text = old.clone().unwrap_or_default();
            // The first value is the one from before us.
            if saved(&text).any(|(saved, _)| saved == key) {
                return Ok(());
            }
            run.sys.file_write(&path, &format!("{text}{key}={before}\n")).map_err(what())?;
            run.done.push(Undo::File(path, old));
            Ok(())
        })
    }

    fn change_sysctl(
        &mut self,
        ns: &Ns,
        key: &str,
        value: &str,
        save: impl FnOnce(&mut Self, &str) -> Result<(), LayoutError>,
    ) -> Result<(), LayoutError> {
        let what = || step(format!("set {key}"));
        let before = match self.sys.sysctl_read(ns, key) {
            Err(error) if error.is_missing() && key.starts_with("net.ipv6.") => return Ok(()),
            other => other.map_err(what())?,
        };
        if before != value {
            save(self, &before)?;
            self.sys.sysctl_write(ns, key, value).map_err(what())?;
            self.done.push(Undo::Sysctl(ns.clone(), key.into(), before));
        }
        Ok(())
    }

    pub(super) fn table(&mut self, ns: &Ns, table: &Table) -> Result<(), LayoutError> {
        let what = || step(format!("apply table {}", table.id().name));
        let new = !self.sys.nft_tables(ns).map_err(what())?.contains(table.id());
        self.sys.nft_apply(ns, table).map_err(what())?;
        if new {
            self.done.push(Undo::Table(ns.clone(), table.id().clone()));
        }
        Ok(())
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        while let Some(undo) = self.done.pop() {
            let sys = self.sys;
            let result = match &undo {
                Undo::Ns(ns) => sys.ns_delete(ns),
                Undo::Link(ns, name) => sys.link_delete(ns, name),
                Undo::Table(ns, id) => sys.nft_delete(ns, id),
                Undo::Addr(ns, dev, addr) => sys.addr_delete(ns, dev, *addr),
                Undo::Route(ns, route) => sys.route_delete(ns, route),
                Undo::Sysctl(ns, key, value) => sys.sysctl_write(ns, key, value),
                Undo::Symlink(path) | Undo::File(path, None) => sys.file_remove(path),
                Undo::File(path, Some(text)) => sys.file_write(path, text),
                Undo::Folders(inner, outer) => sys.folder_prune(inner).and_then(|()| sys.folder_prune(outer)),
            };
            if let Err(error) = result
                && !error.is_missing()
            {
                tracing::error!(%error, instance = self.instance.name, "undoing a layout");
            }
        }
    }
}

fn is_host(addr: Prefix) -> bool {
    addr == Prefix::host(addr.addr)
}

/// The settings that were written down, with their values from before.
pub(super) fn saved(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once('='))
}

//! A model of the system in memory.
//!
//! It knows what a layout rests on: a veth's ends go together, a link takes its
//! addresses and routes with it, a namespace its links; a route needs its link up;
//! a setting of a link is there as long as the link. What differs from the model's
//! defaults is its state, so equal states mean that nothing is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{End, LinkConfig, LinkState, Ns, Sys, SysError};
use crate::nftables::{Table, TableId};
use crate::rtnetlink::{AddrFlags, Route};
use crate::{MacAddr, Prefix};

/// A link of the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FakeLink {
    /// The Ethernet address.
    pub mac: MacAddr,
    /// The MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The label.
    pub alias: Option<String>,
    /// The other end of a veth.
    pub peer: Option<(Ns, String)>,
    /// The addresses.
    pub addrs: BTreeSet<Prefix>,
    /// Whether the offloads were turned off.
    pub offloads_off: bool,
    /// Whether it merges the segments that it receives.
    pub merges: bool,
}

/// A namespace of the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FakeNs {
    /// Links by name.
    pub links: BTreeMap<String, FakeLink>,
    /// Routes of the main table.
    pub routes: BTreeSet<Route>,
    /// Settings that differ from 0.
    pub sysctls: BTreeMap<String, String>,
    /// Tables of filter rules, as scripts.
    pub tables: BTreeMap<TableId, String>,
}

/// The whole model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FakeState {
    /// Namespaces by path.
    pub namespaces: BTreeMap<Ns, FakeNs>,
    /// Files by path.
    pub files: BTreeMap<PathBuf, String>,
    /// Symbolic links by path.
    pub symlinks: BTreeMap<PathBuf, PathBuf>,
}

#[derive(Debug, Default)]
struct Inner {
    state: FakeState,
    calls: Vec<String>,
    fail_at: Option<usize>,
}

/// A [`Sys`] in memory that records its calls.
#[derive(Debug, Default)]
pub struct FakeSys(Mutex<Inner>);

impl FakeSys {
    /// A model with one namespace that has `lo` and the link `uplink`.
    #[must_use]
    pub fn with_node(root: &Ns, uplink: &str) -> Self {
        let fake = Self::default();
        fake.add_ns(root);
        fake.change(|state| {
            let link = FakeLink { mtu: 1500, up: true, ..FakeLink::default() };
            if let Some(ns) = state.namespaces.get_mut(root) {
                ns.links.insert(uplink.into(), link);
            }
        });
        fake
    }

    /// Adds a namespace that has `lo`; recorded as no call.
    pub fn add_ns(&self, ns: &Ns) {
        self.change(|state| state.add_ns(ns));
    }

    /// Changes the model by hand; recorded as no call.
    pub fn change(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.lock().state);
    }

    /// Makes the call number `n`, from 0 and counted from now on, fail once.
    pub fn fail_at(&self, n: usize) {
        let mut inner = self.lock();
        inner.calls.clear();
        inner.fail_at = Some(n);
    }

    /// The calls so far, or since [`FakeSys::fail_at`].
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// A copy of the model.
    #[must_use]
    pub fn state(&self) -> FakeState {
        self.lock().state.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in a test's closure leaves the model readable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T>(
        &self,
        call: String,
        work: impl FnOnce(&mut FakeState) -> Result<T, (&'static str, bool)>,
    ) -> Result<T, SysError> {
        let mut inner = self.lock();
        let number = inner.calls.len();
        inner.calls.push(call.clone());
        if inner.fail_at == Some(number) {
            return Err(SysError::Fake { call, reason: "told to fail", missing: false });
        }
        work(&mut inner.state).map_err(|(reason, missing)| SysError::Fake { call, reason, missing })
    }
}

const NO_NS: (&str, bool) = ("no such namespace", true);
const NO_LINK: (&str, bool) = ("no such link", true);
const TAKEN: (&str, bool) = ("there already", false);

type Answer<T> = Result<T, (&'static str, bool)>;

impl FakeState {
    fn add_ns(&mut self, ns: &Ns) {
        let mut new = FakeNs::default();
        new.links.insert("lo".into(), FakeLink { mtu: 65_536, ..FakeLink::default() });
        self.namespaces.insert(ns.clone(), new);
    }

    fn ns(&mut self, ns: &Ns) -> Answer<&mut FakeNs> {
        self.namespaces.get_mut(ns).ok_or(NO_NS)
    }

    fn link(&mut self, ns: &Ns, name: &str) -> Answer<&mut FakeLink> {
        self.ns(ns)?.links.get_mut(name).ok_or(NO_LINK)
    }

    fn drop_end(&mut self, ns: &Ns, name: &str) -> Option<(Ns, String)> {
        let ns = self.namespaces.get_mut(ns)?;
        let link = ns.links.remove(name)?;
        ns.routes.retain(|route| route.dev.as_deref() != Some(name));
        ns.sysctls.retain(|key, _| device_of(key) != Some(name));
        link.peer
    }

    fn drop_link(&mut self, ns: &Ns, name: &str) {
        if let Some((ns, name)) = self.drop_end(ns, name) {
            self.drop_end(&ns, &name);
        }
    }
}

/// The device in `net.ipv4.conf.DEVICE.setting`.
fn device_of(key: &str) -> Option<&str> {
    let mut parts = key.split('.').skip(2);
    (parts.next() == Some("conf")).then(|| parts.next()).flatten()
}

impl FakeNs {
    fn has_key(&self, key: &str) -> Answer<()> {
        match device_of(key) {
            Some("all" | "default") | None => Ok(()),
            Some(device) if self.links.contains_key(device) => Ok(()),
            Some(_) => Err(NO_LINK),
        }
    }
}

impl Sys for FakeSys {
    fn ns_create(&self, ns: &Ns) -> Result<(), SysError> {
        self.call(format!("ns_create {}", ns.path().display()), |state| {
            if state.namespaces.contains_key(ns) {
                return Err(TAKEN);
            }
            state.add_ns(ns);
            Ok(())
        })
    }

    fn ns_delete(&self, ns: &Ns) -> Result<(), SysError> {
        self.call(format!("ns_delete {}", ns.path().display()), |state| {
            let names: Vec<String> = state.ns(ns)?.links.keys().cloned().collect();
            for name in names {
                state.drop_link(ns, &name);
            }
            state.namespaces.remove(ns);
            Ok(())
        })
    }

    fn ns_exists(&self, ns: &Ns) -> Result<bool, SysError> {
        self.call(format!("ns_exists {}", ns.path().display()), |state| Ok(state.namespaces.contains_key(ns)))
    }

    fn ns_list(&self, folder: &Path) -> Result<Vec<Ns>, SysError> {
        self.call(format!("ns_list {}", folder.display()), |state| {
            let inside = |ns: &&Ns| ns.path().parent() == Some(folder);
            Ok(state.namespaces.keys().filter(inside).cloned().collect())
        })
    }

    fn links(&self, ns: &Ns) -> Result<Vec<LinkState>, SysError> {
        self.call("links".into(), |state| {
            let links = state.ns(ns)?.links.iter();
            Ok(links
                .map(|(name, link)| LinkState {
                    name: name.clone(),
                    mac: Some(link.mac),
                    mtu: link.mtu,
                    up: link.up,
                    alias: link.alias.clone(),
                })
                .collect())
        })
    }

    fn veth_create(&self, a: End<'_>, b: End<'_>, mtu: u32) -> Result<(), SysError> {
        self.call(format!("veth_create {} {}", a.name, b.name), |state| {
            for end in [a, b] {
                if state.ns(end.ns)?.links.contains_key(end.name) {
                    return Err(TAKEN);
                }
            }
            for (end, other) in [(a, b), (b, a)] {
                let peer = Some((other.ns.clone(), other.name.to_owned()));
                let link = FakeLink { mac: end.mac, mtu, peer, ..FakeLink::default() };
                state.ns(end.ns)?.links.insert(end.name.into(), link);
            }
            Ok(())
        })
    }

    fn tap_create(&self, ns: &Ns, name: &str) -> Result<(), SysError> {
        self.call(format!("tap_create {name}"), |state| {
            let links = &mut state.ns(ns)?.links;
            if links.contains_key(name) {
                return Err(TAKEN);
            }
            links.insert(name.into(), FakeLink { mtu: 1500, ..FakeLink::default() });
            Ok(())
        })
    }

    fn link_configure(&self, ns: &Ns, name: &str, to: LinkConfig<'_>) -> Result<(), SysError> {
        self.call(format!("link_configure {name} {to:?}"), |state| {
            let link = state.link(ns, name)?;
            link.mac = to.mac.unwrap_or(link.mac);
            link.mtu = to.mtu.unwrap_or(link.mtu);
            link.up = to.up.unwrap_or(link.up);
            if let Some(alias) = to.alias {
                link.alias = Some(alias.into());
            }
            if to.up == Some(false) {
                state.ns(ns)?.routes.retain(|route| route.dev.as_deref() != Some(name));
            }
            Ok(())
        })
    }

    fn link_delete(&self, ns: &Ns, name: &str) -> Result<(), SysError> {
        self.call(format!("link_delete {name}"), |state| {
            state.link(ns, name)?;
            state.drop_link(ns, name);
            Ok(())
        })
    }

    fn offloads_disable(&self, ns: &Ns, device: &str) -> Result<(), SysError> {
        self.call(format!("offloads_disable {device}"), |state| {
            state.link(ns, device)?.offloads_off = true;
            Ok(())
        })
    }

    fn merging_enable(&self, ns: &Ns, device: &str) -> Result<(), SysError> {
        self.call(format!("merging_enable {device}"), |state| {
            state.link(ns, device)?.merges = true;
            Ok(())
        })
    }

    fn addrs(&self, ns: &Ns, device: &str) -> Result<Vec<Prefix>, SysError> {
        self.call(format!("addrs {device}"), |state| {
            Ok(state.link(ns, device)?.addrs.iter().copied().collect())
        })
    }

    fn addr_add(&self, ns: &Ns, dev: &str, addr: Prefix, _: AddrFlags) -> Result<(), SysError> {
        self.call(format!("addr_add {dev} {addr}"), |state| {
            if state.link(ns, dev)?.addrs.insert(addr) { Ok(()) } else { Err(TAKEN) }
        })
    }

    fn addr_delete(&self, ns: &Ns, device: &str, addr: Prefix) -> Result<(), SysError> {
        self.call(format!("addr_delete {device} {addr}"), |state| {
            let there = state.link(ns, device)?.addrs.remove(&addr);
            if there { Ok(()) } else { Err(("no such address", true)) }
        })
    }

    fn routes(&self, ns: &Ns) -> Result<Vec<Route>, SysError> {
        self.call("routes".into(), |state| Ok(state.ns(ns)?.routes.iter().cloned().collect()))
    }

    fn route_replace(&self, ns: &Ns, route: &Route) -> Result<(), SysError> {
        self.call(format!("route_replace {route}"), |state| {
            if !state.link(ns, route.dev.as_deref().unwrap_or_default())?.up {
                return Err(("the link is down", false));
            }
            let routes = &mut state.ns(ns)?.routes;
            routes.retain(|other| (other.dst, other.metric) != (route.dst, route.metric));
            routes.insert(route.clone());
            Ok(())
        })
    }

    fn route_delete(&self, ns: &Ns, route: &Route) -> Result<(), SysError> {
        self.call(format!("route_delete {route}"), |state| {
            if state.ns(ns)?.routes.remove(route) { Ok(()) } else { Err(("no such route", true)) }
        })
    }

    fn sysctl_read(&self, ns: &Ns, key: &str) -> Result<String, SysError> {
        self.call(format!("sysctl_read {key}"), |state| {
            let ns = state.ns(ns)?;
            ns.has_key(key)?;
            Ok(ns.sysctls.get(key).map_or_else(|| "0".into(), Clone::clone))
        })
    }

    fn sysctl_write(&self, ns: &Ns, key: &str, value: &str) -> Result<(), SysError> {
        self.call(format!("sysctl_write {key}={value}"), |state| {
            let ns = state.ns(ns)?;
            ns.has_key(key)?;
            if value == "0" {
                ns.sysctls.remove(key);
            } else {
                ns.sysctls.insert(key.into(), value.into());
            }
            Ok(())
        })
    }

    fn nft_tables(&self, ns: &Ns) -> Result<Vec<TableId>, SysError> {
        self.call("nft_tables".into(), |state| Ok(state.ns(ns)?.tables.keys().cloned().collect()))
    }

    fn nft_apply(&self, ns: &Ns, table: &Table) -> Result<(), SysError> {
        self.call(format!("nft_apply {}", table.id().name), |state| {
            state.ns(ns)?.tables.insert(table.id().clone(), table.script());
            Ok(())
        })
    }

    fn nft_delete(&self, ns: &Ns, table: &TableId) -> Result<(), SysError> {
        self.call(format!("nft_delete {}", table.name), |state| {
            state.ns(ns)?.tables.remove(table);
            Ok(())
        })
    }

    fn file_read(&self, path: &Path) -> Result<Option<String>, SysError> {
        self.call(format!("file_read {}", path.display()), |s| Ok(s.files.get(path).cloned()))
    }

    fn file_write(&self, path: &Path, text: &str) -> Result<(), SysError> {
        self.call(format!("file_write {}", path.display()), |state| {
            state.files.insert(path.into(), text.into());
            Ok(())
        })
    }

    fn file_remove(&self, path: &Path) -> Result<(), SysError> {
        self.call(format!("file_remove {}", path.display()), |state| {
            state.files.remove(path);
            state.symlinks.remove(path);
            Ok(())
        })
    }

    fn symlink_read(&self, path: &Path) -> Result<Option<PathBuf>, SysError> {
        self.call(format!("symlink_read {}", path.display()), |state| Ok(state.symlinks.get(path).cloned()))
    }

    fn symlink_create(&self, path: &Path, target: &Path) -> Result<(), SysError> {
        self.call(format!("symlink_create {}", path.display()), |state| {
            match state.symlinks.insert(path.into(), target.into()) {
                Some(_) => Err(TAKEN),
                None => Ok(()),
            }
        })
    }

    fn folder_prune(&self, path: &Path) -> Result<(), SysError> {
        self.call(format!("folder_prune {}", path.display()), |_| Ok(()))
    }
}

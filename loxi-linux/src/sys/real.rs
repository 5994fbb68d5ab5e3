//! The kernel.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{End, LinkConfig, LinkState, Ns, Sys, SysError};
use crate::netns::{self, NetNs, NetNsError};
use crate::nftables::{self, Table, TableId};
use crate::packet::{Tap, TapOptions};
use crate::rtnetlink::{AddrFlags, LinkChange, Route, Rtnl, VethEnd};
use crate::{Prefix, offload, sysctl};

/// The kernel of this machine. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealSys;

fn inside<T>(ns: &Ns, work: impl FnOnce() -> Result<T, SysError>) -> Result<T, SysError> {
    let ns = NetNs::open(ns.path())?;
    let _guard = netns::enter(&ns)?;
    work()
}

fn rtnl<T>(
    ns: &Ns,
    work: impl FnOnce(&mut Rtnl) -> Result<T, crate::rtnetlink::RtnlError>,
) -> Result<T, SysError> {
    inside(ns, || Ok(work(&mut Rtnl::open()?)?))
}

fn file<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T, SysError> {
    result.map_err(|source| SysError::File { operation, path: path.into(), source })
}

fn parents(path: &Path) -> Result<(), SysError> {
    path.parent().map_or(Ok(()), |dir| file("make folder", dir, std::fs::create_dir_all(dir)))
}

impl Sys for RealSys {
    fn ns_create(&self, ns: &Ns) -> Result<(), SysError> {
        NetNs::create_at(ns.path())?;
        Ok(())
    }

    fn ns_delete(&self, ns: &Ns) -> Result<(), SysError> {
        Ok(NetNs::delete_at(ns.path())?)
    }

    fn ns_exists(&self, ns: &Ns) -> Result<bool, SysError> {
        match NetNs::open(ns.path()) {
            Ok(_) => Ok(true),
            Err(NetNsError::Os { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn ns_list(&self, folder: &Path) -> Result<Vec<Ns>, SysError> {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => file("list", folder, other)?,
        };
        entries.map(|entry| Ok(Ns::at(file("list", folder, entry)?.path()))).collect()
    }

    fn links(&self, ns: &Ns) -> Result<Vec<LinkState>, SysError> {
        let links = rtnl(ns, Rtnl::links)?;
        Ok(links
            .into_iter()
            .map(|link| LinkState {
                mac: link.mac,
                mtu: link.mtu,
                up: link.is_up(),
                alias: link.alias,
                name: link.name,
            })
            .collect())
    }

    fn veth_create(&self, a: End<'_>, b: End<'_>, mtu: u32) -> Result<(), SysError> {
        let there = NetNs::open(b.ns.path())?;
        rtnl(a.ns, |rtnl| {
            let end = |end: End<'_>| VethEnd { mac: Some(end.mac), mtu: Some(mtu), ..VethEnd::new("") };
            let (near, far) = (end(a), end(b));
            rtnl.veth_add(
                &VethEnd { name: a.name, ..near },
                &VethEnd { name: b.name, netns: Some(there.as_fd()), ..far },
            )
        })
    }

    fn tap_create(&self, ns: &Ns, name: &str) -> Result<(), SysError> {
        inside(ns, || {
            let options = TapOptions { persistent: true, ..TapOptions::default() };
            Tap::open(name, options)?;
            Ok(())
        })
    }

    fn link_configure(&self, ns: &Ns, name: &str, to: LinkConfig<'_>) -> Result<(), SysError> {
        let LinkConfig { mac, mtu, alias, up } = to;
        rtnl(ns, |rtnl| rtnl.link_set(name, &LinkChange { mac, mtu, alias, up, ..LinkChange::default() }))
    }

    fn link_delete(&self, ns: &Ns, name: &str) -> Result<(), SysError> {
        rtnl(ns, |rtnl| rtnl.link_del(name))
    }

    fn offloads_disable(&self, ns: &Ns, device: &str) -> Result<(), SysError> {
        inside(ns, || Ok(offload::disable_all(device)?))
    }

    fn merging_enable(&self, ns: &Ns, device: &str) -> Result<(), SysError> {
        inside(ns, || Ok(offload::set(device, offload::Offload::Gro, true)?))
    }

    fn addrs(&self, ns: &Ns, device: &str) -> Result<Vec<Prefix>, SysError> {
        rtnl(ns, |rtnl| {
            let index = rtnl.link_index(device)?;
            let all = rtnl.addrs()?;
            Ok(all.into_iter().filter(|a| a.index == index).map(|a| a.prefix).collect())
        })
    }

    fn addr_add(&self, ns: &Ns, dev: &str, addr: Prefix, how: AddrFlags) -> Result<(), SysError> {
        rtnl(ns, |rtnl| rtnl.addr_add(dev, addr, how))
    }

    fn addr_delete(&self, ns: &Ns, device: &str, addr: Prefix) -> Result<(), SysError> {
        rtnl(ns, |rtnl| rtnl.addr_del(device, addr))
    }

    fn routes(&self, ns: &Ns) -> Result<Vec<Route>, SysError> {
        rtnl(ns, Rtnl::routes)
    }

    fn route_replace(&self, ns: &Ns, route: &Route) -> Result<(), SysError> {
        rtnl(ns, |rtnl| rtnl.route_replace(route))
    }

    fn route_delete(&self, ns: &Ns, route: &Route) -> Result<(), SysError> {
        rtnl(ns, |rtnl| rtnl.route_del(route))
    }

    fn sysctl_read(&self, ns: &Ns, key: &str) -> Result<String, SysError> {
        inside(ns, || Ok(sysctl::read(key)?))
    }

    fn sysctl_write(&self, ns: &Ns, key: &str, value: &str) -> Result<(), SysError> {
        inside(ns, || Ok(sysctl::write(key, value)?))
    }

    fn nft_tables(&self, ns: &Ns) -> Result<Vec<TableId>, SysError> {
        inside(ns, || Ok(nftables::tables()?))
    }

    fn nft_apply(&self, ns: &Ns, table: &Table) -> Result<(), SysError> {
        inside(ns, || Ok(nftables::apply(table)?))
    }

    fn nft_delete(&self, ns: &Ns, table: &TableId) -> Result<(), SysError> {
        inside(ns, || Ok(nftables::delete(table)?))
    }

    fn file_read(&self, path: &Path) -> Result<Option<String>, SysError> {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => file("read", path, other).map(Some),
        }
    }

    fn file_write(&self, path: &Path, text: &str) -> Result<(), SysError> {
        parents(path)?;
        let new = path.with_extension("new");
        file("write", &new, std::fs::write(&new, text))?;
        file("write", path, std::fs::rename(&new, path))
    }

    fn file_remove(&self, path: &Path) -> Result<(), SysError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => file("remove", path, other),
        }
    }

    fn symlink_read(&self, path: &Path) -> Result<Option<PathBuf>, SysError> {
        match std::fs::read_link(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => file("read link", path, other).map(Some),
        }
    }

    fn symlink_create(&self, path: &Path, target: &Path) -> Result<(), SysError> {
        parents(path)?;
        file("make link", path, std::os::unix::fs::symlink(target, path))
    }

    fn folder_prune(&self, path: &Path) -> Result<(), SysError> {
        match std::fs::remove_dir(path) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) =>
            {
                Ok(())
            }
            other => file("remove folder", path, other),
        }
    }
}

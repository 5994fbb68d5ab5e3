//! Removing everything of an instance, by its label alone.

use super::run::{saved, step};
use super::{Instance, LayoutError};
use crate::sys::{Ns, Sys, SysError};

/// Removes all links, tables, namespaces and files of an instance, and restores the settings it has changed.
/// What is not there is no error, so it may be called at any time and again.
/// Other instances and everything without the label are left alone.
///
/// # Errors
/// If something could not be removed: all the rest is tried, and the first error returned.
pub fn cleanup(sys: &dyn Sys, instance: &Instance) -> Result<(), LayoutError> {
    instance.check()?;
    let mut first = None;
    let mut note = |what: &str, result: Result<(), SysError>| match result {
        Err(error) if !error.is_missing() => {
            first.get_or_insert_with(|| step(what)(error));
        }
        _ => {}
    };
    let root = &instance.root;
    note("remove tables", tables(sys, instance, root));
    note("remove links", links(sys, instance, root));
    match sys.ns_list(&instance.netns_folder()) {
        Err(error) => note("list namespaces", Err(error)),
        Ok(all) => {
            for ns in all {
                // Each veth by itself first: a namespace goes when its last user does, and
                // in its own time; its links' other ends would still be seen.
                note("remove links", links(sys, instance, &ns));
                note("remove namespace", namespace(sys, instance, &ns));
            }
        }
    }
    note("restore settings", settings(sys, instance));
    for folder in [instance.netns_folder(), instance.folder(), instance.run.join("loxi")] {
        note("remove folder", sys.folder_prune(&folder));
    }
    first.map_or(Ok(()), Err)
}

fn tables(sys: &dyn Sys, instance: &Instance, ns: &Ns) -> Result<(), SysError> {
    for id in sys.nft_tables(ns)? {
        if instance.owns_table(&id.name) {
            sys.nft_delete(ns, &id)?;
        }
    }
    Ok(())
}

fn links(sys: &dyn Sys, instance: &Instance, ns: &Ns) -> Result<(), SysError> {
    for link in sys.links(ns)? {
        if instance.owns_link(link.alias.as_deref()) {
            match sys.link_delete(ns, &link.name) {
                Err(error) if !error.is_missing() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn namespace(sys: &dyn Sys, instance: &Instance, ns: &Ns) -> Result<(), SysError> {
    if let Some(name) = ns.path().file_name().and_then(|name| name.to_str()) {
        let link = instance.netns_link(name);
        // A file that is no symbolic link is someone else's namespace of that name.
        if let Ok(Some(target)) = sys.symlink_read(&link)
            && target == instance.netns_link_target(name)
        {
            sys.file_remove(&link)?;
        }
    }
    sys.ns_delete(ns)
}

fn settings(sys: &dyn Sys, instance: &Instance) -> Result<(), SysError> {
    let path = instance.saved_sysctls();
    let Some(text) = sys.file_read(&path)? else {
        return Ok(());
    };
    for (key, value) in saved(&text) {
        match sys.sysctl_write(&instance.root, key, value) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
    }
    sys.file_remove(&path)
}

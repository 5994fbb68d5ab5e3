//! Removing an instance by its names alone: for a world that ends, and for what a killed one has left.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loxi_linux::netns::{NetNs, NetNsError};
use loxi_linux::process::{self, Process, Stop};

use super::{Claim, WorldError, file, folder, netns_file, node};
use crate::plan::{NODES, Plan, Spot};

/// How long a process may take to end when asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Processes that were ended.
    pub processes: usize,
    /// Namespaces that were removed.
    pub namespaces: usize,
}

/// Removes everything of an instance that is not in use. What is not there is no error; other instances are left
/// alone. Processes inside of the instance's namespaces end, a shell in a pod too.
///
/// # Errors
/// If the instance is in use, or something could not be removed: all the rest is.
pub fn remove(plan: &Plan) -> Result<Removed, WorldError> {
    let claim = Claim::take(plan)?;
    remove_claimed(plan, &claim)
}

pub(super) fn remove_claimed(plan: &Plan, _claim: &Claim) -> Result<Removed, WorldError> {
    let mut first = None;
    let processes = namespaces(plan).and_then(|spaces| end_processes(&spaces)).unwrap_or_else(|error| {
        first.get_or_insert(error);
        0
    });
    let mut removed = Removed { processes, namespaces: 0 };
    for spot in Spot::all() {
        match NetNs::delete_at(netns_file(plan, spot)) {
            Ok(()) => removed.namespaces += 1,
            Err(NetNsError::Os { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                first.get_or_insert(error.into());
            }
        }
    }
    if let Err(error) = remove_folder(&folder(plan)) {
        first.get_or_insert(error);
    }
    first.map_or(Ok(removed), Err)
}

/// All namespaces of the instance that can be opened, the dataplanes' too: these have their names in the nodes' views
/// alone, which live as long as a program of the node.
fn namespaces(plan: &Plan) -> Result<Vec<NetNs>, WorldError> {
    let here = NetNs::current().and_then(|ns| ns.id()).ok();
    // Never this one, whatever the file says: everything in them ends.
    let open = |path: PathBuf| NetNs::open(path).ok().filter(|ns| ns.id().is_ok_and(|id| Some(id) != here));
    let mut found: Vec<NetNs> =
        Spot::all().into_iter().filter_map(|spot| open(netns_file(plan, spot))).collect();
    for node in NODES {
        let Some(root) = open(netns_file(plan, Spot::Node(node))) else { continue };
        let views = process::inside(&[&root])?;
        let inside = |process: &Process| {
            let run = PathBuf::from(format!("/proc/{}/root/run", process.id()));
            open(node::dataplane_file(&run, plan, node))
        };
        found.extend(views.iter().find_map(inside));
    }
    Ok(found)
}

fn end_processes(spaces: &[NetNs]) -> Result<usize, WorldError> {
    let spaces: Vec<&NetNs> = spaces.iter().collect();
    let stop = |process: &Process, how| {
        process.stop(how).map_err(|source| WorldError::Process { pid: process.id(), source })
    };
    let found = process::inside(&spaces)?;
    for process in &found {
        stop(process, Stop::Ask)?;
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let left = process::inside(&spaces)?;
        if left.is_empty() {
            return Ok(found.len());
        }
        if Instant::now() > end {
            for process in &left {
                stop(process, Stop::Force)?;
            }
        }
        if Instant::now() > end + PATIENCE {
            let source = io::ErrorKind::TimedOut.into();
            return Err(WorldError::Process { pid: left[0].id(), source });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn remove_folder(path: &Path) -> Result<(), WorldError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

//! Where tables, programs and links are kept by name.

use crate::sys::{Link, get_pinned};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A folder of a bpf file system.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    /// A file system that nobody else sees, and that goes with its last descriptor.
    detached: Option<OwnedFd>,
}

impl Place {
    /// A place of this process alone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn detached() -> io::Result<Self> {
        let context = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let fd = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let folder = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        Ok(Self { folder, detached: Some(fd) })
    }

    /// A folder that outlives the process. It is made where it is missing; in one that is there
    /// nothing changes before [`Self::prepare`].
    ///
    /// # Errors
    /// If it can't be made or is not on a bpf file system.
    pub(crate) fn pinned(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let kind = rustix::fs::statfs(folder)?.f_type;
        if kind as u64 != BPF_FS {
            return Err(io::Error::other(format!("{} is not on a bpf file system", folder.display())));
        }
        Ok(Self { folder: folder.to_owned(), detached: None })
    }

    /// Makes what is kept here find its place.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        if self.outlives() { std::fs::create_dir_all(self.folder.join(LINKS)) } else { Ok(()) }
    }

    /// Whether what is kept here outlives the process.
    pub(crate) fn outlives(&self) -> bool {
        self.detached.is_none()
    }

    /// The path of a name.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The path of a port's link.
    pub(crate) fn link(&self, name: &str) -> PathBuf {
        self.folder.join(LINKS).join(name)
    }

    /// Something here that is no name of ours; a link is whatever it is called.
    pub(crate) fn foreign(&self, is_ours: fn(&str) -> bool) -> io::Result<Option<PathBuf>> {
        if self.detached.is_some() {
            return Ok(None);
        }
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if name != LINKS && !name.to_str().is_some_and(is_ours) {
                return Ok(Some(self.folder.join(name)));
            }
        }
        Ok(None)
    }

    /// Takes away everything that is kept here. What was bound by a link is let go.
    pub(crate) fn clear(&self) -> io::Result<()> {
        if self.detached.is_some() {
            return Ok(());
        }
        for link in files(&self.folder.join(LINKS))? {
            Link::new(get_pinned(&link)?).detach()?;
            std::fs::remove_file(link)?;
        }
        files(&self.folder)?.into_iter().try_for_each(std::fs::remove_file)
    }

    /// Takes the folder itself away, with all that is kept in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        if self.detached.is_some() {
            return Ok(());
        }
        self.clear()?;
        std::fs::remove_dir(self.folder.join(LINKS))?;
        std::fs::remove_dir(&self.folder)
    }
}

/// The files of a folder; none where it is missing.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.filter(|path| !path.as_ref().is_ok_and(|path| path.is_dir())).collect()
}

/// Folder of links.
const LINKS: &str = "links";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: u64 = 0xcafe_4a11;

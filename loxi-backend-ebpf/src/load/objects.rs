//! The compiled programs.

use sha2::{Digest as _, Sha256};
use std::io;
use std::path::Path;

/// The committed object for TC.
static TC: &[u8] = aya::include_bytes_aligned!("../../obj/tc.o");
/// The committed object for XDP.
static XDP: &[u8] = aya::include_bytes_aligned!("../../obj/xdp.o");

/// The committed object of the benchmarks.
static BENCH: &[u8] = aya::include_bytes_aligned!("../../obj/bench.o");

/// Where the objects are read from in place of the committed ones: for tests of freshly built ones.
const FOLDER: &str = "LOXI_EBPF_OBJ";

/// Objects for both kinds of hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objects {
    /// For TC.
    pub(crate) tc: Vec<u8>,
    /// For XDP.
    pub(crate) xdp: Vec<u8>,
}

impl Objects {
    /// The committed ones, or those of the folder that `LOXI_EBPF_OBJ` names.
    ///
    /// # Errors
    /// If that folder's can't be read.
    pub fn new() -> io::Result<Self> {
        match std::env::var_os(FOLDER) {
            Some(folder) => Self::read(Path::new(&folder)),
            None => Ok(Self { tc: TC.to_vec(), xdp: XDP.to_vec() }),
        }
    }

    /// `tc.o` and `xdp.o` of a folder.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        Ok(Self { tc: read("tc.o")?, xdp: read("xdp.o")? })
    }

    /// The committed one of the benchmarks, or that of the folder.
    pub(crate) fn bench() -> io::Result<Vec<u8>> {
        match std::env::var_os(FOLDER) {
            Some(folder) => std::fs::read(Path::new(&folder).join("bench.o")),
            None => Ok(BENCH.to_vec()),
        }
    }

    /// Names them by their content: SHA-256.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for object in [&self.tc, &self.xdp] {
            hash.update((object.len() as u64).to_le_bytes());
            hash.update(object);
        }
        hash.finalize().into()
    }
}

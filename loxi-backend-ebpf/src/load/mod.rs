//! Loading: from objects to tables and programs in the kernel, or back to those that are there.
//!
//! # Contract
//! - Tables that are kept by name carry a [`Meta`], written last. A folder without one is
//!   what a killed loader left before anything could go through it: it is begun anew. A folder of
//!   another layout is refused and stays as it is; only [`LoadOptions::discard`] takes it away.
//! - Programs of another build than ours go on until ours are loaded as a whole; then
//!   one write of the entry's array switches the node.
//! - What is loaded into a `Place` of this process alone goes with it.

mod objects;
pub(crate) mod place;
mod sizes;
pub(crate) mod stub;

pub use objects::Objects;
pub use sizes::Sizes;
pub(crate) use sizes::flows;

use crate::sys::{KernelError, Map, MapKind, Program, RealKernel, Table, bytes, get_pinned, pin, value};
use aya::EbpfLoader;
use aya::programs::ProgramError;
use loxi_ebpf_layout::code::program;
use loxi_ebpf_layout::meta::{MAGIC, Meta};
use place::Place;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Which programs are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// Those for TC.
    pub tc: bool,
    /// Those for XDP.
    pub xdp: bool,
}

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Programs.
    pub objects: Objects,
    /// Which of them.
    pub kinds: Kinds,
    /// Room for connections; of tables that are there already, theirs stays.
    pub sizes: Sizes,
    /// The seed of flow tables that are made; none: one that nobody can foresee.
    pub seed: Option<u64>,
    /// Folder of a bpf file system that keeps everything; none: it goes with this process.
    pub pins: Option<PathBuf>,
    /// Takes away what is kept there.
    pub discard: bool,
}

/// Why nothing could be loaded. What was there is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Tables of another layout.
    #[error(
        "{}: tables of layout {found}, this program knows {ours}; nothing was touched. Their state is lost if \
         they are discarded",
        folder.display()
    )]
    Layout {
        /// Where.
        folder: PathBuf,
        /// Their layout; 0: not ours at all.
        found: u64,
        /// Ours.
        ours: u64,
    },
    /// The folder is somebody else's.
    #[error("{} is not ours; nothing was touched", name.display())]
    Foreign {
        /// What is there.
        name: PathBuf,
    },
    /// A step failed.
    #[error("{what}: {source}")]
    Step {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// An object can't be loaded: the kernel's verifier says why.
    #[error("programs for {kind}: {source}")]
    Object {
        /// `tc` or `xdp`.
        kind: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tables are not as they must be.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

pub(crate) fn step(what: impl Into<String>) -> impl FnOnce(io::Error) -> LoadError {
    let what = what.into();
    move |source| LoadError::Step { what, source }
}

/// One kind's programs.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The array of one element through which every stub goes.
    pub(crate) entry: Map,
    /// What runs a frame that somebody asks about.
    pub(crate) ask: Program,
    /// The array of stages: it is emptied when nobody holds it.
    _stages: Map,
}

/// Everything that is loaded.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) place: Place,
    pub(crate) kernel: RealKernel,
    pub(crate) meta: Meta,
    pub(crate) tc: Option<Loaded>,
    pub(crate) xdp: Option<Loaded>,
    /// What a stub for XDP says.
    pub(crate) beside: Map,
    /// Devices for XDP.
    pub(crate) devices: Map,
    /// Events.
    pub(crate) drops: Map,
    /// Whether the tables were there before.
    pub(crate) adopted: bool,
}

/// Tables that the objects have and user space doesn't read as such.
const OTHERS: [&str; 5] = ["PACKETS", "WORK", "BESIDE", "DROPS", "DEVICES"];

/// Tables that all objects have in common, by the names under which they are kept.
pub(crate) fn shared_tables() -> impl Iterator<Item = &'static str> {
    let tables = Table::ALL.iter().map(|table| table.name()).filter(|name| ![META, NAMES].contains(name));
    tables.chain(OTHERS)
}

/// Whether something of this name may be a loader's of ours.
fn is_ours(name: &str) -> bool {
    let tables = Table::ALL.iter().map(|table| table.name());
    let kinds = ["entry", "stages", "stages-new", "ask"];
    tables.chain(OTHERS).any(|table| table == name)
        || kinds.iter().any(|what| [Kind::Tc, Kind::Xdp].iter().any(|kind| kind.kept(what) == name))
}

/// Loads, or takes over what is loaded.
pub(crate) fn open(options: &LoadOptions) -> Result<Installation, LoadError> {
    let place = match &options.pins {
        None => Place::detached().map_err(step("make a bpf file system"))?,
        Some(folder) => {
            Place::pinned(folder).map_err(step(format!("keep programs in {}", folder.display())))?
        }
    };
    if options.discard {
        place.clear().map_err(step("discard what was kept"))?;
    }
    let kept = kept(&place)?;
    let adopted = kept.is_some();
    let meta = match kept {
        Some(meta) => meta,
        None => {
            if let Some(name) = place.foreign(is_ours).map_err(step("look into the folder"))? {
                return Err(LoadError::Foreign { name });
            }
            // Without the last piece no hook leads here.
            place.clear().map_err(step("clear what a loader left"))?;
            Meta {
                magic: MAGIC,
                version: u64::from(loxi_ebpf_layout::VERSION),
                seed: match options.seed {
                    Some(seed) => seed,
                    None => random().map_err(step("choose a seed"))?,
                },
                buckets_v4: options.sizes.buckets_v4(),
                buckets_v6: options.sizes.buckets_v6(),
                ..Meta::default()
            }
        }
    };
    place.prepare().map_err(step("prepare the folder"))?;
    let digest = options.objects.digest();
    let same = meta.digest == digest;
    let wanted = |kind: Kind| match kind {
        Kind::Tc => options.kinds.tc,
        Kind::Xdp => options.kinds.xdp,
    };
    let load = |kind: Kind, object: &[u8]| {
        if !wanted(kind) {
            return Ok(None);
        }
        if same && let Some(loaded) = take_over(&place, kind)? {
            return Ok(Some(loaded));
        }
        kind.load(object, &place, &meta).map(Some)
    };
    let tc = load(Kind::Tc, &options.objects.tc)?;
    let xdp = load(Kind::Xdp, &options.objects.xdp)?;
    if !place.at(NAMES).exists() {
        let (key, width) = Table::Names.sizes();
        let map = Map::create(MapKind::Hash, key, width, MOST_NAMES, NAMES).map_err(step("make NAMES"))?;
        pin(map.fd(), &place.at(NAMES)).map_err(step("keep NAMES"))?;
    }
    finish(place, Meta { digest, ..meta }, adopted, tc, xdp)
}

/// The array through which every stub for TC goes that is kept; none: nothing is kept.
pub(crate) fn kept_entry(options: &LoadOptions) -> Result<Option<Map>, LoadError> {
    let Some(folder) = &options.pins else { return Ok(None) };
    let path = folder.join(Kind::Tc.kept("entry"));
    if !path.exists() {
        return Ok(None);
    }
    let fd = get_pinned(&path).map_err(step("find the entry"))?;
    Map::new(fd).map(Some).map_err(step("ask about the entry"))
}

/// Opens every table, writes the [`Meta`] last, and lets frames through the new programs.
fn finish(
    place: Place,
    meta: Meta,
    adopted: bool,
    tc: Option<Loaded>,
    xdp: Option<Loaded>,
) -> Result<Installation, LoadError> {
    let open = |name: &str| {
        let fd = get_pinned(&place.at(name)).map_err(step(format!("find {name}")))?;
        Map::new(fd).map_err(step(format!("ask about {name}")))
    };
    if !place.at(META).exists() {
        let (key, width) = Table::Meta.sizes();
        let map = Map::create(MapKind::Array, key, width, 1, META).map_err(step("make META"))?;
        map.put(bytes(&0u32), bytes(&meta), 0).map_err(step("write META"))?;
        pin(map.fd(), &place.at(META)).map_err(step("keep META"))?;
    }
    let mut maps = BTreeMap::new();
    for table in Table::ALL {
        maps.insert(*table, open(table.name())?);
    }
    let (beside, devices, drops) = (open("BESIDE")?, open("DEVICES")?, open("DROPS")?);
    let mut kernel = RealKernel::new(maps)?;
    let memory: &mut dyn crate::sys::Kernel = &mut kernel;
    memory.set(crate::sys::META, &0, &meta)?;
    Ok(Installation { place, kernel, meta, tc, xdp, beside, devices, drops, adopted })
}

const META: &str = "META";
const NAMES: &str = "NAMES";

/// Names of all kinds together.
const MOST_NAMES: u32 = 1 << 20;

/// What the tables that are kept here say of themselves; none: there are none.
fn kept(place: &Place) -> Result<Option<Meta>, LoadError> {
    let path = place.at(META);
    if !path.exists() {
        return Ok(None);
    }
    let fd = get_pinned(&path).map_err(step("find META"))?;
    let map = Map::new(fd).map_err(step("ask about META"))?;
    // The first two words are the same in every layout.
    let first = map.get(bytes(&0u32)).map_err(step("read META"))?.unwrap_or_default();
    let word = |at: usize| first.get(at..at + 8).and_then(value::<u64>).unwrap_or(0);
    let found = if word(0) == MAGIC { word(8) } else { 0 };
    let ours = u64::from(loxi_ebpf_layout::VERSION);
    let folder = path.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    match value::<Meta>(&first) {
        Some(meta) if found == ours => Ok(Some(meta)),
        _ => Err(LoadError::Layout { folder, found, ours }),
    }
}

/// 64 bits that nobody outside can foresee.
fn random() -> io::Result<u64> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(seed))
}

/// Kinds of hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tc,
    Xdp,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }

    /// The program that runs a frame that somebody asks about.
    fn ask(self) -> &'static str {
        match self {
            Self::Tc => "entry",
            Self::Xdp => "ask",
        }
    }

    /// Name under which one of its things is kept.
    fn kept(self, what: &str) -> String {
        format!("{what}-{}", self.name())
    }

    /// Loads its programs, then switches to them.
    fn load(self, object: &[u8], place: &Place, meta: &Meta) -> Result<Loaded, LoadError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| LoadError::Object {
            kind: self.name(),
            source,
        };
        // The stages of another build stay until the switch.
        let stages = place.at(&self.kept("stages-new"));
        remove(&stages).map_err(step("clear what a loader left"))?;
        let masks = [meta.buckets_v4 - 1, meta.buckets_v6 - 1];
        let mut loader = EbpfLoader::new();
        loader.override_global("MASK_V4", &masks[0], true);
        loader.override_global("MASK_V6", &masks[1], true);
        loader.override_global("SEED", &meta.seed, true);
        for (name, buckets) in [
            ("FLOWS_V4", meta.buckets_v4),
            ("COLD_V4", meta.buckets_v4),
            ("FLOWS_V6", meta.buckets_v6),
            ("COLD_V6", meta.buckets_v6),
        ] {
            loader.map_max_entries(name, buckets);
        }
        let flows = (meta.buckets_v4 * 8).saturating_add(meta.buckets_v6 * 4);
        loader.map_max_entries("SOURCES", flows);
        for name in shared_tables() {
            loader.map_pin_path(name, place.at(name));
        }
        loader.map_pin_path("PROGRAMS", &stages);
        let mut object = loader.load(object).map_err(|error| failed(Box::new(error)))?;
        let mut programs: BTreeMap<String, OwnedFd> = BTreeMap::new();
        for (name, program) in object.programs_mut() {
            let fd = load_program(program).map_err(|error| failed(format!("{name}: {error}").into()))?;
            programs.insert(name.to_owned(), fd);
        }
        let array = Map::new(get_pinned(&stages).map_err(step("find the stages"))?)
            .map_err(step("ask about the stages"))?;
        for (name, number) in STAGES {
            let fd = programs.get(*name).ok_or_else(|| failed(format!("no program {name}").into()))?;
            array.put(bytes(number), bytes(&(fd.as_raw_fd() as u32)), 0).map_err(step("fill the stages"))?;
        }
        let ask = programs.remove(self.ask()).ok_or_else(|| failed("no entry program".into()))?;
        let entry = self.entry(place)?;
        let first = match self {
            Self::Tc => ask.as_raw_fd(),
            Self::Xdp => programs.get("entry").ok_or_else(|| failed("no entry program".into()))?.as_raw_fd(),
        };
        let kept = place.at(&self.kept("ask"));
        remove(&kept).map_err(step("replace a kept program"))?;
        pin(ask.as_fd(), &kept).map_err(step("keep the program that is asked"))?;
        entry.put(bytes(&0u32), bytes(&(first as u32)), 0).map_err(step("switch to the programs"))?;
        // Frames that went through the stages of before have left them.
        crate::sys::wait_for_readers().map_err(step("wait for the programs of before"))?;
        std::fs::rename(&stages, place.at(&self.kept("stages"))).map_err(step("keep the stages"))?;
        Ok(Loaded { entry, ask: Program::new(ask), _stages: array })
    }

    /// The array of one element.
    fn entry(self, place: &Place) -> Result<Map, LoadError> {
        let path = place.at(&self.kept("entry"));
        if path.exists() {
            return Map::new(get_pinned(&path).map_err(step("find the entry"))?)
                .map_err(step("ask about the entry"));
        }
        let map = Map::create(MapKind::Programs, 4, 4, 1, "loxi_entry").map_err(step("make the entry"))?;
        pin(map.fd(), &path).map_err(step("keep the entry"))?;
        Ok(map)
    }
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn load_program(
    program: &mut aya::programs::Program,
) -> Result<OwnedFd, Box<dyn std::error::Error>> {
    use aya::programs::Program::{SchedClassifier, Xdp};
    let fd = match program {
        SchedClassifier(program) => {
            patiently(|| program.load())?;
            program.fd()?.as_fd().try_clone_to_owned()?
        }
        Xdp(program) => {
            patiently(|| program.load())?;
            program.fd()?.as_fd().try_clone_to_owned()?
        }
        _ => return Err("is of a kind that is not ours".into()),
    };
    Ok(fd)
}

/// How long a program that is interrupted again and again is loaded anew.
const PATIENCE: Duration = Duration::from_secs(30);

/// The verifier gives up when a signal comes, also one that stops the process for a while: it has
/// said nothing of the program then.
fn patiently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && Instant::now() < until => {}
            other => return other,
        }
    }
}

/// Programs of a kind that were loaded by a process before this one.
fn take_over(place: &Place, kind: Kind) -> Result<Option<Loaded>, LoadError> {
    let (ask, stages) = (place.at(&kind.kept("ask")), place.at(&kind.kept("stages")));
    if !ask.exists() || !stages.exists() {
        return Ok(None);
    }
    let entry = kind.entry(place)?;
    let ask = Program::new(get_pinned(&ask).map_err(step("find the program that is asked"))?);
    let stages = get_pinned(&stages).map_err(step("find the stages"))?;
    let stages = Map::new(stages).map_err(step("ask about the stages"))?;
    Ok(Some(Loaded { entry, ask, _stages: stages }))
}

/// Programs by their places.
const STAGES: &[(&str, u32)] = &[
    ("ingress", program::INGRESS),
    ("conntrack", program::CONNTRACK),
    ("service", program::SERVICE),
    ("egress_policy", program::EGRESS_POLICY),
    ("forward", program::FORWARD),
    ("snat", program::SNAT),
    ("ingress_policy", program::INGRESS_POLICY),
    ("commit", program::COMMIT),
    ("send", program::SEND),
    ("neighbor", program::NEIGHBOR),
    ("revalidate", program::REVALIDATE),
    ("related", program::RELATED),
    ("encapsulate", program::ENCAPSULATE),
    ("finish", program::FINISH),
    ("entry", program::ENTRY),
];

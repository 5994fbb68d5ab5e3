//! For benchmarks: programs that run what is installed, packet after packet.
//!
//! # Contract
//! - The bench works on the tables and programs that are kept in a folder, as any other process could. It
//!   changes what they count and remember, as packets do, and nothing of what is configured.
//! - One thread runs it at a time, on one processor: frames are made from one generator.

mod target;

pub use target::{Floor, Hook, Target};

use crate::load::{Objects, Sizes, shared_tables};
use crate::sys::{KernelError, Map, Program, bytes, get_pinned, program_of, value};
use aya::EbpfLoader;
use loxi_ebpf_layout::bench::{Frames, KeyV4, KeyV6, Value};
use loxi_ebpf_layout::flow::{hash_v4, hash_v6};
use loxi_ebpf_layout::l2::PortPair;
use loxi_ebpf_layout::meta::Meta;
use loxi_ebpf_layout::scratch::Globals;
use std::collections::BTreeMap;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// Why something can't be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The objects can't be read.
    #[error("compiled programs: {0}")]
    Objects(#[source] io::Error),
    /// The programs can't be loaded.
    #[error("the programs of the bench: {0}")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The wrapper could not make its frame, or the measured program did not get it.
    #[error("a frame of {len} bytes was never given to {target:?}")]
    NotRun {
        /// What was to be measured.
        target: Target,
        /// Length of the frame.
        len: usize,
    },
}

fn failed(call: &'static str, object: &str) -> impl FnOnce(io::Error) -> MeasureError {
    let object = object.to_owned();
    move |source| KernelError { call, object, source }.into()
}

/// What a test run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What the measured program returned.
    pub action: i32,
    /// The frame that the last packet left.
    pub frame: Vec<u8>,
    /// ns per packet, wrapper included.
    pub ns: u32,
}

/// The programs of the bench, beside those that are installed.
#[derive(Debug)]
pub struct Bench {
    programs: BTreeMap<String, Program>,
    maps: BTreeMap<&'static str, Map>,
    /// The arrays through which every stub goes.
    entries: BTreeMap<Hook, Map>,
    globals: Map,
    ports: Map,
    mask: u32,
}

/// Tables of the bench itself.
const OWN: [&str; 8] = [
    "FRAMES",
    "FLOOR_ARRAY",
    "FLOOR_HASH_V4",
    "FLOOR_HASH_V6",
    "FLOOR_LRU_V4",
    "FLOOR_LRU_V6",
    "MEASURED_TC",
    "MEASURED_XDP",
];

/// Room for what programs put in front of a frame.
const ROOM: usize = 256;

impl Bench {
    /// Loads the bench beside the programs that are kept in `pins`; its floors have room for `flows`.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn load(pins: &Path, flows: u32) -> Result<Self, MeasureError> {
        let object = Objects::bench().map_err(MeasureError::Objects)?;
        let open = |name: &str| {
            let fd = get_pinned(&pins.join(name)).map_err(failed("find", name))?;
            Map::new(fd).map_err(failed("ask about", name))
        };
        let meta: Meta = open("META")?
            .get(bytes(&0u32))
            .map_err(failed("read", "META"))?
            .and_then(|meta| value(&meta))
            .ok_or_else(|| failed("read", "META")(io::Error::other("it has another layout")))?;
        let sizes = Sizes { flows_v4: flows, flows_v6: flows };
        // As many places as the flow table of that size has.
        let places = (sizes.buckets_v4() * 16).max(16);
        let mask = places - 1;
        let masks = [meta.buckets_v4 - 1, meta.buckets_v6 - 1];
        let mut loader = EbpfLoader::new();
        loader.override_global("MASK_V4", &masks[0], true);
        loader.override_global("MASK_V6", &masks[1], true);
        loader.override_global("SEED", &meta.seed, true);
        loader.override_global("FLOOR_MASK", &mask, true);
        loader.map_max_entries("FLOOR_ARRAY", places);
        for name in ["FLOOR_HASH_V4", "FLOOR_HASH_V6", "FLOOR_LRU_V4", "FLOOR_LRU_V6"] {
            // Entries of both directions, as the flow table has them.
            loader.map_max_entries(name, flows.saturating_mul(2).max(16));
        }
        for name in shared_tables() {
            loader.map_pin_path(name, pins.join(name));
        }
        let load = |error: Box<dyn std::error::Error + Send + Sync>| MeasureError::Load(error);
        let mut loaded = loader.load(&object).map_err(|error| load(Box::new(error)))?;
        let mut programs = BTreeMap::new();
        for (name, program) in loaded.programs_mut() {
            let fd = crate::load::load_program(program)
                .map_err(|error| load(format!("{name}: {error}").into()))?;
            programs.insert(name.to_owned(), Program::new(fd));
        }
        let mut maps = BTreeMap::new();
        for name in OWN {
            let missing = || load(format!("no table {name}").into());
            let fd = map_fd(loaded.map(name).ok_or_else(missing)?).map_err(failed("find", name))?;
            maps.insert(name, Map::new(fd).map_err(failed("ask about", name))?);
        }
        let entries = Hook::ALL
            .into_iter()
            .map(|hook| Ok((hook, open(hook.entry())?)))
            .collect::<Result<_, MeasureError>>()?;
        Ok(Self { programs, maps, entries, globals: open("GLOBALS")?, ports: open("PORTS")?, mask })
    }

    fn map(&self, name: &'static str) -> Result<&Map, MeasureError> {
        self.maps.get(name).ok_or_else(|| failed("find", name)(io::Error::from(io::ErrorKind::NotFound)))
    }

    /// Makes the wrapper's next jump lead to a target.
    ///
    /// # Errors
    /// [`MeasureError::Kernel`].
    pub fn aim(&self, hook: Hook, target: Target) -> Result<(), MeasureError> {
        let array = self.map(hook.measured())?;
        let put =
            |fd: i32| array.put(bytes(&0u32), bytes(&(fd as u32)), 0).map_err(failed("aim", hook.measured()));
        let Some(name) = target.program(hook) else {
            let entry = self
                .entries
                .get(&hook)
                .ok_or_else(|| failed("find", hook.entry())(io::Error::from(io::ErrorKind::NotFound)))?;
            let id = entry
                .get(bytes(&0u32))
                .map_err(failed("read", hook.entry()))?
                .and_then(|id| value::<u32>(&id));
            let program = program_of(id.unwrap_or(0)).map_err(failed("find the program of", hook.entry()))?;
            return put(program.fd().as_raw_fd());
        };
        put(self.program(&name)?.fd().as_raw_fd())
    }

    fn program(&self, name: &str) -> Result<&Program, MeasureError> {
        self.programs.get(name).ok_or_else(|| MeasureError::Load(format!("no program {name}").into()))
    }

    /// Says which frames are made.
    ///
    /// # Errors
    /// [`MeasureError::Kernel`].
    pub fn set_frames(&self, frames: &Frames) -> Result<(), MeasureError> {
        self.map("FRAMES")?.put(bytes(&0u32), bytes(frames), 0).map_err(failed("write", "FRAMES"))
    }

    /// Which frames are made; the generator's state has moved on by one with each.
    ///
    /// # Errors
    /// [`MeasureError::Kernel`].
    pub fn frames(&self) -> Result<Frames, MeasureError> {
        let read = self.map("FRAMES")?.get(bytes(&0u32)).map_err(failed("read", "FRAMES"))?;
        read.and_then(|frames| value(&frames))
            .ok_or_else(|| failed("read", "FRAMES")(io::Error::other("it has another layout")))
    }

    /// Runs `repeat` packets, beginning with `frame`, which gives them their length.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn run(&self, hook: Hook, frame: &[u8], repeat: u32) -> Result<Run, MeasureError> {
        let program = self.program(&format!("{}_run", hook.name()))?;
        let (action, frame, ns) =
            program.test(frame, &[], frame.len() + ROOM, repeat).map_err(failed("run", hook.name()))?;
        Ok(Run { action, frame, ns })
    }

    /// Lets `repeat` frames come in at a device of the calling thread's namespace. ns per frame, with all that the kernel
    /// does with it.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn run_live(&self, device: u32, frame: &[u8], repeat: u32) -> Result<u32, MeasureError> {
        self.aim(Hook::Xdp, Target::Empty)?;
        self.program("xdp_run")?.test_live(frame, device, repeat).map_err(failed("run", "live frames"))
    }

    /// Puts the record of a key where a floor finds it. `v6` says which part of the key counts.
    ///
    /// # Errors
    /// [`MeasureError::Kernel`].
    pub fn fill(&self, floor: Floor, v6: bool, key: &KeyV6, record: &Value) -> Result<(), MeasureError> {
        let KeyV6 { addrs: [src, dst], rest } = *key;
        let short = KeyV4 { addrs: [src.0[0], dst.0[0]], rest };
        let hash = if v6 {
            let wide = |addr: loxi_ebpf_layout::Addr| {
                let [a, b, c, d] = addr.0.map(u64::from);
                [a | b << 32, c | d << 32]
            };
            hash_v6(0, wide(src), wide(dst), rest)
        } else {
            hash_v4(0, short.addrs, rest)
        };
        let index = hash as u32 & self.mask;
        let Some(name) = floor.table(v6) else { return Ok(()) };
        let key = match (floor, v6) {
            (Floor::Array, _) => bytes(&index),
            (_, true) => bytes(key),
            (_, false) => bytes(&short),
        };
        self.map(name)?.put(key, bytes(record), 0).map_err(failed("fill", name))
    }

    /// The zone of what enters by a port.
    ///
    /// # Errors
    /// [`MeasureError::Kernel`].
    pub fn zone_of(&self, port: u32) -> Result<u8, MeasureError> {
        let read = self.ports.get(bytes(&port)).map_err(failed("read", "PORTS"))?;
        read.and_then(|pair| value::<PortPair>(&pair))
            .map(|pair| pair.pair.current().zone)
            .ok_or_else(|| failed("read", "PORTS")(io::Error::other("it has another layout")))
    }

    /// What every packet reads.
    ///
    /// # Errors
    /// [`MeasureError::Kernel`].
    pub fn globals(&self) -> Result<Globals, MeasureError> {
        let read = self.globals.get(bytes(&0u32)).map_err(failed("read", "GLOBALS"))?;
        read.and_then(|globals| value(&globals))
            .ok_or_else(|| failed("read", "GLOBALS")(io::Error::other("it has another layout")))
    }

    /// Moves the clock that programs read, and nothing else of what every packet reads.
    ///
    /// # Errors
    /// [`MeasureError::Kernel`].
    pub fn set_clock_offset(&self, ns: u64) -> Result<(), MeasureError> {
        let globals = Globals { clock_offset: ns, ..self.globals()? };
        self.globals.put(bytes(&0u32), bytes(&globals), 0).map_err(failed("write", "GLOBALS"))
    }

    /// Instructions of what a target runs first, translated and as machine code: bytes of each.
    ///
    /// # Errors
    /// [`MeasureError::Kernel`].
    pub fn size_of(&self, hook: Hook, target: Target) -> Result<(u32, u32), MeasureError> {
        let size = |program: &Program| program.sizes().map_err(failed("ask about", hook.name()));
        match target.program(hook) {
            Some(name) => size(self.program(&name)?),
            None => {
                let id = self.entries[&hook].get(bytes(&0u32)).map_err(failed("read", hook.entry()))?;
                let id = id.and_then(|id| value::<u32>(&id)).unwrap_or(0);
                size(&program_of(id).map_err(failed("find the program of", hook.entry()))?)
            }
        }
    }
}

fn map_fd(map: &aya::maps::Map) -> io::Result<std::os::fd::OwnedFd> {
    use aya::maps::Map::{Array, HashMap, LruHashMap, ProgramArray};
    match map {
        Array(data) | HashMap(data) | LruHashMap(data) | ProgramArray(data) => {
            data.fd().as_fd().try_clone_to_owned()
        }
        _ => Err(io::Error::other("it is of a kind that is not ours")),
    }
}

const _: () = assert!(size_of::<Frames>().is_multiple_of(8));

//! Opening: programs, tables, and what stands in them.

use super::{Devices, Ebpf, Inner, Mode, Options, events};
use crate::hook::{self, DeviceError, Hooks, Namespaces};
use crate::install::Installer;
use crate::load::{self, Installation, LoadError, LoadOptions, Objects, Sizes, flows};
use crate::plan::PlanIndex;
use crate::run::{Asker, Hook};
use crate::state::{self, Gone, Pace, Sweeper};
use crate::sys::{Kernel, KernelError};
use loxi_core::ir::Pipeline;
use loxi_ebpf_layout::scratch::Globals;
use loxi_linux::netns::NetNsError;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;
use std::sync::Arc;

/// Why the backend can't be opened. What was there is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The objects can't be read.
    #[error("compiled programs: {0}")]
    Objects(#[source] std::io::Error),
    /// They can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tables can't be read.
    #[error(transparent)]
    Tables(#[from] KernelError),
    /// A namespace can't be opened.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// What is bound to devices can't be found, or let go.
    #[error("what is bound to devices: {0}")]
    Bound(#[source] std::io::Error),
    /// The slow path's device can't be used.
    #[error("the slow path's device: {0}")]
    SlowPath(#[from] DeviceError),
}

impl Ebpf {
    /// Loads programs and tables, or takes over those that are kept.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let load_options = LoadOptions {
            objects: Objects::new().map_err(OpenError::Objects)?,
            kinds: options.mode.kinds(),
            sizes: options.sizes,
            seed: None,
            pins: options.pins.clone(),
            discard: options.discard_state,
        };
        let namespaces = match options.devices {
            Devices::Here => Some(Namespaces::current()?),
            Devices::In(namespaces) => Some(namespaces),
            Devices::None => None,
        };
        if options.discard_state {
            let_go(&load_options, namespaces.as_ref())?;
        }
        let installation = load::open(&load_options)?;
        let adopted = installation.adopted;
        let memory = installation.kernel.footprint();
        tracing::info!(
            mode = %options.mode,
            adopted,
            reserved_bytes = memory.reserved,
            most_bytes = memory.most,
            "programs are loaded"
        );
        let hooks = Hooks::new(options.filters_at_tc);
        let mut inner = Inner::new(
            installation,
            namespaces,
            hooks,
            options.mode,
            options.slow_path,
            options.slow_path_device,
        )?;
        if adopted {
            let mut store = inner.installer.store(inner.seed, &mut inner.pace);
            let found = state::recover(&mut store)?;
            tracing::info!(?found, "took over what was learned");
        }
        if let (true, Some(namespaces), Some(programs)) =
            (inner.place.outlives(), &inner.namespaces, &inner.tc)
        {
            inner.hooks.find_filters(namespaces, &programs.entry).map_err(OpenError::Bound)?;
        }
        inner.bind_slow_path()?;
        Ok(Self { inner: RefCell::new(inner) })
    }
}

/// Lets the devices go that are bound otherwise than by what the folder keeps: what is bound by that goes with it.
fn let_go(options: &LoadOptions, namespaces: Option<&Namespaces>) -> Result<(), OpenError> {
    let Some(entry) = load::kept_entry(options)? else { return Ok(()) };
    let here;
    let namespaces = match namespaces {
        Some(namespaces) => namespaces,
        None => {
            here = Namespaces::current()?;
            &here
        }
    };
    hook::let_go(namespaces, &entry).map_err(OpenError::Bound)
}

impl Inner {
    pub(super) fn new(
        installation: Installation,
        namespaces: Option<Namespaces>,
        hooks: Hooks,
        mode: Mode,
        slow_path: Option<Box<dyn loxi_core::dataplane::SlowPath>>,
        slow_path_device: Option<String>,
    ) -> Result<Self, OpenError> {
        let Installation { place, kernel, meta, tc, xdp, beside, devices, drops, .. } = installation;
        let asker = match (&tc, &xdp) {
            (_, Some(xdp)) if mode == Mode::Xdp => {
                Asker::new(xdp.ask.try_clone().map_err(ask_error)?, Hook::Xdp)
            }
            (Some(tc), _) => Asker::new(tc.ask.try_clone().map_err(ask_error)?, Hook::Tc),
            (None, Some(xdp)) => Asker::new(xdp.ask.try_clone().map_err(ask_error)?, Hook::Xdp),
            (None, None) => return Err(ask_error(std::io::Error::other("no programs")).into()),
        };
        let sizes = Sizes {
            flows_v4: flows(meta.buckets_v4, loxi_ebpf_layout::flow::PLACES_V4),
            flows_v6: flows(meta.buckets_v6, loxi_ebpf_layout::flow::PLACES_V6),
        };
        let (installer, plan) = Installer::new(Box::new(kernel))?;
        let attached_names = installer.attached.keys().cloned().collect();
        let mut inner = Self {
            installer,
            index: PlanIndex::from_plan(plan),
            astray: false,
            pipeline: Arc::new(Pipeline::default()),
            attached_names,
            mode,
            sizes,
            seed: meta.seed,
            place,
            hooks,
            namespaces,
            slow_path_device,
            tc,
            xdp,
            beside,
            devices,
            asker,
            slow_path,
            slow_counters: BTreeMap::new(),
            finished: BTreeMap::new(),
            events: events::Events::open(drops),
            pace: Pace::default(),
            sweeper: Sweeper::new(),
            swept: loxi_core::packet::Timestamp(0),
            full_zones: BTreeSet::new(),
            gone: Gone::default(),
            closing: BTreeSet::new(),
            rehearsal: None,
            rehearses: false,
        };
        // Without devices, or before the first port of a new instance, nothing runs by itself.
        let quiet = inner.namespaces.is_none() && !inner.place.outlives();
        inner.installer.w.kernel.set_quiet(quiet);
        let kernel: &dyn Kernel = &*inner.installer.w.kernel;
        super::ports::set(kernel, offset_of!(Globals, clock_offset), clock_offset());
        super::ports::set(kernel, offset_of!(Globals, xdp_only), u64::from(mode == Mode::Xdp));
        Ok(inner)
    }
}

fn ask_error(source: std::io::Error) -> KernelError {
    KernelError { call: "ask", object: "the programs".to_owned(), source }
}

/// CLOCK_BOOTTIME less the coarse CLOCK_MONOTONIC that the programs read, ns: how long the machine
/// was suspended.
pub(super) fn clock_offset() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let ns = |id: ClockId| {
        let at = clock_gettime(id);
        (at.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(at.tv_nsec as u64)
    };
    ns(ClockId::Boottime).saturating_sub(ns(ClockId::Monotonic))
}

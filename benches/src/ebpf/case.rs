//! A path at a number of flows, and its figure.

use super::measure::{Effort, repeated, single};
use super::node::Ready;
use super::path::{Path, Resized};
use anyhow::Result;
use loxi_backend_ebpf::measure::{Hook, Target};

/// A path at a number of flows of a family.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The path.
    pub path: &'static Path,
    /// IPv6.
    pub v6: bool,
    /// Flows, a power of two.
    pub flows: u32,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.path.name, if self.v6 { "v6" } else { "v4" }, self.flows)
    }
}

/// What a case came to at a hook.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// The case.
    pub case: Case,
    /// The hook.
    pub hook: Hook,
    /// Net ns per packet.
    pub ns: f64,
    /// ns per packet of the empty program in its wrapper.
    pub empty: f64,
    /// Whether each packet was a run of its own.
    pub single: bool,
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { case, hook, ns, empty, single } = self;
        let how = if *single { ", one by one" } else { "" };
        write!(f, "{:<40} {:>7.0} net ns  (empty {empty:.0}{how})", format!("{}/{case}", hook.name()), ns)
    }
}

/// Measures a case.
pub(super) fn measure(ready: &Ready<'_>, hook: Hook, effort: &Effort) -> Result<Figure> {
    let case = ready.case;
    // What the kernel has marked as encapsulated at TC it encapsulates no second time.
    let is_single = hook == Hook::Tc && case.path.resized == Resized::Longer;
    let take = if is_single { single } else { repeated };
    let net = take(ready, hook, Target::Installed, effort)?;
    Ok(Figure { case, hook, ns: net.ns, empty: net.empty, single: is_single })
}

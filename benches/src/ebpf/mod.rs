//! The eBPF backend, as it is installed: net ns per packet of every path.
//!
//! The programs are loaded and bound to veths as on a node. A test run of the
//! kernel repeats a wrapper that makes the next flow's frame and jumps to the entry
//! program, as a port's stub does; the same wrapper around an empty program is
//! subtracted, pair by pair, and the median of the pairs is the figure. Every case
//! is held to the reference's verdict before and after: bytes, egress port, counters.

mod case;
mod floors;
mod frames;
mod live;
mod measure;
mod node;
mod path;
mod peer;
mod world;

pub use case::{Case, Figure};
pub use floors::FloorFigure;
pub use live::{LiveFigure, live};
pub use measure::Effort;
pub use path::{Path, paths};
pub use world::World;

use anyhow::{Context as _, Result};
use loxi_backend_ebpf::measure::{Hook, Target};
use loxi_backend_ebpf::{Mode, Sizes};
use node::{Node, Ready};

/// Everything that is measured of the programs.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Paths.
    pub paths: Vec<Figure>,
    /// Floors.
    pub floors: Vec<FloorFigure>,
    /// Live frames.
    pub live: Vec<LiveFigure>,
    /// Bytes of the entry programs: instructions, and machine code.
    pub sizes: Vec<(Hook, u32, u32)>,
}

/// Measures every path at these numbers of flows. `tell` gets each figure as it comes.
///
/// # Errors
/// If something can't be set up, or a packet goes astray.
pub fn run(effort: &Effort, only: Option<&str>, tell: &mut dyn FnMut(&str)) -> Result<Figures> {
    let world = World::new()?;
    let mut figures = Figures::default();
    let wanted = |what: &str| only.is_none_or(|only| what.contains(only));
    let default = Sizes::default();
    let (few, many): (Vec<u32>, Vec<u32>) =
        effort.flows.iter().partition(|flows| **flows <= default.flows_v4);
    for numbers in [few, many].into_iter().filter(|numbers| !numbers.is_empty()) {
        let most = numbers.iter().copied().fold(default.flows_v4, u32::max);
        // A bucket of IPv6 has few places: with twice the room each flow finds one.
        let sizes = Sizes { flows_v4: most, flows_v6: 2 * most };
        let node = Node::new(&world, sizes, Mode::Xdp, &Hook::ALL)?;
        for path in paths() {
            let floors = path.floors && wanted("floor");
            if !wanted(path.name) && !floors {
                continue;
            }
            for (v6, &flows) in effort.families.iter().flat_map(|v6| numbers.iter().map(move |n| (*v6, n))) {
                if flows == 1 || path.flows {
                    let case = Case { path, v6, flows };
                    measured(&node, case, effort, (wanted(path.name), floors), &mut figures, tell)
                        .with_context(|| case.to_string())?;
                }
            }
        }
    }
    Ok(figures)
}

fn measured(
    node: &Node<'_>,
    case: Case,
    effort: &Effort,
    (itself, floors): (bool, bool),
    figures: &mut Figures,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    let ready = Ready::new(node, case)?;
    if figures.sizes.is_empty() {
        for hook in Hook::ALL {
            let (instructions, code) = ready.bench.size_of(hook, Target::Installed)?;
            figures.sizes.push((hook, instructions, code));
        }
    }
    for hook in Hook::ALL.into_iter().filter(|hook| case.path.hooks.contains(hook)) {
        if itself {
            // What was measured before may have taken so long that every decision is to be looked at again.
            ready.warm()?;
            let figure = case::measure(&ready, hook, effort).with_context(|| hook.name())?;
            tell(&figure.to_string());
            figures.paths.push(figure);
        }
        if floors {
            for figure in floors::floors(&ready, hook, effort).with_context(|| hook.name())? {
                tell(&figure.to_string());
                figures.floors.push(figure);
            }
        }
    }
    ready.check().context("afterwards")
}

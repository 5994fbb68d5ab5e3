//! Live frames: they come in at a veth, and leave by another one; the kernel's own forwarding and ours.
//!
//! The kernel's test run for XDP can give frames to the stack as if a driver had received them, each made by
//! the same wrapper as in the other figures. What is subtracted is the same at a device whose ingress
//! drops everything: making the socket buffer and taking it to the first hook. What leaves crosses a veth and
//! is dropped at the other end's ingress; so of both, sending is a part.

use super::case::Case;
use super::frames::frames;
use super::measure::{Effort, median};
use super::node::{Node, Ready};
use super::path::paths;
use super::peer::{PEERS, Peer};
use super::world::{NULL, World};
use anyhow::{Context as _, Result, ensure};
use loxi_backend_ebpf::measure::{Bench, Hook};
use loxi_backend_ebpf::{Mode, Sizes};
use loxi_conformance::build;
use loxi_ebpf_layout::bench::Frames;
use loxi_linux::netns::NetNs;
use loxi_linux::rtnetlink::Rtnl;

/// What a way came to, by the kernel's own forwarding or by the programs at TC.
#[derive(Debug, Clone, Copy)]
pub struct LiveFigure {
    /// The way.
    pub name: &'static str,
    /// `linux` or `ebpf`.
    pub by: &'static str,
    /// IPv6.
    pub v6: bool,
    /// Flows.
    pub flows: u32,
    /// ns per frame over one that is dropped at ingress.
    pub ns: f64,
}

impl std::fmt::Display for LiveFigure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.v6 { "v6" } else { "v4" };
        let name = format!("live/{}/{}/{family}/{}", self.by, self.name, self.flows);
        write!(f, "{name:<40} {:>7.0} net ns", self.ns)
    }
}

/// Frames of a run.
const FRAMES: u32 = 1 << 16;

/// Measures every peer, each followed by the programs on the same way.
///
/// # Errors
/// If something can't be set up, or a frame goes astray.
pub fn live(effort: &Effort, only: Option<&str>, tell: &mut dyn FnMut(&str)) -> Result<Vec<LiveFigure>> {
    let world = World::new()?;
    let node = Node::new(&world, Sizes { flows_v6: 131_072, ..Sizes::default() }, Mode::Both, &[Hook::Tc])?;
    let mut figures = Vec::new();
    for peer in &PEERS {
        if only.is_some_and(|only| !peer.name.contains(only) && only != "live") {
            continue;
        }
        for &v6 in &effort.families {
            for flows in effort.flows.iter().copied().filter(|flows| [1, 1 << 16].contains(flows)) {
                let (linux, ebpf) = both(&world, &node, peer, v6, flows, effort).with_context(|| {
                    format!("{} for IPv{}, {flows} flows", peer.name, if v6 { 6 } else { 4 })
                })?;
                for (by, ns) in [("linux", linux), ("ebpf", ebpf)] {
                    let figure = LiveFigure { name: peer.name, by, v6, flows, ns };
                    tell(&figure.to_string());
                    figures.push(figure);
                }
            }
        }
    }
    Ok(figures)
}

/// Net ns per frame of the kernel's own and of ours, taken in turns.
fn both(
    world: &World,
    node: &Node<'_>,
    peer: &Peer,
    v6: bool,
    flows: u32,
    effort: &Effort,
) -> Result<(f64, f64)> {
    let path = paths().iter().find(|path| path.name == peer.path).context("no such path")?;
    let ready = Ready::new(node, Case { path, v6, flows })?;
    let ours = ready.bench.frames()?;
    let ours = Frames { resize: 0, ..ours };
    let (near, _far) = world.beside(peer.devices())?;
    near.run(|| peer.set_up())??;
    let frame = build(&peer.frame(v6)).map_err(|error| anyhow::anyhow!("{error}"))?;
    let theirs = frames(&frame, v6, peer.is_tunnelled(), flows)?;

    let here = NetNs::current()?;
    let at = |ns: &NetNs, device: &'static str| {
        ns.run(|| Ok::<_, anyhow::Error>(Rtnl::open()?.link_index(device)?))
    };
    let (null, ingress, peers_ingress) =
        (at(&here, NULL)??, at(&here, path.ingress)??, at(&near, peer.ingress())??);
    let bench: &Bench = &ready.bench;
    let run = |ns: &NetNs, device: u32, frames: &Frames, frame: &[u8]| -> Result<f64> {
        bench.set_frames(&Frames { state: bench.frames()?.state, ..*frames })?;
        Ok(ns.run(|| bench.run_live(device, frame, FRAMES))??.into())
    };
    let sent = |ns: &NetNs, device: &'static str| -> Result<u64> {
        ns.run(|| {
            let link = Rtnl::open()?.link(device)?.context("the device has gone")?;
            Ok::<_, anyhow::Error>(link.stats.tx_packets)
        })?
    };
    let (mut linux, mut ebpf) = (Vec::new(), Vec::new());
    // The first round makes what there is to be made: conntrack entries, caches.
    for round in 0..=effort.pairs {
        let before = sent(&near, peer.egress())?;
        let theirs_ns = run(&near, peers_ingress, &theirs, &frame)?;
        let left = sent(&near, peer.egress())? - before;
        let empty = run(&here, null, &theirs, &frame)?;
        let before = ready.forwarded();
        let ours_ns = run(&here, ingress, &ours, &ready.frame)?;
        let after = ready.forwarded();
        let ours_empty = run(&here, null, &ours, &ready.frame)?;
        // A device of the kernel's sends a few of its own; and of a batch that opens a connection conntrack
        // confirms one packet only.
        let few = u64::from(FRAMES / 100);
        ensure!(
            round == 0 || (u64::from(FRAMES)..u64::from(FRAMES) + few).contains(&left),
            "of {FRAMES} frames {left} left by the kernel's own way"
        );
        let forwarded = after.0 - before.0;
        ensure!(
            forwarded == u64::from(FRAMES),
            "of {FRAMES} frames {forwarded} were forwarded by the programs"
        );
        if round > 0 {
            linux.push(theirs_ns - empty);
            ebpf.push(ours_ns - ours_empty);
        }
    }
    Ok((median(&mut linux), median(&mut ebpf)))
}

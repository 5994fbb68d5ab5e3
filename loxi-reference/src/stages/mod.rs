//! The stages, one file each, in the order in which a packet meets them, and
//! the run that leads one packet through.
//!
//! A stage ends a packet by returning its [`Fate`] as an error; whatever it
//! returns otherwise lets the packet go on.

mod arp_nd;
mod bridge;
mod egress;
mod ingress;
mod l3;
mod lookup;
mod s00_parse;
mod s01_port;
mod s03_anti_spoof;
mod s04_tunnel;
mod s05_fragment;
mod s06_conntrack;
mod s06_related;
mod s06_states;
mod s07_backend;
mod s07_service;
mod s08_dnat;
mod s09_s13_policy;
mod s10_forward;
mod s11_ttl_mtu;
mod s12_snat;
mod s14_commit;
mod s16_send;

use crate::frame::{Ip, View};
use crate::world::IcmpTokens;
use ingress::Packet;
use loxi_core::dataplane::StateStore;
use loxi_core::ir::{EntityKey, Origin, Pipeline};
use loxi_core::net::PortName;
use loxi_core::packet::{
    Choice, ChoicePoint, ChoiceSource, Fate, Output, PortCounters, Stage, Timestamp, Trace, TraceEntry,
    TraceStep, Unsent, Verdict,
};
use loxi_core::reason::DropReason;
use std::collections::{BTreeMap, BTreeSet};

/// What a stage returns.
type Step<T = ()> = Result<T, Fate>;

/// Ends the packet by a drop.
fn drop<T>(reason: DropReason) -> Step<T> {
    Err(Fate::Dropped(reason))
}

/// What a packet meets besides its own bytes. Whose it is makes no difference.
pub(crate) struct Surroundings<'a> {
    pub(crate) config: &'a Pipeline,
    pub(crate) attached: &'a BTreeSet<PortName>,
    pub(crate) state: &'a mut dyn StateStore,
    pub(crate) counters: &'a mut BTreeMap<PortName, PortCounters>,
    pub(crate) tokens: &'a mut IcmpTokens,
    pub(crate) now: Timestamp,
    /// Whether transport checksums are verified.
    pub(crate) verify_l4: bool,
}

/// One packet on its way.
pub(crate) struct Run<'a> {
    config: &'a Pipeline,
    attached: &'a BTreeSet<PortName>,
    state: &'a mut dyn StateStore,
    counters: &'a mut BTreeMap<PortName, PortCounters>,
    tokens: &'a mut IcmpTokens,
    now: Timestamp,
    verify_l4: bool,
    choices: &'a mut dyn ChoiceSource,
    made: Vec<Choice>,
    trace: Option<Trace>,
    outputs: Vec<Output>,
    unsent: Vec<Unsent>,
    /// Tunnel ports by which the packet came in.
    tunnels: Vec<PortName>,
}

/// What became of a packet.
pub(crate) struct Ran {
    pub(crate) verdict: Verdict,
    pub(crate) choices: Vec<Choice>,
    pub(crate) trace: Trace,
}

/// Notes a step where a trace is wanted; the arguments are evaluated only then.
macro_rules! step {
    ($run:expr, $stage:ident, $entry:expr, ($($key:tt)+), ($($effect:tt)+)) => {
        if $run.trace.is_some() {
            let entry = $entry;
            $run.note(loxi_core::packet::Stage::$stage, format!($($key)+), entry, format!($($effect)+));
        }
    };
}
use step;

/// The entry that decided a step: an entity.
fn entity(key: EntityKey, origin: &Origin) -> Option<TraceEntry> {
    Some(TraceEntry { entity: Some(key), origin: origin.clone(), text: String::new() })
}

/// The entry that decided a step: learned state, or a built-in rule.
fn learned(text: impl Into<String>) -> Option<TraceEntry> {
    Some(TraceEntry { entity: None, origin: Origin::default(), text: text.into() })
}

impl<'a> Run<'a> {
    pub(crate) fn new(around: Surroundings<'a>, choices: &'a mut dyn ChoiceSource, with_trace: bool) -> Self {
        Self {
            config: around.config,
            attached: around.attached,
            state: around.state,
            counters: around.counters,
            tokens: around.tokens,
            now: around.now,
            verify_l4: around.verify_l4,
            choices,
            made: Vec::new(),
            trace: with_trace.then(Trace::default),
            outputs: Vec::new(),
            unsent: Vec::new(),
            tunnels: Vec::new(),
        }
    }

    /// Leads a frame that came in at a port through every stage, and counts it.
    pub(crate) fn run(mut self, port: &PortName, frame: &[u8]) -> Ran {
        let fate = match self.packet(port, frame) {
            Ok(()) => Fate::Forwarded,
            Err(fate) => fate,
        };
        step!(self, Send, None, ("{} output(s)", self.outputs.len()), ("{fate}"));
        self.outputs.sort_by(|a, b| a.port.cmp(&b.port));
        self.count(port, frame.len(), fate);
        let verdict = Verdict { fate, outputs: self.outputs, unsent: self.unsent };
        Ran { verdict, choices: self.made, trace: self.trace.unwrap_or_default() }
    }

    fn packet(&mut self, port: &PortName, frame: &[u8]) -> Step {
        let packet = self.enter(port, frame, None)?;
        self.stages(packet)
    }

    /// Stages 3 to 16.
    fn stages(&mut self, mut packet: Packet) -> Step {
        self.s03_anti_spoof(&packet)?;
        if let Some((port, inner, outer)) = self.s04_tunnel(&packet)? {
            let inner = self.enter(&port, &inner, Some(outer))?;
            return self.stages(inner);
        }
        let result = self.tracked_stages(&mut packet);
        self.s05_remember_first(&packet, result);
        result
    }

    fn tracked_stages(&mut self, packet: &mut Packet) -> Step {
        if packet.ip().is_some() {
            self.s05_fragment(packet)?;
            self.s06_conntrack(packet)?;
            self.s07_service(packet)?;
            self.s08_dnat(packet)?;
            self.s09_egress_policy(packet)?;
        }
        let way = self.s10_forward(packet)?;
        let pieces = self.s11_ttl_mtu(packet, &way)?;
        self.s12_snat(packet, &way)?;
        self.s13_ingress_policy(packet, &way)?;
        self.s14_commit(packet, &way)?;
        self.s16_send(packet, way, pieces)
    }

    fn note(&mut self, stage: Stage, key: String, entry: Option<TraceEntry>, effect: String) {
        if let Some(trace) = &mut self.trace {
            trace.steps.push(TraceStep { stage, key, entry, effect });
        }
    }

    /// Has a choice made and remembers it.
    fn choose(&mut self, point: ChoicePoint) -> u64 {
        let wanted = self.choices.choose(&point);
        let value = if point.admits(wanted) { wanted } else { point.default_value() };
        self.made.push(Choice { point, value });
        value
    }

    fn counters_of(&mut self, port: &PortName) -> &mut PortCounters {
        self.counters.entry(port.clone()).or_default()
    }

    /// Counts the packet once by its fate, at its port and at the tunnel port of an inner packet.
    fn count(&mut self, port: &PortName, bytes: usize, fate: Fate) {
        let tunnels = std::mem::take(&mut self.tunnels);
        if self.config.get::<loxi_core::ir::Port>(port).is_some() {
            for port in std::iter::once(port).chain(&tunnels) {
                let counters = self.counters_of(port);
                counters.rx_packets += 1;
                counters.rx_bytes += bytes as u64;
                match fate {
                    Fate::Forwarded => counters.forwarded += 1,
                    Fate::Consumed(reason) => *counters.consumed.entry(reason).or_default() += 1,
                    Fate::Punted(reason) => *counters.punted.entry(reason).or_default() += 1,
                    Fate::Dropped(reason) => *counters.dropped.entry(reason).or_default() += 1,
                }
            }
        }
        for unsent in &self.unsent {
            let counters = self.counters.entry(unsent.port.clone()).or_default();
            *counters.unsent.entry(unsent.reason).or_default() += 1;
        }
    }
}

/// The IP header of a packet that stages 5 to 9 have let in.
fn ip_of(view: &View) -> Step<&Ip> {
    // These stages run for IP packets only; anything else can't get here.
    view.ip().ok_or(Fate::Dropped(DropReason::UnsupportedL3))
}

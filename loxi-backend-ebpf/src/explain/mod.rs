//! Why a packet goes where it goes, read from the tables.
//!
//! A second reading of what the programs do: a walk over the same tables, entry by entry, that
//! tells what it finds. Nothing is taken from the plan or the pipeline, so that an entry which
//! differs from them shows; nothing runs in the kernel, and nothing is written: no counter, no flow,
//! no frame.
//!
//! # Contract
//! - The answer is that for a packet by itself, now, as the programs give it to whoever asks: choices
//!   are those that need no randomness, and somebody attends.
//! - It never panics, whatever stands in the tables: a number that leads nowhere is a step that says
//!   so, and the fate is the one that the programs would give.
//! - Entries that change during the walk may be told of as they were or as they are.

mod commit;
mod conntrack;
mod ending;
mod fast;
mod flows;
mod forward;
mod frame;
mod guard;
mod hash;
mod ingress;
mod neighbor;
mod parse;
mod pick;
mod policy;
mod related;
mod resolve;
mod send;
mod service;
mod snat;
mod tables;
#[cfg(test)]
mod tests;
mod words;

use crate::install::Names;
use crate::plan::Digest;
use crate::run::fate_of;
use crate::sys::{GLOBALS, Kernel, KernelError, PORTS};
use loxi_core::ir::PolicyDirection;
use loxi_core::net::PortName;
use loxi_core::packet::{Fate, Output, Stage, Timestamp, Trace, TraceEntry, TraceStep};
use loxi_ebpf_layout::code::{self, program};
use loxi_ebpf_layout::l2::{Port, port};
use loxi_ebpf_layout::limits::CHOICES;
use loxi_ebpf_layout::scratch::{Packet, Question, flag, l4};
use loxi_ebpf_layout::{Addr, family};
use tables::Tables;

/// Nothing, or what ends the packet.
type Step<T = ()> = Result<T, code::Fate>;

/// No tag.
const UNTAGGED: u16 = 0xffff;

/// Seconds in ns.
const SECOND: u64 = 1_000_000_000;

/// Programs that lead a packet from one to the next, before the kernel refuses.
const MOST_PROGRAMS: u32 = 33;

/// What a walk reads.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    /// The tables.
    pub(crate) kernel: &'a dyn Kernel,
    /// The names of the numbers in them.
    pub(crate) names: &'a Names,
    /// Seed of the flow tables' hash.
    pub(crate) seed: u64,
    /// Whether a flow would come into being: whoever only tries a packet meets no limit of flows.
    pub(crate) commits: bool,
}

/// What a packet comes to, and by which entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Step by step.
    pub trace: Trace,
    /// What the programs make of it. A punt may be one that the slow path finishes: see
    /// [`Explained::is_unfinished`].
    pub fate: Fate,
    /// What leaves.
    pub outputs: Vec<Output>,
    /// Stages that the programs count it at, by number, a bit each.
    pub stages: u32,
    /// Steps at which a group of rules judged it.
    pub(crate) policies: Vec<Judgement>,
}

/// What a group of rules said of a packet. Tables have rules by number, not by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Which step tells of it.
    pub(crate) step: usize,
    /// Whose rules.
    pub(crate) port: PortName,
    /// For which connections.
    pub(crate) direction: PolicyDirection,
    /// The group's name.
    pub(crate) group: Digest,
    /// What of the group decided.
    pub(crate) by: By,
}

/// What of a group of rules decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// A rule, by its number.
    Rule(u32),
    /// That the port is isolated.
    Isolation,
    /// Nothing: no rule means the packet.
    Nothing,
}

impl Explained {
    /// Whether the slow path finishes the packet.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        matches!(self.fate, Fate::Punted(reason) if reason.number() >= loxi_ebpf_layout::count::PUNT_REASONS.into())
    }
}

/// Walks the tables for a frame that comes in at a port.
pub(crate) fn explain(
    around: &Around<'_>,
    port: u32,
    bytes: &[u8],
    now: Timestamp,
    question: &Question,
) -> Result<Explained, KernelError> {
    Walk::new(around, port, bytes, now, question).run()
}

/// One packet on its way.
struct Walk<'a> {
    t: Tables<'a>,
    frame: &'a [u8],
    seed: u64,
    commits: bool,
    question: &'a Question,
    p: Packet,
    /// Choices made.
    made: usize,
    /// The stage that the packet is in.
    at: Stage,
    /// Whether a step has told already why the packet ends.
    refused: bool,
    /// Places of flows that the packet ends.
    forgotten: Vec<u32>,
    /// State and source of a flow that it ends, which count no more.
    freed: Option<(u8, Addr)>,
    steps: Vec<TraceStep>,
    policies: Vec<Judgement>,
    outputs: Vec<Output>,
}

impl<'a> Walk<'a> {
    fn new(around: &Around<'a>, port: u32, bytes: &'a [u8], now: Timestamp, question: &'a Question) -> Self {
        let globals = around.kernel.at(GLOBALS, 0);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let p = Packet {
            now: now.0,
            epoch: globals.epoch as u32,
            flags: flag::ASKED,
            port: port as u16,
            outer_port: port as u16,
            len: length,
            end: length,
            tag: UNTAGGED,
            random: if question.seeded != 0 { question.random } else { 0 },
            ..Packet::default()
        };
        Self {
            t: Tables::new(around.kernel, around.names),
            frame: bytes,
            seed: around.seed,
            commits: around.commits,
            question,
            p,
            made: 0,
            at: Stage::Parse,
            refused: false,
            forgotten: Vec::new(),
            freed: None,
            steps: Vec::new(),
            policies: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Explained, KernelError> {
        let fate = match self.fast() {
            Some(fate) => fate,
            None => self.long_way(),
        };
        let key = format!("{} output(s)", self.outputs.len());
        self.note(Stage::Send, key, None, fate.to_string());
        match self.t.failure() {
            Some(error) => Err(error),
            None => Ok(Explained {
                trace: Trace { steps: self.steps },
                fate,
                outputs: self.outputs,
                stages: self.p.stages,
                policies: self.policies,
            }),
        }
    }

    /// From program to program.
    fn long_way(&mut self) -> Fate {
        self.p.stages = 0;
        let mut next = program::ENTRY;
        for _ in 0..MOST_PROGRAMS {
            let step = match next {
                program::ENTRY => self.entry_point(),
                program::INGRESS => self.ingress(),
                program::CONNTRACK => self.conntrack(),
                program::SERVICE => self.service(),
                program::EGRESS_POLICY => self.egress_policy(),
                program::FORWARD => self.forward(),
                program::SNAT => self.snat(),
                program::INGRESS_POLICY => self.ingress_policy(),
                program::COMMIT => self.commit(),
                program::SEND => match self.send() {
                    Ok(()) => return Fate::Forwarded,
                    Err(fate) => Err(fate),
                },
                program::NEIGHBOR => self.neighbor(),
                program::REVALIDATE => self.revalidate(),
                program::RELATED => self.related(),
                _ => break,
            };
            match step {
                Ok(program) => next = program,
                Err(fate) => {
                    let fate = fate_of(fate.get());
                    if !self.refused {
                        let key = self.summary();
                        self.note(self.at, key, None, words::verb(fate));
                    }
                    return fate;
                }
            }
        }
        Fate::Dropped(loxi_core::reason::DropReason::Unsupported)
    }

    fn entry_point(&mut self) -> Step<u32> {
        self.meet(Stage::Parse);
        self.parse()?;
        let (key, effect) = (format!("{} bytes", self.frame.len()), self.kind());
        self.note(Stage::Parse, key, None, effect);
        Ok(program::INGRESS)
    }

    /// The packet comes to a stage.
    fn meet(&mut self, stage: Stage) {
        self.at = stage;
        self.p.stages |= 1 << stage.number();
    }

    fn note(&mut self, stage: Stage, key: String, entry: Option<TraceEntry>, effect: String) {
        self.steps.push(TraceStep { stage, key, entry, effect });
    }

    /// Notes what is found at the stage that the packet is in.
    fn saw(&mut self, key: String, entry: Option<TraceEntry>, effect: impl Into<String>) {
        self.note(self.at, key, entry, effect.into());
    }

    /// Notes what ends the packet.
    fn refuse(&mut self, key: String, entry: Option<TraceEntry>, fate: code::Fate) -> code::Fate {
        self.refused = true;
        self.saw(key, entry, words::verb(fate_of(fate.get())));
        fate
    }

    /// A port's attributes.
    fn port_of(&self, number: u16) -> Option<Port> {
        self.t.array(PORTS, number.into()).map(|pair| *pair.pair.current())
    }

    /// The attributes of a port by which packets may leave.
    fn open(&self, number: u16) -> Option<Port> {
        self.port_of(number).filter(|port| port.flags & port::OPEN != 0)
    }

    /// Whether an ICMP error may be sent about the packet (RFC 1122 section 3.2.2, RFC 4443 section
    /// 2.4 e).
    fn is_answerable(&self) -> bool {
        let p = &self.p;
        let about_error = p.kind == l4::ERROR || p.kind == l4::LATER;
        !(about_error || p.src == Addr::ZERO || is_group(p.family, &p.dst) || p.dmac[0] & 1 != 0)
    }

    /// A drop that is answered, where it may be.
    fn answered(&self, reason: code::Fate) -> code::Fate {
        if self.is_answerable() { code::punt::ICMP_TO_BUILD } else { reason }
    }

    /// Traffic that is never tracked: ND, MLD, IGMP.
    fn is_link_protocol(&self) -> bool {
        self.p.protocol == 2 || self.p.kind == l4::ND || self.p.kind == l4::MLD
    }

    /// A free choice: the value that whoever asks gives, if it is admissible; else the one that needs
    /// no randomness where that is asked for; else `own`.
    fn choose(&mut self, first: u64, last: u64, plain: u64, own: u64) -> u64 {
        let n = self.made;
        if n >= CHOICES {
            return plain;
        }
        self.made += 1;
        if n < self.question.count as usize {
            let wanted = self.question.values[n];
            return if (first..=last).contains(&wanted) { wanted } else { plain };
        }
        if self.question.first != 0 { plain } else { own }
    }
}

/// The fate of what no entity claims.
fn unclaimed(ingress: &Port, otherwise: code::Fate) -> code::Fate {
    if ingress.flags & port::PUNT != 0 { code::punt::NOT_OURS_UNCLAIMED } else { otherwise }
}

/// Whether an address is a group's: multicast, or the IPv4 broadcast.
fn is_group(family: u8, addr: &Addr) -> bool {
    let first = u32::from_be(addr.0[0]);
    if family == family::V4 { first >> 28 == 14 || first == u32::MAX } else { first >> 24 == 0xff }
}

/// Whether an address is link-local unicast.
fn is_link_local(family: u8, addr: &Addr) -> bool {
    let first = u32::from_be(addr.0[0]);
    if family == family::V4 { first >> 16 == 0xa9fe } else { first >> 22 == 0x3fa }
}

//! Packets that somebody offers: the installed programs run them, and the slow path
//! finishes what they leave.

use super::{Inner, counters};
use crate::explain::Explained;
use crate::run::{Asked, Choices, LENGTHS, choices_of, fate_of, trace_of, verdict_of};
use loxi_core::dataplane::{
    DataplaneError, Finished, InjectRequest, Injected, PacketIn, PuntedPacket, SlowPath, SlowPathView,
};
use loxi_core::ir::{Origin, Port};
use loxi_core::net::{PortName, ZoneName};
use loxi_core::packet::{
    ChoiceSource, Fate, PortCounters, Stage, Timestamp, Trace, TraceEntry, TraceStep, Verdict,
};
use loxi_core::reason::{DropReason, PuntReason};
use loxi_ebpf_layout::code;
use loxi_ebpf_layout::scratch::{Beside, flag};
use std::collections::BTreeMap;

impl Inner {
    /// Runs the packets of one request in order.
    pub(super) fn inject(
        &mut self,
        request: &InjectRequest,
        now: Timestamp,
    ) -> Result<Vec<Injected>, DataplaneError> {
        for (index, packet) in request.packets.iter().enumerate() {
            self.number_of(&packet.port)?;
            fits(index, &packet.bytes)?;
        }
        if !request.commit && request.packets.len() > 1 {
            return self.rehearse(request, now);
        }
        self.run_all(request, now, request.commit)
    }

    pub(super) fn run_all(
        &mut self,
        request: &InjectRequest,
        now: Timestamp,
        commit: bool,
    ) -> Result<Vec<Injected>, DataplaneError> {
        let mut choices = Choices::new(&request.choices);
        let mut results = Vec::with_capacity(request.packets.len());
        for packet in &request.packets {
            let now = packet.at.unwrap_or(now);
            let mut injected = self.run(packet, now, &mut choices, commit)?;
            if commit {
                self.send_all(&mut injected.verdict);
            }
            results.push(injected);
        }
        Ok(results)
    }

    /// The number of a configured port.
    pub(super) fn number_of(&self, port: &PortName) -> Result<u32, DataplaneError> {
        let known = self.pipeline.get::<Port>(port).and_then(|_| self.installer.w.names.ports.number(port));
        known.ok_or_else(|| DataplaneError::NoSuchPort(port.clone()))
    }

    /// Runs one packet.
    pub(super) fn run(
        &mut self,
        packet: &PacketIn,
        now: Timestamp,
        choices: &mut Choices,
        commit: bool,
    ) -> Result<Injected, DataplaneError> {
        let number = self.number_of(&packet.port)?;
        if let Some(reason) = too_short(&packet.bytes) {
            return Ok(self.not_run(packet, reason, commit));
        }
        if commit {
            self.make_room(now);
        }
        let dry = if commit { 0 } else { flag::DRY };
        let beside = Beside {
            port: number,
            flags: flag::ASKED | dry,
            now: [now.0 as u32, (now.0 >> 32) as u32],
            nonce: 0,
        };
        let question = choices.question();
        // Read before anything runs: that of a packet by itself is a look at what it finds.
        let explained = if commit && !self.rehearses {
            None
        } else {
            Some(self.explained(packet, now, &question, commit)?)
        };
        let kernel = &*self.installer.w.kernel;
        let asked = self
            .asker
            .ask(kernel, &packet.bytes, beside, &question)
            .map_err(|error| DataplaneError::Internal(error.to_string()))?;
        if code::is_unfinished(asked.answer.fate) {
            return self.finish(packet, &asked, now, choices, commit, explained);
        }
        let made = choices_of(&*self.installer.w.kernel, &asked.answer);
        choices.made(made.len());
        let verdict = verdict_of(&asked, &self.installer.w.names);
        let trace = explained.map_or_else(|| trace_of(&asked), |explained| told(explained, &asked));
        Ok(Injected { verdict, choices: made, trace, punt: None })
    }

    /// A frame that the kernel runs no program on.
    fn not_run(&mut self, packet: &PacketIn, reason: DropReason, commit: bool) -> Injected {
        if commit {
            let counted = dropped(&packet.port, packet.bytes.len(), reason);
            self.add_counters(&counted);
        }
        let verdict = Verdict::dropped(reason);
        Injected { verdict, choices: Vec::new(), trace: Trace::default(), punt: None }
    }

    /// Has the slow path finish what the programs could not.
    fn finish(
        &mut self,
        packet: &PacketIn,
        asked: &Asked,
        now: Timestamp,
        choices: &mut Choices,
        commit: bool,
        explained: Option<Explained>,
    ) -> Result<Injected, DataplaneError> {
        let reason = PuntReason::from_number(u16::from(asked.answer.fate - code::PUNTED));
        let punted = self.punted(&packet.port, reason, packet.bytes.clone());
        let mut source = choices.source();
        let finished = if commit {
            self.by_slow_path(&punted, now, &mut *source, true)
        } else {
            self.by_slow_path_dry(&punted, now, &mut *source)
        };
        drop(source);
        match finished {
            Some(Finished { mut injected, counters: counted }) => {
                if commit {
                    self.add_counters(&counted);
                }
                if let Some(explained) = explained {
                    let steps = told(explained, asked).steps;
                    injected.trace.steps.splice(0..0, steps);
                }
                Ok(injected)
            }
            None => {
                if commit {
                    self.add_counters(&dropped(&packet.port, packet.bytes.len(), DropReason::Unsupported));
                }
                let verdict = Verdict::dropped(DropReason::Unsupported);
                Ok(Injected { verdict, choices: Vec::new(), trace: trace_of(asked), punt: None })
            }
        }
    }

    /// A packet as the slow path gets it.
    pub(super) fn punted(&self, port: &PortName, reason: PuntReason, bytes: Vec<u8>) -> PuntedPacket {
        PuntedPacket { port: port.clone(), zone: self.zone_of(port), reason, bytes }
    }

    fn zone_of(&self, port: &PortName) -> Option<ZoneName> {
        let names = &self.installer.w.names;
        let number = names.ports.number(port)?;
        let zone = self.installer.w.kernel.at(crate::sys::PORTS, number).pair.current().zone;
        names.zones.live(zone.into()).cloned()
    }

    /// Finishes a punted packet on the live state; none: there is no slow path.
    pub(super) fn by_slow_path(
        &mut self,
        punted: &PuntedPacket,
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
        with_trace: bool,
    ) -> Option<Finished> {
        let path = self.slow_path.as_mut()?;
        let mut store = self.installer.store(self.seed, &mut self.pace);
        let view =
            SlowPathView { pipeline: &self.pipeline, attached: &self.attached_names, state: &mut store, now };
        Some(path.finish(punted, view, choices, with_trace))
    }

    /// The same without consequences.
    pub(super) fn by_slow_path_dry(
        &mut self,
        punted: &PuntedPacket,
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
    ) -> Option<Finished> {
        let mut path = self.slow_path.as_ref()?.trial();
        Some(self.tried(&mut *path, punted, now, choices))
    }

    /// What a slow path makes of a packet on what is learned. Nothing of it stays.
    pub(super) fn tried(
        &mut self,
        path: &mut dyn SlowPath,
        punted: &PuntedPacket,
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
    ) -> Finished {
        let learned = self.learned();
        let store = self.installer.store(self.seed, &mut self.pace);
        let mut overlay = crate::state::Overlay::new(&store, learned);
        let view = SlowPathView {
            pipeline: &self.pipeline,
            attached: &self.attached_names,
            state: &mut overlay,
            now,
        };
        path.finish(punted, view, choices, true)
    }

    /// Counts of what is learned, for whoever may not change it.
    fn learned(&self) -> crate::state::Learned {
        use crate::sys::{KEPT, STATION_COUNT, TURNS};
        let (kernel, names) = (&*self.installer.w.kernel, &self.installer.w.names);
        let stations = |(name, number): (&_, u32)| (Clone::clone(name), kernel.at(STATION_COUNT, number));
        let turns = |(key, number): (&_, u32)| (Clone::clone(key), kernel.at(TURNS, number));
        let fragments = kernel.at(KEPT, loxi_ebpf_layout::count::kept::FRAGMENTS);
        crate::state::Learned {
            stations: names.bridges.all().map(stations).collect(),
            fragments: usize::try_from(fragments).unwrap_or(usize::MAX),
            turns: names.services.all().map(turns).collect(),
        }
    }

    /// Adds what the slow path has counted.
    pub(super) fn add_counters(&mut self, counted: &BTreeMap<PortName, PortCounters>) {
        for (port, more) in counted {
            counters::add(self.slow_counters.entry(port.clone()).or_default(), more);
        }
    }

    /// Takes out what has expired by the packet's time where a limit stands in the way. Live packets don't
    /// wait for that: the daemon sweeps every second.
    fn make_room(&mut self, now: Timestamp) {
        let kernel = &*self.installer.w.kernel;
        let full = self.installer.w.names.zones.all().any(|(_, number)| {
            let config = *kernel.at(crate::sys::ZONES, number).current();
            let count = kernel.at(crate::sys::ZONE_COUNT, number);
            count.flows >= config.max_flows.into()
                || count.half_open >= config.max_half_open.into()
                || config.max_per_source != u32::MAX
        });
        let learned = self.installer.w.names.bridges.all().any(|(_, number)| {
            let config = *kernel.at(crate::sys::BRIDGES, number).current();
            kernel.at(crate::sys::STATION_COUNT, number) >= config.max_stations
        });
        if full || learned {
            let mut store = self.installer.store(self.seed, &mut self.pace);
            crate::state::sweep(&mut store, now);
        }
    }
}

/// The steps that were read from the tables; and where the programs come to another fate than they
/// tell of, that.
fn told(explained: Explained, asked: &Asked) -> Trace {
    let mut trace = explained.trace;
    let fate = fate_of(asked.answer.fate);
    if fate != explained.fate {
        let entry = TraceEntry { entity: None, origin: Origin::default(), text: "programs".to_owned() };
        let key = "what the tables say is not what the programs do".to_owned();
        let effect = fate.to_string();
        trace.steps.push(TraceStep { stage: Stage::Send, key, entry: Some(entry), effect });
    }
    trace
}

/// Counters of one packet that is dropped.
fn dropped(port: &PortName, length: usize, reason: DropReason) -> BTreeMap<PortName, PortCounters> {
    let mut counted = PortCounters { rx_packets: 1, rx_bytes: length as u64, ..PortCounters::default() };
    counted.dropped.insert(reason, 1);
    [(port.clone(), counted)].into()
}

/// What the programs would say of a frame that is too short for the kernel to run them on it: one without
/// a whole Ethernet header, or with less than a whole IP header behind it.
pub(super) fn too_short(frame: &[u8]) -> Option<DropReason> {
    let Some((ethernet, rest)) = frame.split_at_checked(*LENGTHS.start()) else {
        return Some(DropReason::Truncated);
    };
    let least = match ethernet[12..] {
        [0x08, 0x00] => 20,
        [0x86, 0xdd] => 40,
        _ => return None,
    };
    if rest.len() >= least {
        return None;
    }
    let group = ethernet[6] & 1 != 0;
    let nobody = ethernet[6..12] == [0; 6];
    Some(if group || nobody { DropReason::MartianMac } else { DropReason::Truncated })
}

fn fits(index: usize, frame: &[u8]) -> Result<(), DataplaneError> {
    if frame.len() <= *LENGTHS.end() {
        return Ok(());
    }
    Err(DataplaneError::BadRequest {
        field: format!("packets[{index}].bytes"),
        message: format!("{} bytes: the kernel runs programs on at most {}", frame.len(), LENGTHS.end()),
    })
}

/// Why a packet of this fate was dropped, if it was.
pub(super) fn ended_by_drop(fate: Fate) -> Option<DropReason> {
    match fate {
        Fate::Dropped(reason) => Some(reason),
        _ => None,
    }
}

//! Why a packet goes where it goes, as the tables have it; and what the slow path makes of what the
//! programs leave to it.

use super::{Ebpf, Inner, inject::too_short};
use crate::explain::{Around, By, Explained, Judgement, explain};
use crate::plan::rules_of;
use crate::run::Choices;
use loxi_core::dataplane::{ChoiceMode, DataplaneError, Injected, PacketIn, SlowPath};
use loxi_core::ir::{EntityKey, PolicyDirection, PolicyIsolation, Port};
use loxi_core::net::PortName;
use loxi_core::packet::{Fate, FirstChoice, Stage, Timestamp, Trace, TraceStep, Verdict};
use loxi_core::reason::PuntReason;
use loxi_ebpf_layout::scratch::Question;

impl Ebpf {
    /// What the programs make of a packet that is asked about with these choices, read from their tables
    /// and run by nobody: without what the slow path makes of it where they leave it to that.
    ///
    /// # Errors
    /// [`DataplaneError::NoSuchPort`]; [`DataplaneError::Internal`] if a table can't be read.
    pub fn explain_programs(
        &self,
        packet: &PacketIn,
        now: Timestamp,
        choices: &ChoiceMode,
    ) -> Result<Explained, DataplaneError> {
        let question = Choices::new(choices).question();
        self.inner.borrow().explained(packet, now, &question, true)
    }

    /// What another interpreter of the pipeline makes of a packet, on what was learned here: to lay beside
    /// what is installed. Nothing of it stays.
    ///
    /// # Errors
    /// [`DataplaneError::NoSuchPort`].
    pub fn explain_by(
        &self,
        path: &mut dyn SlowPath,
        packet: &PacketIn,
        now: Timestamp,
    ) -> Result<Injected, DataplaneError> {
        let mut inner = self.inner.borrow_mut();
        inner.number_of(&packet.port)?;
        // No program has handed it on: the reason is nobody's.
        let punted = inner.punted(&packet.port, PuntReason::FirstPacket, packet.bytes.clone());
        let now = packet.at.unwrap_or(now);
        let finished = inner.tried(path, &punted, now, &mut FirstChoice);
        Ok(Injected { punt: None, ..finished.injected })
    }
}

impl Inner {
    /// Reads from the tables what becomes of a packet. `commits`: as one that is kept, which meets the
    /// limits of flows too.
    pub(super) fn explained(
        &self,
        packet: &PacketIn,
        now: Timestamp,
        question: &Question,
        commits: bool,
    ) -> Result<Explained, DataplaneError> {
        let number = self.number_of(&packet.port)?;
        if let Some(reason) = too_short(&packet.bytes) {
            let fate = Fate::Dropped(reason);
            let step = |stage, key: &str, effect: String| {
                let key = key.to_owned();
                TraceStep { stage, key, entry: None, effect }
            };
            // The kernel runs no program on it.
            let parse =
                step(Stage::Parse, &format!("{} bytes", packet.bytes.len()), format!("drop {reason}"));
            let send = step(Stage::Send, "0 output(s)", fate.to_string());
            return Ok(Explained {
                trace: Trace { steps: vec![parse, send] },
                fate,
                outputs: Vec::new(),
                stages: 0,
                policies: Vec::new(),
            });
        }
        let around = Around {
            kernel: &*self.installer.w.kernel,
            names: &self.installer.w.names,
            seed: self.seed,
            commits,
        };
        let mut explained = explain(&around, number, &packet.bytes, packet.at.unwrap_or(now), question)
            .map_err(|error| DataplaneError::Internal(error.to_string()))?;
        self.name_policies(&mut explained);
        self.add_origins(&mut explained.trace);
        Ok(explained)
    }

    /// Names the rules and isolations that decided: those of the pipeline, where the group in the tables is the
    /// one that it makes.
    fn name_policies(&self, explained: &mut Explained) {
        for judgement in &explained.policies {
            let Judgement { step, port, direction, group, by } = judgement;
            let own = rules_of(&self.pipeline, *direction, port).filter(|own| own.digest == *group);
            let entity = own.and_then(|own| match by {
                By::Rule(number) => own.rules.get(number).cloned().map(EntityKey::PolicyRule),
                By::Isolation => self.isolation_of(*direction, port),
                By::Nothing => None,
            });
            let entry = explained.trace.steps.get_mut(*step).and_then(|step| step.entry.as_mut());
            if let (Some(entity), Some(entry)) = (entity, entry) {
                (entry.entity, entry.text) = (Some(entity), String::new());
            }
        }
    }

    fn isolation_of(&self, direction: PolicyDirection, port: &PortName) -> Option<EntityKey> {
        let port = self.pipeline.get::<Port>(port)?;
        let isolating = |of: &&PolicyIsolation| of.direction == direction && of.subject.contains(port);
        self.pipeline.policy_isolations().find(isolating).map(|of| EntityKey::PolicyIsolation(of.key()))
    }

    /// Says of each entity where its owner has it from. Tables don't hold that; it decides nothing.
    fn add_origins(&self, trace: &mut Trace) {
        for entry in trace.steps.iter_mut().filter_map(|step| step.entry.as_mut()) {
            let configured = entry.entity.as_ref().and_then(|key| self.pipeline.entity(key));
            if let Some(configured) = configured {
                entry.origin = configured.entity.origin().clone();
            }
        }
    }

    /// The whole way of a packet: where the programs leave it to the slow path, that one's steps follow.
    pub(super) fn explain(&mut self, packet: &PacketIn, now: Timestamp) -> Result<Trace, DataplaneError> {
        let question = Choices::new(&ChoiceMode::First).question();
        let explained = self.explained(packet, now, &question, true)?;
        let unfinished = explained.is_unfinished();
        let mut trace = explained.trace;
        let Fate::Punted(reason) = explained.fate else { return Ok(trace) };
        if unfinished {
            self.explain_slow(packet, packet.at.unwrap_or(now), reason, &mut trace);
        }
        Ok(trace)
    }

    fn explain_slow(&mut self, packet: &PacketIn, now: Timestamp, reason: PuntReason, trace: &mut Trace) {
        let punted = self.punted(&packet.port, reason, packet.bytes.clone());
        match self.by_slow_path_dry(&punted, now, &mut FirstChoice) {
            Some(finished) => trace.steps.extend(finished.injected.trace.steps),
            None => {
                let fate = Verdict::dropped(loxi_core::reason::DropReason::Unsupported).fate;
                let key = "no slow path".to_owned();
                trace.steps.push(TraceStep {
                    stage: Stage::Send,
                    key,
                    entry: None,
                    effect: fate.to_string(),
                });
            }
        }
    }
}

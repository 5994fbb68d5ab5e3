//! From what the programs said to a verdict.

use super::ask::Asked;
use crate::install::Names;
use loxi_core::packet::{Fate, Output, Stage, Trace, TraceEntry, TraceStep, Verdict};
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use loxi_ebpf_layout::code;

/// What a fate's number says.
pub(crate) fn fate_of(number: u8) -> Fate {
    match number {
        code::FORWARDED => Fate::Forwarded,
        1..=code::DROP_MAX => Fate::Dropped(DropReason::from_number(number.into())),
        code::CONSUMED..code::PUNTED => {
            Fate::Consumed(ConsumedReason::from_number(u16::from(number - code::CONSUMED)))
        }
        _ => Fate::Punted(PuntReason::from_number(u16::from(number - code::PUNTED))),
    }
}

/// The verdict, where the programs finished the packet.
pub(crate) fn verdict_of(asked: &Asked, names: &Names) -> Verdict {
    let answer = &asked.answer;
    let mut outputs = Vec::new();
    if answer.sent != 0
        && let Some(port) = names.ports.live(answer.out_port.into())
    {
        outputs.push(Output { port: port.clone(), bytes: tagged(&asked.frame, answer.tag) });
    }
    Verdict { fate: fate_of(answer.fate), outputs, unsent: Vec::new() }
}

/// The frame with the 802.1Q tag that goes beside it.
fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    if tag == 0xffff || frame.len() < 12 {
        return frame.to_vec();
    }
    [&frame[..12], &[0x81, 0x00], &tag.to_be_bytes(), &frame[12..]].concat()
}

/// The stages that the packet met.
pub(crate) fn trace_of(asked: &Asked) -> Trace {
    let answer = &asked.answer;
    let met = Stage::ALL.into_iter().filter(|stage| answer.stages >> stage.number() & 1 != 0);
    let mut steps: Vec<TraceStep> = met
        .map(|stage| TraceStep { stage, key: String::new(), entry: None, effect: "passed".to_owned() })
        .collect();
    if let Some(last) = steps.last_mut() {
        last.effect = fate_of(answer.fate).to_string();
        if answer.group != 0 {
            let rule = answer.word * 64 + answer.bit.trailing_zeros();
            let text = format!("rule {rule} of group {}", answer.group);
            last.entry = Some(TraceEntry { entity: None, origin: Default::default(), text });
        }
    }
    Trace { steps }
}

//! Traces: why a packet went where it went, stage by stage.

use crate::ir::{EntityKey, Origin};
use crate::packet::Stage;

/// The entry that decided a step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceEntry {
    /// The configured entity; none for learned state and built-in rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<EntityKey>,
    /// Where its owner says it came from.
    #[serde(default, skip_serializing_if = "Origin::is_empty")]
    pub origin: Origin,
    /// The entry in words where it is no entity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceStep {
    /// Where.
    pub stage: Stage,
    /// What was looked up.
    pub key: String,
    /// What was found; none for a miss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<TraceEntry>,
    /// What it did to the packet.
    pub effect: String,
}

/// The steps of one packet, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Steps.
    pub steps: Vec<TraceStep>,
}

impl std::fmt::Display for Trace {
    /// A line per step, for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.steps {
            write!(f, "{:>2} {:<18} {}", step.stage.number(), step.stage.name(), step.key)?;
            if let Some(entry) = &step.entry {
                f.write_str(" [")?;
                if let Some(entity) = &entry.entity {
                    write!(f, "{entity}")?;
                }
                if !entry.text.is_empty() {
                    let gap = if entry.entity.is_some() { " " } else { "" };
                    write!(f, "{gap}{}", entry.text)?;
                }
                if !entry.origin.is_empty() {
                    write!(f, " from {}", entry.origin)?;
                }
                f.write_str("]")?;
            }
            writeln!(f, " -> {}", step.effect)?;
        }
        Ok(())
    }
}

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

impl std::fmt::Display for TraceStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>2} {:<18} {}", self.stage.number(), self.stage.name(), self.key)?;
        if let Some(entry) = &self.entry {
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
        write!(f, " -> {}", self.effect)
    }
}

impl std::fmt::Display for Trace {
    /// A line per step, for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Where two traces of one packet part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parting<'a> {
    /// The step of the first.
    pub this: &'a TraceStep,
    /// That of the other about the same, if it has one.
    pub other: Option<&'a TraceStep>,
}

impl TraceStep {
    /// Whether both looked for the same at the same stage.
    fn is_about_the_same(&self, other: &Self) -> bool {
        self.stage == other.stage && self.key == other.key
    }

    /// Whether both found the same. An entry that is no entity is told in each one's own words.
    fn came_to_the_same(&self, other: &Self) -> bool {
        let entity = |step: &Self| step.entry.as_ref().and_then(|entry| entry.entity.clone());
        let same = entity(self).zip(entity(other)).is_none_or(|(this, other)| this == other);
        same && self.effect == other.effect
    }
}

impl Trace {
    /// The first step of this trace about which another one of the same packet says something else; where
    /// each such step agrees, the first one of which the other knows nothing. Interpreters differ in how
    /// much they tell, so this means something only where they come to different verdicts.
    #[must_use]
    pub fn parts_from<'a>(&'a self, other: &'a Self) -> Option<Parting<'a>> {
        let mut from = 0;
        let mut alone = None;
        for this in &self.steps {
            let rest = &other.steps[from..];
            match rest.iter().position(|step| step.is_about_the_same(this)) {
                Some(at) if !rest[at].came_to_the_same(this) => {
                    // The last step is what all came to: it says that they part, not where.
                    let last = from + at + 1 == other.steps.len();
                    let part = Parting { this, other: Some(&rest[at]) };
                    return if last { alone.or(Some(part)) } else { Some(part) };
                }
                Some(at) => from += at + 1,
                None => alone = alone.or(Some(Parting { this, other: None })),
            }
        }
        alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(stage: Stage, key: &str, effect: &str) -> TraceStep {
        TraceStep { stage, key: key.to_owned(), entry: None, effect: effect.to_owned() }
    }

    fn trace(route: &str, fate: &str) -> Trace {
        let steps = vec![
            step(Stage::Port, "hs1", "for our MAC"),
            step(Stage::Forward, "10.0.0.1", route),
            step(Stage::Send, "1 output(s)", fate),
        ];
        Trace { steps }
    }

    #[test]
    fn traces_part_at_the_first_step_that_says_something_else() {
        let (this, other) = (trace("next hop a", "forwarded"), trace("next hop b", "dropped(no_route)"));
        let parting = this.parts_from(&other).unwrap();
        assert_eq!((parting.this, parting.other), (&this.steps[1], Some(&other.steps[1])));
        assert_eq!(this.parts_from(&this), None);
    }

    #[test]
    fn what_only_one_tells_of_is_passed_over_unless_nothing_else_differs() {
        let mut this = trace("next hop a", "forwarded");
        this.steps.insert(1, step(Stage::Conntrack, "short way", "believed"));
        let other = trace("next hop b", "forwarded");
        assert_eq!(this.parts_from(&other).unwrap().this.stage, Stage::Forward);
        let other = trace("next hop a", "dropped(ttl)");
        let parting = this.parts_from(&other).unwrap();
        assert_eq!((parting.this.stage, parting.other), (Stage::Conntrack, None));
        this.steps.remove(1);
        assert_eq!(this.parts_from(&other).unwrap().this.stage, Stage::Send);
    }
}

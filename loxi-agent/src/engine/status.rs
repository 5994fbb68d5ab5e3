//! How things are, for readiness, STATUS and metrics.

use std::sync::Arc;
use std::time::SystemTime;

use crate::intent::Settings;

/// An object that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The object.
    pub object: String,
    /// Why the dataplane refuses what it asks for.
    pub why: String,
}

/// How things are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// How many events the source has told.
    pub events: u64,
    /// Whether the source has told everything once.
    pub synced: bool,
    /// Why what is known may not be what is there.
    pub stale: Option<Arc<str>>,
    /// Since when it may not.
    pub stale_since: Option<SystemTime>,
    /// The node's network, once there is one.
    pub settings: Option<Arc<Settings>>,
    /// Whether the dataplane had everything once.
    pub applied: bool,
    /// What stands in the way of having everything now.
    pub waits_for: Option<String>,
    /// Objects that are set aside.
    pub problems: Vec<Problem>,
}

impl Status {
    pub(super) fn set_stale(&mut self, why: Option<Arc<str>>) {
        self.stale_since = match (&why, self.stale_since) {
            (None, _) => None,
            (Some(_), Some(since)) => Some(since),
            (Some(_), None) => Some(SystemTime::now()),
        };
        self.stale = why;
    }

    /// Why no interface can be attached; none: they can.
    #[must_use]
    pub fn unready(&self) -> Option<&str> {
        match (&self.waits_for, self.applied) {
            (Some(why), _) => Some(why),
            (None, false) => Some("the dataplane hasn't got this node's network yet"),
            (None, true) => None,
        }
    }
}

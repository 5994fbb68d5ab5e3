//! The controller without the others.

use super::*;
use crate::cluster::Cluster;
use crate::intent::{Attachments, Settings};

#[derive(Debug)]
pub(super) struct Alone {
    settings: Settings,
    pub(super) cluster: Cluster,
    pub(super) attachments: Attachments,
    policies: Policies,
    ledger: Ledger,
}

impl Default for Alone {
    fn default() -> Self {
        Self {
            settings: settings(),
            cluster: Cluster::default(),
            attachments: Attachments::default(),
            policies: Policies::default(),
            ledger: Ledger::default(),
        }
    }
}

impl Alone {
    /// One in which nearly every rule competes with others for its priority.
    pub(super) fn crowded() -> Self {
        let policies = Policies { priorities: Priorities::crowded(), ..Policies::default() };
        Self { policies, ..Self::default() }
    }

    pub(super) fn apply(&mut self, event: Event) {
        for change in self.cluster.apply(event) {
            self.tell(Changed::Object(&change));
        }
    }

    pub(super) fn put(&mut self, object: impl Into<Object>) {
        self.apply(Event::Put(object.into()));
    }

    pub(super) fn attach(&mut self, new: Attachment) {
        let port = new.port.clone();
        let old = self.attachments.0.insert(port.clone(), new);
        self.tell(Changed::Attachment { port: &port, old: old.as_ref() });
    }

    pub(super) fn detach(&mut self, number: u8) {
        let port = attachment(number).port;
        if let Some(old) = self.attachments.0.remove(&port) {
            self.tell(Changed::Attachment { port: &port, old: Some(&old) });
        }
    }

    fn tell(&mut self, changed: Changed<'_>) {
        let view = View { settings: &self.settings, cluster: &self.cluster, attachments: &self.attachments };
        self.policies.changed(view, changed, &mut self.ledger);
    }

    /// What the last change cost: pods held against selectors, policies derived, entities that the dataplane is told.
    pub(super) fn cost(&mut self) -> (usize, usize, usize) {
        let pending = self.ledger.take();
        (self.policies.work.pods, self.policies.work.policies, self.ledger.operations(&pending).len())
    }

    pub(super) fn entities(&self) -> BTreeMap<ir::EntityKey, Entity> {
        self.ledger.entities().map(|entity| (entity.key(), entity.clone())).collect()
    }

    /// How many rules there shall be.
    pub(super) fn rules(&self) -> usize {
        self.policies.in_force.values().map(|policy| policy.drafts.len()).sum()
    }
}

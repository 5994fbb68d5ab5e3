//! Changing the configuration: one entity at a time, with what must happen to
//! the state beside it, and the way back.

use super::World;
use loxi_core::change::{Change, Changed};
use loxi_core::dataplane::InstallError;
use loxi_core::ir::{BackendState, Entity, EntityKey, Pipeline, PolicyPeer, PolicyPorts, PolicySubject};
use loxi_core::net::PortName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How to take an installation back: what it replaced.
#[derive(Debug)]
pub(crate) struct Install {
    config: Arc<Pipeline>,
    /// The state as it was, where the change touched it.
    state: Option<Box<World>>,
    policy_generations: BTreeMap<PortName, u64>,
}

impl World {
    /// Installs a change step by step. `fail_at` makes that step fail, for tests of the undo.
    pub(crate) fn install(&mut self, change: &Change, fail_at: Option<u64>) -> Result<Install, InstallError> {
        // Only a removal or a new slot generation takes state away; only then is a copy needed.
        let touches_state = change.entities.iter().any(touches_state);
        let undo = Install {
            config: Arc::clone(&self.config),
            state: touches_state.then(|| Box::new(self.clone())),
            policy_generations: self.state.policy_generations.clone(),
        };
        for (step, changed) in (0..).zip(&change.entities) {
            if fail_at == Some(step) {
                let error = InstallError {
                    step,
                    what: changed.key.to_string(),
                    message: "failed as the fault plan wants".to_owned(),
                };
                self.undo(undo);
                return Err(error);
            }
            self.install_one(changed);
        }
        self.bump_policy_generations(change, &undo.config);
        Ok(undo)
    }

    pub(crate) fn undo(&mut self, undo: Install) {
        match undo.state {
            Some(state) => *self = *state,
            None => {
                self.config = undo.config;
                self.state.policy_generations = undo.policy_generations;
            }
        }
    }

    fn install_one(&mut self, changed: &Changed) {
        let config = Arc::make_mut(&mut self.config);
        match &changed.new {
            Some(new) => {
                config.put(new.owner.clone(), new.entity.clone());
            }
            None => {
                config.remove(&changed.key);
            }
        }
        match (&changed.key, &changed.old, &changed.new) {
            (EntityKey::Port(port), Some(_), None) => self.forget_port(port),
            (EntityKey::Zone(zone), Some(_), None) => {
                self.state.flows.remove_zone(zone);
                self.state.fragments.retain(|key, _| key.zone != *zone);
            }
            (EntityKey::Bridge(bridge), Some(_), None) => {
                self.state.fdb.retain(|key, _| key.bridge != *bridge)
            }
            (EntityKey::Interface(name), Some(_), None) => {
                self.state.neighbors.retain(|key, _| key.interface != *name)
            }
            (EntityKey::Service(key), Some(_), None) => {
                self.state.affinity.retain(|(service, _), _| service != key);
                self.state.round_robin.remove(key);
            }
            (EntityKey::Backend(name), _, _) if new_slot(changed) => {
                *self.state.slots.entry(name.clone()).or_default() += 1;
            }
            _ => {}
        }
    }

    /// A removed port takes everything with it that was learned about it.
    fn forget_port(&mut self, port: &PortName) {
        self.attached.remove(port);
        self.state.flows.remove_port(port);
        self.state.fdb.retain(|_, entry| entry.port != *port);
        self.ports.remove(port);
        self.tokens.keep(|other| other != port);
        self.state.policy_generations.remove(port);
    }

    /// A new generation for every port whose policies may have changed.
    fn bump_policy_generations(&mut self, change: &Change, before: &Pipeline) {
        let mut ports = BTreeSet::new();
        for changed in &change.entities {
            for (owned, config) in [(&changed.old, before), (&changed.new, &*self.config)] {
                if let Some(owned) = owned {
                    affected(&owned.entity, config, &mut ports);
                }
            }
        }
        for port in ports {
            *self.state.policy_generations.entry(port).or_default() += 1;
        }
    }
}

fn touches_state(changed: &Changed) -> bool {
    changed.new.is_none() || new_slot(changed)
}

/// Whether a backend's slot now means another endpoint.
fn new_slot(changed: &Changed) -> bool {
    let backend = |owned: &Option<loxi_core::ir::Owned<Entity>>| match owned {
        Some(loxi_core::ir::Owned { entity: Entity::Backend(backend), .. }) => Some(backend.clone()),
        _ => None,
    };
    match (backend(&changed.old), backend(&changed.new)) {
        (Some(old), Some(new)) => {
            (old.address, old.port) != (new.address, new.port)
                || (old.state != BackendState::Down && new.state == BackendState::Down)
        }
        (None, None) => false,
        _ => true,
    }
}

/// Ports that a policy entity, or a set that policies refer to, is about.
fn affected(entity: &Entity, config: &Pipeline, ports: &mut BTreeSet<PortName>) {
    match entity {
        Entity::PolicyRule(rule) => subjects(&rule.subject, config, ports),
        Entity::PolicyIsolation(isolation) => subjects(&isolation.subject, config, ports),
        Entity::AddrSet(set) => {
            for rule in config.policy_rules().filter(|rule| rule.peer == PolicyPeer::Set(set.name.clone())) {
                subjects(&rule.subject, config, ports);
            }
        }
        Entity::PortSet(set) => {
            for rule in config.policy_rules().filter(|rule| rule.ports == PolicyPorts::Set(set.name.clone()))
            {
                subjects(&rule.subject, config, ports);
            }
        }
        _ => {}
    }
}

fn subjects(subject: &PolicySubject, config: &Pipeline, ports: &mut BTreeSet<PortName>) {
    ports.extend(config.ports().filter(|port| subject.contains(port)).map(|port| port.name.clone()));
}

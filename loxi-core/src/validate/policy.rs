//! Policies.

use super::Checker;
use crate::ir::{EntityKey, PolicyAction, PolicyPeer, PolicyPorts, PolicySubject, PolicyTier};

pub(super) fn check(check: &mut Checker<'_>) {
    for rule in check.pipeline.policy_rules() {
        let key = EntityKey::PolicyRule(rule.key());
        subject(check, &key, &rule.subject);
        if let PolicyPeer::Set(set) = &rule.peer {
            check.refers(&key, "peer.set", EntityKey::AddrSet(set.clone()));
        }
        if let PolicyPorts::Set(set) = &rule.ports {
            check.refers(&key, "ports.set", EntityKey::PortSet(set.clone()));
        }
        if rule.ports != PolicyPorts::Any && !rule.protocol.is_some_and(|protocol| protocol.has_ports()) {
            check.impossible(key.clone(), "ports", "needs a protocol with ports");
        }
        if rule.tier == PolicyTier::NetworkPolicy && rule.action != PolicyAction::Allow {
            check.impossible(
                key,
                "action",
                "the tier network_policy only allows; isolation refuses the rest",
            );
        }
    }
    for isolation in check.pipeline.policy_isolations() {
        subject(check, &EntityKey::PolicyIsolation(isolation.key()), &isolation.subject);
    }
}

fn subject(check: &mut Checker<'_>, key: &EntityKey, subject: &PolicySubject) {
    if let PolicySubject::Ports(ports) = subject {
        for port in ports {
            check.refers(key, "subject.ports", EntityKey::Port(port.clone()));
        }
    }
}

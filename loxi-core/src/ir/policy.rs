//! Policies: who may open connections to and from local ports.
//!
//! Tiers are looked at in order: admin, network policy, baseline, then allow.
//! In `admin` and `baseline` the first matching rule by ascending priority
//! decides; `pass` leaves the tier. In `network_policy` a matching allow
//! admits; a subject that is isolated in the direction and has no matching
//! allow is refused (`policy_isolated`).

use super::Origin;
use crate::net::{AddrSetName, IpPrefix, IpProtocol, L4Ports, PolicyName, PortName, PortSetName};
use std::collections::BTreeSet;

data! {
    /// Direction as the subject sees it.
    #[derive(Copy)]
    pub enum PolicyDirection {
        /// Connections that the subject opens.
        Egress,
        /// Connections that it accepts.
        Ingress,
    }
}

data! {
    /// Tiers in order of evaluation (Kubernetes network-policy-api).
    #[derive(Copy)]
    pub enum PolicyTier {
        /// Cluster administrators.
        Admin,
        /// NetworkPolicy.
        NetworkPolicy,
        /// Cluster defaults.
        Baseline,
    }
}

data! {
    /// What a matching rule says.
    #[derive(Copy)]
    pub enum PolicyAction {
        /// Admit.
        Allow,
        /// Refuse (`policy_denied`).
        Deny,
        /// Go on with the next tier.
        Pass,
    }
}

data! {
    /// Local ports that a rule is about.
    pub enum PolicySubject {
        /// Every pod port.
        AllPods,
        /// These ports.
        Ports(BTreeSet<PortName>),
    }
}

impl PolicySubject {
    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(&self, port: &super::Port) -> bool {
        match self {
            Self::AllPods => port.kind == super::PortKind::Pod,
            Self::Ports(ports) => ports.contains(&port.name),
        }
    }
}

data! {
    /// The other side of a connection.
    pub enum PolicyPeer {
        /// Anybody.
        Any,
        /// Addresses in a named set.
        Set(AddrSetName),
        /// Addresses inside any of `prefixes` and none of `except`.
        Prefixes {
            /// Inside.
            prefixes: BTreeSet<IpPrefix>,
            /// Outside.
            #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
            except: BTreeSet<IpPrefix>,
        },
    }
}

data! {
    /// Destination ports of a connection.
    #[derive(Default)]
    pub enum PolicyPorts {
        /// Any.
        #[default]
        Any,
        /// In one of these ranges.
        Ranges(BTreeSet<L4Ports>),
        /// In a named set.
        Set(PortSetName),
    }
}

data! {
    /// Key of a rule.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct PolicyRuleKey {
        /// Direction.
        pub direction: PolicyDirection,
        /// Tier.
        pub tier: PolicyTier,
        /// Lower is looked at first.
        pub priority: u32,
    }
}

data! {
    /// A policy rule. Sees the connection's original source and its translated
    /// destination.
    pub struct PolicyRule {
        /// Direction.
        pub direction: PolicyDirection,
        /// Tier.
        pub tier: PolicyTier,
        /// Lower is looked at first.
        pub priority: u32,
        /// Local ports it is about.
        pub subject: PolicySubject,
        /// The other side.
        pub peer: PolicyPeer,
        /// Protocol; none: any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub protocol: Option<IpProtocol>,
        /// Destination ports; anything but `any` needs a protocol with ports.
        #[serde(default)]
        pub ports: PolicyPorts,
        /// What it says.
        pub action: PolicyAction,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl PolicyRule {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> PolicyRuleKey {
        PolicyRuleKey { direction: self.direction, tier: self.tier, priority: self.priority }
    }
}

data! {
    /// Key of an isolation.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct PolicyIsolationKey {
        /// The policy that isolates.
        pub policy: PolicyName,
        /// Direction.
        pub direction: PolicyDirection,
    }
}

data! {
    /// A policy selects ports: whatever no rule of the tier `network_policy`
    /// allows them is refused.
    pub struct PolicyIsolation {
        /// The policy.
        pub policy: PolicyName,
        /// Direction.
        pub direction: PolicyDirection,
        /// Local ports that it selects.
        pub subject: PolicySubject,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl PolicyIsolation {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> PolicyIsolationKey {
        PolicyIsolationKey { policy: self.policy.clone(), direction: self.direction }
    }
}

impl std::fmt::Display for PolicyDirection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        })
    }
}

impl std::fmt::Display for PolicyRuleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tier = match self.tier {
            PolicyTier::Admin => "admin",
            PolicyTier::NetworkPolicy => "network_policy",
            PolicyTier::Baseline => "baseline",
        };
        write!(f, "{} {tier} {}", self.direction, self.priority)
    }
}

impl std::fmt::Display for PolicyIsolationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.policy, self.direction)
    }
}

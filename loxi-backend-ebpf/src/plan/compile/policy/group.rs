//! Groups: which rules a port's connections are subject to, and what names them.
//!
//! A group's digest is over its content as far as it decides: tier, action, peer, protocol and ports
//! of its rules in order, and whether the port is isolated. Named port sets count by their members,
//! address sets by their name, since their members are rows of their own.

use crate::plan::Digest;
use crate::plan::compile::too_many;
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{
    EntityKey, Pipeline, PolicyAction, PolicyDirection, PolicyPeer, PolicyPorts, PolicyRule, PolicyRuleKey,
    PolicySubject, PolicyTier, Port, PortKind, PortSet,
};
use loxi_core::net::{IpPrefix, L4Ports, PortName};
use loxi_ebpf_layout::limits::{POLICY_RULES, POLICY_WORDS};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// A group as it is known from outside: which rule each bit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDef {
    /// Its name.
    pub digest: Digest,
    /// Its rules by bit.
    pub rules: BTreeMap<u32, PolicyRuleKey>,
    /// Whether its ports are isolated.
    pub isolated: bool,
}

impl GroupDef {
    /// The rule of a word's lowest bit, as a program tells what decided.
    #[must_use]
    pub fn rule(&self, word: u32, bit: u64) -> Option<&PolicyRuleKey> {
        self.rules.get(&word.checked_mul(64)?.checked_add(bit.trailing_zeros())?)
    }
}

/// The group that a port's connections of a direction are subject to; none: to no rule at all.
#[must_use]
pub fn rules_of(pipeline: &Pipeline, direction: PolicyDirection, port: &PortName) -> Option<GroupDef> {
    let config = pipeline.get::<Port>(port)?;
    // Rules sort by direction, tier, priority.
    let rules = pipeline
        .policy_rules()
        .filter(|rule| rule.direction == direction && rule.subject.contains(config))
        .collect();
    let isolated = pipeline
        .policy_isolations()
        .any(|isolation| isolation.direction == direction && isolation.subject.contains(config));
    let subject = Subject { rules, isolated };
    (!subject.is_empty()).then(|| Group::new(pipeline, &subject, &mut Encodings::default()).definition())
}

/// Every group of a pipeline by its name. Where two directions or ports share a group by rules of
/// the same content, those of the first are named: egress before ingress, then ports by name. Whoever
/// knows port and direction asks [`rules_of`].
///
/// # Errors
/// As [`crate::plan::compile`]'s, if a port is subject to more rules than there is room for.
pub fn groups_of(pipeline: &Pipeline) -> Result<BTreeMap<Digest, GroupDef>, CompileError> {
    let subjects = Subjects::of(pipeline)?;
    Ok(subjects.groups.iter().map(|group| (group.digest, group.definition())).collect())
}

/// Where the tiers end, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiers {
    pub(super) admin: u32,
    pub(super) network_policy: u32,
    /// Words in all.
    pub(super) words: u32,
}

/// Rules in order, each with its bit.
pub(super) struct Group<'a> {
    pub(super) digest: Digest,
    pub(super) tiers: Tiers,
    pub(super) isolated: bool,
    rules: Vec<(u32, &'a PolicyRule)>,
}

impl<'a> Group<'a> {
    fn new(pipeline: &Pipeline, subject: &Subject<'a>, encodings: &mut Encodings) -> Self {
        let tiers = subject.tiers();
        let mut next = [0, tiers.admin * 64, tiers.network_policy * 64];
        let mut hash = Sha256::new();
        hash.update([u8::from(subject.isolated)]);
        let mut rules = Vec::with_capacity(subject.rules.len());
        for rule in &subject.rules {
            hash.update(encodings.of(pipeline, rule));
            let next = &mut next[tier(rule.tier)];
            rules.push((*next, *rule));
            *next += 1;
        }
        Self { digest: digest(hash), tiers, isolated: subject.isolated, rules }
    }

    /// Its rules and their bits.
    pub(super) fn rules(&self) -> impl Iterator<Item = (u32, &'a PolicyRule)> {
        self.rules.iter().copied()
    }

    fn definition(&self) -> GroupDef {
        let rules = self.rules().map(|(bit, rule)| (bit, rule.key())).collect();
        GroupDef { digest: self.digest, rules, isolated: self.isolated }
    }
}

fn tier(of: PolicyTier) -> usize {
    match of {
        PolicyTier::Admin => 0,
        PolicyTier::NetworkPolicy => 1,
        PolicyTier::Baseline => 2,
    }
}

/// What a port is subject to in a direction.
#[derive(Default)]
struct Subject<'a> {
    /// By tier and priority.
    rules: Vec<&'a PolicyRule>,
    isolated: bool,
}

impl Subject<'_> {
    fn is_empty(&self) -> bool {
        self.rules.is_empty() && !self.isolated
    }

    /// Every tier that has rules begins at a word.
    fn tiers(&self) -> Tiers {
        let words = |wanted: PolicyTier| {
            let rules = self.rules.iter().filter(|rule| rule.tier == wanted).count();
            u32::try_from(rules.div_ceil(64)).unwrap_or(u32::MAX)
        };
        let admin = words(PolicyTier::Admin);
        let network_policy = admin.saturating_add(words(PolicyTier::NetworkPolicy));
        let words = network_policy.saturating_add(words(PolicyTier::Baseline));
        Tiers { admin, network_policy, words }
    }
}

/// What every port is subject to.
pub(super) struct Subjects<'a> {
    /// Each content once.
    pub(super) groups: Vec<Group<'a>>,
    /// Index of the group of a port and direction. Who has none is subject to nothing.
    pub(super) groups_by_port: BTreeMap<(&'a PortName, PolicyDirection), usize>,
}

impl<'a> Subjects<'a> {
    pub(super) fn of(pipeline: &'a Pipeline) -> Result<Self, CompileError> {
        let mut subjects: BTreeMap<(PolicyDirection, &'a PortName), Subject<'a>> = BTreeMap::new();
        let pods: Vec<&Port> = pipeline.ports().filter(|port| port.kind == PortKind::Pod).collect();
        for rule in pipeline.policy_rules() {
            for port in ports_of(pipeline, &pods, &rule.subject) {
                subjects.entry((rule.direction, &port.name)).or_default().rules.push(rule);
            }
        }
        for isolation in pipeline.policy_isolations() {
            for port in ports_of(pipeline, &pods, &isolation.subject) {
                subjects.entry((isolation.direction, &port.name)).or_default().isolated = true;
            }
        }
        let mut found = Self { groups: Vec::new(), groups_by_port: BTreeMap::new() };
        let mut encodings = Encodings::default();
        let mut known: HashMap<Digest, usize> = HashMap::new();
        for ((direction, port), subject) in subjects {
            check(port, direction, &subject)?;
            let group = Group::new(pipeline, &subject, &mut encodings);
            let number = *known.entry(group.digest).or_insert(found.groups.len());
            if number == found.groups.len() {
                found.groups.push(group);
            }
            found.groups_by_port.insert((port, direction), number);
        }
        Ok(found)
    }
}

fn ports_of<'a>(pipeline: &'a Pipeline, pods: &[&'a Port], subject: &'a PolicySubject) -> Vec<&'a Port> {
    match subject {
        PolicySubject::AllPods => pods.to_vec(),
        PolicySubject::Ports(names) => names.iter().filter_map(|name| pipeline.get::<Port>(name)).collect(),
    }
}

fn check(port: &PortName, direction: PolicyDirection, subject: &Subject<'_>) -> Result<(), CompileError> {
    let words = u64::from(subject.tiers().words);
    if words <= POLICY_WORDS as u64 {
        return Ok(());
    }
    let field = format!("policy_rules ({direction}, each tier filled up to 64)");
    Err(too_many(EntityKey::Port(port.clone()), &field, POLICY_RULES.into(), words * 64))
}

/// What decides about each rule, as bytes: two rules that decide alike have the same.
#[derive(Default)]
struct Encodings {
    by_rule: HashMap<PolicyRuleKey, [u8; 32]>,
}

impl Encodings {
    fn of(&mut self, pipeline: &Pipeline, rule: &PolicyRule) -> [u8; 32] {
        *self.by_rule.entry(rule.key()).or_insert_with(|| encode_rule(pipeline, rule))
    }
}

fn encode_rule(pipeline: &Pipeline, rule: &PolicyRule) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Below 3, so that the number is a byte.
    hash.update([tier(rule.tier) as u8]);
    hash.update([match rule.action {
        PolicyAction::Allow => 0,
        PolicyAction::Deny => 1,
        PolicyAction::Pass => 2,
    }]);
    encode_peer(&mut hash, &rule.peer);
    match rule.protocol {
        None => hash.update([0]),
        Some(protocol) => hash.update([1, protocol.0]),
    }
    match ranges(pipeline, rule) {
        None => hash.update([0]),
        Some(ranges) => {
            hash.update([1]);
            count(&mut hash, ranges.len());
            for range in ranges {
                hash.update(range.first().to_be_bytes());
                hash.update(range.last().to_be_bytes());
            }
        }
    }
    hash.finalize().into()
}

/// The destination ports that a rule means; none: any.
pub(super) fn ranges(pipeline: &Pipeline, rule: &PolicyRule) -> Option<BTreeSet<L4Ports>> {
    match &rule.ports {
        PolicyPorts::Any => None,
        PolicyPorts::Ranges(ranges) => Some(ranges.clone()),
        PolicyPorts::Set(name) => {
            Some(pipeline.get::<PortSet>(name).map(|set| set.members.clone()).unwrap_or_default())
        }
    }
}

/// Adds a definition of peers to a hash, so that no two have the same bytes.
pub(super) fn encode_peer(hash: &mut Sha256, peer: &PolicyPeer) {
    match peer {
        PolicyPeer::Any => hash.update([0]),
        PolicyPeer::Set(name) => {
            hash.update([1]);
            count(hash, name.as_str().len());
            hash.update(name.as_str());
        }
        PolicyPeer::Prefixes { prefixes, except } => {
            hash.update([2]);
            for set in [prefixes, except] {
                count(hash, set.len());
                set.iter().for_each(|prefix| encode_prefix(hash, prefix));
            }
        }
    }
}

fn encode_prefix(hash: &mut Sha256, prefix: &IpPrefix) {
    hash.update([if prefix.is_ipv4() { 4 } else { 6 }, prefix.len()]);
    match prefix.addr() {
        IpAddr::V4(v4) => hash.update(v4.octets()),
        IpAddr::V6(v6) => hash.update(v6.octets()),
    }
}

fn count(hash: &mut Sha256, count: usize) {
    hash.update((count as u64).to_be_bytes());
}

/// What a hash names.
pub(super) fn digest(hash: Sha256) -> Digest {
    let whole: [u8; 32] = hash.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&whole[..16]);
    Digest(first)
}

/// The name of a group while a set that it means has members of before.
pub(super) fn digest_of_past(of: Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"past");
    hash.update(format!("{of:?}"));
    digest(hash)
}

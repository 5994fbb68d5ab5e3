//! What a change concerns: units, ports whose policies are other ones, capabilities.
//!
//! A unit's rows may differ for two reasons: an entity that names the unit is in the change, or one
//! that its rows draw upon. The pipeline before the change is not at hand: what of it counts is in
//! the change, or in the installed plan's index.

use super::compile::{link_of, units_of};
use super::{LinkRef, PlanIndex, Unit};
use loxi_core::capability::{Capabilities, CapacityExceeded, Feature};
use loxi_core::change::{Change, Changed};
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{
    Attachment, Entity, EntityKey, EntityKind, Interface, Neighbor, NeighborKey, NextHopAction, Owned,
    Pipeline, PipelineEntity, PolicyPeer, PolicyPorts, PolicyRule, PolicyRuleKey, PolicySubject, Port,
    VipKey, VlanMode,
};
use loxi_core::net::{InterfaceName, PortName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// What an entity was and what it will be.
fn sides(changed: &Changed) -> [Option<&Entity>; 2] {
    [&changed.old, &changed.new].map(|side| side.as_ref().map(|owned| &owned.entity))
}

/// The units that a change may alter.
pub(super) fn affected(index: &PlanIndex, new: &Pipeline, change: &Change) -> BTreeSet<Unit> {
    let mut left: BTreeMap<&InterfaceName, LinkRef> = BTreeMap::new();
    for changed in &change.entities {
        if let [Some(Entity::Interface(interface)), _] = sides(changed) {
            left.insert(&interface.name, link_of(interface));
        }
    }
    let mut found = Affected { index, new, left, units: BTreeSet::new() };
    for changed in &change.entities {
        let sides = sides(changed);
        for entity in sides.into_iter().flatten() {
            found.units.extend(units_of(entity));
        }
        found.dependents(&changed.key, sides);
    }
    found.units
}

struct Affected<'a> {
    index: &'a PlanIndex,
    new: &'a Pipeline,
    /// The links on which interfaces of the change were.
    left: BTreeMap<&'a InterfaceName, LinkRef>,
    units: BTreeSet<Unit>,
}

impl Affected<'_> {
    /// Units of other entities that draw upon this one.
    fn dependents(&mut self, key: &EntityKey, [old, new]: [Option<&Entity>; 2]) {
        match (key, old, new) {
            (EntityKey::Vrf(name), Some(Entity::Vrf(old)), Some(Entity::Vrf(new)))
                if old.zone != new.zone =>
            {
                self.ports(|port| port.attachment == Attachment::Vrf(name.clone()));
            }
            (EntityKey::Bridge(name), Some(Entity::Bridge(old)), Some(Entity::Bridge(new)))
                if (&old.zone, old.learning) != (&new.zone, new.learning) =>
            {
                self.ports(|port| port.bridge().is_some_and(|member| member.bridge == *name));
            }
            (EntityKey::Port(name), Some(Entity::Port(old)), Some(Entity::Port(new))) => {
                if (old.mac, old.mtu) != (new.mac, new.mtu) {
                    let tunnels = self.index.tunnels_of(name);
                    self.units.extend(tunnels.map(|tunnel| Unit::Tunnel(tunnel.clone())));
                }
                if old.kind != new.kind {
                    self.units.insert(Unit::Policy);
                }
            }
            (EntityKey::Port(_), ..) => {
                self.units.insert(Unit::Policy);
            }
            (EntityKey::Interface(name), old, new) => self.interface(name, [old, new]),
            (EntityKey::Neighbor(key), None, _) | (EntityKey::Neighbor(key), _, None) => self.neighbor(key),
            (EntityKey::Tunnel(name), Some(Entity::Tunnel(old)), Some(Entity::Tunnel(new)))
                if old.port != new.port =>
            {
                let stations = self.index.stations_of(name);
                self.units.extend(stations.map(|station| Unit::Station(station.clone())));
            }
            (EntityKey::Backend(name), ..) => {
                let services = self.index.services_of(name);
                self.units.extend(services.map(|service| Unit::Service(service.clone())));
            }
            (EntityKey::Service(key), ..) if key.ports.count() > 1 => {
                self.units.insert(Unit::Vip(VipKey { vrf: key.vrf.clone(), address: key.vip }));
            }
            // A set that only rules of the change refer to comes with them.
            (EntityKey::AddrSet(name), ..) => {
                let peer = PolicyPeer::Set(name.clone());
                self.policy_if(|rule| rule.peer == peer);
            }
            (EntityKey::PortSet(name), ..) => {
                let ports = PolicyPorts::Set(name.clone());
                self.policy_if(|rule| rule.ports == ports);
            }
            _ => {}
        }
    }

    fn ports(&mut self, wanted: impl Fn(&Port) -> bool) {
        let ports = self.new.ports().filter(|port| wanted(port));
        self.units.extend(ports.map(|port| Unit::Port(port.name.clone())));
    }

    fn policy_if(&mut self, uses: impl Fn(&PolicyRule) -> bool) {
        if self.new.policy_rules().any(uses) {
            self.units.insert(Unit::Policy);
        }
    }

    fn interface(&mut self, name: &InterfaceName, sides: [Option<&Entity>; 2]) {
        let there: Vec<&Interface> = sides
            .into_iter()
            .filter_map(|side| match side {
                Some(Entity::Interface(interface)) => Some(interface),
                _ => None,
            })
            .collect();
        let links: Vec<LinkRef> = there.iter().map(|interface| link_of(interface)).collect();
        let moved = matches!(links.as_slice(), [old, new] if old != new);
        if moved || there.len() < 2 || there[0].mac != there[1].mac {
            for link in &links {
                self.ports(|port| stands_on(port, link));
            }
        }
        // Neighbours that come or go with their interface are in the change.
        if moved {
            let lowest = NeighborKey { interface: name.clone(), address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            let neighbors = Neighbor::table(self.new).range(lowest..);
            for (key, _) in neighbors.take_while(|(key, _)| key.interface == *name) {
                self.units.extend(links.iter().map(|link| Unit::Proxy(link.clone(), key.address)));
            }
        }
    }

    fn neighbor(&mut self, key: &NeighborKey) {
        let now = self.new.get::<Interface>(&key.interface).map(link_of);
        let links = now.into_iter().chain(self.left.get(&key.interface).cloned());
        self.units.extend(links.map(|link| Unit::Proxy(link, key.address)));
    }
}

/// Whether a port's row draws upon the interfaces of a link.
fn stands_on(port: &Port, link: &LinkRef) -> bool {
    match (link, port.bridge()) {
        (LinkRef::Port(name), _) => port.name == *name,
        (LinkRef::Vlan(bridge, vlan), Some(member)) if member.bridge == *bridge => match &member.vlan {
            VlanMode::Access(own) => own.get() == *vlan,
            VlanMode::Trunk { native, .. } => native.is_some_and(|own| own.get() == *vlan),
        },
        _ => false,
    }
}

/// The ports whose policies may be other ones after a change. Those that go have none to be stale.
pub(super) fn stale_ports(new: &Pipeline, change: &Change) -> BTreeSet<PortName> {
    let concerns = |changed: &&Changed| {
        matches!(
            changed.key.kind(),
            EntityKind::PolicyRule | EntityKind::PolicyIsolation | EntityKind::AddrSet | EntityKind::PortSet
        )
    };
    let mut stale = BTreeSet::new();
    let mut policies = change.entities.iter().filter(concerns).peekable();
    if policies.peek().is_none() {
        return stale;
    }
    let after = Policies {
        rules: new.policy_rules().map(|rule| (rule.key(), rule)).collect(),
        ports: new.ports().map(|port| (&port.name, port)).collect(),
    };
    let before = after.clone().before(change);
    for changed in policies {
        for (entity, policies) in sides(changed).into_iter().zip([&before, &after]) {
            if let Some(entity) = entity {
                policies.subjects(entity, &mut stale);
            }
        }
    }
    stale.retain(|port| after.ports.contains_key(port));
    stale
}

/// Rules and ports of a pipeline.
#[derive(Clone)]
struct Policies<'a> {
    rules: BTreeMap<PolicyRuleKey, &'a PolicyRule>,
    ports: BTreeMap<&'a PortName, &'a Port>,
}

impl<'a> Policies<'a> {
    /// As they were before a change, but for rules of the change: those speak for themselves.
    fn before(mut self, change: &'a Change) -> Self {
        for changed in &change.entities {
            match (&changed.key, sides(changed)[0]) {
                (EntityKey::PolicyRule(key), _) => {
                    self.rules.remove(key);
                }
                (EntityKey::Port(name), Some(Entity::Port(old))) => {
                    self.ports.insert(name, old);
                }
                (EntityKey::Port(name), _) => {
                    self.ports.remove(name);
                }
                _ => {}
            }
        }
        self
    }

    /// Adds the ports that a policy, or a set that policies refer to, is about.
    fn subjects(&self, entity: &Entity, stale: &mut BTreeSet<PortName>) {
        let mut add = |subject: &PolicySubject| {
            let ports = self.ports.values().filter(|port| subject.contains(port));
            stale.extend(ports.map(|port| port.name.clone()));
        };
        match entity {
            Entity::PolicyRule(rule) => add(&rule.subject),
            Entity::PolicyIsolation(isolation) => add(&isolation.subject),
            Entity::AddrSet(set) => {
                let peer = PolicyPeer::Set(set.name.clone());
                self.rules.values().filter(|rule| rule.peer == peer).for_each(|rule| add(&rule.subject));
            }
            Entity::PortSet(set) => {
                let ports = PolicyPorts::Set(set.name.clone());
                self.rules.values().filter(|rule| rule.ports == ports).for_each(|rule| add(&rule.subject));
            }
            _ => {}
        }
    }
}

/// Whether the backend can do what a change asks; the rest of the pipeline it can do already.
///
/// # Errors
/// As [`Capabilities::check`] of the whole pipeline.
pub(super) fn check(
    new: &Pipeline,
    change: &Change,
    capabilities: &Capabilities,
) -> Result<(), CompileError> {
    for kind in EntityKind::ALL {
        let asked = new.count(*kind) as u64;
        let limit = capabilities.capacity.get(kind).copied().unwrap_or(0);
        if asked > limit {
            return Err(CapacityExceeded { kind: *kind, limit, asked }.into());
        }
    }
    if Feature::ALL.iter().all(|feature| capabilities.features.contains(feature)) {
        return Ok(());
    }
    let mut part = Pipeline::default();
    for owned in change.entities.iter().filter_map(|changed| changed.new.as_ref()) {
        put_with_needed(new, owned, &mut part);
    }
    capabilities.check(&part)
}

/// Puts an entity with those on which its needs depend: a next hop's on its tunnel, of which either
/// may be in the change without the other.
fn put_with_needed(new: &Pipeline, owned: &Owned<Entity>, part: &mut Pipeline) {
    let keys: Vec<EntityKey> = match &owned.entity {
        Entity::NextHop(hop) => match &hop.action {
            NextHopAction::Tunnel(tunnel) => vec![EntityKey::Tunnel(tunnel.clone())],
            _ => Vec::new(),
        },
        Entity::Tunnel(tunnel) => {
            let action = NextHopAction::Tunnel(tunnel.name.clone());
            let by = new.next_hops().filter(|hop| hop.action == action);
            by.map(|hop| EntityKey::NextHop(hop.name.clone())).collect()
        }
        _ => Vec::new(),
    };
    for other in keys.iter().filter_map(|key| new.entity(key)) {
        part.put(other.owner, other.entity);
    }
    part.put(owned.owner.clone(), owned.entity.clone());
}

//! Installing: a failed step leaves everything as it was, and the way by
//! changes comes to the same plan as the way by compiling.

#![allow(clippy::unwrap_used)]

use loxi_core::change::{Operation, Transaction, diff, plan_change};
use loxi_core::dataplane::{Backend, DataplaneError, InjectRequest, Local, PacketIn};
use loxi_core::ir::{Entity, EntityKey, Owner, Pipeline};
use loxi_core::net::PortName;
use loxi_core::packet::Timestamp;
use loxi_core::text::from_yaml;
use loxi_core::validate::validate;
use loxi_reference::Reference;
use proptest::prelude::*;
use std::sync::Arc;

const NODE: &str = include_str!("../../loxi-conformance/rows/pipelines/node.yaml");

fn owner() -> Owner {
    Owner::new("test").unwrap()
}

fn local() -> Local<Reference> {
    Local::new(Reference::new(), Arc::new(|| Timestamp(Timestamp::SECOND)))
}

/// A node with a flow on it.
fn busy() -> Local<Reference> {
    let local = local();
    local.apply(&Transaction::replace("node", owner(), from_yaml(NODE).unwrap())).unwrap();
    for port in ["hs1", "hs2", "hs3", "loxi_host", "eth0"] {
        local.attach(&PortName::new(port).unwrap()).unwrap();
    }
    let bytes = loxi_conformance::build(
        "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 / udp 1>2",
    );
    let port = PortName::new("hs1").unwrap();
    let packets = vec![PacketIn { port, bytes: bytes.unwrap(), at: None }];
    let injected =
        local.inject(&InjectRequest { packets, commit: true, ..InjectRequest::default() }).unwrap();
    assert_eq!(injected[0].verdict.outputs.len(), 1, "{injected:?}");
    local
}

/// A change that touches several kinds of entities and takes state with it.
fn change(id: &str) -> Transaction {
    let mut operations: Vec<Operation> = Vec::new();
    for entity in from_yaml(NODE).unwrap() {
        match entity {
            Entity::Port(mut port) if port.name.as_str() == "hs3" => {
                port.mtu = loxi_core::net::Mtu::new(1280).unwrap();
                operations.push(Operation::Put(Box::new(port.into())));
            }
            Entity::Backend(mut backend) if backend.name.as_str() == "web-1" => {
                backend.port = 9090;
                operations.push(Operation::Put(Box::new(backend.into())));
            }
            Entity::Port(port) if port.name.as_str() == "hs1" => {
                operations.push(Operation::Delete(EntityKey::Port(port.name)));
            }
            Entity::Fdb(fdb) if fdb.mac.to_string() == "02:00:00:00:01:01" => {
                operations.push(Operation::Delete(EntityKey::Fdb(fdb.key())));
            }
            _ => {}
        }
    }
    assert_eq!(operations.len(), 4);
    Transaction::change(id, owner(), operations)
}

#[test]
fn every_step_that_fails_leaves_everything_as_it_was() {
    let local = busy();
    let before = (local.save(), local.counters(), local.with_backend(|b| b.read_back().unwrap()));
    let steps = local.plan(&change("plan")).unwrap().entities.len() as u64;
    for step in 0..steps {
        local.with_backend(|backend| backend.fail_install_at(Some(step)));
        let error = local.apply(&change(&format!("fails-at-{step}"))).unwrap_err();
        assert!(matches!(&error, DataplaneError::Install(install) if install.step == step), "{error}");
        let after = (local.save(), local.counters(), local.with_backend(|b| b.read_back().unwrap()));
        assert_eq!(before, after, "step {step}");
        local.audit().unwrap();
    }
    local.with_backend(|backend| backend.fail_install_at(None));
    local.apply(&change("succeeds")).unwrap();
    assert_ne!(before.0, local.save());
    assert!(local.save().state.flows.is_empty(), "the removed port's flow went with it");
    local.audit().unwrap();
}

#[test]
fn what_cannot_be_kept_is_undone() {
    let local = busy();
    let before = (local.save(), local.counters());
    let mut kept = Vec::new();
    let error = local.apply_kept(&change("lost"), &mut |snapshot| {
        kept.push(snapshot);
        Err("no space left on device".to_owned())
    });
    assert_eq!(error, Err(DataplaneError::NotKept("no space left on device".to_owned())));
    assert_ne!(kept[0], before.0, "what was to be kept had the change");
    assert_eq!(before, (local.save(), local.counters()));
    local.audit().unwrap();
    // The same id is not taken for a repetition of what never was.
    let applied = local.apply_kept(&change("lost"), &mut |_| Ok(())).unwrap();
    assert_eq!((applied.updated, applied.deleted), (2, 2));
}

#[test]
fn what_is_refused_changes_nothing() {
    let local = busy();
    let before = local.save();
    let port = |name: &str| EntityKey::Port(PortName::new(name).unwrap());
    let dangling = Transaction::change("dangling", owner(), vec![Operation::Delete(port("hs1"))]);
    let error = local.apply(&dangling).unwrap_err().to_string();
    assert!(
        error.contains("fdb br0 vlan 1 02:00:00:00:01:01: target.port: port hs1 does not exist"),
        "{error}"
    );
    let foreign =
        Transaction::change("foreign", Owner::new("other").unwrap(), vec![Operation::Delete(port("hs1"))]);
    assert_eq!(local.apply(&foreign).unwrap_err().to_string(), "port hs1 is owned by test");
    let stale = Transaction { base: Some(loxi_core::change::Generation(7)), ..change("stale") };
    assert!(local.apply(&stale).unwrap_err().to_string().contains("generation 7"));
    assert_eq!(before, local.save());
}

#[test]
fn a_transaction_is_applied_once_also_over_a_restart() {
    let local = busy();
    let first = local.apply(&change("once")).unwrap();
    assert_eq!(local.apply(&change("once")).unwrap(), first);
    let saved = local.save();
    let clock: loxi_core::dataplane::Clock = Arc::new(|| Timestamp(Timestamp::SECOND));
    let again = Local::restore(Reference::new(), clock, saved.clone()).unwrap();
    assert_eq!(again.apply(&change("once")).unwrap(), first);
    let restored = again.save();
    assert_eq!((restored.entities, restored.generation), (saved.entities, saved.generation));
    assert_eq!(restored.state.flows, saved.state.flows);
}

#[test]
fn a_restart_keeps_flows() {
    let saved = busy().save();
    assert_eq!(saved.state.flows.len(), 1);
    let clock: loxi_core::dataplane::Clock = Arc::new(|| Timestamp(2 * Timestamp::SECOND));
    let again = Local::restore(Reference::new(), clock, saved.clone()).unwrap();
    assert_eq!(again.save().state.flows, saved.state.flows);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// apply(compile(old), compile_change(old -> new)) = compile(new), for subsets of a node's entities.
    #[test]
    fn changing_comes_to_compiling(old in proptest::collection::vec(any::<bool>(), 64), new in proptest::collection::vec(any::<bool>(), 64)) {
        let all = from_yaml(NODE).unwrap();
        let subset = |mask: &[bool]| {
            let chosen = all.iter().zip(mask.iter().chain(std::iter::repeat(&true))).filter(|(_, keep)| **keep);
            let mut entities: Vec<Entity> = chosen.map(|(entity, _)| entity.clone()).collect();
            // Leave out what refers to what was left out, until the rest fits together.
            loop {
                let pipeline = Pipeline::from_entities(&owner(), entities.clone());
                let Err(errors) = validate(&pipeline) else { return entities };
                entities.retain(|entity| errors.0.iter().all(|error| error.entity != entity.key()));
            }
        };
        let (old, new) = (subset(&old), subset(&new));
        let local = local();
        local.apply(&Transaction::replace("old", owner(), old.clone())).unwrap();
        local.apply(&Transaction::replace("new", owner(), new.clone())).unwrap();
        local.audit().unwrap();
        let wanted = Pipeline::from_entities(&owner(), new);
        prop_assert_eq!(local.pipeline(), wanted.clone());
        // The diff between the two is what the transaction planned.
        let before = Pipeline::from_entities(&owner(), old);
        let entities: Vec<Entity> = wanted.entities().map(|owned| owned.entity).collect();
        let planned = plan_change(&before, loxi_core::change::Generation(0), &Transaction::replace("x", owner(), entities)).unwrap();
        prop_assert_eq!(&planned, &diff(&before, &wanted));
        // And its inverse leads back.
        let mut back = wanted;
        planned.inverse().apply_to(&mut back);
        prop_assert_eq!(back, before);
    }
}

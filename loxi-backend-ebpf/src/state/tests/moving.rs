//! State out and in.

use super::fixture::*;
use super::learning::{client, endpoint, fragment, learn_one_of_each, lowered, neighbor, station};
use crate::state::flow::Key;
use crate::state::{export, import, recount};
use crate::sys::{BACKENDS, PORT_POLICY, STATIONS, ZONE_COUNT};
use loxi_core::dataplane::{DataplaneError, FlowStore, StateStore};
use loxi_core::net::IpProtocol;
use loxi_core::packet::{FdbEntry, Flow, SlotEntry, State};
use loxi_ebpf_layout::flow::{FAST, rest};
use loxi_ebpf_layout::l2::{Link, PortPolicy, Station, StationAt};
use loxi_ebpf_layout::lb::Backend;
use loxi_ebpf_layout::pair::Pair;

fn served(n: u32, generation: u64) -> Flow {
    Flow { service: Some(service()), backend: Some(("b1".parse().unwrap(), generation)), ..nth(n) }
}

/// A node that has learned something of every kind.
fn learned() -> Node {
    let mut node = Node::new([16, 16]);
    learn_one_of_each(&mut node);
    let mut store = node.store();
    store.insert(nth(1), NOW).unwrap();
    store.insert(served(2, 5), NOW).unwrap();
    store.insert(served(3, 4), NOW).unwrap();
    let mut six = flow(tuple("fd00::1", 1, "fd00::2", 2), NOW);
    six.id.zone = zone("z2");
    store.insert(six, NOW).unwrap();
    store.turn(&service());
    store.kernel.fill(PORT_POLICY, 2, &PortPolicy { groups: 1, generation: 3 });
    node
}

#[test]
fn what_goes_out_comes_in_the_same() {
    let mut node = learned();
    let state = export(&node.store()).unwrap();
    assert_eq!(
        (state.flows.len(), state.fdb.len(), state.neighbors.len(), state.affinity.len()),
        (4, 1, 1, 1)
    );
    assert_eq!((state.path_mtus.len(), state.fragments.len()), (1, 1));
    assert_eq!(state.round_robin, [(service(), 1)]);
    assert_eq!(state.policy_generations, [(port("p2"), 3)]);
    let slot = |name: &str, generation| SlotEntry { backend: name.parse().unwrap(), generation };
    assert_eq!(state.slots, [slot("b1", 5), slot("b2", 6)]);
    // Into itself, twice, and into another.
    for _ in 0..2 {
        import(&mut node.store(), state.clone(), NOW).unwrap();
        assert_eq!(export(&node.store()).unwrap(), state);
        assert_eq!(recount(&mut node.store()).unwrap().corrected, 0);
    }
    let mut other = Node::new([64, 2]);
    endpoint(&mut other, "192.0.2.50", 9);
    import(&mut other.store(), state.clone(), NOW).unwrap();
    assert_eq!(export(&other.store()).unwrap(), state);
    assert_eq!(recount(&mut other.store()).unwrap().corrected, 0);
    // Text keeps it too: what is written down at a restart.
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
}

#[test]
fn an_import_takes_the_place_of_everything() {
    let mut node = learned();
    let fixed = Station { link: Link { id: 1, vlan: 1 }, mac: [2; 6], reserved: 0 };
    let at = StationAt { port: 2, tunnel: 0, fixed: 1, expires: 0 };
    node.store().kernel.set(STATIONS, &fixed, &at).unwrap();
    let before = node.epoch();
    import(&mut node.store(), State::default(), NOW).unwrap();
    assert_ne!(node.epoch(), before, "decisions rested on it");
    let mut store = node.store();
    let left = export(&store).unwrap();
    // Generations are this instance's own.
    let slots = vec![
        SlotEntry { backend: "b1".parse().unwrap(), generation: 5 },
        SlotEntry { backend: "b2".parse().unwrap(), generation: 6 },
    ];
    let wanted = State { slots, policy_generations: vec![(port("p2"), 3)], ..State::default() };
    assert_eq!(left, wanted);
    assert_eq!(store.kernel.look(STATIONS, &fixed).unwrap(), Some(at));
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 0);
}

#[test]
fn what_was_current_there_is_current_here_and_nothing_else() {
    let mut node = learned();
    let mut state = export(&node.store()).unwrap();
    let (mut current, mut past) = (served(12, 5), served(13, 4));
    for flow in [&mut current, &mut past] {
        flow.id.tuple.protocol = IpProtocol::SCTP;
        flow.reply = flow.id.tuple.reversed();
        state.flows.push(flow.clone());
    }
    state.affinity[0].backend = ("b1".parse().unwrap(), 5);
    let mut other = Node::new([16, 16]);
    other.store().kernel.fill(
        BACKENDS,
        1,
        &Pair { which: 0, halves: [Backend { generation: 4, ..Backend::default() }, Backend::default()] },
    );
    import(&mut other.store(), state.clone(), NOW).unwrap();
    let store = other.store();
    let own = store.slot(&"b1".parse().unwrap());
    assert_eq!(own, 4, "a slot's generation stays ours");
    let of = |id: &loxi_core::packet::FlowId| store.get(id).unwrap().backend.unwrap().1;
    assert_eq!(of(&served(2, 0).id), own);
    assert_eq!(of(&current.id), own);
    assert_ne!(of(&served(3, 0).id), own, "its number there is our generation, and means another");
    assert_ne!(of(&past.id), own);
    assert_eq!(store.affinity(&service(), client().client).unwrap().backend.1, own);
    // Who doesn't tell its generations means ours.
    state.slots.clear();
    import(&mut other.store(), state, NOW).unwrap();
    assert_eq!(other.store().get(&served(3, 0).id).unwrap().backend.unwrap().1, 4);
}

#[test]
fn what_names_strangers_is_left_out() {
    let mut node = Node::new([16, 16]);
    let (mut far, mut lost, mut old) = (nth(1), nth(2), nth(3));
    far.id.zone = zone("z9");
    lost.ingress.port = port("p9");
    old.expires = NOW;
    let (mut gone, mut asked) = (served(4, 1), served(5, 1));
    gone.backend = Some(("b9".parse().unwrap(), 1));
    asked.backend = Some(("b9".parse().unwrap(), 1));
    asked.id.tuple.protocol = IpProtocol::UDP;
    asked.reply = asked.id.tuple.reversed();
    let mut away = neighbor(1);
    away.key.interface = "if9".parse().unwrap();
    let state = State {
        flows: vec![far, lost, old, gone.clone(), asked, nth(6)],
        fdb: vec![FdbEntry { port: port("p9"), ..station(1) }, station(2)],
        neighbors: vec![away, neighbor(2)],
        path_mtus: vec![lowered("192.0.2.99", 1400)],
        round_robin: vec![(loxi_core::ir::ServiceKey { vip: addr("10.96.0.9"), ..service() }, 4)],
        policy_generations: vec![(port("p9"), 4)],
        ..State::default()
    };
    import(&mut node.store(), state, NOW).unwrap();
    let left = export(&node.store()).unwrap();
    gone.backend = None;
    assert_eq!(left.flows, [as_stored(&gone), as_stored(&nth(6))]);
    assert_eq!((left.fdb, left.neighbors), (vec![station(2)], vec![neighbor(2)]));
    assert!(left.path_mtus.is_empty() && left.round_robin.is_empty() && left.policy_generations.is_empty());
}

#[test]
fn policy_generations_only_grow() {
    let mut node = learned();
    for (told, wanted) in [(2, 3), (7, 7)] {
        let state = State { policy_generations: vec![(port("p2"), told)], ..State::default() };
        import(&mut node.store(), state, NOW).unwrap();
        assert_eq!(node.store().policy_generation(&port("p2")), wanted);
    }
}

fn is_refused(result: Result<(), DataplaneError>) -> bool {
    matches!(result, Err(DataplaneError::BadRequest { field, .. }) if field == "flows")
}

#[test]
fn a_state_that_does_not_fit_changes_nothing() {
    let mut node = learned();
    let before = export(&node.store()).unwrap();
    // The programs' decision about a flow is part of what stays.
    let (_, key) = Key::of(1, &nth(1).id.tuple).unwrap();
    let place = node.store().table(4).find(&key).unwrap();
    let word = node.store().table(4).rest(place).load() | u64::from(FAST) << rest::FLAGS;
    node.store().table(4).rest(place).store(word);
    let mut twice = nth(7);
    twice.reply = nth(8).reply;
    let mut mixed = nth(9);
    mixed.reply.src = addr("fd00::1");
    let too_many: Vec<_> = (0..1000).map(nth).collect();
    for flows in [vec![nth(7), nth(7)], vec![twice, nth(8)], vec![mixed], too_many] {
        let state = State { flows, fdb: vec![station(5)], fragments: vec![fragment()], ..State::default() };
        let epoch = node.epoch();
        assert!(is_refused(import(&mut node.store(), state, NOW)));
        assert_eq!(export(&node.store()).unwrap(), before);
        assert_eq!(node.epoch(), epoch);
        assert_eq!(node.store().table(4).rest(place).load(), word);
        assert_eq!(recount(&mut node.store()).unwrap().corrected, 0);
    }
}

#[test]
fn flows_that_lose_their_room_on_the_way_are_put_back() {
    // Buckets that a program holds all the while can't be reckoned with.
    let mut node = Node::new([2, 2]);
    let old = (0..3).map(nth).collect::<Vec<_>>();
    for flow in &old {
        node.store().insert(flow.clone(), NOW).unwrap();
    }
    let six = flow(tuple("fd00::1", 1, "fd00::2", 2), NOW);
    node.store().table(6).lock_word(0).store(1);
    node.store().table(6).lock_word(1).store(1);
    let state = State { flows: vec![nth(50), six], ..State::default() };
    assert!(is_refused(import(&mut node.store(), state, NOW)));
    let left = export(&node.store()).unwrap().flows;
    assert_eq!(left, old.iter().map(as_stored).collect::<Vec<_>>());
    assert_eq!(recount(&mut node.store()).unwrap().corrected, 0);
}

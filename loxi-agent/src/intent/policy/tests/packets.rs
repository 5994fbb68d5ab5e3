//! Policies as packets meet them, by the reference.

use super::*;
use crate::intent::fixture;
use loxi_core::packet::Fate;
use loxi_core::reason::DropReason;

/// What becomes of a packet from `default/db` to `default/web` or the other way.
fn fate(intent: &mut Intent, from_db: bool, l4: &str) -> Fate {
    let (port, text) = if from_db {
        ("hs2", "eth 02:00:00:00:01:02>02:00:00:00:01:01 / ipv4 10.244.1.11>10.244.1.10")
    } else {
        ("hs1", "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11")
    };
    fixture::fate(intent, port, &format!("{text} / {l4}"))
}

#[test]
fn what_a_policy_allows_passes_and_the_rest_is_refused() {
    let refused = Fate::Dropped(DropReason::PolicyIsolated);
    let mut intent = cluster();
    assert_eq!(fate(&mut intent, true, "tcp 1000>80 S"), Fate::Forwarded);
    put(&mut intent, guard(Some(vec![rule(vec![pods("app=db")], vec![tcp(80)])]), Some(Vec::new())));
    assert_eq!(fate(&mut intent, true, "tcp 1000>80 S"), Fate::Forwarded);
    assert_eq!(fate(&mut intent, true, "tcp 1000>81 S"), refused);
    assert_eq!(fate(&mut intent, true, "udp 1000>80"), refused);
    assert_eq!(fate(&mut intent, false, "tcp 1000>80 S"), refused);
    put(&mut intent, guard(Some(vec![rule(vec![pods("app=far")], vec![])]), None));
    assert_eq!(fate(&mut intent, true, "tcp 1000>80 S"), refused);
    assert_eq!(fate(&mut intent, false, "tcp 1000>80 S"), Fate::Forwarded);
    put(&mut intent, pod("default/db", "app=far", &["10.244.1.11"]));
    assert_eq!(fate(&mut intent, true, "udp 1000>80"), Fate::Forwarded);
}

#[test]
fn who_is_not_known_is_reached_by_nobody() {
    let mut intent = cluster();
    gone(&mut intent, pod("default/web", "", &[]));
    for from_db in [true, false] {
        assert_eq!(fate(&mut intent, from_db, "udp 1>2"), Fate::Dropped(DropReason::PolicyIsolated));
    }
}

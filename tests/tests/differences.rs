//! `docs/differences.md` and the list in code name the same differences.

use loxi_tests::oracle::Known;
use std::collections::BTreeSet;

#[test]
fn every_known_difference_is_explained_and_no_other() {
    let text = include_str!("../../docs/differences.md");
    let explained: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let names: Vec<String> = Known::ALL.iter().map(|known| format!("{known:?}")).collect();
    let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(explained, known);
}

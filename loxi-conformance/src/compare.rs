//! A dataplane's verdicts beside the reference's.

use loxi_core::dataplane::Injected;

/// Where a dataplane and the reference differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which packet, from 0.
    pub packet: usize,
    /// What differs, in words.
    pub what: String,
}

/// Compares verdicts packet by packet. The reference must have been run with
/// the choices that the dataplane reports.
#[must_use]
pub fn compare(got: &[Injected], wanted: &[Injected]) -> Option<Difference> {
    if got.len() != wanted.len() {
        let what = format!("{} verdicts for {} packets", got.len(), wanted.len());
        return Some(Difference { packet: got.len().min(wanted.len()), what });
    }
    got.iter().zip(wanted).enumerate().find_map(|(packet, (got, wanted))| {
        if let Some(choice) = got.choices.iter().find(|choice| !choice.point.admits(choice.value)) {
            return Some(Difference { packet, what: format!("inadmissible choice {choice:?}") });
        }
        (got.verdict != wanted.verdict).then(|| Difference {
            packet,
            what: format!(
                "{:?}\n  where the reference has\n  {:?}\n{}",
                got.verdict, wanted.verdict, wanted.trace
            ),
        })
    })
}

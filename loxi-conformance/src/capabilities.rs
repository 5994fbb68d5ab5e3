//! Capabilities as committed files.

use loxi_core::capability::Capabilities;

/// Compares what a backend declares with its committed file.
///
/// # Errors
/// In words: what differs, or that the file can't be read.
pub fn check_committed(declared: &Capabilities, committed: &str) -> Result<(), String> {
    let committed: Capabilities =
        loxi_core::text::parse_yaml(committed).map_err(|error| error.to_string())?;
    if *declared == committed {
        return Ok(());
    }
    let lost: Vec<String> =
        committed.features.difference(&declared.features).map(ToString::to_string).collect();
    let new: Vec<String> =
        declared.features.difference(&committed.features).map(ToString::to_string).collect();
    Err(format!(
        "the capabilities of {} differ from the committed file: lost {lost:?}, new {new:?}; \
         capacity {}, stages {}, punts {}. What is lost needs a line in docs/differences.md",
        declared.backend,
        declared.capacity == committed.capacity,
        declared.stages == committed.stages,
        declared.punts == committed.punts,
    ))
}

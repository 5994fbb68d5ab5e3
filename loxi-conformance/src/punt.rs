//! Which hand-overs to a slow path are a dataplane's right.
//!
//! A packet that a fast path leaves to the slow path must come to the same as
//! any other; that it was left, and for what reason, must have been declared.

use loxi_core::capability::Capabilities;
use loxi_core::dataplane::Injected;
use loxi_core::reason::PuntReason;

/// Why the fast path handed a packet on, if it did.
///
/// # Errors
/// In words: it may not be handed on for this reason.
pub(crate) fn punt_of(
    injected: &Injected,
    capabilities: &Capabilities,
) -> Result<Option<PuntReason>, String> {
    let Some(reason) = injected.punt else { return Ok(None) };
    if reason.is_not_ours() {
        return Err(format!("handed to the slow path for {reason}, after which there is nothing to finish"));
    }
    if !capabilities.punts.contains(&reason) {
        return Err(format!("handed to the slow path for {reason}, which is not declared"));
    }
    Ok(Some(reason))
}

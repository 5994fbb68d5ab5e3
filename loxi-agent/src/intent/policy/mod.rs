//! Network policies.

use super::{Changed, Controller, Ledger, View};

/// The controller of network policies.
#[derive(Debug, Default)]
pub(super) struct Policies {}

impl Controller for Policies {
    fn changed(&mut self, _view: View<'_>, _changed: Changed<'_>, _ledger: &mut Ledger) {}
}

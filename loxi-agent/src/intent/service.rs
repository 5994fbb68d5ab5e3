//! Services and their endpoints.

use super::{Changed, Controller, Ledger, View};

/// The controller of services.
#[derive(Debug, Default)]
pub(super) struct Services {}

impl Controller for Services {
    fn changed(&mut self, _view: View<'_>, _changed: Changed<'_>, _ledger: &mut Ledger) {}
}

//! The interfaces of this node's pods.

use super::{Changed, Controller, Ledger, View};

/// The controller of interfaces.
#[derive(Debug)]
pub(super) struct Pods;

impl Controller for Pods {
    fn changed(&mut self, _view: View<'_>, _changed: Changed<'_>, _ledger: &mut Ledger) {}
}

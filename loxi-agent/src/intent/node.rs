//! This node's own network, and the ways to other nodes.

use super::{Changed, Controller, Ledger, Settings, View};

/// The controller of nodes.
#[derive(Debug)]
pub(super) struct Nodes;

impl Nodes {
    pub(super) fn new(_settings: &Settings, _ledger: &mut Ledger) -> Self {
        Self
    }
}

impl Controller for Nodes {
    fn changed(&mut self, _view: View<'_>, _changed: Changed<'_>, _ledger: &mut Ledger) {}
}

//! What the dataplane has learned: flows, stations, neighbours, clients' endpoints, path MTUs, fragments.
//!
//! All of it lies in the tables that the programs work on, so there is one state and nothing that
//! must be kept alike. [`Store`] is that state under the core's traits; around it are what the daemon does
//! now and then ([`Sweeper`], [`recover()`], [`recount`]), what a change of the configuration takes away
//! ([`forget()`]), and the whole of it as a value ([`export()`], [`import()`], [`flows`]).
//!
//! # Contract
//! - Programs run all the while. A count that is read may be of a moment ago, and a table that is
//!   listed while it changes may be told as it was or as it is.
//! - One process at a time does any of this; a second one may only read.
//! - What is configured (static stations and neighbours) is never returned, overwritten or swept.
//! - A flow whose zone or ingress port has no live name is treated as not there.
//! - Counts agree with what is in the tables: whoever puts a thing in adds, whoever takes it out
//!   subtracts.

mod copy;
mod export;
mod flow;
mod forget;
mod import;
mod learned;
mod overlay;
mod page;
mod recover;
mod store;
mod sweep;
mod tables;

#[cfg(test)]
mod tests;

pub use copy::{connections, copy_flows};
pub use export::export;
pub use forget::{
    Gone, forget, forget_bridge, forget_endpoint, forget_interface, forget_port, forget_service,
    forget_tunnel, forget_zone,
};
pub use import::import;
pub use overlay::{Learned, Overlay};
pub use page::flows;
pub use recover::{Recount, Recovered, recount, recover};
pub use store::{Pace, Store};
pub use sweep::{Sweeper, Swept, sweep};

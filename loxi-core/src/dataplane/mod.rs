//! What runs a pipeline, seen from both sides.
//!
//! [`Backend`] is for those who write one: synchronous, with types of its own.
//! [`Dataplane`] is for those who use one: object-safe, asynchronous, the same
//! for a local backend and a remote daemon. [`Local`] makes the second of the
//! first, and is where transactions are validated, compiled, installed, undone
//! and counted. A backend whose fast path doesn't do everything has a
//! [`SlowPath`] finish the rest, on the backend's own [`StateStore`].

mod api;
mod backend;
mod error;
mod events;
mod inject;
mod local;
mod query;
mod slow_path;
mod store;

pub use api::Dataplane;
pub use backend::{Backend, Placement, PlacementAt};
pub use error::{CompileError, DataplaneError, InstallError};
pub use events::{Event, EventGap, EventKind, EventQueue, EventSender, Events};
pub use inject::{ChoiceMode, Explanation, InjectRequest, Injected, PacketIn};
pub use local::{Clock, Local, LocalSnapshot};
pub use query::{FlowFilter, FlowPage, FlowQuery, SnapshotPage, SnapshotQuery};
pub use slow_path::{Finished, PuntedPacket, SlowPath, SlowPathView};
pub use store::{FlowInsertError, FlowStore, StateStore};

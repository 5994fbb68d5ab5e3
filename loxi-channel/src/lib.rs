//! The control channel of the loxi daemon.
//!
//! Callers send requests and get replies, and may listen to events. Both travel
//! as [frames](frame) over nanomsg's scalability protocols (request/reply and
//! publish/subscribe), on unix sockets in a folder of the instance's own. Which
//! library speaks SP is known to [`transport`] alone; no type of it is in a
//! public signature. `docs/channel.md` gives the reasons.
//!
//! - [`frame`]: the envelope, its limits, and what is wrong with a bad one
//! - [`codec`]: the self-describing encoding of bodies
//! - [`message`]: the bodies, and which reply answers which request
//! - [`endpoint`]: where the sockets are, and who may reach them
//! - [`request`]: the same for a dataplane's methods
//! - `remote`, `service`: a [`Dataplane`](loxi_core::dataplane::Dataplane) at this end, and at that end
//! - `client`, `server`, `events`: the two sides, as features `client` and `server`
//!
//! Nothing here panics on what arrives from the other side: a frame is decoded,
//! or it is a [`frame::FrameError`].

pub mod codec;
pub mod endpoint;
pub mod frame;
pub mod message;
pub mod request;

#[cfg(any(feature = "client", feature = "server"))]
pub mod transport;

#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
pub mod events;
#[cfg(feature = "client")]
pub mod remote;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod service;

pub use endpoint::Endpoint;
pub use frame::{Frame, FrameError, Kind, Limits, PROTOCOL, ProtocolVersion};
pub use message::{Fault, FaultCode, Hello, Message, Ping, Pong, Refused, Request, Welcome};

#[cfg(feature = "client")]
pub use client::{CallError, ConnectError, Connection};
#[cfg(feature = "client")]
pub use remote::RemoteDataplane;
#[cfg(feature = "server")]
pub use server::{BindError, Incoming, Outgoing, Server, Service};
#[cfg(feature = "server")]
pub use service::{DataplaneService, Identity, ServeError, Served, serve};

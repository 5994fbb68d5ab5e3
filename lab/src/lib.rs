//! Two nodes in network namespaces of one machine, joined by a wire, each with its agent, its daemon and pods that the
//! CNI plugin has attached; and the table of rows that proves their network, from traffic and from who has forwarded it.
//!
//! - [`plan`]: names and addresses; [`manifests`] and [`services`]: what the agents are told
//! - [`world`]: the namespaces, which go away with the value that holds them
//! - [`program`]: what runs on a node: [`daemon`] and [`agent`]; [`attach`]: as a container runtime would
//! - [`traffic`]: those who answer and those who ask
//! - [`rows`]: the table; [`proof`]: who has forwarded
//! - [`mod@bench`]: how fast pods are with each other, beside plain Linux
//! - [`session`]: all of it together; [`report`] and [`invitation`]: what people and programs see of it
//!
//! It needs root. Nothing outside of the instance's own namespaces and folder is touched, and nothing here
//! panics on what traffic, programs or the kernel answer.

pub mod agent;
pub mod attach;
pub mod bench;
pub mod daemon;
pub mod invitation;
pub mod manifests;
pub mod plan;
pub mod program;
pub mod proof;
pub mod report;
pub mod rows;
pub mod services;
pub mod session;
pub mod traffic;
pub mod world;

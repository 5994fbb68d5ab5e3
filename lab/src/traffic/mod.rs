//! Traffic through a lab: who answers, and who asks.
//!
//! Sockets are made by a thread inside of a namespace and stay there, whoever uses them later. Nothing but the
//! programs ping and traceroute is needed besides.

pub mod answer;
pub mod ask;
pub mod bulk;
pub mod tools;

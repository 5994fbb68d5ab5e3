//! Events, from the daemon to whoever listens.
//!
//! Queues are bounded on both sides and lose the oldest, so that a slow listener
//! costs the daemon nothing. A listener never takes a stream with a hole for a
//! whole one: every event carries a sequence, and [`Delivery::gap`] says what is
//! missing before it.

#[cfg(feature = "server")]
pub use self::give::EventSender;
#[cfg(feature = "client")]
pub use self::take::{Delivery, EventError, EventReceiver};

/// What is missing before an event.
#[cfg(any(feature = "client", test))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Nothing.
    None,
    /// This many events.
    Missed(u64),
    /// The daemon was restarted: nobody knows.
    Unknown,
}

/// Which sequence an event has: the start of the daemon above, a count below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sequence(u64);

impl Sequence {
    const COUNT_BITS: u32 = 40;

    #[cfg(any(feature = "server", test))]
    fn first(boot: u64) -> Self {
        Self(boot << Self::COUNT_BITS)
    }

    #[cfg(any(feature = "client", test))]
    fn gap_after(self, last: Option<Self>) -> Gap {
        let Some(last) = last else { return Gap::None };
        if self.0 >> Self::COUNT_BITS != last.0 >> Self::COUNT_BITS || self.0 <= last.0 {
            return Gap::Unknown;
        }
        match self.0 - last.0 - 1 {
            0 => Gap::None,
            missed => Gap::Missed(missed),
        }
    }
}

#[cfg(feature = "server")]
mod give {
    use super::Sequence;
    use crate::endpoint::Endpoint;
    use crate::frame::{FrameError, Limits};
    use crate::message::Message;
    use crate::server::BindError;
    use crate::transport::{NngPublisher, Publisher};
    use std::sync::{Mutex, PoisonError};

    /// The daemon's end.
    #[derive(Debug)]
    pub struct EventSender {
        publisher: Box<dyn Publisher>,
        limits: Limits,
        next: Mutex<Sequence>,
    }

    impl EventSender {
        /// Listens at the endpoint; `boot` as in [`Welcome`](crate::message::Welcome).
        pub fn bind(endpoint: &Endpoint, limits: Limits, boot: u64) -> Result<Self, BindError> {
            endpoint.prepare()?;
            let publisher = NngPublisher::listen(&endpoint.events())
                .map_err(|source| BindError::Listen { endpoint: endpoint.clone(), source })?;
            Ok(Self { publisher: Box::new(publisher), limits, next: Mutex::new(Sequence::first(boot)) })
        }

        /// Gives an event to every listener, without waiting for any. An event
        /// that has no frame is a gap to the listeners, and an error here.
        pub fn send<M: Message>(&self, event: &M) -> Result<(), FrameError> {
            // Held while sending: the order of sequences is the order on the wire.
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let sequence = *next;
            next.0 += 1;
            let bytes = event.to_frame(sequence.0, self.limits.event)?;
            if let Err(error) = self.publisher.publish(&bytes) {
                tracing::warn!(%error, "publishing an event");
            }
            Ok(())
        }

        /// Tells the listeners, by the next event, that `missed` events never got here.
        pub fn skip(&self, missed: u64) {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            next.0 = next.0.wrapping_add(missed);
        }
    }
}

#[cfg(feature = "client")]
mod take {
    use super::{Gap, Sequence};
    use crate::client::ConnectError;
    use crate::endpoint::Endpoint;
    use crate::frame::{Frame, FrameError, Limits};
    use crate::message::Message;
    use crate::transport::{NngSubscriber, Subscriber, TransportError};

    /// A listener's end.
    #[derive(Debug)]
    pub struct EventReceiver {
        subscriber: Box<dyn Subscriber>,
        limits: Limits,
        last: Option<Sequence>,
    }

    /// An event, and what is missing before it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Delivery<M> {
        /// What is missing.
        pub gap: Gap,
        /// What came.
        pub event: M,
    }

    /// Why there is no event.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[non_exhaustive]
    pub enum EventError {
        /// The listener can't go on.
        #[error(transparent)]
        Transport(#[from] TransportError),
        /// Something came that this side can't read; the next one may be fine.
        #[error("unreadable event: {0}")]
        Frame(#[from] FrameError),
    }

    impl EventReceiver {
        /// Listens to the events of an endpoint. It begins with whatever the
        /// daemon sends next.
        pub fn open(endpoint: &Endpoint, limits: Limits) -> Result<Self, ConnectError> {
            let subscriber = NngSubscriber::dial(&endpoint.events(), limits.event, false)
                .map_err(|source| ConnectError::Unreachable { endpoint: endpoint.clone(), source })?;
            Ok(Self { subscriber: Box::new(subscriber), limits, last: None })
        }

        /// Waits for the next event. Given up (in a `select!`, say), it loses
        /// none.
        pub async fn next<M: Message>(&mut self) -> Result<Delivery<M>, EventError> {
            let bytes = self.subscriber.next().await?;
            let frame = Frame::decode(&bytes, self.limits.event)?;
            let sequence = Sequence(frame.correlation);
            let gap = sequence.gap_after(self.last.replace(sequence));
            let event = M::from_frame(&frame, self.limits.depth)?;
            Ok(Delivery { gap, event })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_and_a_restart_is_no_count() {
        let first = Sequence::first(7);
        assert_eq!(first.gap_after(None), Gap::None);
        assert_eq!(Sequence(first.0 + 1).gap_after(Some(first)), Gap::None);
        assert_eq!(Sequence(first.0 + 4).gap_after(Some(first)), Gap::Missed(3));
        assert_eq!(Sequence::first(8).gap_after(Some(first)), Gap::Unknown);
        let later = Sequence(first.0 + 9);
        assert_eq!(first.gap_after(Some(later)), Gap::Unknown);
    }
}

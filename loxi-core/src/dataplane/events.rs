//! Events: a bounded stream with explicit gaps.

use crate::change::{Generation, TransactionId};
use crate::ir::{EntityKey, Owner};
use crate::net::{PortName, ZoneName};
use crate::packet::Timestamp;
use crate::reason::DropReason;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A transaction was applied.
    Applied {
        /// The transaction.
        id: TransactionId,
        /// Its owner.
        owner: Owner,
        /// The new generation.
        generation: Generation,
    },
    /// An entity changed hands by `take_ownership`.
    OwnershipTaken {
        /// The entity.
        entity: EntityKey,
        /// Before.
        from: Owner,
        /// After.
        to: Owner,
    },
    /// A port was attached.
    PortAttached(PortName),
    /// A port was detached.
    PortDetached(PortName),
    /// A zone has 90 % of the flows that it may.
    ZoneNearlyFull {
        /// The zone.
        zone: ZoneName,
        /// Flows now.
        flows: u64,
        /// Flows at most.
        capacity: u64,
    },
    /// Packets were dropped: at most one event per port, reason and second.
    Dropped {
        /// Ingress port.
        port: PortName,
        /// Why.
        reason: DropReason,
        /// The packet in words.
        packet: String,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// Events that a slow reader has missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{missed} events were missed")]
#[serde(deny_unknown_fields)]
pub struct EventGap {
    /// How many.
    pub missed: u64,
}

#[derive(Debug, Default)]
struct Shared {
    events: VecDeque<Event>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Queue {
    shared: Mutex<Shared>,
    capacity: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // The lock is never held over anything that can panic.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader's end of a stream of events.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
}

/// The writer's end of a stream of events. Dropping it ends the stream.
#[derive(Debug)]
pub struct EventSender {
    queue: Weak<Queue>,
}

impl Drop for EventSender {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            let mut shared = queue.lock();
            shared.closed = true;
            if let Some(waker) = shared.waker.take() {
                waker.wake();
            }
        }
    }
}

impl EventSender {
    /// Adds an event; where there is no room the oldest goes and the reader is told. `false`
    /// when the reader is gone.
    pub fn send(&self, event: Event) -> bool {
        self.push(Some(event), 0)
    }

    /// Tells the reader that events were missed on the way here.
    pub fn send_gap(&self, missed: u64) -> bool {
        self.push(None, missed)
    }

    fn push(&self, event: Option<Event>, missed: u64) -> bool {
        let Some(queue) = self.queue.upgrade() else {
            return false;
        };
        let mut shared = queue.lock();
        shared.missed += missed;
        if let Some(event) = event {
            if shared.events.len() >= queue.capacity {
                shared.events.pop_front();
                shared.missed += 1;
            }
            shared.events.push_back(event);
        }
        if let Some(waker) = shared.waker.take() {
            waker.wake();
        }
        true
    }
}

impl Events {
    /// A stream that holds at most `capacity` unread events.
    #[must_use]
    pub fn channel(capacity: usize) -> (EventSender, Self) {
        let queue = Arc::new(Queue { shared: Mutex::default(), capacity: capacity.max(1) });
        (EventSender { queue: Arc::downgrade(&queue) }, Self { queue })
    }

    /// The next event, without waiting. `Some(Err)` tells of a gap before it.
    pub fn try_next(&mut self) -> Option<Result<Event, EventGap>> {
        Self::take(&mut self.queue.lock())
    }

    /// Waits for the next event. `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Result<Event, EventGap>> {
        std::future::poll_fn(|context| {
            let mut shared = self.queue.lock();
            match Self::take(&mut shared) {
                Some(item) => Poll::Ready(Some(item)),
                None if shared.closed => Poll::Ready(None),
                None => {
                    shared.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn take(shared: &mut Shared) -> Option<Result<Event, EventGap>> {
        if shared.missed > 0 {
            return Some(Err(EventGap { missed: std::mem::take(&mut shared.missed) }));
        }
        shared.events.pop_front().map(Ok)
    }
}

/// Hands every event to every reader.
#[derive(Debug, Default)]
pub struct EventQueue {
    readers: Vec<EventSender>,
}

impl EventQueue {
    /// Unread events per reader at most.
    pub const CAPACITY: usize = 4096;

    /// Adds a reader.
    pub fn subscribe(&mut self) -> Events {
        let (sender, events) = Events::channel(Self::CAPACITY);
        self.readers.push(sender);
        events
    }

    /// Hands out an event and forgets readers that are gone.
    pub fn publish(&mut self, event: &Event) {
        self.readers.retain(|reader| reader.send(event.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> Event {
        Event { at: Timestamp(n), kind: EventKind::PortAttached(PortName::new("hs1").unwrap()) }
    }

    #[test]
    fn a_slow_reader_learns_what_it_missed() {
        let (sender, mut events) = Events::channel(2);
        for n in 0..5 {
            assert!(sender.send(event(n)));
        }
        assert_eq!(events.try_next(), Some(Err(EventGap { missed: 3 })));
        assert_eq!(events.try_next(), Some(Ok(event(3))));
        assert_eq!(events.try_next(), Some(Ok(event(4))));
        assert_eq!(events.try_next(), None);
        drop(events);
        assert!(!sender.send(event(5)), "the reader is gone");
    }
}

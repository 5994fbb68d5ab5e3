//! Waiting for many descriptors at once, with a way to be woken.
//!
//! Level-triggered: a descriptor that stays ready is reported again. A [`crate::packet::FrameIo`]
//! may hold finished frames that the kernel no longer knows of, so a reader
//! takes frames until there are none before it waits again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll};

/// The token that [`Waker`] uses; no descriptor can have it.
const WAKE: u64 = u64::MAX;

/// Why waiting failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PollError {
    /// The token `u64::MAX` is the waker's.
    #[error("the token {} is reserved", u64::MAX)]
    ReservedToken,
    /// A system call failed.
    #[error("{operation}: {source}")]
    Os {
        /// What was being done.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn os(operation: &'static str) -> impl Fn(rustix::io::Errno) -> PollError {
    move |error| PollError::Os { operation, source: error.into() }
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something can be received.
    Read,
    /// Something can be sent.
    Write,
    /// Either.
    Both,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// It can be read, or has failed, which a read will tell.
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
    /// It has an error or was closed at the other side (a device that went down or away).
    pub failed: bool,
}

/// Waits for descriptors. Those are not owned: remove one before closing it.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
}

/// Wakes a [`Poller`] from any thread. Wakings before a wait are not lost, and many count as one.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the current or next wait return.
    ///
    /// # Errors
    /// If the descriptor fails, which only closing it by force would cause.
    pub fn wake(&self) -> Result<(), PollError> {
        match rustix::io::write(&*self.0, &1u64.to_ne_bytes()) {
            // A full counter wakes as well.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(os("wake")(error)),
        }
    }
}

impl Poller {
    /// A poller that waits for nothing but its waker.
    ///
    /// # Errors
    /// If descriptors have run out.
    pub fn new() -> Result<Self, PollError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(os("epoll_create"))?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(os("eventfd"))?;
        let data = epoll::EventData::new_u64(WAKE);
        epoll::add(&epoll, &wake, data, epoll::EventFlags::IN).map_err(os("epoll_ctl"))?;
        Ok(Self { epoll, wake: Arc::new(wake) })
    }

    /// A handle that wakes this poller.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// Waits for `fd` too.
    ///
    /// # Errors
    /// If it is there already, can't be polled, or the token is reserved.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), PollError> {
        let data = token_data(token)?;
        epoll::add(&self.epoll, fd, data, interest.flags()).map_err(os("epoll_ctl add"))
    }

    /// Changes token and interest of a descriptor.
    ///
    /// # Errors
    /// If it is not there, or the token is reserved.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), PollError> {
        let data = token_data(token)?;
        epoll::modify(&self.epoll, fd, data, interest.flags()).map_err(os("epoll_ctl modify"))
    }

    /// Waits for `fd` no longer.
    ///
    /// # Errors
    /// If it is not there.
    pub fn remove(&self, fd: impl AsFd) -> Result<(), PollError> {
        epoll::delete(&self.epoll, fd).map_err(os("epoll_ctl delete"))
    }

    /// Waits until something is ready, a waker is used, or the time is over (`None` waits for ever);
    /// `ready` is replaced by what is ready. Returns whether a waker was used.
    ///
    /// # Errors
    /// If the kernel fails the wait. A signal is no error: it ends the wait with nothing ready.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> Result<bool, PollError> {
        ready.clear();
        let timeout = timeout.map(|time| Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 64];
        let found = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((found, _)) => found,
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(os("epoll_wait")(error)),
        };
        let mut woken = false;
        for event in found {
            let (flags, token) = (event.flags, event.data.u64());
            if token == WAKE {
                woken = true;
                let mut count = [0; 8];
                // Non-blocking; whoever emptied it first, the result is the same.
                let _ = rustix::io::read(&*self.wake, &mut count);
                continue;
            }
            let failed = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            ready.push(Ready {
                token,
                readable: failed || flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
                failed,
            });
        }
        Ok(woken)
    }
}

fn token_data(token: u64) -> Result<epoll::EventData, PollError> {
    if token == WAKE {
        return Err(PollError::ReservedToken);
    }
    Ok(epoll::EventData::new_u64(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_wakings_are_not_lost() {
        let poller = Poller::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        poller.add(&reader, 7, Interest::Read).unwrap();
        let mut ready = Vec::new();
        let short = Some(Duration::from_millis(5));
        assert!(!poller.wait(&mut ready, short).unwrap());
        assert!(ready.is_empty());

        poller.waker().wake().unwrap();
        poller.waker().wake().unwrap();
        assert!(poller.wait(&mut ready, None).unwrap());
        assert!(!poller.wait(&mut ready, short).unwrap(), "many wakings count as one");

        rustix::io::write(&writer, b"x").unwrap();
        for _ in 0..2 {
            poller.wait(&mut ready, None).unwrap();
            assert_eq!(ready.len(), 1, "level-triggered");
            assert_eq!((ready[0].token, ready[0].readable), (7, true));
        }
        poller.remove(&reader).unwrap();
        poller.wait(&mut ready, short).unwrap();
        assert!(ready.is_empty());
        assert!(matches!(poller.add(&reader, u64::MAX, Interest::Read), Err(PollError::ReservedToken)));
    }
}

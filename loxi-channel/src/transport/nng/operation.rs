//! One asynchronous operation of NNG at a time, as a future.
//!
//! NNG reports the end of an operation by a callback on a thread of its own; the
//! callback hands the result to whoever waits, and does nothing else.

#[cfg(feature = "client")]
use nng::Socket;
use nng::{Aio, AioResult, Context, Message};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

type Waiting = Arc<Mutex<Option<oneshot::Sender<AioResult>>>>;

/// An NNG operation handle, idle between calls.
///
/// Receiving may be given up at any time: what comes then is kept for the next
/// call that receives. Sending that is given up leaves the handle busy, so that
/// it must be dropped. `Drop` waits for the library to let go of it.
#[derive(Debug)]
pub(super) struct Operation {
    aio: Aio,
    waiting: Waiting,
    /// A receive that was begun and not yet taken.
    receiving: Option<oneshot::Receiver<AioResult>>,
}

impl Operation {
    pub(super) fn new() -> Result<Self, nng::Error> {
        let waiting = Waiting::default();
        let slot = Arc::clone(&waiting);
        let aio = Aio::new(move |aio, result| {
            // The library must not free the handle on its own thread, which
            // would wait for itself: ours has to be the last reference.
            drop(aio);
            let waiter = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waiter) = waiter {
                // A waiter that has gone does not want the result.
                let _ = waiter.send(result);
            }
        })?;
        Ok(Self { aio, waiting, receiving: None })
    }

    pub(super) async fn send(
        &mut self,
        context: &Context,
        bytes: &[u8],
        timeout: Option<Duration>,
    ) -> Result<(), nng::Error> {
        self.aio.set_timeout(timeout)?;
        let result = self.expect();
        context.send(&self.aio, Message::from(bytes)).map_err(|(_, error)| error)?;
        match result.await {
            Ok(AioResult::Send(sent)) => sent.map_err(|(_, error)| error),
            _ => Err(nng::Error::Canceled),
        }
    }

    pub(super) async fn receive(
        &mut self,
        context: &Context,
        timeout: Option<Duration>,
    ) -> Result<Vec<u8>, nng::Error> {
        self.received(timeout, |aio| context.recv(aio)).await
    }

    /// For protocols without contexts.
    #[cfg(feature = "client")]
    pub(super) async fn receive_from(&mut self, socket: &Socket) -> Result<Vec<u8>, nng::Error> {
        self.received(None, |aio| socket.recv_async(aio)).await
    }

    async fn received(
        &mut self,
        timeout: Option<Duration>,
        begin: impl FnOnce(&Aio) -> Result<(), nng::Error>,
    ) -> Result<Vec<u8>, nng::Error> {
        let result = if let Some(begun) = &mut self.receiving {
            begun
        } else {
            self.aio.set_timeout(timeout)?;
            let result = self.expect();
            begin(&self.aio)?;
            self.receiving.insert(result)
        };
        let result = result.await;
        self.receiving = None;
        match result {
            Ok(AioResult::Recv(Ok(message))) => Ok(message.as_slice().to_vec()),
            Ok(AioResult::Recv(Err(error))) => Err(error),
            _ => Err(nng::Error::Canceled),
        }
    }

    fn expect(&self) -> oneshot::Receiver<AioResult> {
        let (waiter, result) = oneshot::channel();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiter);
        result
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // Until the callback has ended it may hold the last reference; it does
        // so little that waiting for it is no wait to speak of.
        self.aio.cancel();
        self.aio.wait();
    }
}

//! Sending frames from user space: what a committed packet of `inject` comes to.

use super::Inner;
use loxi_core::ir::{Port, PortKind};
use loxi_core::net::PortName;
use loxi_core::packet::{Unsent, Verdict};
use loxi_core::reason::DropReason;
use loxi_linux::packet::{FrameError, FrameIo, PacketSocket};

impl Inner {
    /// Sends what leaves; what doesn't is noted. Without devices everything stays.
    pub(super) fn send_all(&mut self, verdict: &mut Verdict) {
        if self.namespaces.is_none() {
            return;
        }
        let mut unsent = Vec::new();
        for output in &verdict.outputs {
            if let Err(reason) = self.send(&output.port, &output.bytes) {
                let counters = self.slow_counters.entry(output.port.clone()).or_default();
                *counters.unsent.entry(reason).or_default() += 1;
                unsent.push(Unsent { port: output.port.clone(), reason });
            }
        }
        verdict.unsent.append(&mut unsent);
    }

    /// Sends one frame by a socket of its own: this is for packets by hand, not for traffic.
    fn send(&self, name: &PortName, frame: &[u8]) -> Result<(), DropReason> {
        let port = self.pipeline.get::<Port>(name).ok_or(DropReason::EgressDown)?;
        if port.kind == PortKind::Tunnel {
            return Ok(());
        }
        let namespaces = self.namespaces.as_ref().ok_or(DropReason::EgressDown)?;
        let sent = namespaces
            .of(namespaces.side(port.kind))
            .0
            .run(|| PacketSocket::open(name.as_str()).and_then(|mut socket| socket.send(frame)));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(FrameError::BadLength { .. })) => Err(DropReason::Mtu),
            Ok(Err(error)) => {
                tracing::debug!(port = %name, %error, "sending");
                Err(DropReason::EgressDown)
            }
            Err(error) => {
                tracing::debug!(port = %name, %error, "sending");
                Err(DropReason::EgressDown)
            }
        }
    }
}

//! This node, as far as pods' interfaces depend on it: the engine with the machine's layout.

use std::sync::Arc;

use async_trait::async_trait;
use loxi_core::net::PortName;

use crate::engine::{Handle, RequestError};
use crate::host::Host;
use crate::intent::Attachment;
use crate::pods::{Node, PodNetwork};

/// An engine and the machine that it runs on.
#[derive(Debug, Clone)]
pub struct ThisNode {
    engine: Handle,
    host: Arc<Host>,
}

impl ThisNode {
    /// The node of an engine.
    #[must_use]
    pub fn new(engine: Handle, host: Arc<Host>) -> Self {
        Self { engine, host }
    }
}

#[async_trait]
impl Node for ThisNode {
    fn network(&self) -> Option<Arc<PodNetwork>> {
        let settings = self.engine.status().borrow().settings.clone()?;
        Some(Arc::new(PodNetwork { layout: self.host.spec(&settings) }))
    }

    async fn attached(&self, attachment: Attachment) -> Result<(), RequestError> {
        self.engine.attach(attachment).await
    }

    async fn detached(&self, port: &PortName) -> Result<(), RequestError> {
        self.engine.detach(port.clone()).await
    }

    fn readiness(&self) -> Result<(), String> {
        self.engine.status().borrow().unready().map_or(Ok(()), |why| Err(why.to_owned()))
    }
}

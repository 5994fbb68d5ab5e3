//! Taking an interface away.

use loxi_linux::layout::{Layout, LayoutError};
use loxi_linux::sys::Sys;

use super::{Entry, Invocation, Key, NetworkConfig, PodError, Pods, State, is_there};
use crate::ipam::Tenant;

impl Pods {
    /// Takes an interface away. Doing it again, or where nothing was made, is no error; neither the container's namespace nor what
    /// it was told at the time is needed.
    ///
    /// # Errors
    /// If a step failed. The ones after it are still to be done, and another call does them.
    pub async fn del(&self, invocation: &Invocation) -> Result<(), PodError> {
        let key = &invocation.key;
        let _lock = self.locks.lock(key).await;
        match self.store.get(key) {
            Some(entry) => self.remove(key, &entry).await,
            // What another agent may have given it, whose files are lost.
            None => Ok(self.ipam.del(&self.tenant(key, &invocation.config)).await?),
        }
    }

    /// Takes away whatever there is of an interface; its lock is held.
    pub(super) async fn remove(&self, key: &Key, entry: &Entry) -> Result<(), PodError> {
        let (store, port) = (self.store.clone(), entry.port.clone());
        if entry.state != State::Pending {
            // Interrupted, it is not to count as an interface again.
            let (store, key) = (store.clone(), key.clone());
            let entry = Entry { state: State::Pending, ..entry.clone() };
            self.blocking(move |_| Ok(store.put(&key, entry)?)).await?;
        }
        self.node.detached(&port).await?;
        let layout = self.layout.clone();
        self.blocking(move |sys| unlink(sys, &layout, port.as_str())).await?;
        self.ipam.del(&entry.tenant).await?;
        let key = key.clone();
        self.blocking(move |_| Ok(store.remove(&key)?)).await
    }

    /// Whose addresses a network's are.
    pub(super) fn tenant(&self, key: &Key, config: &NetworkConfig) -> Tenant {
        Tenant {
            network: config.name.clone(),
            data_dir: config.data_dir.clone().unwrap_or_else(|| self.ipam.data_dir.clone()),
            container: key.container().to_owned(),
            ifname: key.ifname().to_owned(),
        }
    }
}

fn unlink(sys: &dyn Sys, layout: &Layout, port: &str) -> Result<(), PodError> {
    // After the node has started anew there is no namespace that the link could be in.
    if !is_there(sys, &layout.netns())? {
        return Ok(());
    }
    match layout.remove_pod(sys, port) {
        // The kernel takes a link away by itself when the container's namespace ends.
        Err(LayoutError::Step { source, .. }) if source.is_missing() => Ok(layout.remove_pod(sys, port)?),
        other => Ok(other?),
    }
}

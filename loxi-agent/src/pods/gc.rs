//! Taking away what belongs to nobody.

use std::collections::BTreeSet;

use super::{Key, NetworkConfig, PodError, Pods};
use crate::ipam::{HostLocal, Tenant};

impl Pods {
    /// Takes away the network's interfaces that its configuration doesn't list, and frees addresses on disk that are neither of
    /// a listed attachment nor of an interface that is left. What is being made or taken away at the moment is not garbage.
    ///
    /// # Errors
    /// If the list is missing, or something could not be taken away: the rest is gone, and another call tries it again.
    pub async fn gc(&self, config: &NetworkConfig) -> Result<(), PodError> {
        let valid: BTreeSet<(String, String)> = config.valid()?.into_iter().collect();
        let is_valid = |container: &str, ifname: &str| valid.contains(&(container.into(), ifname.into()));
        let mut left = Vec::new();
        for key in self.store.keys() {
            if is_valid(key.container(), key.ifname()) {
                continue;
            }
            let Some(_lock) = self.locks.try_lock(&key) else { continue };
            let Some(entry) = self.store.get(&key) else { continue };
            if entry.tenant.network != config.name {
                continue;
            }
            if let Err(error) = self.remove(&key, &entry).await {
                left.push((key.to_string(), error));
            }
        }
        let folder = config.data_dir.clone().unwrap_or_else(|| self.ipam.data_dir.clone());
        let (from, network) = (folder.clone(), config.name.clone());
        let leases = self.blocking(move |_| Ok(HostLocal::leases(&from, &network)?)).await?;
        let tenants: BTreeSet<(String, String)> =
            leases.into_iter().map(|lease| (lease.container, lease.ifname)).collect();
        for (container, ifname) in tenants {
            // What can't be an interface of a runtime's is another tool's.
            let Ok(key) = Key::new(&container, &ifname) else { continue };
            if is_valid(&container, &ifname) {
                continue;
            }
            // Held so that no ADD begins meanwhile; those that have begun are in the store.
            let Some(_lock) = self.locks.try_lock(&key) else { continue };
            if self.store.get(&key).is_some() {
                continue;
            }
            let network = config.name.clone();
            let tenant = Tenant { network, data_dir: folder.clone(), container, ifname };
            if let Err(error) = self.ipam.del(&tenant).await {
                left.push((format!("addresses of {key}"), error.into()));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(PodError::Left(left)) }
    }
}

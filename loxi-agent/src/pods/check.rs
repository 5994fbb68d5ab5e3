//! Whether an interface is still what was made.

use loxi_linux::layout::Layout;
use loxi_linux::rtnetlink::Route;
use loxi_linux::sys::{LinkState, Ns, Sys, SysError};
use loxi_linux::{MacAddr, Prefix};

use super::{Address, Complete, Entry, Invocation, PodError, Pods, State, is_there};
use crate::intent::Attachment;

impl Pods {
    /// Compares an interface with what was made. Nothing is changed.
    ///
    /// # Errors
    /// The first difference, or that it can't be looked at.
    pub async fn check(&self, invocation: &Invocation) -> Result<(), PodError> {
        let key = &invocation.key;
        let _lock = self.locks.lock(key).await;
        let unknown = || PodError::Unknown(key.clone());
        let Entry { state: State::Complete(complete), tenant, .. } =
            self.store.get(key).ok_or_else(unknown)?
        else {
            return Err(unknown());
        };
        let Complete { attachment, addresses } = *complete;
        if let Some(remembered) = invocation.config.remembered()?
            && let Some(lost) = attachment.addresses.iter().find(|address| !remembered.contains(address))
        {
            return Err(PodError::Differs(format!(
                "the runtime's result has no address {lost}, the pod has"
            )));
        }
        let (layout, netns) = (self.layout.clone(), Ns::at(&invocation.netns));
        self.blocking(move |sys| compare(sys, &layout, &netns, &attachment, &addresses)).await?;
        Ok(self.ipam.check(&tenant, &invocation.netns).await?)
    }
}

fn compare(
    sys: &dyn Sys,
    layout: &Layout,
    netns: &Ns,
    attachment: &Attachment,
    addresses: &[Address],
) -> Result<(), PodError> {
    let failed = |step| move |source: SysError| PodError::Sys { step, source };
    let differs = |text: String| Err(PodError::Differs(text));
    if !is_there(sys, netns)? {
        return Err(PodError::NoNetns(netns.path().into()));
    }
    let port = attachment.port.as_str();
    let find = |ns: &Ns, name: &str| -> Result<Option<LinkState>, PodError> {
        let links = sys.links(ns).map_err(failed("list links"))?;
        Ok(links.into_iter().find(|link| link.name == name))
    };
    match find(&layout.netns(), port)? {
        None => return differs(format!("the dataplane has no link {port}")),
        Some(link) if link.alias != Some(layout.spec().instance.label(port)) => {
            return differs(format!("{port} has the label {:?}", link.alias));
        }
        Some(link) if !link.up => return differs(format!("{port} is down")),
        Some(_) => {}
    }
    let name = attachment.ifname.as_str();
    let Some(link) = find(netns, name)? else {
        return differs(format!("the container has no interface {name}"));
    };
    let mac = MacAddr(attachment.mac.octets());
    if link.mac != Some(mac) {
        return differs(format!("the Ethernet address of {name} is {:?}, it was {mac}", link.mac));
    }
    if link.mtu != u32::from(attachment.mtu.get()) {
        return differs(format!("the MTU of {name} is {}, it was {}", link.mtu, attachment.mtu.get()));
    }
    if !link.up {
        return differs(format!("{name} is down"));
    }
    let there = sys.addrs(netns, name).map_err(failed("list addresses"))?;
    let routes = sys.routes(netns).map_err(failed("list routes"))?;
    for each in addresses {
        let address = Prefix { addr: each.address, len: each.len };
        if !there.contains(&address) {
            return differs(format!("{name} has no address {address}"));
        }
        let route = Route::via(Prefix::any(each.gateway), each.gateway, name);
        let same = |other: &Route| (other.dst, other.via, &other.dev) == (route.dst, route.via, &route.dev);
        if !routes.iter().any(same) {
            return differs(format!("the container has no route {route}"));
        }
    }
    Ok(())
}

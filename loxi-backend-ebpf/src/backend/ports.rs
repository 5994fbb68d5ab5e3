//! Attaching ports to devices.

use super::{Inner, Mode};
use crate::hook::{Bound, DeviceError, Found, Namespaces};
use crate::install::Device;
use crate::load::stub::Without;
use crate::sys::{Kernel, Table, bytes};
use loxi_core::dataplane::DataplaneError;
use loxi_core::ir::{Port, PortKind, Unclaimed};
use loxi_core::net::PortName;
use loxi_ebpf_layout::count::{CROSSING_STUB, SLOW_PATH};
use loxi_ebpf_layout::l2::{exit, side};
use loxi_ebpf_layout::limits::PORTS;
use loxi_ebpf_layout::scratch::Globals;
use std::mem::offset_of;

/// Links that are no port's: no device can have such a name.
const CROSSING: &str = "crossing ";
const SLOW: &str = "slow path ";

fn failed(port: &PortName) -> impl FnOnce(DeviceError) -> DataplaneError + '_ {
    move |error| match error {
        DeviceError::Conflict { device, program } => {
            DataplaneError::AttachConflict { port: port.clone(), device, program }
        }
        other => DataplaneError::Attach { port: port.clone(), message: other.to_string() },
    }
}

impl Inner {
    /// Opens a configured port for packets.
    pub(super) fn attach_port(&mut self, name: &PortName) -> Result<(), DataplaneError> {
        let port =
            self.pipeline.get::<Port>(name).ok_or_else(|| DataplaneError::NoSuchPort(name.clone()))?.clone();
        let internal = |message: String| DataplaneError::Attach { port: name.clone(), message };
        let device = match (&self.namespaces, port.kind) {
            (Some(namespaces), kind) if kind != PortKind::Tunnel => {
                let found = namespaces.find(&port).map_err(failed(name))?;
                if self.is_attached_to(name, &found) {
                    return Ok(());
                }
                self.bind(&port, &found).map_err(failed(name))?
            }
            (namespaces, kind) => {
                let side = namespaces.as_ref().map_or(side::DATAPLANE, |ns| ns.side(kind));
                Device { ifindex: 0, exit: 0, side }
            }
        };
        self.installer.set_device(name, Some(device)).map_err(|error| internal(error.to_string()))?;
        self.installer.move_on();
        Ok(())
    }

    fn is_attached_to(&self, name: &PortName, found: &Found) -> bool {
        let known = self.installer.attached.get(name);
        known.is_some_and(|device| device.ifindex == found.link.index)
            && self.hooks.holds(name.as_str(), found.link.index)
    }

    /// Binds programs to a port's device: to all of its hooks, or it is left as it was.
    fn bind(&mut self, port: &Port, found: &Found) -> Result<Device, DeviceError> {
        let name = port.name.as_str();
        let before = self.hooks.bound(&self.place, name, found)?;
        let bound = self.bind_hooks(port, found);
        if bound.is_err()
            && let Err(error) = self.hooks.unbind_but(&self.place, name, &before)
        {
            tracing::warn!(port = name, %error, "letting go of its device");
        }
        bound
    }

    fn bind_hooks(&mut self, port: &Port, found: &Found) -> Result<Device, DeviceError> {
        let Some(namespaces) = &self.namespaces else { return Ok(Device::default()) };
        let name = &port.name;
        let number = self.installer.w.names.ports.number(name).unwrap_or(0);
        let without = if port.unclaimed() == Unclaimed::Punt { Without::Pass } else { Without::Drop };
        let what = Bound { name: name.as_str(), number, without };
        let uplink = port.kind == PortKind::Uplink;
        let by_xdp = uplink && self.mode != Mode::Tc;
        let by_tc = !uplink || self.mode != Mode::Xdp;
        // Programs at XDP send by the devices of the whole node only where nothing else does.
        let xdp_exit = self.mode == Mode::Xdp || by_xdp;
        let device = Device {
            ifindex: found.link.index,
            exit: found.exit(xdp_exit && self.mode != Mode::Tc),
            side: found.side,
        };
        if device.exit & exit::XDP != 0 {
            self.put_device(namespaces, found.side, number, found.link.index)?;
        }
        if let (true, Some(programs)) = (by_tc, &self.tc) {
            self.hooks.bind_tc(&self.place, namespaces, found, what, programs)?;
        }
        if let (true, Some(programs)) = (by_xdp, &self.xdp) {
            self.hooks.bind_xdp(&self.place, namespaces, found, what, programs, &self.beside)?;
        }
        if port.kind == PortKind::Host {
            self.bind_crossing(found)?;
        }
        Ok(device)
    }

    /// A device that programs at XDP may send by: the kernel looks it up where the calling thread is.
    fn put_device(
        &self,
        namespaces: &Namespaces,
        of: u8,
        number: u32,
        index: u32,
    ) -> Result<(), DeviceError> {
        let devices = &self.devices;
        // Where the kernel lets a device have a program, its number follows: none.
        let mut value = vec![0; devices.value];
        for (to, from) in value.iter_mut().zip(bytes(&index)) {
            *to = *from;
        }
        let put = namespaces.of(of).0.run(|| devices.put(bytes(&number), &value, 0))?;
        put.map_err(|source| DeviceError::Bind { what: "send by", device: index.to_string(), source })
    }

    /// The way between the two namespaces: the veth of the first host port that leads to the root one.
    fn bind_crossing(&mut self, near: &Found) -> Result<(), DeviceError> {
        let Some(namespaces) = &self.namespaces else { return Ok(()) };
        let (Some(far), Some(programs)) = (namespaces.far_end(near)?, &self.tc) else { return Ok(()) };
        let what = Bound { name: CROSSING, number: CROSSING_STUB, without: Without::Pass };
        self.hooks.bind_tc(&self.place, namespaces, &far, what, programs)?;
        let kernel = &*self.installer.w.kernel;
        set(kernel, offset_of!(Globals, crossing_root), far.link.index.into());
        set(kernel, offset_of!(Globals, crossing_dataplane), near.link.index.into());
        Ok(())
    }

    /// The device of the slow path, if it is there.
    pub(super) fn bind_slow_path(&mut self) -> Result<(), DeviceError> {
        let (Some(namespaces), Some(name)) = (&self.namespaces, &self.slow_path_device) else {
            return Ok(());
        };
        let missing = || DeviceError::Missing { device: name.clone(), place: "dataplane" };
        let found = namespaces.look(side::DATAPLANE, name)?.ok_or_else(missing)?;
        let what = Bound { name: SLOW, number: SLOW_PATH, without: Without::Drop };
        if let Some(programs) = &self.tc {
            self.hooks.bind_tc(&self.place, namespaces, &found, what, programs)?;
        }
        if self.xdp.is_some() {
            self.put_device(namespaces, side::DATAPLANE, PORTS, found.link.index)?;
        }
        set(&*self.installer.w.kernel, offset_of!(Globals, slow_path), found.link.index.into());
        Ok(())
    }

    /// Closes a port.
    pub(super) fn detach_port(&mut self, name: &PortName) -> Result<(), DataplaneError> {
        if self.pipeline.get::<Port>(name).is_none() {
            return Err(DataplaneError::NoSuchPort(name.clone()));
        }
        let failed = |message: String| DataplaneError::Attach { port: name.clone(), message };
        self.installer.set_device(name, None).map_err(|error| failed(error.to_string()))?;
        self.installer.move_on();
        self.hooks.unbind(&self.place, name.as_str()).map_err(|error| failed(error.to_string()))
    }
}

/// Writes a word that every packet reads.
pub(super) fn set(kernel: &dyn Kernel, offset: usize, value: u64) {
    kernel.memory(Table::Globals).word(offset).store(value);
}

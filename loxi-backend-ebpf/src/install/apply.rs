//! Installing what differs between two plans.
//!
//! # Contract
//! - What is new is written before what refers to it, and what goes is taken out after nothing
//!   refers to it: rows in the order of their keys, then the other way round. Each row is seen by
//!   packets as it was or as it is.
//! - Addresses that a guarded port, a service or a NAT rule has all at once come under a new number of
//!   their set, so that they change with the port, the service or the rules themselves.
//! - A changed endpoint is written beside what it is. Lists of services name its generation, and so go
//!   with the one or the other; when every list names the new one, it becomes that.
//! - At last the epoch moves on: flows whose way was decided before are decided anew.
//! - After an error everything is as it was before, unless that fails too: then the next
//!   installation reads the tables first ([`Installer::is_doubtful`]).
//!
//! Cost grows with the rows that differ. Nothing waits but an entity that changes a second time
//! within a grace period of the kernel (some 20 ms).

use super::attached::{Attached, Device};
use super::decode::{Read, Stray, read};
use super::encode::{self, Written};
use super::forget::gone;
use super::writer::{Inverse, Writer};
use crate::plan::{Plan, PlanDelta, Row, RowKey, Rows, SetRef, Unit, UnitDelta};
use crate::state::{Gone, Pace, Store};
use crate::sys::{Kernel, KernelError, MAPPED, PORTS, Table, VRFS};
use loxi_core::dataplane::InstallError;
use loxi_core::net::{PortName, VrfName};
use loxi_ebpf_layout::l2::port;
use loxi_ebpf_layout::l3::Vrf;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Keeps the tables what a plan says.
pub struct Installer {
    pub(crate) w: Writer,
    pub(crate) attached: Attached,
    doubtful: bool,
    strays: Vec<Stray>,
}

/// How to take an installation back.
#[derive(Debug)]
pub struct UndoInstall {
    journal: Vec<Inverse>,
    pub(crate) delta: PlanDelta,
    pub(crate) gone: Gone,
}

/// Rows to be written and to be taken out.
#[derive(Default)]
struct Steps<'a> {
    puts: BTreeMap<&'a RowKey, &'a Row>,
    /// With the number of the set that they were in, where that is another one by now.
    deletes: BTreeMap<&'a RowKey, Option<u32>>,
}

impl UndoInstall {
    /// What was installed.
    #[must_use]
    pub fn delta(&self) -> &PlanDelta {
        &self.delta
    }

    /// What goes with entities that went: to be forgotten once it is sure that nobody takes the
    /// installation back.
    #[must_use]
    pub fn gone(&self) -> &Gone {
        &self.gone
    }
}

impl Installer {
    /// Takes over tables, with what stands in them as a plan.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn new(kernel: Box<dyn Kernel>) -> Result<(Self, Plan), KernelError> {
        let w = Writer::new(kernel)?;
        let Read { rows, strays } = read(&*w.kernel, &w.names)?;
        // Where a process before this one stopped half-way is told by nothing else.
        let doubtful = !rows.is_empty() || !strays.is_empty();
        let attached = attached(&w);
        Ok((Self { w, attached, doubtful, strays }, plan_of(rows)))
    }

    /// The tables may hold more or less than the plan that was installed last: the next delta must
    /// start from what [`Installer::new`] or [`Installer::read`] says.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// What stands in the tables, as a plan. An entry that is none of any plan makes it `None`.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn read(&self) -> Result<(Plan, Vec<Stray>), KernelError> {
        let Read { rows, strays } = read(&*self.w.kernel, &self.w.names)?;
        Ok((plan_of(rows), strays))
    }

    /// Reads what is in doubt. What stands there that is no row goes with the next installation.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn reread(&mut self) -> Result<Plan, KernelError> {
        self.w.reload()?;
        let (mut plan, strays) = self.read()?;
        self.strays = strays;
        // The two share an element, and a VRF that is written anew is written without rules.
        let written = |plan: &Plan, vrf: &VrfName| {
            let rows = plan.units.get(&Unit::Vrf(vrf.clone()));
            rows.is_some_and(|rows| rows.contains_key(&RowKey::Vrf(vrf.clone())))
        };
        let bare: Vec<Unit> = plan
            .units
            .keys()
            .filter(|unit| matches!(unit, Unit::Nat(vrf) if !written(&plan, vrf)))
            .cloned()
            .collect();
        for unit in bare {
            plan.units.remove(&unit);
        }
        Ok(plan)
    }

    /// Installs a delta.
    ///
    /// # Errors
    /// [`InstallError`]; everything is as before.
    pub fn install(&mut self, delta: PlanDelta) -> Result<UndoInstall, InstallError> {
        let mut step = 0;
        let mut what = String::from("begin");
        let done = self.write(&delta, &mut step, &mut what);
        if let Err(error) = done {
            let journal = std::mem::take(&mut self.w.journal);
            let mut message = error.to_string();
            if let Err(second) = self.w.back(journal) {
                self.doubtful = true;
                message = format!("{message}; and taking it back: {second}");
            }
            self.w.return_to_short_ways();
            return Err(InstallError { step, what, message });
        }
        self.w.return_to_short_ways();
        let gone = gone(&delta, &self.w.names);
        let journal = self.w.stand();
        self.doubtful = false;
        self.strays.clear();
        Ok(UndoInstall { journal, delta, gone })
    }

    /// Takes an installation back. What was learned meanwhile stays.
    pub fn undo(&mut self, undo: UndoInstall) -> PlanDelta {
        self.mark_tunnels(&undo.delta);
        if let Err(error) = self.w.back(undo.journal) {
            self.doubtful = true;
            tracing::error!(%error, "an installation could not be taken back; the next one reads the tables first");
        }
        self.move_on();
        self.w.return_to_short_ways();
        let turned = |unit: UnitDelta| UnitDelta { unit: unit.unit, old: unit.new, new: unit.old };
        let units = undo.delta.units.into_iter().map(turned).collect();
        PlanDelta { units, ..PlanDelta::default() }
    }

    /// Marks the tunnels that change when an installation is taken back.
    fn mark_tunnels(&mut self, delta: &PlanDelta) {
        for unit in delta.units.iter().filter(|unit| matches!(unit.unit, Unit::Tunnel(_))) {
            for (key, old) in unit.old.iter() {
                if let (Row::Tunnel(old), Some(Row::Tunnel(new))) = (old, unit.new.get(key)) {
                    for end in [old.remote, new.remote] {
                        let place = self.w.names.endpoints.last(&end);
                        place.into_iter().for_each(|place| self.w.leave_short_ways(place));
                    }
                }
            }
        }
    }

    fn write(&mut self, delta: &PlanDelta, step: &mut u64, what: &mut String) -> Written {
        self.w.reload()?;
        // What is no row is no row of the plan either: it is written anew where it should be one.
        for stray in self.strays.clone() {
            (*step, *what) = (*step + 1, format!("{stray:?}"));
            self.remove_stray(&stray)?;
        }
        let renewed = self.renew(delta)?;
        let policies = delta.units.iter().find(|delta| delta.unit == Unit::Policy);
        match (policies, delta.passage.split_last()) {
            (Some(policies), Some((last, way))) => {
                let mut from = &*policies.old;
                for rows in way {
                    self.take_steps([(from, rows)], &renewed, step, what)?;
                    from = rows;
                }
                let others = delta.units.iter().filter(|delta| delta.unit != Unit::Policy);
                let others = others.map(|delta| (&*delta.old, &*delta.new));
                self.take_steps(others.chain([(from, last)]), &renewed, step, what)?;
                self.take_steps([(last, &*policies.new)], &renewed, step, what)?;
            }
            _ => {
                let all = delta.units.iter().map(|delta| (&*delta.old, &*delta.new));
                self.take_steps(all, &renewed, step, what)?;
            }
        }
        for name in &delta.stale_ports {
            (*step, *what) = (*step + 1, format!("generation of {name}"));
            self.grow_generation(name)?;
        }
        *what = "numbers that nobody needs".to_owned();
        self.retire(delta)?;
        self.move_on();
        Ok(())
    }

    /// Goes from rows to rows, each put before any is deleted.
    fn take_steps<'a>(
        &mut self,
        deltas: impl IntoIterator<Item = (&'a Rows, &'a Rows)>,
        renewed: &BTreeMap<SetRef, u32>,
        step: &mut u64,
        what: &mut String,
    ) -> Written {
        let steps = steps(deltas, renewed);
        for (key, row) in steps.puts {
            (*step, *what) = (*step + 1, format!("{key:?}"));
            encode::put(&mut self.w, &self.attached, key, row)?;
        }
        (*step, *what) = (*step + 1, "endpoints as services have them".to_owned());
        self.w.endpoints_come()?;
        for (key, set) in steps.deletes.into_iter().rev() {
            (*step, *what) = (*step + 1, format!("{key:?}"));
            encode::delete(&mut self.w, key, set)?;
        }
        Ok(())
    }

    /// Gives new numbers to sets that must change as a whole. Returns their old ones.
    fn renew(&mut self, delta: &PlanDelta) -> Written<BTreeMap<SetRef, u32>> {
        let mut renewed = BTreeMap::new();
        for unit in &delta.units {
            let (old, new) = (wholes(&unit.old), wholes(&unit.new));
            for (set, members) in &old {
                if new.get(set).is_some_and(|now| now != members)
                    && let Some(number) = self.w.renew(|names| &mut names.sets, set)?
                {
                    renewed.insert(set.clone(), number);
                }
            }
        }
        Ok(renewed)
    }

    /// What judged flows of a port before is to judge them again.
    fn grow_generation(&mut self, name: &PortName) -> Written {
        let Some(number) = self.w.names.ports.number(name) else { return Ok(()) };
        let offset = number as usize * Table::PortPolicy.sizes().1 + 8;
        let before = self.w.kernel.memory(Table::PortPolicy).word(offset).load();
        Ok(self.w.word(Table::PortPolicy, offset, before + 1)?)
    }

    /// What was learned.
    pub fn store<'a>(&'a mut self, seed: u64, pace: &'a mut Pace) -> Store<'a> {
        Store::new(&mut *self.w.kernel, &self.w.names, seed).paced(pace)
    }

    /// Makes every decision that a flow keeps stale.
    pub(crate) fn move_on(&self) {
        // Programs add to it too.
        let _ = self.w.kernel.memory(Table::Globals).word(0).fetch_add(1);
    }

    /// Retires numbers of sets and classes that no row has any more.
    fn retire(&mut self, delta: &PlanDelta) -> Written {
        let (mut before, mut after) = (Unnamed::default(), Unnamed::default());
        for unit in &delta.units {
            before.note(&unit.old);
            after.note(&unit.new);
        }
        delta.passage.iter().for_each(|rows| before.note(rows));
        for set in before.sets.difference(&after.sets) {
            self.w.retire(|names| &mut names.sets, set)?;
        }
        self.w.retire_all()?;
        for class in before.classes.difference(&after.classes) {
            self.w.retire(|names| &mut names.classes, class)?;
        }
        Ok(())
    }

    fn remove_stray(&mut self, stray: &Stray) -> Written {
        if stray.table == Table::NatRules {
            let number = crate::sys::value::<u32>(&stray.key).unwrap_or(0);
            let had = self.w.current(VRFS, number);
            return Ok(self.w.flip(VRFS, number, &Vrf { nat_base: 0, nat_count: 0, ..had })?);
        }
        if MAPPED.contains(&stray.table) {
            return Ok(self.w.clear_element(stray.table, &stray.key)?);
        }
        Ok(self.w.unset_bytes(stray.table, &stray.key)?)
    }

    /// Tells the programs of a port's device, or that it has none.
    ///
    /// # Errors
    /// [`KernelError`]; nothing has changed then.
    pub(crate) fn set_device(&mut self, name: &PortName, device: Option<Device>) -> Result<(), KernelError> {
        if let Some(number) = self.w.names.ports.number(name) {
            let mut value = *self.w.kernel.at(PORTS, number).pair.current();
            let open = value.flags & port::UP != 0 && device.is_some();
            let Device { ifindex, exit, side } = device.unwrap_or_default();
            value.flags = value.flags & !port::OPEN | if open { port::OPEN } else { 0 };
            (value.ifindex, value.exit, value.side) = (ifindex, exit, side);
            self.w.flip_port(number, &value)?;
            self.w.stand();
        }
        match device {
            Some(device) => self.attached.insert(name.clone(), device),
            None => self.attached.remove(name),
        };
        Ok(())
    }
}

/// Ports that are attached, as the tables say.
fn attached(w: &Writer) -> Attached {
    let of = |(name, number): (&PortName, u32)| {
        let value = *w.kernel.at(PORTS, number).pair.current();
        let is = value.ifindex != 0 || value.flags & port::OPEN != 0;
        is.then(|| (name.clone(), Device { ifindex: value.ifindex, exit: value.exit, side: value.side }))
    };
    w.names.ports.all().filter_map(of).collect()
}

/// Rows as units.
fn plan_of(rows: Rows) -> Plan {
    let mut units: BTreeMap<_, Rows> = BTreeMap::new();
    for (key, row) in rows {
        units.entry(key.unit()).or_default().insert(key, row);
    }
    Plan { units: units.into_iter().map(|(unit, rows)| (unit, Arc::new(rows))).collect() }
}

/// Sets that are replaced as a whole, with the keys of their rows.
fn wholes(rows: &Rows) -> BTreeMap<SetRef, BTreeSet<&RowKey>> {
    let mut sets: BTreeMap<SetRef, BTreeSet<&RowKey>> = BTreeMap::new();
    for key in rows.keys() {
        if let Some(set) = whole(key) {
            sets.entry(set).or_default().insert(key);
        }
    }
    sets
}

/// The set that a row is in, if it is replaced as a whole.
fn whole(key: &RowKey) -> Option<SetRef> {
    match key {
        RowKey::Member(
            set @ (SetRef::Guard(_) | SetRef::Sources(_) | SetRef::NatSrc(_) | SetRef::NatDst(_)),
            _,
        ) => Some(set.clone()),
        RowKey::PortMac(port, _) => Some(SetRef::Guard(port.clone())),
        _ => None,
    }
}

/// Whether a row says the number of a set that has a new one.
fn says_one_of(key: &RowKey, renewed: &BTreeMap<SetRef, u32>) -> bool {
    match key {
        RowKey::Port(name) => renewed.contains_key(&SetRef::Guard(name.clone())),
        RowKey::Service(key) => renewed.contains_key(&SetRef::Sources(key.clone())),
        RowKey::Nat(vrf) => renewed
            .keys()
            .any(|set| matches!(set, SetRef::NatSrc(key) | SetRef::NatDst(key) if key.vrf == *vrf)),
        _ => false,
    }
}

fn steps<'a>(
    deltas: impl IntoIterator<Item = (&'a Rows, &'a Rows)>,
    renewed: &BTreeMap<SetRef, u32>,
) -> Steps<'a> {
    let mut steps = Steps::default();
    for (old, new) in deltas {
        for (key, row) in new {
            let again = whole(key).is_some_and(|set| renewed.contains_key(&set)) || says_one_of(key, renewed);
            if again || old.get(key) != Some(row) {
                steps.puts.insert(key, row);
            }
        }
        for key in old.keys() {
            let number = whole(key).and_then(|set| renewed.get(&set).copied());
            if number.is_some() || !new.contains_key(key) {
                steps.deletes.insert(key, number);
            }
        }
    }
    steps
}

/// Things that are named by whoever refers to them, not by a row of their own.
#[derive(Default)]
struct Unnamed {
    sets: BTreeSet<SetRef>,
    classes: BTreeSet<crate::plan::Digest>,
}

impl Unnamed {
    fn note(&mut self, rows: &Rows) {
        for (key, row) in rows {
            match (key, row) {
                (RowKey::Member(set, _), _) => {
                    self.sets.insert(set.clone());
                }
                (RowKey::PortMac(name, _), _) => {
                    self.sets.insert(SetRef::Guard(name.clone()));
                }
                (RowKey::Port(name), Row::Port(row)) if row.flags & port::GUARDED != 0 => {
                    self.sets.insert(SetRef::Guard(name.clone()));
                }
                (RowKey::End(..), Row::End(row)) => {
                    self.sets.insert(SetRef::Peers(row.name.clone()));
                }
                (_, Row::Class(class)) => {
                    self.classes.insert(*class);
                }
                (RowKey::PeerRules(_, Some(class)), _) => {
                    self.classes.insert(*class);
                }
                _ => {}
            }
        }
    }
}

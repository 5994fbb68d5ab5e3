//! Storing a new flow.

use super::Store;
use crate::state::flow::codec::{self, Draft};
use crate::state::flow::record::Missing;
use crate::state::flow::times::{Timeouts, tick};
use crate::state::flow::{Place, Refused, Seat, accounts};
use crate::state::sweep::sweep_flows;
use loxi_core::dataplane::FlowInsertError;
use loxi_core::packet::{Flow, Timestamp};
use loxi_ebpf_layout::flow::{Cold, rest};

/// Times that room is made for a flow before it is refused.
const ATTEMPTS: u32 = 4;

/// How long an entry that somebody writes is waited for. Who has claimed one himself waits shortly:
/// the other may wait for his.
#[derive(Debug, Clone, Copy)]
enum Patience {
    Long,
    Short,
}

impl Store<'_> {
    /// Stores a new flow.
    pub(super) fn put_flow(&mut self, flow: &Flow, now: Timestamp) -> Result<(), FlowInsertError> {
        let zone = codec::number(&self.names.zones, &flow.id.zone);
        let draft = codec::draft(self.names, &self.timeouts(zone), flow).ok_or(FlowInsertError::Full)?;
        self.put_draft(draft, now)
    }

    /// Stores what a new flow is to be.
    pub(in crate::state) fn put_draft(
        &mut self,
        mut draft: Draft,
        now: Timestamp,
    ) -> Result<(), FlowInsertError> {
        // A time that is yet to come would look to the programs like one long ago.
        for seat in [&mut draft.original, &mut draft.reply] {
            let ahead = seat.seen.seen.wrapping_sub(tick(now)).cast_signed() > 0;
            seat.seen.seen = if ahead { tick(now) } else { seat.seen.seen };
        }
        // Without locks first: nothing is claimed that would have to be given back.
        for seat in [&draft.original, &draft.reply] {
            let found = self.table(draft.family).find(&seat.key);
            if let Some(place) = found
                && !self.clear_way(draft.family, place, now, Patience::Long)
            {
                return Err(FlowInsertError::Occupied);
            }
        }
        let original = self.seat(draft.family, &draft.original, now, Patience::Long)?;
        let reply = if draft.is_single() {
            original
        } else {
            self.seat(draft.family, &draft.reply, now, Patience::Short).inspect_err(|_| {
                self.table(draft.family).clear(original, draft.original.claimed());
            })?
        };
        let account = accounts::Account {
            zone: rest::zone(draft.original.key.rest),
            family: draft.family,
            source: draft.original.key.src,
            backend: draft.cold.backend,
            state: draft.original.state,
        };
        let mut sources = accounts::Sources::default();
        // Before anybody can see the flow and end it.
        accounts::begin(&*self.kernel, &account, &mut sources);
        let table = self.table(draft.family);
        table.set_cold(original, &Cold { partner: reply.number(), ..draft.cold });
        if reply != original {
            table.set_cold(reply, &Cold { partner: original.number(), ..Cold::default() });
            table.publish(reply, &draft.reply.key);
        }
        let published = table.publish(original, &draft.original.key);
        if !published {
            table.take_out(reply, &draft.reply.key, |_| true);
            accounts::end(&*self.kernel, &account, &mut sources);
        }
        self.settle(sources);
        if published { Ok(()) } else { Err(FlowInsertError::Occupied) }
    }

    /// Claims a place. Expired flows in the way go; where both buckets are full, those in them.
    fn seat(
        &mut self,
        family: u8,
        seat: &Seat,
        now: Timestamp,
        patience: Patience,
    ) -> Result<Place, FlowInsertError> {
        for _ in 0..ATTEMPTS {
            match self.table(family).claim(seat) {
                Ok(place) => return Ok(place),
                Err(Refused::Taken(place)) => {
                    if !self.clear_way(family, place, now, patience) {
                        return Err(FlowInsertError::Occupied);
                    }
                }
                Err(Refused::Full) => {
                    let spot = self.table(family).spot(&seat.key);
                    let timeouts = Timeouts::all(&*self.kernel);
                    let mut ended = 0;
                    for bucket in [spot.first, spot.second] {
                        ended += sweep_flows(self, family, bucket..bucket + 1, &timeouts, now).ended;
                    }
                    if ended == 0 {
                        return Err(FlowInsertError::Full);
                    }
                }
                Err(Refused::Contended) => return Err(FlowInsertError::Full),
            }
        }
        Err(FlowInsertError::Occupied)
    }

    /// Takes the flow at a place out of the way, if it has expired or is nobody's. Whether the
    /// way is free.
    fn clear_way(&mut self, family: u8, place: Place, now: Timestamp, patience: Patience) -> bool {
        let table = self.table(family);
        let table = if let Patience::Short = patience { table.hasty() } else { table };
        let mut sources = accounts::Sources::default();
        let free = match table.record(place) {
            Ok((_, record)) if self.flow(&record).is_none() => self.end(&record, &mut sources, |_| true),
            Ok((_, record)) => self.end_expired(&record, now, &mut sources),
            Err(Missing::Gone) => true,
            Err(Missing::Busy) => false,
            Err(Missing::Broken) => self.end_broken(family, place, &mut sources),
        };
        self.settle(sources);
        free
    }
}

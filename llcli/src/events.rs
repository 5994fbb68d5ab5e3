//! `events`: what happens.

use crate::args::{Events as Options, Output};
use crate::failure::Failure;
use crate::show;
use loxi_core::dataplane::{Dataplane, DataplaneError, Event, EventKind};
use loxi_core::packet::Timestamp;

/// Runs the command.
pub(crate) async fn run(dataplane: &dyn Dataplane, options: &Options, output: Output) -> Result<(), Failure> {
    let mut events = dataplane.events().await?;
    let mut seen = 0;
    while options.number.is_none_or(|number| seen < number) {
        match events.next().await {
            Some(Ok(event)) => {
                seen += 1;
                match output {
                    Output::Table => show::line(&line(&event))?,
                    _ => show::item(&event, output)?,
                }
            }
            Some(Err(gap)) => match output {
                Output::Table => show::line(&format!("({gap})"))?,
                _ => show::item(&gap, output)?,
            },
            None => {
                let message = "the stream of events has ended".to_owned();
                return Err(DataplaneError::Unreachable(message).into());
            }
        }
    }
    Ok(())
}

fn line(event: &Event) -> String {
    let seconds = event.at.0 / Timestamp::SECOND;
    let milliseconds = event.at.0 % Timestamp::SECOND / 1_000_000;
    let what = match &event.kind {
        EventKind::Applied { id, owner, generation } => {
            format!("applied: generation {generation} by {owner} ({id})")
        }
        EventKind::OwnershipTaken { entity, from, to } => format!("ownership: {entity} from {from} to {to}"),
        EventKind::PortAttached(port) => format!("attached: {port}"),
        EventKind::PortDetached(port) => format!("detached: {port}"),
        EventKind::ZoneNearlyFull { zone, flows, capacity } => {
            format!("zone nearly full: {zone} has {flows} of {capacity} flows")
        }
        EventKind::Dropped { port, reason, packet } => {
            format!("dropped: at {port}, {reason} ({}): {packet}", reason.help())
        }
        other => format!("{other:?}"),
    };
    format!("{seconds}.{milliseconds:03} {what}")
}

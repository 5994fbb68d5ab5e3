//! Rows whose packets are asked about in one question, without commit: each must come to what it comes to one by one, and
//! nothing may be learned or counted by it.

use crate::report::RowResult;
use crate::row::{Row, RowError, RowStep};
use crate::runner::{Runner, reset, time, verdict_problems, wanted};
use loxi_core::dataplane::{ChoiceMode, DataplaneError, InjectRequest, Injected, PacketIn};

impl Runner<'_> {
    /// Runs a row's packets together, on what nothing and on what half of them have left. `None`: the row changes
    /// something between its packets, or makes choices.
    ///
    /// # Errors
    /// [`RowError`] if the row itself can't be read.
    pub async fn run_together(&self, file: &str, row: &Row) -> Result<Option<RowResult>, RowError> {
        let capabilities = self.capabilities().await.ok();
        let can = |need| capabilities.is_none_or(|can| can.features.contains(need));
        let simple = |step: &RowStep| {
            step.packet.is_some()
                && step.put.is_none()
                && step.delete.is_empty()
                && step.detach.is_none()
                && step.choose.is_empty()
        };
        if row.steps.len() < 2 || !row.steps.iter().all(simple) || !row.needs.iter().all(can) {
            return Ok(None);
        }
        let mut result = RowResult::new(file, &row.name);
        let half = row.steps.len() / 2;
        for before in if row.steps.len() - half < 2 { vec![0] } else { vec![0, half] } {
            if let Err(error) = self.ask(row, before, &mut result).await? {
                result.fail(format!("after {before} packets: {error}"));
            }
        }
        Ok(Some(result))
    }

    async fn ask(
        &self,
        row: &Row,
        before: usize,
        result: &mut RowResult,
    ) -> Result<Result<(), DataplaneError>, RowError> {
        let mut second = 0;
        let mut packets = Vec::new();
        for (index, step) in row.steps.iter().enumerate() {
            second = step.at.unwrap_or(second);
            if let (Some(port), Some(packet)) = (&step.port, &step.packet) {
                let bytes = row.bytes(index, packet)?;
                packets.push(PacketIn { port: port.clone(), bytes, at: Some(time(second)) });
            }
        }
        let entities = row.entities()?;
        let answered = async {
            reset(self.dataplane, entities).await?;
            for packet in &packets[..before] {
                self.dataplane.inject(request(vec![packet.clone()], true)).await?;
            }
            let held = (self.dataplane.export_state().await?, self.dataplane.counters().await?);
            let answers = self.dataplane.inject(request(packets[before..].to_vec(), false)).await?;
            let holds = (self.dataplane.export_state().await?, self.dataplane.counters().await?);
            Ok::<_, DataplaneError>((answers, held == holds))
        };
        match answered.await {
            Ok((answers, same)) => {
                if !same {
                    result.fail(format!("after {before} packets: a question has changed something"));
                }
                self.compare(row, before, &answers, result)?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn compare(
        &self,
        row: &Row,
        before: usize,
        answers: &[Injected],
        result: &mut RowResult,
    ) -> Result<(), RowError> {
        if answers.len() != row.steps.len() - before {
            result.fail(format!("{} answers to {} packets", answers.len(), row.steps.len() - before));
        }
        for ((index, step), answer) in row.steps.iter().enumerate().skip(before).zip(answers) {
            let expect = step.expect.clone().unwrap_or_default();
            let wrong = verdict_problems(&answer.verdict, &expect, &wanted(row, index, &expect)?);
            if wrong.is_empty() {
                result.asserted += 1;
            } else {
                let packet = step.packet.as_deref().unwrap_or_default();
                result.fail(format!(
                    "step {}, asked after {before}: {packet}\n    {}\n{}",
                    index + 1,
                    wrong.join("\n    "),
                    answer.trace
                ));
                return Ok(());
            }
        }
        Ok(())
    }
}

fn request(packets: Vec<PacketIn>, commit: bool) -> InjectRequest {
    InjectRequest {
        now: packets.first().and_then(|packet| packet.at),
        packets,
        choices: ChoiceMode::First,
        commit,
    }
}

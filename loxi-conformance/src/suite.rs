//! The suite: committed rows, and generated cases.

use crate::compare::compare;
use crate::generate::{Case, case, packets_of, pipeline_of};
use crate::punt::punt_of;
use crate::report::Report;
use crate::row::{RowError, rows};
use crate::runner::{Runner, fresh_id, reset, time};
use loxi_core::capability::Capabilities;
use loxi_core::change::{Operation, Transaction};
use loxi_core::dataplane::{ChoiceMode, Dataplane, DataplaneError, InjectRequest, Injected, Local};
use loxi_core::ir::Owner;
use loxi_core::packet::{Choice, Fate};
use loxi_reference::Reference;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::sync::Arc;

/// Packets that a run of all rows must have compared: rows that assert nothing prove nothing.
pub const MINIMUM_ASSERTED: usize = 150;

/// Generated packets that must be forwarded, in per cent: a generator of garbage tests only the parser.
pub const MINIMUM_FORWARDED_PERCENT: usize = 60;

/// Generated packets that the fast path may hand to the slow path, in per cent: a backend that hands
/// everything on tests only the slow path.
pub const MAXIMUM_PUNTED_PERCENT: usize = 35;

/// Why generated cases failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// A dataplane and the reference differ; the case is the smallest found.
    #[error("{what}\nsmallest case:\n{case:#?}\nas a row:\n{row}")]
    Differs {
        /// What differs.
        what: String,
        /// The case.
        case: Box<Case>,
        /// The same, for a row file.
        row: String,
    },
    /// Too few packets were forwarded.
    #[error("only {forwarded} of {packets} generated packets were forwarded")]
    TooFewForwarded {
        /// Forwarded.
        forwarded: usize,
        /// All.
        packets: usize,
    },
    /// Too many packets were handed to the slow path.
    #[error("{punted} of {packets} generated packets were handed to the slow path")]
    TooManyPunted {
        /// Handed on.
        punted: usize,
        /// All.
        packets: usize,
    },
    /// Too few packets were compared for the number of cases.
    #[error("only {packets} packets were compared in {cases} cases")]
    TooFewCompared {
        /// Compared.
        packets: usize,
        /// Cases.
        cases: usize,
    },
    /// The dataplane failed.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
}

/// Runs every committed row.
///
/// # Errors
/// [`RowError`] if a row can't be read; rows that fail are in the report.
pub async fn run_rows(dataplane: &dyn Dataplane) -> Result<Report, RowError> {
    let runner = Runner::new(dataplane);
    let mut report = Report::default();
    for (file, row) in rows()? {
        report.rows.push(runner.run(&file, &row).await?);
    }
    Ok(report)
}

/// Runs every committed row that only has packets, and makes no choices, with all of them in one question that changes
/// nothing.
///
/// # Errors
/// [`RowError`] if a row can't be read; rows that fail are in the report.
pub async fn run_rows_together(dataplane: &dyn Dataplane) -> Result<Report, RowError> {
    let runner = Runner::new(dataplane);
    let mut report = Report::default();
    for (file, row) in rows()? {
        report.rows.extend(runner.run_together(&file, &row).await?);
    }
    Ok(report)
}

/// Runs generated cases from a fixed seed: a failure of one run is a failure of
/// the next. See [`run_generated_from`].
///
/// # Errors
/// [`SuiteError`].
pub async fn run_generated(dataplane: &dyn Dataplane, cases: usize) -> Result<String, SuiteError> {
    run_generated_from(dataplane, [7; 32], cases).await
}

/// Runs generated cases on a dataplane and on the reference, which assumes the
/// dataplane's capabilities and is given its choices, and compares every
/// verdict. A failing case is shrunk. Returns a line of totals.
///
/// # Errors
/// [`SuiteError`].
pub async fn run_generated_from(
    dataplane: &dyn Dataplane,
    seed: [u8; 32],
    cases: usize,
) -> Result<String, SuiteError> {
    let capabilities = dataplane.capabilities().await?;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut totals = Totals::default();
    for _ in 0..cases {
        let mut tree =
            case().new_tree(&mut runner).map_err(|reason| DataplaneError::Internal(reason.to_string()))?;
        let first = tree.current();
        match try_case(dataplane, &capabilities, &first).await? {
            Tried::Same(more) => totals.add(more),
            Tried::Differs(what) => {
                let (mut smallest, mut what) = (first, what);
                // Bisects along the tree: simpler while it fails, back while it doesn't.
                for _ in 0..400 {
                    let failed = match try_case(dataplane, &capabilities, &tree.current()).await? {
                        Tried::Differs(why) => {
                            (smallest, what) = (tree.current(), why);
                            true
                        }
                        Tried::Same(_) => false,
                    };
                    if !(if failed { tree.simplify() } else { tree.complicate() }) {
                        break;
                    }
                }
                let row = smallest.to_row();
                return Err(SuiteError::Differs { what, case: Box::new(smallest), row });
            }
        }
    }
    let Totals { packets, forwarded, punted } = totals;
    // A case has 20 steps on average.
    if packets < cases * 10 {
        return Err(SuiteError::TooFewCompared { packets, cases });
    }
    if forwarded * 100 < packets * MINIMUM_FORWARDED_PERCENT {
        return Err(SuiteError::TooFewForwarded { forwarded, packets });
    }
    if punted * 100 > packets * MAXIMUM_PUNTED_PERCENT {
        return Err(SuiteError::TooManyPunted { punted, packets });
    }
    Ok(format!("{cases} generated cases, {packets} packets compared, {forwarded} forwarded, {punted} punted"))
}

/// What was compared and equal.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    packets: usize,
    forwarded: usize,
    punted: usize,
}

impl Totals {
    fn add(&mut self, more: Self) {
        self.packets += more.packets;
        self.forwarded += more.forwarded;
        self.punted += more.punted;
    }
}

enum Tried {
    Same(Totals),
    Differs(String),
}

async fn try_case(
    dataplane: &dyn Dataplane,
    capabilities: &Capabilities,
    case: &Case,
) -> Result<Tried, SuiteError> {
    let reference = Local::new(Reference::new().assuming(capabilities), Arc::new(|| time(0)));
    let entities = pipeline_of(case);
    reset(dataplane, entities.clone()).await?;
    reset(&reference, entities).await?;
    let owner = Owner::new(crate::OWNER).map_err(|error| DataplaneError::Internal(error.to_string()))?;
    let mut totals = Totals::default();
    for (index, step) in packets_of(case).into_iter().enumerate() {
        let step = match step {
            crate::generate::Concrete::Packet(packet) => packet,
            crate::generate::Concrete::Change(entities) => {
                let operations =
                    entities.into_iter().map(|entity| Operation::Put(Box::new(entity))).collect();
                let transaction = Transaction::change(fresh_id(), owner.clone(), operations);
                let got = dataplane.apply(transaction.clone()).await.map(|applied| applied.updated);
                let wanted = Dataplane::apply(&reference, transaction).await.map(|applied| applied.updated);
                if got != wanted {
                    return Ok(Tried::Differs(format!("step {index}: change: {got:?}, wanted {wanted:?}")));
                }
                continue;
            }
        };
        let request = |choices: ChoiceMode| InjectRequest {
            packets: vec![step.clone()],
            now: Some(time(0)),
            choices,
            commit: true,
        };
        let got = dataplane.inject(request(ChoiceMode::Seed(index as u64))).await?;
        let choices: Vec<Choice> = got.iter().flat_map(|injected| injected.choices.clone()).collect();
        let wanted: Vec<Injected> =
            Dataplane::inject(&reference, request(ChoiceMode::Recorded(choices))).await?;
        if let Some(difference) = compare(&got, &wanted) {
            return Ok(Tried::Differs(format!("step {index}: {}", difference.what)));
        }
        for injected in &got {
            let punted = match punt_of(injected, capabilities) {
                Ok(punt) => punt.is_some(),
                Err(message) => return Ok(Tried::Differs(format!("step {index}: {message}"))),
            };
            let forwarded = injected.verdict.fate == Fate::Forwarded;
            totals.add(Totals { packets: 1, forwarded: forwarded.into(), punted: punted.into() });
        }
    }
    let (got, wanted) = (dataplane.counters().await?, Dataplane::counters(&reference).await?);
    if got.ports != wanted.ports {
        return Ok(Tried::Differs(format!("counters {:?}, wanted {:?}", got.ports, wanted.ports)));
    }
    if let Some((port, _)) = got.ports.iter().find(|(_, counters)| counters.unaccounted() != 0) {
        return Ok(Tried::Differs(format!("packets of {port} are unaccounted for")));
    }
    Ok(Tried::Same(totals))
}

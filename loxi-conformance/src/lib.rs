#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

mod capabilities;
mod compare;
mod coverage;
mod generate;
mod packet;
mod punt;
mod report;
mod row;
mod runner;
mod suite;
mod together;
mod vary;

pub use capabilities::check_committed;
pub use compare::{Difference, compare};
pub use coverage::{Coverage, NOT_IN_THIS_SLICE};
pub use generate::{Case, CaseStep, case, pipeline_of};
pub use packet::{PacketError, build};
pub use report::{Outcome, Report, RowResult, StageTotals};
pub use row::{Expectation, Row, RowError, RowFile, RowStep, rows};
pub use runner::{OWNER, Runner, reset};
pub use suite::{
    MAXIMUM_PUNTED_PERCENT, MINIMUM_ASSERTED, MINIMUM_FORWARDED_PERCENT, SuiteError, run_generated,
    run_generated_from, run_rows, run_rows_together,
};
pub use vary::Variation;

/// Makes the tests of anything that implements `Dataplane`.
///
/// `$make` is an async function or closure without arguments that returns a
/// fresh `Box<dyn Dataplane>`, or anything else that derefs to one (and keeps
/// alive what the dataplane needs); the tests run inside a tokio runtime.
///
/// ```ignore
/// loxi_conformance::suite!(my_backend, || async { Box::new(make()) as Box<dyn Dataplane> });
/// ```
#[macro_export]
macro_rules! suite {
    ($name:ident, $make:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn rows() {
                let dataplane = ($make)().await;
                let report = $crate::run_rows(&*dataplane).await.expect("the committed rows are readable");
                println!("{report}");
                assert!(report.failures().is_empty(), "{report}");
                assert!(report.asserted() >= $crate::MINIMUM_ASSERTED, "{} asserted", report.asserted());
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn generated() {
                let cases = std::env::var("LOXI_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
                let dataplane = ($make)().await;
                let summary =
                    $crate::run_generated(&*dataplane, cases).await.unwrap_or_else(|error| panic!("{error}"));
                println!("{summary}");
            }
        }
    };
}

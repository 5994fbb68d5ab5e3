//! Changes: transactions, ownership, diffs.

mod diff;
mod transaction;

pub use diff::{Change, Changed, diff};
pub use transaction::{Applied, ChangeError, Generation, Operation, Transaction, TransactionId, plan_change};

//! Who has forwarded: proofs that it was the dataplane, and not the kernel around it.

pub mod books;
pub mod bystander;

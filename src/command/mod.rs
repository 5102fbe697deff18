//! The command line: one file a subcommand.

pub mod check;
pub mod import;
pub mod options;

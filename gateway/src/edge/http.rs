//! The HTTP API for operators and applications.

pub mod device_csv;
pub mod extract;
pub mod idle;
pub mod listener;
pub mod problem;
pub mod range;

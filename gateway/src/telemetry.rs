//! What the daemon tells about itself: the log and the metrics.
//!
//! A leaf: every layer uses it, it uses none.

pub mod labels;
pub mod log;
pub mod metrics;
mod process;

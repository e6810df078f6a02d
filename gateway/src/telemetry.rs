//! What the daemon tells about itself: the log, the metrics, whether it is ready.
//!
//! A leaf: every layer uses it, it uses none but the configuration.

pub mod health;
pub mod labels;
pub mod log;
pub mod metrics;
mod process;
pub mod sampler;
pub mod trend;

//! Settings of how long what is over is kept.

use std::time::Duration;

use super::{section::section, setting::Span, units::hours};

section! {
    /// How long what is over is kept; looked at once an hour.
    pub struct RetentionConfig in "retention" {
        /// Deliveries of a task, from the end of the task on; the task's counts stay.
        deliveries: Duration = hours(24 * 180), Span(hours(1)..=hours(24 * 3650));
        /// Tasks, from their end on, with their deliveries.
        tasks: Duration = hours(24 * 180), Span(hours(1)..=hours(24 * 3650));
        /// Audit entries.
        audit: Duration = hours(24 * 180), Span(hours(1)..=hours(24 * 3650));
    }
}

//! The message layer as a whole.

mod codec;
mod endpoint;
mod hostile;
mod oracle;
mod pair;
mod property;

use std::time::Instant;

/// Any instant: a virtual clock begins somewhere.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's clock needs a beginning and goes on by itself"
)]
pub(super) fn epoch() -> Instant {
    Instant::now()
}

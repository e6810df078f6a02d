//! Settings of the process: threads.

use super::{section::section, setting::Count};

section! {
    /// Threads of the process.
    pub struct RuntimeConfig in "runtime" {
        /// Threads that serve connections; 0 is one per processor.
        workers: usize = 0, Count(0..=1024);
        /// Most threads for file and database calls; each costs up to 2 MiB while it lives.
        max_blocking_threads: usize = 32, Count(4..=1024);
    }
}

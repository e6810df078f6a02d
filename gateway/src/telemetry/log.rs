//! The log: one line an event, on standard error.

//! What vendors' devices say to their platform besides their data, and what it answers.
//!
//! Pure: times come from the caller. Names of fields and services are the vendors' own.

pub mod huawei;
pub mod tencent;

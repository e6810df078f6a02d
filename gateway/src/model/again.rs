//! What a failure says about trying again: at once, later, or not without an operator.
//!
//! One table for the codes that devices report, whichever vendor's they are, and one for the
//! gateway's own reasons. `docs/operators.md` shows both.

use crate::model::task::FailReason;

/// When a delivery that failed is tried again, as long as it has attempts left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// At once: what went wrong is over with the attempt.
    Now,
    /// After a back-off: what is wrong passes.
    Later,
    /// Not by itself: it would fail in the same way.
    Never,
}

/// A code that devices report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultCode {
    /// The number.
    pub code: i32,
    /// What it means.
    pub meaning: &'static str,
    /// When to try again.
    pub again: Again,
    /// Whether bytes that the device took before are good; else it begins anew.
    pub keeps_bytes: bool,
}

/// The codes with a meaning: Huawei's from 1 on, Tencent's below 0.
pub const RESULT_CODES: &[ResultCode] = &[
    code(1, "the device is in use", Again::Later, true),
    code(2, "poor signal", Again::Later, true),
    code(3, "this version is installed already", Again::Never, true),
    code(4, "low battery", Again::Later, true),
    code(5, "no space", Again::Never, true),
    code(6, "the download timed out", Again::Now, true),
    code(7, "verification failed", Again::Now, false),
    code(8, "unsupported type", Again::Never, true),
    code(9, "no memory", Again::Later, true),
    code(10, "installation failed", Again::Never, false),
    code(255, "internal error", Again::Later, true),
    code(-1, "time out", Again::Now, true),
    code(-2, "file does not exist", Again::Later, true),
    code(-3, "signature of the address is invalid", Again::Now, true),
    code(-4, "MD5 does not match", Again::Now, false),
];

const fn code(code: i32, meaning: &'static str, again: Again, keeps_bytes: bool) -> ResultCode {
    ResultCode {
        code,
        meaning,
        again,
        keeps_bytes,
    }
}

/// The meaning of a code; `None` for 0, which is no fault, and for codes of a device's own.
pub fn result_code(code: i32) -> Option<&'static ResultCode> {
    RESULT_CODES.iter().find(|known| known.code == code)
}

/// Whether what was sent before a stored failure counts in the next attempt.
pub fn keeps_bytes(reason: Option<&str>, detail: Option<&str>) -> bool {
    match reason {
        Some("incomplete") => false,
        Some("device") => {
            let code = detail.and_then(|detail| detail.split(':').next()?.trim().parse().ok());
            code.and_then(result_code)
                .is_none_or(|known| known.keeps_bytes)
        }
        _ => true,
    }
}

impl FailReason {
    /// When a delivery that failed for this reason is tried again.
    pub fn again(&self) -> Again {
        match self {
            // A code of its own, or 0: nothing says that it would fail for ever.
            Self::Device { code, .. } => {
                result_code(*code).map_or(Again::Later, |known| known.again)
            }
            Self::Incomplete => Again::Now,
            Self::Timeout { .. } => Again::Later,
            Self::Canceled
            | Self::Aborted
            | Self::Rejected { .. }
            | Self::ResourceGone
            | Self::DeviceGone => Again::Never,
        }
    }

    /// Whether what was sent before the failure counts in the next attempt.
    pub fn keeps_bytes(&self) -> bool {
        match self {
            Self::Device { code, .. } => result_code(*code).is_none_or(|known| known.keeps_bytes),
            Self::Incomplete => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(code: i32) -> FailReason {
        FailReason::Device {
            code,
            message: String::new(),
        }
    }

    #[test]
    fn every_code_stands_once_and_unknown_ones_are_tried_later() {
        for (index, known) in RESULT_CODES.iter().enumerate() {
            let first = RESULT_CODES
                .iter()
                .position(|other| other.code == known.code);
            assert_eq!(first, Some(index), "{}", known.code);
            assert_eq!(device(known.code).again(), known.again);
        }
        for unknown in [0, 11, 42, -9, i32::MIN] {
            assert_eq!(device(unknown).again(), Again::Later);
            assert!(device(unknown).keeps_bytes());
        }
    }

    #[test]
    fn bytes_that_did_not_verify_are_not_kept() {
        for code in [7, -4, 10] {
            assert!(!device(code).keeps_bytes(), "{code}");
        }
        assert!(!FailReason::Incomplete.keeps_bytes());
        assert!(
            FailReason::Timeout {
                which: "step_timeout"
            }
            .keeps_bytes()
        );
        for reason in [
            device(7),
            device(-4),
            device(1),
            FailReason::Incomplete,
            FailReason::Canceled,
        ] {
            let detail = reason.detail();
            let stored = keeps_bytes(Some(reason.as_str()), detail.as_deref());
            assert_eq!(stored, reason.keeps_bytes(), "{reason:?}");
        }
    }

    #[test]
    fn what_an_operator_ended_is_never_tried_again_by_itself() {
        for reason in [
            FailReason::Canceled,
            FailReason::Aborted,
            FailReason::DeviceGone,
        ] {
            assert_eq!(reason.again(), Again::Never, "{reason:?}");
        }
        assert_eq!(FailReason::Incomplete.again(), Again::Now);
    }
}

//! The `Range` and `If-Range` headers of a GET for bytes.
//!
//! Used by the device files listener and by the download of a resource. One range is served; a
//! header that asks for several, or that does not follow the grammar, is ignored as the standard
//! allows. Spec: RFC 9110 s14.

use axum::http::{HeaderMap, header};

/// Which bytes of a content a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All of it: status 200.
    Whole,
    /// The bytes from `start` up to and without `end`: status 206.
    Part {
        /// First byte.
        start: u64,
        /// One beyond the last byte; larger than `start`, at most the size.
        end: u64,
    },
    /// Nothing of it: status 416.
    Unsatisfiable,
}

impl Selection {
    /// What `headers` ask for of a content of `size_bytes` whose entity tag is `etag`.
    pub fn of(headers: &HeaderMap, size_bytes: u64, etag: &str) -> Self {
        let Some(range) = headers
            .get(header::RANGE)
            .and_then(|value| value.to_str().ok())
        else {
            return Self::Whole;
        };
        // [RFC 9110 s13.1.5] A condition that does not hold makes the header void; dates are never
        // ours.
        if let Some(condition) = headers.get(header::IF_RANGE)
            && condition.as_bytes() != etag.as_bytes()
        {
            return Self::Whole;
        }
        Self::parse(range, size_bytes)
    }

    /// What the value of a `Range` header selects of `size_bytes`; an end beyond the content is
    /// clamped.
    pub fn parse(value: &str, size_bytes: u64) -> Self {
        // [RFC 9110 s14.2] A unit that we do not know, or a specifier that is not valid, is
        // ignored.
        let Some((unit, set)) = value.split_once('=') else {
            return Self::Whole;
        };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        let Some((first, last)) = set.trim().split_once('-') else {
            return Self::Whole;
        };
        match (position(first), position(last)) {
            (Ok(Some(start)), Ok(last)) => {
                if last.is_some_and(|last| last < start) {
                    return Self::Whole;
                }
                if start >= size_bytes {
                    return Self::Unsatisfiable;
                }
                let end = last.map_or(size_bytes, |last| last.saturating_add(1).min(size_bytes));
                Self::Part { start, end }
            }
            (Ok(None), Ok(Some(suffix))) => {
                if suffix == 0 || size_bytes == 0 {
                    return Self::Unsatisfiable;
                }
                Self::Part {
                    start: size_bytes.saturating_sub(suffix),
                    end: size_bytes,
                }
            }
            _ => Self::Whole,
        }
    }

    /// First byte and one beyond the last of what is sent; nothing is sent of an unsatisfiable
    /// range.
    pub fn bounds(self, size_bytes: u64) -> (u64, u64) {
        match self {
            Self::Whole => (0, size_bytes),
            Self::Part { start, end } => (start, end),
            Self::Unsatisfiable => (0, 0),
        }
    }
}

/// A position of the grammar: empty, or digits; digits beyond 64 bits are as good as the largest
/// number.
fn position(text: &str) -> Result<Option<u64>, ()> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(());
    }
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn range_header_selects_bytes() {
        const UNSATISFIABLE: Selection = Selection::Unsatisfiable;
        const WHOLE: Selection = Selection::Whole;
        fn part(start: u64, end: u64) -> Selection {
            Selection::Part { start, end }
        }
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-4999", part(0, 5000)),
            // Both Tencent SDKs ask for one byte too many.
            ("bytes=0-5000", part(0, 5000)),
            ("bytes=100-", part(100, 5000)),
            ("bytes=4999-99999999999999999999999", part(4999, 5000)),
            ("bytes=-500", part(4500, 5000)),
            ("bytes=-9000", part(0, 5000)),
            ("bytes = 1 - 2 ", part(1, 3)),
            ("Bytes=1-2", part(1, 3)),
            ("bytes=5000-", UNSATISFIABLE),
            ("bytes=5000-5001", UNSATISFIABLE),
            ("bytes=18446744073709551616-", UNSATISFIABLE),
            ("bytes=-0", UNSATISFIABLE),
            ("bytes=3-2", WHOLE),
            ("bytes=0-1,3-4", WHOLE),
            ("bytes=", WHOLE),
            ("bytes=-", WHOLE),
            ("bytes=a-b", WHOLE),
            ("bytes=+1-2", WHOLE),
            ("bytes=1", WHOLE),
            ("items=0-1", WHOLE),
            ("", WHOLE),
        ];
        for (value, want) in cases {
            assert_eq!(Selection::parse(value, 5000), want, "{value:?}");
        }
        assert_eq!(Selection::parse("bytes=0-", 0), UNSATISFIABLE);
        assert_eq!(Selection::parse("bytes=-1", 0), UNSATISFIABLE);
    }

    #[test]
    fn if_range_must_match_the_entity_tag() {
        let mut headers = HeaderMap::new();
        assert_eq!(Selection::of(&headers, 10, "\"a\""), Selection::Whole);
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-"));
        assert_eq!(
            Selection::of(&headers, 10, "\"a\""),
            Selection::Part { start: 1, end: 10 }
        );
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        assert_eq!(
            Selection::of(&headers, 10, "\"a\""),
            Selection::Part { start: 1, end: 10 }
        );
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"b\""));
        assert_eq!(Selection::of(&headers, 10, "\"a\""), Selection::Whole);
    }
}

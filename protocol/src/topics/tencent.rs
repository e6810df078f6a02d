//! Tencent's topics: `$sys`, `$broadcast`, `$rrpc`, `$shadow` and `$ota`, each ending in
//! `{product}/{device}`.

/// Where devices ask for the time.
pub const OPERATION: &str = "$sys/operation/";
/// Where they are told.
pub const OPERATION_RESULT: &str = "$sys/operation/result/";
/// Where devices report on updates.
pub const OTA_REPORT: &str = "$ota/report/";
/// Where they are told of them.
pub const OTA_UPDATE: &str = "$ota/update/";
/// Where a device is asked something.
const RRPC_DOWN: &str = "$rrpc/rxd/";
/// Where it answers.
const RRPC_UP: &str = "$rrpc/txd/";

/// Where devices publish.
pub(super) const PUBLISH: [&str; 4] = [
    "$sys/operation/{product}/{device}",
    "$shadow/operation/{product}/{device}",
    "$ota/report/{product}/{device}",
    "$rrpc/txd/{product}/{device}/+",
];

/// What devices subscribe to.
pub(super) const SUBSCRIBE: [&str; 5] = [
    "$sys/operation/result/{product}/{device}",
    "$shadow/operation/result/{product}/{device}",
    "$ota/update/{product}/{device}",
    "$broadcast/rxd/{product}/{device}",
    "$rrpc/rxd/{product}/{device}/+",
];

/// Where the response to a request is published: `$rrpc/txd/...` for `$rrpc/rxd/...`.
pub fn response_to(topic: &str) -> Option<String> {
    let rest = topic.strip_prefix(RRPC_DOWN)?;
    let (_, id) = rest.rsplit_once('/')?;
    (rest.split('/').count() == 3 && !id.is_empty()).then(|| format!("{RRPC_UP}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_the_request_s_id() {
        assert_eq!(
            response_to("$rrpc/rxd/P/d/17").as_deref(),
            Some("$rrpc/txd/P/d/17")
        );
        for other in [
            "$rrpc/txd/P/d/17",
            "$rrpc/rxd/P/d",
            "$rrpc/rxd/P/d/",
            "P/d/x",
        ] {
            assert_eq!(response_to(other), None, "{other}");
        }
    }
}

//! Huawei's topics: `$oc/devices/{device_id}/...`, and which way each goes.

/// What stands before the device id.
pub const PREFIX: &str = "$oc/devices/";
/// Where a device tells of events and asks the platform's services.
pub const EVENTS_UP: &str = "sys/events/up";
/// Where it is answered.
pub const EVENTS_DOWN: &str = "sys/events/down";

/// The device id in a topic or filter of Huawei's, and what follows it.
pub fn split(topic: &str) -> Option<(&str, &str)> {
    topic.strip_prefix(PREFIX)?.split_once('/')
}

/// Whether what follows the device id is said to the device: only the gateway and applications
/// publish there, and a device hears it without a subscription.
pub fn is_down(rest: &str) -> bool {
    let Some(sys) = rest.strip_prefix("sys/") else {
        return false;
    };
    let below = |prefix: &str| {
        sys.strip_prefix(prefix)
            .is_some_and(|tail| tail.is_empty() || tail.starts_with('/'))
    };
    if below("commands") || below("properties/set") || below("properties/get") {
        return !is_response(rest);
    }
    [
        "messages/down",
        "events/down",
        "bootstrap/down",
        "shadow/get/response",
    ]
    .into_iter()
    .any(below)
}

/// Whether this is the response of a device to a command or to a request about its properties.
fn is_response(rest: &str) -> bool {
    [
        "sys/commands/response",
        "sys/properties/set/response",
        "sys/properties/get/response",
    ]
    .into_iter()
    .any(|prefix| {
        rest.strip_prefix(prefix)
            .is_some_and(|tail| tail.starts_with('/'))
    })
}

/// Where the response to a request is published: the same topic with `response` before the
/// request id. `None` for what has no response.
pub fn response_to(rest: &str) -> Option<String> {
    let (kind, id) = rest.rsplit_once('/')?;
    let answered = matches!(
        kind,
        "sys/commands" | "sys/properties/set" | "sys/properties/get"
    );
    let named = id
        .strip_prefix("request_id=")
        .is_some_and(|id| !id.is_empty());
    (answered && named).then(|| format!("{kind}/response/{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_goes_one_way() {
        for (rest, down) in [
            ("sys/messages/up", false),
            ("sys/messages/down", true),
            ("sys/properties/report", false),
            ("sys/properties/set/request_id=1", true),
            ("sys/properties/set/response/request_id=1", false),
            ("sys/properties/get/request_id=1", true),
            ("sys/properties/get/response/request_id=1", false),
            ("sys/properties/settings", false),
            ("sys/commands/request_id=1", true),
            ("sys/commands/response/request_id=1", false),
            ("sys/shadow/get/request_id=1", false),
            ("sys/shadow/get/response/request_id=1", true),
            ("sys/events/up", false),
            ("sys/events/down", true),
            ("sys/gateway/sub_devices/properties/report", false),
            ("user/messages/down", false),
        ] {
            assert_eq!(is_down(rest), down, "{rest}");
        }
    }

    #[test]
    fn a_response_is_known_by_the_request_id() {
        for (request, response) in [
            (
                "sys/commands/request_id=7",
                Some("sys/commands/response/request_id=7"),
            ),
            (
                "sys/properties/set/request_id=a",
                Some("sys/properties/set/response/request_id=a"),
            ),
            (
                "sys/properties/get/request_id=a",
                Some("sys/properties/get/response/request_id=a"),
            ),
            ("sys/commands/request_id=", None),
            ("sys/commands", None),
            ("sys/commands/response/request_id=7", None),
            ("sys/messages/down", None),
        ] {
            assert_eq!(response_to(request).as_deref(), response, "{request}");
        }
    }
}

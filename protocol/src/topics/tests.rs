//! Which topics a device gets, by product.

use super::*;

const BOTH: Vendors = Vendors {
    huawei: true,
    tencent: true,
};

struct Fixture {
    product: ProductId,
    node: NodeId,
    device: DeviceId,
}

impl Fixture {
    fn new() -> Self {
        Self {
            product: ProductId::new("P").expect("legal"),
            node: NodeId::new("d1").expect("legal"),
            device: DeviceId::new("P_d1").expect("legal"),
        }
    }

    fn names(&self) -> DeviceNames<'_> {
        DeviceNames {
            product: &self.product,
            node: &self.node,
            device: &self.device,
        }
    }

    fn topics(&self, vendors: Vendors, publish: &[&str], subscribe: &[&str]) -> ProductTopics {
        ProductTopics::compile(&self.product, vendors, publish, subscribe)
    }
}

#[test]
fn a_device_publishes_only_on_its_own_topics() {
    let device = Fixture::new();
    let topics = device.topics(Vendors::default(), &[], &[]);
    let cases = [
        ("$resource/up/service/P/d1", Some(UpTopic::Service)),
        ("P/d1/data", Some(UpTopic::Data)),
        ("P/d1/a/b", Some(UpTopic::Data)),
        ("P/d1", Some(UpTopic::Data)),
        ("$resource/up/chunk/P/d1/0abc/15360", Some(UpTopic::Chunk)),
        ("$resource/up/chunk/P/d1/0abc", None),
        ("$resource/up/chunk/P/d1//0", None),
        ("$resource/up/chunk/P/d1/0abc/0/0", None),
        ("$resource/up/chunk/P/d2/0abc/0", None),
        ("$resource/up/chunk/P/d10/0abc/0", None),
        ("$resource/up/service/P/d2", None),
        ("$resource/up/service/P/d1/x", None),
        ("$resource/down/service/P/d1", None),
        ("P/d10/data", None),
        ("P/d2/data", None),
        ("é/1", None),
        ("", None),
        ("$sys/operation/P/d1", None),
        ("$oc/devices/P_d1/sys/messages/up", None),
    ];
    for (topic, expected) in cases {
        assert_eq!(
            topics.classify_publish(device.names(), topic),
            expected,
            "{topic}"
        );
    }
}

#[test]
fn vendors_topics_are_the_device_s_own_too() {
    let device = Fixture::new();
    let topics = device.topics(BOTH, &[], &[]);
    let cases = [
        ("$sys/operation/P/d1", Some(UpTopic::TencentOperation)),
        ("$sys/operation/P/d2", None),
        ("$sys/operation/result/P/d1", None),
        ("$ota/report/P/d1", Some(UpTopic::TencentOta)),
        ("$shadow/operation/P/d1", Some(UpTopic::Data)),
        ("$rrpc/txd/P/d1/7", Some(UpTopic::Data)),
        ("$rrpc/txd/P/d2/7", None),
        ("$rrpc/rxd/P/d1/7", None),
        ("$broadcast/rxd/P/d1", None),
        ("$oc/devices/P_d1/sys/messages/up", Some(UpTopic::Data)),
        (
            "$oc/devices/P_d1/sys/events/up",
            Some(UpTopic::HuaweiEvents),
        ),
        ("$oc/devices/P_d1/user/wpy", Some(UpTopic::Data)),
        ("$oc/devices/P_d1/sys/messages/down", None),
        ("$oc/devices/P_d1/sys/commands/request_id=1", None),
        ("$oc/devices/P_d2/sys/messages/up", None),
        ("$oc/devices/P_d1", None),
    ];
    for (topic, expected) in cases {
        assert_eq!(
            topics.classify_publish(device.names(), topic),
            expected,
            "{topic}"
        );
    }
}

#[test]
fn a_filter_that_could_match_another_device_is_refused() {
    let device = Fixture::new();
    let topics = device.topics(BOTH, &[], &[]);
    for own in [
        "P/d1/#",
        "P/d1/+/x",
        "P/d1",
        "$resource/down/service/P/d1",
        "$resource/down/chunk/P/d1/#",
        "$resource/down/chunk/P/d1/+/+",
        "$oc/devices/P_d1/#",
        "$oc/devices/P_d1/sys/commands/#",
        "$rrpc/rxd/P/d1/+",
        "$broadcast/rxd/P/d1",
    ] {
        assert!(topics.may_subscribe(device.names(), own), "{own}");
    }
    for other in [
        "#",
        "+/d1/#",
        "P/+/#",
        "P/d2/#",
        "P/d10/#",
        "$resource/down/service/P/+",
        "$resource/down/service/P/d1/#",
        "$resource/down/chunk/+/d1/#",
        "$resource/#",
        "$oc/devices/+/#",
        "$oc/#",
        "$rrpc/rxd/P/+/+",
        "$SYS/#",
        "$share/g/P/d1/#",
    ] {
        assert!(!topics.may_subscribe(device.names(), other), "{other}");
    }
}

#[test]
fn a_vendor_s_topics_are_closed_to_products_without_its_form() {
    let device = Fixture::new();
    let topics = device.topics(Vendors::default(), &[], &[]);
    for filter in ["$oc/devices/P_d1/#", "$rrpc/rxd/P/d1/+", "$ota/update/P/d1"] {
        assert!(!topics.may_subscribe(device.names(), filter), "{filter}");
    }
}

#[test]
fn a_policy_adds_filters_but_never_the_gateway_s_own_topics() {
    let device = Fixture::new();
    let topics = device.topics(
        Vendors::default(),
        &["fleet/{device}/+", "$resource/#"],
        &["fleet/#", "$resource/#"],
    );
    for (topic, expected) in [
        ("fleet/d1/state", Some(UpTopic::Data)),
        ("fleet/d2/state", None),
        ("fleet/d1/a/b", None),
        ("$resource/up/service/P/d2", None),
        ("$resource/down/chunk/P/d2/t/0", None),
    ] {
        assert_eq!(
            topics.classify_publish(device.names(), topic),
            expected,
            "{topic}"
        );
    }
    for (filter, allowed) in [
        ("fleet/+/state", true),
        ("fleet", true),
        ("+/d1", false),
        ("$resource/#", false),
        ("$resource/down/chunk/P/d2/#", false),
    ] {
        assert_eq!(
            topics.may_subscribe(device.names(), filter),
            allowed,
            "{filter}"
        );
    }
}

#[test]
fn chunk_topics_end_in_the_offset() {
    assert_eq!(
        Fixture::new().names().chunk_prefix("0abc"),
        "$resource/down/chunk/P/d1/0abc/"
    );
}

#[test]
fn responses_are_found_by_the_request_s_topic() {
    for (request, response) in [
        (
            "$oc/devices/P_d1/sys/commands/request_id=9",
            Some("$oc/devices/P_d1/sys/commands/response/request_id=9"),
        ),
        ("$rrpc/rxd/P/d1/9", Some("$rrpc/txd/P/d1/9")),
        ("$oc/devices/P_d1/sys/messages/down", None),
        ("P/d1/commands/1", None),
    ] {
        assert_eq!(response_to(request).as_deref(), response, "{request}");
    }
}

#[test]
fn a_chunk_topic_names_transfer_and_offset() {
    let chunk = up_chunk("$resource/up/chunk/P/d1/0abc/15360").expect("one");
    assert_eq!((chunk.transfer, chunk.offset), ("0abc", "15360"));
}

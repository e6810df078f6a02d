//! Who gets which message, and what waits.

use std::sync::Arc;

use bytes::Bytes;
use headgate_protocol::mqtt::QoS;
use tokio_util::sync::CancellationToken;

use super::stage::{Stage, app_id, device_id, message};
use crate::{
    config::{ApplicationsConfig, MailboxConfig},
    model::{Id, Millis},
    service::uplink::{NotSent, NotSubscribed, Origin, Sending, Sent, SubscribeOptions, Terms},
    telemetry::metrics::DropReason,
};

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;

/// Two applications, of which each has a device of its own and both have `d2`.
pub(super) async fn two_apps() -> (Stage, String, String) {
    let stage = Stage::new().await;
    let secrets = (stage.app("a").await, stage.app("b").await);
    stage.devices(4).await;
    stage.bind("a", &["d0", "d2"]).await;
    stage.bind("b", &["d1", "d2"]).await;
    (stage, secrets.0, secrets.1)
}

pub(super) async fn publish(stage: &Stage, node: &str, topic: &str) -> u32 {
    let published = stage
        .uplink
        .publish_from_device(message(node, topic, Q1), Terms::default());
    published.await.unwrap().receivers
}

#[tokio::test]
async fn wildcards_yield_only_the_devices_of_the_application() {
    let (stage, a, b) = two_apps().await;
    let (_a, of_a) = stage.session("a", &a, &["+/+/data"]).await;
    let (_b, of_b) = stage.session("b", &b, &["#"]).await;
    for (node, receivers) in [("d0", 1), ("d1", 1), ("d2", 2), ("d3", 0)] {
        assert_eq!(
            publish(&stage, node, &format!("P/{node}/data")).await,
            receivers,
            "{node}"
        );
    }
    publish(&stage, "d2", "P/d2/other").await;
    publish(&stage, "d2", "$oc/devices/d2/sys/messages/up").await;
    let q1 = |topic: &str| (topic.to_owned(), 1);
    assert_eq!(of_a.topics(), [q1("P/d0/data"), q1("P/d2/data")]);
    assert_eq!(
        of_b.topics(),
        [q1("P/d1/data"), q1("P/d2/data"), q1("P/d2/other")]
    );
}

#[tokio::test]
async fn overlapping_subscriptions_give_one_message_at_the_highest_qos() {
    let (stage, a, _) = two_apps().await;
    let (mut session, sink) = stage.session("a", &a, &["P/d0/#"]).await;
    let subscribe = |session: &mut crate::service::uplink::Subscriber, filter: &str, qos| {
        let options = SubscribeOptions {
            qos,
            ..SubscribeOptions::default()
        };
        session.subscribe(&filter.parse().unwrap(), options)
    };
    subscribe(&mut session, "P/d0/data", Q0).unwrap();
    subscribe(&mut session, "+/+/data", Q0).unwrap();
    publish(&stage, "d0", "P/d0/data").await;
    subscribe(&mut session, "P/d0/#", Q0).unwrap();
    publish(&stage, "d0", "P/d0/data").await;
    assert!(session.unsubscribe(&"P/d0/#".parse().unwrap()));
    assert!(!session.unsubscribe(&"P/d0/#".parse().unwrap()));
    publish(&stage, "d0", "P/d0/other").await;
    let (q0, q1) = (("P/d0/data".to_owned(), 0), ("P/d0/data".to_owned(), 1));
    assert_eq!(sink.topics(), [q1, q0]);
    drop(session);
    assert_eq!(publish(&stage, "d0", "P/d0/data").await, 0);
}

#[tokio::test]
async fn a_session_holds_a_bounded_number_of_subscriptions() {
    let stage = Stage::with(|config| config.max_subscriptions = 2).await;
    let secret = stage.app("a").await;
    let (mut session, _) = stage.session("a", &secret, &["a", "b"]).await;
    let mut add =
        |filter: &str| session.subscribe(&filter.parse().unwrap(), SubscribeOptions::default());
    assert_eq!(add("c"), Err(NotSubscribed::TooMany));
    assert_eq!(add("b"), Ok(false), "replaced");
}

#[tokio::test]
async fn a_binding_acts_at_once_and_so_does_its_end() {
    let (stage, a, _) = two_apps().await;
    let (_session, sink) = stage.session("a", &a, &["#"]).await;
    assert_eq!(publish(&stage, "d3", "P/d3/x").await, 0);
    stage.bind("a", &["d3"]).await;
    assert_eq!(publish(&stage, "d3", "P/d3/x").await, 1);
    publish(&stage, "d0", "P/d0/x").await;
    stage.unbind("a", &["d3"]).await;
    assert_eq!(publish(&stage, "d3", "P/d3/x").await, 0);
    // What had been taken and not sent went with the binding; the rest stays.
    assert_eq!(sink.topics(), [("P/d0/x".to_owned(), 1)]);
    let gone = stage
        .uplink
        .device(&device_id("d0"))
        .await
        .unwrap()
        .unwrap();
    let audit = stage.actor.did("device.delete", "d0", "");
    stage
        .registry
        .delete_device(&gone.device_id, &audit)
        .await
        .unwrap();
    stage.uplink.on_device_deleted(&gone).await.unwrap();
    assert_eq!(publish(&stage, "d0", "P/d0/x").await, 0);
    assert_eq!(stage.uplink.resolve("P/d0/x").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_offered_once_unbind_has_returned() {
    let (stage, a, _) = two_apps().await;
    let stage = Arc::new(stage);
    let (_session, sink) = stage.session("a", &a, &["#"]).await;
    let stop = CancellationToken::new();
    // Also where an assertion fails: the runtime waits for the publisher.
    let publishing_ends = stop.clone().drop_guard();
    let (publisher, owner) = (Arc::clone(&stage), crate::shutdown::Shutdown::new());
    let started = Arc::new(tokio::sync::Notify::new());
    let tell = Arc::clone(&started);
    let publishing = owner.spawn(async move {
        while !stop.is_cancelled() {
            publish(&publisher, "d0", "P/d0/x").await;
            tell.notify_one();
        }
    });
    for _ in 0..50 {
        stage.bind("a", &["d0"]).await;
        started.notified().await;
        stage.unbind("a", &["d0"]).await;
        assert_eq!(sink.topics(), [], "offered or kept although unbound");
    }
    drop(publishing_ends);
    publishing.await.unwrap();
    assert_eq!(sink.topics(), []);
}

#[tokio::test]
async fn a_session_without_room_loses_the_message_and_it_is_counted() {
    let (stage, a, _) = two_apps().await;
    let (_full, sink) = stage.session("a", &a, &["#"]).await;
    let (_other, free) = stage.session("a", &a, &["#"]).await;
    *sink.capacity.lock() = Some(1);
    assert_eq!(publish(&stage, "d0", "P/d0/1").await, 2);
    assert_eq!(publish(&stage, "d0", "P/d0/2").await, 1);
    assert_eq!((sink.topics().len(), free.topics().len()), (1, 2));
    assert_eq!(
        stage
            .metrics
            .messages_dropped(DropReason::ApplicationFull)
            .get(),
        1
    );
}

#[tokio::test]
async fn a_message_to_a_device_goes_out_now_or_waits() {
    let (stage, _, _) = two_apps().await;
    let app = app_id("a");
    let send = async |node: &str, qos| {
        let topic = format!("P/{node}/down");
        let sent = stage.uplink.publish_to_device(
            Origin::App(&app, None),
            message(node, &topic, qos),
            Sending::default(),
        );
        sent.await
    };
    let mailbox = stage.uplink.mailbox();
    assert!(matches!(send("d0", Q0).await, Err(NotSent::Offline)));
    assert!(matches!(send("d1", Q1).await, Err(NotSent::NotBound)));
    assert!(matches!(send("d9", Q1).await, Err(NotSent::NotBound)));
    let Ok(Sent::Queued(first)) = send("d0", Q1).await else {
        panic!("not queued")
    };
    assert!(mailbox.has(&device_id("d0")) && !mailbox.has(&device_id("d1")));
    stage.links.online.lock().push(device_id("d0"));
    assert!(matches!(send("d0", Q0).await, Ok(Sent::Online(None))));
    let Ok(Sent::Online(Some(second))) = send("d0", Q1).await else {
        panic!("not sent")
    };
    assert!(second > first);
    let sent: Vec<Option<Id>> = stage
        .links
        .sent
        .lock()
        .iter()
        .map(|stored| stored.id)
        .collect();
    assert_eq!(sent, [None, Some(second)]);
    // Until the device has acknowledged it, it waits for the next session.
    let waiting = mailbox.pending(&device_id("d0"), None, 10).await.unwrap();
    assert_eq!(
        waiting.iter().map(|one| one.id).collect::<Vec<_>>(),
        [Some(first), Some(second)]
    );
    assert_eq!(
        mailbox
            .pending(&device_id("d0"), Some(first), 10)
            .await
            .unwrap()
            .len(),
        1
    );
    mailbox.delivered([first, second]);
    assert_eq!(
        mailbox.pending(&device_id("d0"), None, 1).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn other_applications_of_the_device_see_what_it_is_sent() {
    let (stage, a, b) = two_apps().await;
    let (sender, of_a) = stage.session("a", &a, &["P/d2/#"]).await;
    let (_b, of_b) = stage.session("b", &b, &["+/+/down"]).await;
    let app = app_id("a");
    let origin = Origin::App(&app, Some(sender.id()));
    stage
        .uplink
        .publish_to_device(origin, message("d2", "P/d2/down", Q1), Sending::default())
        .await
        .unwrap();
    stage
        .uplink
        .publish_to_device(origin, message("d0", "P/d0/down", Q1), Sending::default())
        .await
        .unwrap();
    assert_eq!((of_a.topics().len(), of_b.topics().len()), (1, 1));
    let mut sender = sender;
    let no_local = SubscribeOptions {
        qos: Q1,
        no_local: true,
        ..SubscribeOptions::default()
    };
    sender
        .subscribe(&"P/d2/#".parse().unwrap(), no_local)
        .unwrap();
    let origin = Origin::App(&app, Some(sender.id()));
    stage
        .uplink
        .publish_to_device(origin, message("d2", "P/d2/down", Q1), Sending::default())
        .await
        .unwrap();
    assert_eq!((of_a.topics().len(), of_b.topics().len()), (1, 2));
}

#[tokio::test]
async fn limits_of_messages_to_devices_are_kept() {
    let (stage, _, _) = two_apps().await;
    let dir = stage.close().await;
    let config = MailboxConfig {
        max_messages: 2,
        max_total_messages: 3,
        ..MailboxConfig::default()
    };
    let stage = Stage::open(dir, ApplicationsConfig::default(), config).await;
    let send = async |node: &str, topic: &str, len: usize| {
        let mut one = message(node, topic, Q1);
        one.payload = Bytes::from(vec![0; len]);
        stage
            .uplink
            .publish_to_device(Origin::Operator, one, Sending::default())
            .await
    };
    let large = send("d0", "P/d0/down", 65_537).await;
    assert!(matches!(
        large,
        Err(NotSent::TooLarge { max_bytes: 65_536 })
    ));
    for foreign in ["P/d1/down", "Q/d0/down", "$resource/down/service/P/d0", "x"] {
        let sent = send("d0", foreign, 1).await;
        assert!(matches!(sent, Err(NotSent::ForeignTopic)), "{foreign}");
    }
    for _ in 0..2 {
        send("d0", "P/d0/down", 65_536).await.unwrap();
    }
    assert!(matches!(
        send("d0", "P/d0/down", 1).await,
        Err(NotSent::MailboxFull)
    ));
    send("d1", "$oc/devices/d1/sys/messages/down", 1)
        .await
        .unwrap();
    assert!(
        matches!(send("d1", "P/d1/down", 1).await, Err(NotSent::MailboxFull)),
        "all are full"
    );
    assert_eq!(stage.metrics.mailbox_messages.get(), 3);
    assert_eq!(
        stage
            .metrics
            .messages_dropped(DropReason::MailboxFull)
            .get(),
        2
    );
    assert_eq!(
        stage.uplink.empty_mailbox(&device_id("d0")).await.unwrap(),
        2
    );
    assert_eq!(stage.metrics.mailbox_messages.get(), 1);
    send("d1", "P/d1/down", 1).await.unwrap();
}

#[tokio::test]
async fn what_waits_is_there_after_a_restart_until_its_time_is_over() {
    let (stage, _, _) = two_apps().await;
    let mut first = message("d0", "P/d0/down", Q1);
    first.properties.content_type = Some("text/plain".into());
    first.properties.correlation_data = Some(Bytes::from_static(b"\xff\x00"));
    first.properties.response_topic = Some("P/d0/answer".parse().unwrap());
    first.properties.user = vec![("k".into(), "v".into()), ("k".into(), "w".into())];
    let mut short = message("d0", "P/d0/short", Q1);
    short.properties.expires_at = Some(Millis::from_i64(1));
    let uplink = &stage.uplink;
    uplink
        .publish_to_device(Origin::Operator, first.clone(), Sending::default())
        .await
        .unwrap();
    uplink
        .publish_to_device(Origin::Operator, short, Sending::default())
        .await
        .unwrap();
    let dir = stage.close().await;
    let stage = Stage::open(dir, ApplicationsConfig::default(), MailboxConfig::default()).await;
    let mailbox = stage.uplink.mailbox();
    let waiting = mailbox.pending(&device_id("d0"), None, 10).await.unwrap();
    assert_eq!(
        waiting.iter().map(|one| &*one.message).collect::<Vec<_>>(),
        [&first]
    );
    // The sweep finds the other one.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while stage.metrics.mailbox_messages.get() != 1 {
        assert!(std::time::Instant::now() < deadline, "not swept");
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.metrics.messages_dropped(DropReason::Expired).get(), 1);
    let again = stage.uplink.publish_to_device(
        Origin::Operator,
        message("d0", "P/d0/down", Q1),
        Sending::default(),
    );
    let Ok(Sent::Queued(id)) = again.await else {
        panic!("not queued")
    };
    assert!(Some(id) > waiting[0].id);
}

#[tokio::test]
async fn many_messages_share_a_commit_and_are_offered_as_they_are_stored() {
    let (stage, _, _) = two_apps().await;
    stage.links.online.lock().push(device_id("d0"));
    let sends = (0..300).map(|n: u32| {
        let mut one = message("d0", "P/d0/down", Q1);
        one.payload = Bytes::from(n.to_string());
        stage
            .uplink
            .publish_to_device(Origin::Operator, one, Sending::default())
    });
    let sent = futures_util::future::join_all(sends).await;
    assert!(sent.iter().all(Result::is_ok));
    let mailbox = stage.uplink.mailbox();
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = mailbox.pending(&device_id("d0"), after, 64).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.id;
        seen.extend(page);
    }
    assert_eq!(seen, *stage.links.sent.lock());
    assert!(seen.is_sorted_by_key(|one| one.id));
    let mut payloads: Vec<u32> = seen
        .iter()
        .map(|one| {
            String::from_utf8_lossy(&one.message.payload)
                .parse()
                .unwrap()
        })
        .collect();
    payloads.sort_unstable();
    assert!(payloads.into_iter().eq(0..300));
    let commits = stage
        .metrics
        .store_seconds("sessions", "mailbox")
        .get_sample_count();
    assert!(commits < 150, "{commits} commits");
}

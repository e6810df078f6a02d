//! What is retained: who gets it, and what becomes of it.

use bytes::Bytes;
use headgate_protocol::mqtt::{QoS, RetainHandling};

use super::{
    message::two_apps,
    stage::{Recorder, Stage, app_id, device_id, message},
};
use crate::{
    config::{ApplicationsConfig, MailboxConfig},
    model::Millis,
    service::uplink::{
        NotPublished, NotRetained, Origin, Replay, Sending, SubscribeOptions, Subscriber, Terms,
    },
};

/// Has device `node` retain `payload`.
async fn retain(stage: &Stage, node: &str, topic: &str, payload: &str) {
    let mut kept = message(node, topic, QoS::AtLeastOnce);
    kept.retain = true;
    kept.payload = Bytes::from(payload.to_owned());
    stage
        .uplink
        .publish_from_device(kept, Terms::default())
        .await
        .unwrap();
}

/// What a new subscription gets of what is retained.
async fn subscribe(stage: &Stage, session: &mut Subscriber, filter: &str) {
    let filter = filter.parse().unwrap();
    session
        .subscribe(&filter, SubscribeOptions::default())
        .unwrap();
    let replay = stage.uplink.retained_for_app(session.app(), &filter).await;
    run(stage, session, replay.unwrap()).await;
}

async fn run(stage: &Stage, session: &Subscriber, mut replay: Replay) {
    while !replay.is_done() {
        stage.uplink.replay(session, &mut replay).await.unwrap();
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(topic, payload): &(&str, &str)| ((*topic).to_owned(), (*payload).to_owned());
    expected.iter().map(owned).collect()
}

async fn session(stage: &Stage, app: &str, secret: &str) -> (Subscriber, std::sync::Arc<Recorder>) {
    stage.session(app, secret, &[]).await
}

#[tokio::test]
async fn the_last_one_of_each_topic_of_its_devices_is_for_an_application_that_subscribes() {
    let (stage, a, _) = two_apps().await;
    retain(&stage, "d0", "P/d0/state", "1").await;
    retain(&stage, "d0", "P/d0/state", "2").await;
    retain(&stage, "d0", "P/d0/name", "n").await;
    retain(&stage, "d1", "P/d1/state", "not bound").await;
    retain(&stage, "d2", "P/d2/state", "3").await;
    retain(&stage, "d2", "P/d2/gone", "4").await;
    retain(&stage, "d2", "P/d2/gone", "").await;
    let (mut all, of_all) = session(&stage, "a", &a).await;
    subscribe(&stage, &mut all, "+/+/state").await;
    assert_eq!(
        of_all.retained(),
        pairs(&[("P/d0/state", "2"), ("P/d2/state", "3")])
    );
    let (mut one, of_one) = session(&stage, "a", &a).await;
    subscribe(&stage, &mut one, "P/d0/#").await;
    subscribe(&stage, &mut one, "P/d1/#").await;
    subscribe(&stage, &mut one, "P/d2/gone").await;
    assert_eq!(
        of_one.retained(),
        pairs(&[("P/d0/name", "n"), ("P/d0/state", "2")])
    );
    assert_eq!(stage.metrics.retained.messages.get(), 4);
}

#[tokio::test]
async fn it_is_there_after_a_restart_and_goes_with_its_time_and_its_device() {
    let (stage, a, _) = two_apps().await;
    retain(&stage, "d0", "P/d0/state", "1").await;
    retain(&stage, "d2", "P/d2/state", "2").await;
    let mut short = message("d0", "P/d0/short", QoS::AtMostOnce);
    short.retain = true;
    short.properties.expires_at = Some(Millis::from_i64(1));
    stage
        .uplink
        .publish_from_device(short, Terms::default())
        .await
        .unwrap();
    let dir = stage.close().await;
    let stage = Stage::open(dir, ApplicationsConfig::default(), MailboxConfig::default()).await;
    let (mut first, of_first) = session(&stage, "a", &a).await;
    subscribe(&stage, &mut first, "#").await;
    assert_eq!(
        of_first.retained(),
        pairs(&[("P/d0/state", "1"), ("P/d2/state", "2")])
    );
    let name = stage
        .uplink
        .device(&device_id("d0"))
        .await
        .unwrap()
        .unwrap();
    stage.uplink.on_device_deleted(&name).await.unwrap();
    let (mut second, of_second) = session(&stage, "a", &a).await;
    subscribe(&stage, &mut second, "#").await;
    assert_eq!(of_second.retained(), pairs(&[("P/d2/state", "2")]));
}

#[tokio::test]
async fn a_new_binding_brings_it_to_subscriptions_that_want_it() {
    let (stage, a, _) = two_apps().await;
    retain(&stage, "d3", "P/d3/state", "1").await;
    let (mut wants, of_wants) = session(&stage, "a", &a).await;
    subscribe(&stage, &mut wants, "#").await;
    let (mut refuses, of_refuses) = session(&stage, "a", &a).await;
    let never = SubscribeOptions {
        retain_handling: RetainHandling::DoNotSend,
        ..SubscribeOptions::default()
    };
    refuses.subscribe(&"#".parse().unwrap(), never).unwrap();
    stage.bind("a", &["d1", "d3"]).await;
    for (session, sink) in [(&wants, &of_wants), (&refuses, &of_refuses)] {
        assert_eq!(sink.bound(), [device_id("d3")]);
        run(&stage, session, stage.uplink.retained_of(sink.bound())).await;
    }
    assert_eq!(of_wants.retained(), pairs(&[("P/d3/state", "1")]));
    assert_eq!(of_refuses.retained(), []);
}

#[tokio::test]
async fn nothing_is_handed_out_of_a_device_that_was_unbound_or_a_topic_that_was_replaced() {
    let (stage, a, _) = two_apps().await;
    retain(&stage, "d0", "P/d0/state", "1").await;
    retain(&stage, "d2", "P/d2/state", "2").await;
    let (mut reader, sink) = session(&stage, "a", &a).await;
    let filter = "#".parse().unwrap();
    reader
        .subscribe(&filter, SubscribeOptions::default())
        .unwrap();
    let replay = stage
        .uplink
        .retained_for_app(&app_id("a"), &filter)
        .await
        .unwrap();
    stage.unbind("a", &["d2"]).await;
    run(&stage, &reader, replay).await;
    assert_eq!(sink.retained(), pairs(&[("P/d0/state", "1")]));
}

#[tokio::test]
async fn an_application_of_many_devices_gets_all_of_theirs() {
    let stage = Stage::new().await;
    let secret = stage.app("a").await;
    stage.devices(700).await;
    let ids: Vec<String> = (0..700).map(|n| format!("d{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    stage.bind("a", &ids).await;
    let kept = ids.iter().map(|id| {
        let mut kept = message(id, &format!("P/{id}/state"), QoS::AtLeastOnce);
        kept.retain = true;
        stage.uplink.publish_from_device(kept, Terms::default())
    });
    for result in futures_util::future::join_all(kept).await {
        result.unwrap();
    }
    let (mut reader, sink) = session(&stage, "a", &secret).await;
    subscribe(&stage, &mut reader, "P/+/state").await;
    assert_eq!(sink.retained().len(), 700);
}

#[tokio::test]
async fn a_device_that_holds_as_many_as_it_may_is_refused_one_more_and_the_rest_stays() {
    let (stage, _, _) = two_apps().await;
    for n in 0..100 {
        retain(&stage, "d0", &format!("P/d0/{n}"), "x").await;
    }
    let mut more = message("d0", "P/d0/more", QoS::AtLeastOnce);
    more.retain = true;
    let refused = stage
        .uplink
        .publish_from_device(more.clone(), Terms::default())
        .await;
    assert!(matches!(
        refused,
        Err(NotPublished::NotRetained(NotRetained::Full))
    ));
    retain(&stage, "d0", "P/d0/7", "").await;
    let sent = stage
        .uplink
        .publish_to_device(Origin::Operator, more, Sending::default())
        .await;
    sent.unwrap();
    assert_eq!(stage.metrics.retained.messages.get(), 100);
}

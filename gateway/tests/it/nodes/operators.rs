//! What operators see and do of all nodes by way of any of them.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use hyper::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::{Cluster, lists};
use crate::{
    cli::{headgate, text},
    console::{ask, password},
    harness::{Client, Gateway, Login, until},
};

const V5: ProtocolVersion = ProtocolVersion::V5;
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn sign_in(node: &Gateway, password: &str) -> u16 {
    let body = format!("name=admin&password={password}&next=/resources");
    ask(node, Method::POST, "/sign-in", &[FORM], &body)
        .await
        .status
}

/// Names and nodes of a list's entries.
fn placed(page: &Value) -> Vec<(&str, &str)> {
    let items = page["items"].as_array().expect("a list");
    let text = |item: &'_ Value, key: &str| -> Option<usize> { item[key].as_str().map(str::len) };
    assert!(items.iter().all(|item| text(item, "since").is_some()));
    items
        .iter()
        .map(|item| {
            let of = |key: &str| item[key].as_str().expect("text");
            (of("id"), of("node"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_count_over_all_nodes() {
    let mut cluster = Cluster::new();
    let few = [("HEADGATE__CONSOLE__SIGN_IN_FAILURES", "4".to_owned())];
    let (a, b) = (
        cluster.node_with("a", &few).await,
        cluster.node_with("b", &few).await,
    );
    let password = password(&a);
    for node in [&a, &b] {
        for _ in 0..2 {
            assert_eq!(sign_in(node, "wrong").await, 422);
        }
    }
    for node in [&a, &b] {
        until("locked out", || async {
            // What is not counted yet is counted now: a wrong one more locks out all the sooner.
            (sign_in(node, "wrong").await == 429).then_some(())
        })
        .await;
        assert_eq!(sign_in(node, &password).await, 429);
    }
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_goes_on_counting_while_they_cannot_tell_each_other() {
    let mut cluster = Cluster::new();
    let few = [("HEADGATE__CONSOLE__SIGN_IN_FAILURES", "3".to_owned())];
    let (a, b) = (
        cluster.node_with("a", &few).await,
        cluster.node_with("b", &few).await,
    );
    let password = password(&a);
    cluster.stores.redis.signal(Signal::STOP);
    for _ in 0..3 {
        assert_eq!(sign_in(&a, "wrong").await, 422);
    }
    assert_eq!(sign_in(&a, &password).await, 429, "alone, too");
    // What could not be told is told when it can be.
    cluster.stores.redis.signal(Signal::CONT);
    until("told", || async {
        (sign_in(&b, "wrong").await == 429).then_some(())
    })
    .await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_found_listed_and_ended_from_every_node() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let devices = a.devices(["d", "e", "f"]).await;
    let app = a.app("app", &[&devices[0]]).await;
    let mut on_a = Client::log_in(&a, &Login::of(&devices[0]).over(V5)).await;
    let mut on_b = Client::log_in(&b, &Login::of(&devices[1]).over(V5)).await;
    on_b.subscribe(&["P/e/#"], QoS::AtLeastOnce).await;
    let _third = Client::log_in(&b, &Login::of(&devices[2])).await;
    let mut of_app = Client::log_in(&b, &Login::application(&app, "app:app:1")).await;
    let all = [
        ("app:app:1", "b"),
        ("device:P_d", "a"),
        ("device:P_e", "b"),
        ("device:P_f", "b"),
    ];
    for node in [&a, &b] {
        lists(node, &[("a", "ready"), ("b", "ready")]).await;
        assert_eq!(placed(&node.get("/sessions").await), all);
        // By pages: none is left out, none comes twice.
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = node.get(&format!("/sessions?limit=1{cursor}")).await;
            let own = |(id, at): (&str, &str)| (id.to_owned(), at.to_owned());
            seen.extend(placed(&page).into_iter().map(own));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            cursor = format!("&cursor={next}");
        }
        let seen: Vec<_> = seen.iter().map(|(id, at)| (&**id, &**at)).collect();
        assert_eq!(seen, all);
        let page = node.get("/sessions?node=b&kind=device").await;
        assert_eq!(placed(&page), all[2..]);
        // One device: where it is, since when, and how.
        let shown = node.get("/devices/P_e/session").await;
        assert_eq!(shown["node"], "b");
        assert_eq!(shown["protocol"], "mqtt-5");
        assert_eq!(shown["since"], page["items"][0]["since"]);
        assert_eq!(shown["subscriptions"][0]["filter"], "P/e/#");
    }
    let directory = a.data_dir.to_str().expect("UTF-8").to_owned();
    let shown = tokio::task::spawn_blocking(move || {
        let asked = ["session", "show", "P_e", "--data-dir", &directory];
        text(&headgate(&asked, &[]).stdout).to_owned()
    });
    let shown = shown.await.expect("no panic");
    assert!(
        shown.contains("node") && shown.contains("mqtt-5"),
        "{shown}"
    );
    // From the other node they are ended, devices and applications.
    for (path, client) in [
        ("/devices/P_e/session", &mut on_b),
        ("/sessions/app:app:1", &mut of_app),
    ] {
        a.api(Method::DELETE, path, None).await.ok(204);
        assert_eq!(
            client.closed().await,
            Some(ReasonCode::AdministrativeAction)
        );
        until("gone", || async {
            (a.api(Method::DELETE, path, None).await.status == 404).then_some(())
        })
        .await;
    }
    assert_eq!(
        a.api(Method::GET, "/devices/P_e/session", None)
            .await
            .status,
        404
    );
    on_a.ping().await;
    // A node that does not answer is named, and the rest is shown.
    b.signal(Signal::STOP);
    let page = a.get("/sessions").await;
    assert_eq!(placed(&page), [("device:P_d", "a")]);
    assert_eq!(page["silent_nodes"], serde_json::json!(["b"]));
    b.signal(Signal::CONT);
    b.stop().await;
    a.stop().await;
}

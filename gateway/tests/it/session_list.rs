//! Who is connected, listed and ended by operators; where clients are told to go.

use headgate_protocol::mqtt::{Packet, ProtocolVersion, QoS, ReasonCode};
use hyper::Method;
use serde_json::Value;

use crate::harness::{Client, Gateway, Login, until};

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| item["id"].as_str().expect("an id"))
        .collect()
}

#[tokio::test]
async fn sessions_are_listed_by_pages_and_filters_and_ended() {
    let gateway = Gateway::start().await;
    gateway.product("Q", &serde_json::json!({})).await;
    let [a, b] = gateway.devices(["a", "b"]).await;
    let other = gateway.device("Q", "c").await;
    let app = gateway.app("app", &[&a]).await;
    let mut of_app = Client::log_in(&gateway, &Login::application(&app, "app:app:1")).await;
    let mut clients = Vec::new();
    for device in [&a, &b, &other] {
        let login = Login::of(device).over(ProtocolVersion::V5);
        clients.push(Client::log_in(&gateway, &login).await);
    }
    clients[0].subscribe(&["P/a/#"], QoS::ExactlyOnce).await;
    let all = gateway.get("/sessions").await;
    assert_eq!(
        ids(&all),
        ["app:app:1", "device:P_a", "device:P_b", "device:Q_c"]
    );
    let shown = &all["items"][1];
    assert_eq!(shown["kind"], "device");
    assert_eq!(shown["device_id"], "P_a");
    assert_eq!(shown["connection"]["protocol"], "mqtt-5");
    assert_eq!(shown["connection"]["session_expiry"], 0);
    let listener = gateway.ports.mqtts.expect("a listener");
    assert_eq!(shown["connection"]["listener"], listener.to_string());
    let node = shown["node"].as_str().expect("a node");
    let (here, port) = (
        format!("node={node}"),
        format!("listener={}", listener.port()),
    );
    assert_eq!(shown["connection"]["subscriptions"][0]["qos"], 2);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = gateway.get(&format!("/sessions?limit=2{cursor}")).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ids(&all));
    for (query, expected) in [
        ("kind=application", vec!["app:app:1"]),
        ("product=Q", vec!["device:Q_c"]),
        ("product=R", vec![]),
        ("kind=device&limit=1", vec!["device:P_a"]),
        ("persistent=true", vec![]),
        ("node=elsewhere", vec![]),
        (&*here, ids(&all)),
        (&*port, ids(&all)[1..].to_vec()),
        ("listener=1", vec![]),
    ] {
        let page = gateway.get(&format!("/sessions?{query}")).await;
        assert_eq!(ids(&page), expected, "{query}");
    }
    let wrong = gateway.api(Method::GET, "/sessions?kind=x", None).await;
    assert_eq!(wrong.status, 400);
    for (id, client) in [("app:app:1", &mut of_app), ("device:P_b", &mut clients[1])] {
        let path = format!("/sessions/{id}");
        gateway.api(Method::DELETE, &path, None).await.ok(204);
        assert_eq!(
            client.closed().await,
            Some(ReasonCode::AdministrativeAction)
        );
        until("not listed", || async {
            let gone = gateway.api(Method::DELETE, &path, None).await;
            (gone.status == 404).then_some(())
        })
        .await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_says_where_to_go() {
    let gateway = Gateway::with(|config| {
        config.shutdown.server_reference = Some("other.example:8883".to_owned());
    })
    .await;
    let [d] = gateway.devices(["d"]).await;
    let login = Login::of(&d).over(ProtocolVersion::V5);
    let mut client = Client::log_in(&gateway, &login).await;
    gateway.drain();
    let packet = client.answer().await;
    let Some(Packet::Disconnect(disconnect)) = packet else {
        unreachable!("DISCONNECT expected: {packet:?}")
    };
    assert_eq!(disconnect.reason, ReasonCode::UseAnotherServer);
    let reference = disconnect.properties.expect("properties").server_reference;
    assert_eq!(reference.as_deref(), Some("other.example:8883"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_refusal_is_explained_to_whoever_asks_for_problem_information() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    for wants in [true, false] {
        let login = Login::of(&d).over(ProtocolVersion::V5);
        let Packet::Connect(mut connect) = crate::harness::connect(&login) else {
            unreachable!("a CONNECT")
        };
        connect.properties = Some(Box::new(headgate_protocol::mqtt::Properties {
            request_problem_information: Some(wants),
            ..Default::default()
        }));
        let mut client = Client::open(&gateway).await;
        client.speak(login.version);
        client.send(&Packet::Connect(connect)).await;
        client.connack().await;
        let id = client.packet_id();
        client
            .send(&crate::harness::publish("P/e/x", b"x", Some(id)))
            .await;
        let packet = client.answer().await;
        let Some(Packet::PubAck(ack)) = packet else {
            unreachable!("PUBACK expected: {packet:?}")
        };
        assert_eq!(ack.reason, ReasonCode::NotAuthorized);
        let said = ack
            .properties
            .and_then(|properties| properties.reason_string);
        assert_eq!(said.is_some(), wants, "{said:?}");
    }
    gateway.stop().await;
}

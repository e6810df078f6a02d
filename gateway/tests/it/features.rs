//! What MQTT offers beyond a subscription and a message, asked for by other people's clients: Paho, gmqtt and mqtt.js,
//! each with its own codec and its own idea of a session, against a listener that lets anyone in.

use headgate::config::{ListenerConfig, Profile};
use serde_json::{Value, json};

use crate::harness::{Gateway, Library, Sdk};

const LIBRARIES: [Library; 3] = [Library::Paho, Library::Gmqtt, Library::MqttJs];

/// A gateway with a listener for clients of every kind.
struct Place {
    gateway: Gateway,
    port: String,
}

impl Place {
    async fn start() -> Self {
        let gateway = Gateway::with(|config| {
            config.listeners.push(ListenerConfig {
                tls: false,
                profile: Profile::Conformance,
                ..ListenerConfig::at(([127, 0, 0, 1], 0).into())
            });
        })
        .await;
        let port = gateway.ports.listeners[0].port().to_string();
        Self { gateway, port }
    }

    /// A client that is connected; `more` are the fields of `connect` beside its name and version.
    async fn client(&self, library: Library, name: &str, version: &str, more: Value) -> Sdk {
        let (sdk, _) = self.connected(library, name, version, more).await;
        sdk
    }

    /// The same, and whether its session was there already.
    async fn connected(
        &self,
        library: Library,
        name: &str,
        version: &str,
        more: Value,
    ) -> (Sdk, bool) {
        let mut sdk = Sdk::start(library, &["127.0.0.1", &self.port, ""]);
        let mut command =
            json!({"do": "connect", "client_id": name, "version": version, "keep_alive": 30});
        add(&mut command, more);
        sdk.tell(&command);
        let connected = sdk.event("connected").await;
        assert_eq!(connected["refused"], false, "{library:?}: {connected}");
        (sdk, connected["resumed"] == true)
    }
}

fn add(command: &mut Value, more: Value) {
    if let Value::Object(fields) = more {
        for (key, value) in fields {
            command[key] = value;
        }
    }
}

async fn subscribe(sdk: &mut Sdk, topic: &str, more: Value) {
    let mut command = json!({"do": "subscribe", "topic": topic});
    add(&mut command, more);
    sdk.tell(&command);
    sdk.event("subscribed").await;
}

fn publish(sdk: &mut Sdk, topic: &str, payload: &str, more: Value) {
    let mut command = json!({"do": "publish", "topic": topic, "payload": payload});
    add(&mut command, more);
    sdk.tell(&command);
}

/// The next message on a topic, whole.
async fn heard(sdk: &mut Sdk, topic: &str) -> Value {
    sdk.event_where("message", |event| event["topic"] == topic)
        .await
}

fn versions(library: Library) -> &'static [&'static str] {
    match library {
        // gmqtt resumes sessions of 5.0 only.
        Library::Gmqtt => &["5"],
        _ => &["3.1.1", "5"],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_qos_goes_both_ways() {
    let place = Place::start().await;
    for library in LIBRARIES {
        for version in ["3.1.1", "5"] {
            let mut sdk = place.client(library, "one", version, json!({})).await;
            subscribe(&mut sdk, "t/+", json!({"qos": 2})).await;
            for qos in [0, 1, 2] {
                let topic = format!("t/{qos}");
                publish(&mut sdk, &topic, "x", json!({"qos": qos}));
                let message = heard(&mut sdk, &topic).await;
                assert_eq!(message["qos"], qos, "{library:?}, {version}");
            }
            sdk.tell(&json!({"do": "unsubscribe", "topic": "t/+"}));
            sdk.event("unsubscribed").await;
            sdk.tell(&json!({"do": "disconnect"}));
            sdk.event("disconnected").await;
        }
    }
    place.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_with_what_came_meanwhile() {
    let place = Place::start().await;
    for library in LIBRARIES {
        for version in versions(library) {
            let name = format!("lasting-{library:?}-{version}");
            let lasting = json!({"clean": false, "properties_": {"session_expiry": 600}});
            let (mut sdk, resumed) = place
                .connected(library, &name, version, lasting.clone())
                .await;
            assert!(!resumed, "{name}");
            subscribe(&mut sdk, "lasting/#", json!({"qos": 2})).await;
            // Gone without a word.
            drop(sdk);
            let mut other = place.client(Library::Paho, "other", "5", json!({})).await;
            for n in 0..3 {
                publish(
                    &mut other,
                    &format!("lasting/{n}"),
                    "x",
                    json!({"qos": n.min(2)}),
                );
                if n > 0 {
                    other.event("published").await;
                }
            }
            let (mut sdk, resumed) = place.connected(library, &name, version, lasting).await;
            assert!(resumed, "{name}");
            for n in 1..3 {
                let message = heard(&mut sdk, &format!("lasting/{n}")).await;
                assert_eq!(message["qos"], n, "{name}");
            }
        }
    }
    place.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_is_published_for_a_client_that_is_gone_and_for_no_other() {
    let place = Place::start().await;
    for library in LIBRARIES {
        for version in ["3.1.1", "5"] {
            let mut watcher = place.client(Library::Paho, "watcher", "5", json!({})).await;
            subscribe(&mut watcher, "wills/+", json!({})).await;
            let will = |topic: &str| json!({"will": {"topic": topic, "payload": "gone", "qos": 1, "retain": false}});
            let mut polite = place
                .client(library, "polite", version, will("wills/polite"))
                .await;
            polite.tell(&json!({"do": "disconnect"}));
            polite.event("disconnected").await;
            let lost = place
                .client(library, "lost", version, will("wills/lost"))
                .await;
            drop(lost);
            assert_eq!(
                watcher.message("wills/lost").await,
                b"gone",
                "{library:?}, {version}"
            );
            assert!(
                !watcher.has_told("message"),
                "{library:?}: a will of one who said goodbye"
            );
        }
    }
    place.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_retained_is_there_for_who_comes_later() {
    let place = Place::start().await;
    for library in LIBRARIES {
        for version in ["3.1.1", "5"] {
            let topic = format!("kept/{library:?}/{}", version.replace('.', "-"));
            let mut writer = place.client(library, "writer", version, json!({})).await;
            publish(&mut writer, &topic, "latest", json!({"retain": true}));
            writer.event("published").await;
            let mut reader = place.client(library, "reader", version, json!({})).await;
            subscribe(&mut reader, &topic, json!({})).await;
            let message = heard(&mut reader, &topic).await;
            assert_eq!(message["retain"], true, "{library:?}, {version}");
            publish(&mut writer, &topic, "", json!({"retain": true}));
            writer.event("published").await;
            let emptied = heard(&mut reader, &topic).await;
            assert_eq!(emptied["payload_base64"], "");
            let mut late = place.client(library, "late", version, json!({})).await;
            subscribe(&mut late, &topic, json!({})).await;
            subscribe(&mut late, "mark", json!({})).await;
            publish(&mut late, "mark", "x", json!({}));
            heard(&mut late, "mark").await;
            assert!(!late.has_told("message"), "{library:?}: it was taken back");
        }
    }
    place.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_share_the_messages() {
    let place = Place::start().await;
    for library in LIBRARIES {
        for version in ["3.1.1", "5"] {
            let mut members = Vec::new();
            for name in ["member-1", "member-2"] {
                let mut member = place.client(library, name, version, json!({})).await;
                subscribe(&mut member, "$share/group/work/#", json!({})).await;
                subscribe(&mut member, "mark", json!({})).await;
                members.push(member);
            }
            let mut writer = place.client(library, "writer", version, json!({})).await;
            for n in 0..20 {
                publish(&mut writer, &format!("work/{n}"), "x", json!({}));
                writer.event("published").await;
            }
            publish(&mut writer, "mark", "x", json!({}));
            let mut got = Vec::new();
            for member in &mut members {
                heard(member, "mark").await;
                let mine = member.take_all("message");
                assert!(
                    !mine.is_empty(),
                    "{library:?}, {version}: a member got nothing"
                );
                got.extend(mine.into_iter().map(|message| message["topic"].to_string()));
            }
            got.sort();
            got.dedup();
            assert_eq!(got.len(), 20, "{library:?}, {version}");
        }
    }
    place.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mqtt_5_says_beside_a_message_arrives_with_it() {
    let place = Place::start().await;
    for library in LIBRARIES {
        // The others leave it to their callers to look aliases up.
        let aliases = match library {
            Library::MqttJs => json!({"properties_": {"topic_alias_maximum": 10}}),
            _ => json!({}),
        };
        let mut reader = place.client(library, "reader", "5", aliases).await;
        subscribe(
            &mut reader,
            "props/#",
            json!({"properties_": {"identifier": 7}, "retain_as_published": true}),
        )
        .await;
        let mut writer = place.client(library, "writer", "5", json!({})).await;
        let said = json!({
            "message_expiry": 60, "response_topic": "answers/1", "correlation": "c0ffee",
            "content_type": "text/plain", "user": [["k", "v"]],
        });
        // Twice: the second time its topic may be an alias.
        for _ in 0..2 {
            publish(&mut writer, "props/x", "x", json!({"properties_": said}));
            let message = heard(&mut reader, "props/x").await;
            let heard = &message["properties"];
            for name in ["response_topic", "correlation", "content_type"] {
                assert_eq!(heard[name], said[name], "{library:?}: {message}");
            }
            assert_eq!(
                heard["user"][0],
                json!(["k", "v"]),
                "{library:?}: {message}"
            );
            let expiry = heard["message_expiry"].as_u64().expect("an expiry");
            assert!((1..=60).contains(&expiry), "{library:?}: {message}");
            let identifier = &heard["identifier"];
            assert!(
                *identifier == 7 || identifier[0] == 7,
                "{library:?}: {message}"
            );
        }
        // What it says itself it does not want to hear.
        subscribe(&mut reader, "echo", json!({"no_local": true})).await;
        subscribe(&mut reader, "mark", json!({})).await;
        publish(&mut reader, "echo", "x", json!({}));
        publish(&mut reader, "mark", "x", json!({}));
        heard(&mut reader, "mark").await;
        assert!(!reader.has_told("message"), "{library:?}: its own echo");
    }
    place.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_waits_for_its_delay_and_not_for_one_who_comes_back() {
    let place = Place::start().await;
    for library in LIBRARIES {
        let mut watcher = place.client(Library::Paho, "watcher", "5", json!({})).await;
        subscribe(&mut watcher, "wills/+", json!({})).await;
        let more = json!({
            "clean": false, "properties_": {"session_expiry": 600},
            "will": {
                "topic": "wills/late", "payload": "gone", "qos": 1, "retain": false,
                "properties": {"will_delay": 300},
            },
        });
        let name = format!("late-{library:?}");
        let first = place.client(library, &name, "5", more.clone()).await;
        drop(first);
        let (mut again, resumed) = place.connected(library, &name, "5", more).await;
        assert!(resumed, "{library:?}");
        again.tell(&json!({"do": "disconnect"}));
        again.event("disconnected").await;
        subscribe(&mut watcher, "mark", json!({})).await;
        publish(&mut watcher, "mark", "x", json!({}));
        heard(&mut watcher, "mark").await;
        assert!(
            !watcher.has_told("message"),
            "{library:?}: it came back in time"
        );
    }
    place.gateway.stop().await;
}

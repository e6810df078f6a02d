//! Devices on other people's clients, against the real program: each gets in by what it holds, and
//! talks to an application that sees the devices bound to it and no others.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    time::Duration,
};

use headgate::{config::Config, model::Millis};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use super::harness::{Gateway, Library, Sdk, content, md5, run, sha256, until};

/// A product whose id Tencent's SDK takes.
const PRODUCT: &str = "PROD123456";
/// The secret of the recorded packets: `0123456789abcdef` in base64.
const TENCENT_SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
/// What the SDK appends to the product's id to get the host's name.
const DOMAIN: &str = ".gateway.test";
/// The secret of Huawei's recorded packets.
const HUAWEI_SECRET: &str = "12345678";

/// The arguments that every client takes: where the gateway is and whom to trust.
fn place(gateway: &Gateway) -> [String; 3] {
    let port = gateway.ports.mqtts.expect("a listener").port();
    let ca = gateway.data_dir.join("tls/ca.pem");
    [
        "localhost".to_owned(),
        port.to_string(),
        ca.display().to_string(),
    ]
}

fn start(library: Library, gateway: &Gateway, more: &[&str]) -> Sdk {
    let place = place(gateway);
    let arguments: Vec<&str> = place
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    Sdk::start(library, &arguments)
}

/// An application `fleet` with these devices bound to it, connected by Paho and subscribed to what
/// every device says.
async fn application(gateway: &Gateway, devices: &[&str]) -> Sdk {
    let made = gateway
        .post("/apps", &json!({"id": "fleet", "name": "Fleet"}))
        .await;
    let secret = made["secret"].as_str().expect("a secret");
    let bound = json!({"device_ids": devices});
    gateway
        .api(Method::POST, "/apps/fleet/devices", Some(&bound))
        .await
        .ok(200);
    let mut app = start(Library::Paho, gateway, &[]);
    app.tell(&json!({
        "do": "connect", "client_id": "app:fleet:1", "username": "fleet", "password": secret, "version": "5",
    }));
    assert!(app.connected().await);
    for filter in ["+/+/data", "$oc/devices/+/sys/messages/up"] {
        app.tell(&json!({"do": "subscribe", "topic": filter}));
        app.event("subscribed").await;
    }
    app
}

/// Registers a device; `more` are the fields beside its two ids.
async fn device(gateway: &Gateway, product: &str, node: &str, more: &Value) {
    let mut body = json!({"product_id": product, "node_id": node});
    let fields = more.as_object().into_iter().flatten();
    fields.for_each(|(key, value)| body[key] = value.clone());
    gateway.post("/devices", &body).await;
}

/// The hour that Huawei's devices sign, in UTC.
fn hour() -> String {
    let now = serde_json::to_value(Millis::now()).expect("a time");
    let digits = now.as_str().expect("text").chars();
    digits.filter(char::is_ascii_digit).take(10).collect()
}

fn huawei_password(hour: &str) -> String {
    let hmac = Hmac::<Sha256>::new_from_slice(hour.as_bytes()).expect("any length");
    hex::encode(hmac.chain_update(HUAWEI_SECRET).finalize().into_bytes())
}

/// A certificate that signs itself, with its key, as files; gives its fingerprint.
fn self_signed(directory: &Path, name: &str) -> (String, [String; 2]) {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .expect("a name")
        .self_signed(&key)
        .expect("a certificate");
    let files = ["pem", "key"].map(|kind| directory.join(format!("{name}.{kind}")));
    fs::write(&files[0], certificate.pem()).expect("written");
    fs::write(&files[1], key.serialize_pem()).expect("written");
    let fingerprint = sha256(certificate.der());
    (fingerprint, files.map(|file| file.display().to_string()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho_and_mqtt_js_talk_every_version_of_mqtt() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for library in [Library::Paho, Library::MqttJs] {
        for version in ["3.1", "3.1.1", "5"] {
            let mut sdk = start(library, &gateway, &[]);
            sdk.tell(&json!({
                "do": "connect", "client_id": device.id, "username": device.id, "password": device.secret,
                "version": version,
            }));
            assert!(sdk.connected().await, "{library:?}, MQTT {version}");
            sdk.tell(&json!({"do": "subscribe", "topic": "P/d1/echo"}));
            sdk.event("subscribed").await;
            sdk.tell(&json!({"do": "publish", "topic": "P/d1/echo", "payload": version}));
            assert_eq!(sdk.message("P/d1/echo").await, version.as_bytes());
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_with_huaweis_packets_get_in_and_talk_to_their_application() {
    let gateway = Gateway::start().await;
    gateway
        .product("prodX", &json!({"credential_forms": ["huawei"]}))
        .await;
    for node in ["node1", "node2"] {
        device(&gateway, "prodX", node, &json!({"secret": HUAWEI_SECRET})).await;
    }
    let mut app = application(&gateway, &["prodX_node1"]).await;
    let this_hour = hour();
    // The vector that the vendor's documents give, whose hour is not checked, and this hour's.
    let recorded = "4038200abc52f097d1b8dd909e7e4ba29fa22cd9510c9d68590fab4e001c57bd";
    for library in [Library::Paho, Library::MqttJs] {
        let mut unbound = start(library, &gateway, &[]);
        unbound.tell(&json!({
            "do": "connect", "client_id": "prodX_node2_0_0_2025020219", "username": "prodX_node2",
            "password": recorded,
        }));
        assert!(unbound.connected().await, "{library:?}");
        let up = "$oc/devices/prodX_node2/sys/messages/up";
        unbound.tell(&json!({"do": "publish", "topic": up, "payload": "not for you"}));
        unbound.event("published").await;
        for (client_id, password, gets_in) in [
            ("prodX_node1_0_0_2025020219", recorded.to_owned(), true),
            ("prodX_node1_0_1_2025020219", recorded.to_owned(), false),
            (
                &*format!("prodX_node1_0_1_{this_hour}"),
                "0".repeat(64),
                false,
            ),
            (
                &*format!("prodX_node1_0_1_{this_hour}"),
                huawei_password(&this_hour),
                true,
            ),
        ] {
            let mut sdk = start(library, &gateway, &[]);
            sdk.tell(&json!({
                "do": "connect", "client_id": client_id, "username": "prodX_node1", "password": password,
            }));
            assert_eq!(sdk.connected().await, gets_in, "{library:?}: {client_id}");
            if !gets_in {
                continue;
            }
            let up = "$oc/devices/prodX_node1/sys/messages/up";
            sdk.tell(&json!({"do": "publish", "topic": up, "payload": client_id}));
            assert_eq!(app.message(up).await, client_id.as_bytes());
            // It subscribes to nothing and is told all the same.
            let down = "$oc/devices/prodX_node1/sys/messages/down";
            app.tell(&json!({"do": "publish", "topic": down, "payload": "hello"}));
            assert_eq!(sdk.message(down).await, b"hello");
        }
        assert!(
            !app.has_told("message"),
            "it heard a device that is not its own"
        );
    }
    gateway.stop().await;
}

/// A gateway whose certificate is for the names that Tencent's SDK makes.
async fn tencents_gateway() -> Gateway {
    let dir = tempfile::tempdir().expect("a directory");
    let change = |config: &mut Config| {
        let tls = config.data_dir.join("tls");
        let mut private = DirBuilder::new();
        private
            .recursive(true)
            .mode(0o700)
            .create(&tls)
            .expect("made");
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A certificate whose issuer is its own subject would be taken for one that signs itself.
        ca.distinguished_name.push(DnType::CommonName, "test CA");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key"));
        let ca = ca.expect("a CA");
        let key = KeyPair::generate().expect("a key");
        let names = [format!("{PRODUCT}{DOMAIN}"), "localhost".to_owned()];
        let certificate = CertificateParams::new(names)
            .expect("names")
            .signed_by(&key, &ca)
            .expect("a certificate");
        for (name, pem) in [
            ("ca.pem", ca.pem()),
            ("own.pem", certificate.pem()),
            ("own.key", key.serialize_pem()),
        ] {
            fs::write(tls.join(name), pem).expect("written");
        }
        config.tls.certificate = Some(tls.join("own.pem"));
        config.tls.key = Some(tls.join("own.key"));
    };
    let gateway = Gateway::start_in(dir, change).await;
    let rules = json!({"credential_forms": ["tencent"], "auth_kinds": ["secret", "x509"]});
    gateway.product(PRODUCT, &rules).await;
    gateway
}

/// A device on Tencent's SDK, by its secret or by certificate and key.
fn tencents_device(
    gateway: &Gateway,
    work: &TempDir,
    node: &str,
    secret: &str,
    files: Option<&[String; 2]>,
) -> Sdk {
    let [_, port, ca] = place(gateway);
    let files_port = gateway.ports.files.expect("a listener").port().to_string();
    let [certificate, key] = files.cloned().unwrap_or_default();
    let info = json!({
        "auth_mode": if files.is_some() { "CERT" } else { "KEY" },
        "productId": PRODUCT,
        "productSecret": "",
        "deviceName": node,
        "key_deviceinfo": {"deviceSecret": secret},
        "cert_deviceinfo": {"devCaFile": ca, "devCertFile": certificate, "devPrivateKeyFile": key},
        "region": "china",
    });
    let path = work.path().join(format!("{node}.json"));
    fs::write(&path, info.to_string()).expect("written");
    let mut sdk = Sdk::start(
        Library::Tencent,
        &[
            path.to_str().expect("UTF-8"),
            DOMAIN,
            "127.0.0.1",
            &port,
            &files_port,
        ],
    );
    sdk.tell(&json!({"do": "connect"}));
    sdk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tencents_own_sdk_gets_in_by_secret_and_by_certificate_and_talks_to_its_application() {
    let gateway = tencents_gateway().await;
    let work = tempfile::tempdir().expect("a directory");
    let (fingerprint, files) = self_signed(work.path(), "dev2");
    let by_secret = json!({"auth": "secret", "secret": TENCENT_SECRET});
    device(&gateway, PRODUCT, "dev1", &by_secret).await;
    let by_certificate = json!({"auth": "x509", "fingerprint": fingerprint});
    device(&gateway, PRODUCT, "dev2", &by_certificate).await;
    let ids = ["dev1", "dev2"].map(|node| format!("{PRODUCT}_{node}"));
    let mut app = application(&gateway, &[&ids[0], &ids[1]]).await;
    for (node, secret, files) in [
        ("dev1", TENCENT_SECRET, None),
        // It sends a password of whatever secret is in its file together with the certificate.
        ("dev2", "bWVhbmluZ2xlc3M=", Some(&files)),
    ] {
        let mut sdk = tencents_device(&gateway, &work, node, secret, files);
        assert!(sdk.connected().await, "{node}");
        let (up, down) = (
            format!("{PRODUCT}/{node}/data"),
            format!("{PRODUCT}/{node}/control"),
        );
        sdk.tell(&json!({"do": "subscribe", "topic": down}));
        sdk.event("subscribed").await;
        sdk.tell(&json!({"do": "publish", "topic": up, "payload": {"temperature": 21}}));
        let said: Value = serde_json::from_slice(&app.message(&up).await).expect("JSON");
        assert_eq!(said, json!({"temperature": 21}));
        app.tell(&json!({"do": "publish", "topic": down, "payload": "{\"led\": 1}"}));
        assert_eq!(
            sdk.message(&down).await,
            b"{'led': 1}",
            "as Python shows it"
        );
        sdk.tell(&json!({"do": "time"}));
        let at = sdk.event("time").await["at"].as_f64().expect("a time");
        let told = Duration::from_secs_f64(at / 1000.0).as_secs();
        let off_secs = told.abs_diff(Millis::now().as_secs());
        assert!(off_secs < 60, "{off_secs} s off");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tencents_own_sdk_is_refused_with_a_wrong_secret_or_an_unknown_certificate() {
    let gateway = tencents_gateway().await;
    let work = tempfile::tempdir().expect("a directory");
    let (fingerprint, _own) = self_signed(work.path(), "dev2");
    let (_unknown, foreign) = self_signed(work.path(), "foreign");
    let by_secret = json!({"auth": "secret", "secret": TENCENT_SECRET});
    device(&gateway, PRODUCT, "dev1", &by_secret).await;
    let by_certificate = json!({"auth": "x509", "fingerprint": fingerprint});
    device(&gateway, PRODUCT, "dev2", &by_certificate).await;
    for (node, files) in [("dev1", None), ("dev2", Some(&foreign))] {
        let mut refused = tencents_device(&gateway, &work, node, "d3Jvbmc=", files);
        // The SDK says nothing of a refusal and comes again.
        let sample = "headgate_connect_attempts_total{outcome=\"refused\",protocol=\"mqtt\"}";
        let before = gateway.metric(sample).await;
        gateway.metric_is_more_than(sample, before).await;
        assert!(!refused.has_told("connected"), "{node}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_of_aws_gets_in_by_its_certificate_alone() {
    let gateway = Gateway::start().await;
    let rules = json!({"auth_kinds": ["x509"], "topic_policy": {
        "publish": ["$aws/things/{device}/#"], "subscribe": ["$aws/things/{device}/#"],
    }});
    gateway.product("P", &rules).await;
    let work = tempfile::tempdir().expect("a directory");
    let (fingerprint, files) = self_signed(work.path(), "thing1");
    let by_certificate = json!({"device_id": "thing1", "fingerprint": fingerprint});
    device(&gateway, "P", "thing1", &by_certificate).await;
    let by_another = json!({"device_id": "thing2", "fingerprint": "0".repeat(64)});
    device(&gateway, "P", "thing2", &by_another).await;
    let mut app = application(&gateway, &["thing1"]).await;
    let mut sdk = start(Library::Aws, &gateway, &[&files[0], &files[1]]);
    sdk.tell(&json!({"do": "connect", "client_id": "thing1"}));
    assert!(sdk.connected().await);
    let topic = "$aws/things/thing1/jobs/notify-next";
    sdk.tell(&json!({"do": "subscribe", "topic": topic}));
    sdk.event("subscribed").await;
    sdk.tell(&json!({"do": "publish", "topic": "P/thing1/data", "payload": "21"}));
    assert_eq!(app.message("P/thing1/data").await, b"21");
    let mut other = start(Library::Aws, &gateway, &[&files[0], &files[1]]);
    other.tell(&json!({"do": "connect", "client_id": "thing2"}));
    assert!(!other.connected().await, "another device's certificate");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_gets_in_by_a_pinned_certificate_that_signs_itself() {
    let gateway = Gateway::start().await;
    gateway.product("P", &json!({"auth_kinds": ["x509"]})).await;
    let work = tempfile::tempdir().expect("a directory");
    let (fingerprint, files) = self_signed(work.path(), "d1");
    let (_unknown, foreign) = self_signed(work.path(), "foreign");
    // As openssl prints it.
    let pairs: Vec<String> = fingerprint
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect();
    device(
        &gateway,
        "P",
        "d1",
        &json!({"fingerprint": pairs.join(":")}),
    )
    .await;
    let mut app = application(&gateway, &["P_d1"]).await;
    let [host, port, ca] = place(&gateway);
    let listen = async |[certificate, key]: &[String; 2]| {
        let who = ["-h", &host, "-p", &port, "--cafile", &ca, "-i", "P_d1"];
        let by = ["--cert", certificate, "--key", key, "-V", "mqttv5"];
        let what = ["-t", "P/d1/down", "-q", "1", "-C", "1", "-W", "25"];
        run("mosquitto_sub", &[&who[..], &by, &what].concat()).await
    };
    let refused = listen(&foreign).await;
    assert!(
        !refused.success && refused.stderr.contains("Not authorized"),
        "{}",
        refused.stderr
    );
    let tell = async {
        until("a subscription", || async {
            let session = gateway
                .api(Method::GET, "/devices/P_d1/session", None)
                .await;
            let is_there = session.status == 200 && session.text().contains("P/d1/down");
            is_there.then_some(())
        })
        .await;
        let sample = r#"headgate_connections{auth="x509",protocol="mqtt"}"#;
        assert!(
            gateway.metric(sample).await > 0.5,
            "counted by what it holds"
        );
        app.tell(&json!({"do": "publish", "topic": "P/d1/down", "payload": "hello"}));
    };
    let (heard, ()) = tokio::join!(listen(&files), tell);
    assert_eq!(heard.ok(), b"hello\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tencents_own_sdk_takes_a_file_by_its_ota_download() {
    let gateway = tencents_gateway().await;
    let work = tempfile::tempdir().expect("a directory");
    let by_secret = json!({"auth": "secret", "secret": TENCENT_SECRET});
    device(&gateway, PRODUCT, "dev1", &by_secret).await;
    let firmware = content(300_000);
    let resource = gateway.resource(PRODUCT, "firmware", &firmware).await;
    let mut sdk = tencents_device(&gateway, &work, "dev1", TENCENT_SECRET, None);
    assert!(sdk.connected().await);
    let to = json!({"resource_id": resource, "device_ids": [format!("{PRODUCT}_dev1")]});
    let task = gateway.post("/tasks", &to).await;
    let task = task["id"].as_str().expect("an id");
    sdk.tell(&json!({"do": "fetch", "version": "0"}));
    let fetched = sdk.event("fetched").await;
    assert_eq!(fetched["ok"], true, "{fetched}");
    assert_eq!(fetched["size"], 300_000);
    assert_eq!(fetched["md5"], md5(&firmware));
    until("the delivery's end", || async {
        let page = gateway.get(&format!("/tasks/{task}/deliveries")).await;
        (page["items"][0]["state"] == "delivered").then_some(())
    })
    .await;
    gateway.stop().await;
}

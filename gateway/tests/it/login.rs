//! Who is let in: every credential form in every version, certificates, and limits for logins that fail.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use headgate::model::Millis;
use headgate_protocol::mqtt::{
    Connect, Packet,
    ProtocolVersion::{self, V5, V31, V311},
    ReasonCode,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use super::{
    cli::{headgate, text},
    harness::{
        Authority, Client, Gateway, Identity, Login, PATIENCE, Site, listens_for_requests, until,
    },
};

const CERTIFICATE: &str = r#"headgate_auth_failures_total{reason="certificate"}"#;
const STALE: &str = r#"headgate_auth_failures_total{reason="stale"}"#;
const THROTTLED: &str = r#"headgate_auth_failures_total{reason="throttled"}"#;
const CLOSED_EARLY: &str =
    r#"headgate_connect_attempts_total{outcome="throttled",protocol="mqtt"}"#;
const FAILED_TLS: &str = r#"headgate_connect_attempts_total{outcome="failed_tls",protocol="mqtt"}"#;

/// The fields of a CONNECT that say who it is.
#[derive(Debug, Clone)]
struct Fields {
    client_id: String,
    username: Option<String>,
    password: Option<Vec<u8>>,
}

impl Fields {
    fn new(client_id: &str, username: &str, password: impl AsRef<[u8]>) -> Self {
        Self {
            client_id: client_id.to_owned(),
            username: Some(username.to_owned()),
            password: Some(password.as_ref().to_vec()),
        }
    }

    fn packet(&self, version: ProtocolVersion) -> Packet {
        let mut connect = Connect::new(version, self.client_id.as_str());
        connect.keep_alive_secs = 60;
        connect.username = self.username.as_deref().map(Into::into);
        connect.password = self.password.clone().map(Bytes::from);
        Packet::Connect(Box::new(connect))
    }
}

/// Introduces a client on an open connection; gives the answer.
async fn introduce(client: &mut Client, version: ProtocolVersion, fields: &Fields) -> ReasonCode {
    client.speak(version);
    client.send(&fields.packet(version)).await;
    client.connack().await.reason
}

async fn answer(site: &Site, version: ProtocolVersion, fields: &Fields) -> ReasonCode {
    introduce(&mut Client::open(site).await, version, fields).await
}

/// What a device without a valid credential is told.
fn refused(version: ProtocolVersion) -> ReasonCode {
    match version {
        V5 => ReasonCode::NotAuthorized,
        _ => ReasonCode::BadUserNameOrPassword,
    }
}

/// The hour so many hours from now, as Huawei's form writes it.
fn hour(from_now: i64) -> String {
    let at = Millis::from_i64(Millis::now().as_i64() + from_now * 3_600_000).to_string();
    at.chars().filter(char::is_ascii_digit).take(10).collect()
}

fn huawei(device: &str, sign_type: char, hour: &str, secret: &str) -> Fields {
    let hmac = Hmac::<Sha256>::new_from_slice(hour.as_bytes()).expect("any key");
    let mac = hmac.chain_update(secret).finalize().into_bytes();
    let client_id = format!("{device}_0_{sign_type}_{hour}");
    Fields::new(&client_id, device, hex::encode(mac))
}

/// The gateway with a device for each form; Tencent's and Huawei's secrets are those of the recorded packets.
async fn with_every_form() -> Gateway {
    let gateway = Gateway::with(|config| config.auth.device_failures = 1_000).await;
    let forms = json!({"credential_forms": ["native", "huawei", "tencent"]});
    gateway.product("PROD123456", &forms).await;
    for (node, secret) in [
        ("dev1", "MDEyMzQ1Njc4OWFiY2RlZg=="),
        ("huawei", "12345678"),
        ("native", "s3cret-s3cret"),
    ] {
        let body = json!({"product_id": "PROD123456", "node_id": node, "secret": secret});
        gateway.post("/devices", &body).await;
    }
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_is_taken_in_every_version() {
    let gateway = with_every_form().await;
    let device = "PROD123456_huawei";
    for version in [V31, V311, V5] {
        for fields in [
            Fields::new("anything", "PROD123456_native", "s3cret-s3cret"),
            Fields::new("x", "PROD123456_native?SDK=X", "s3cret-s3cret"),
            huawei(device, '0', "2025020219", "12345678"),
            huawei(device, '1', &hour(0), "12345678"),
            huawei(device, '1', &hour(-1), "12345678"),
            // As Tencent's Python SDK sent it, over MQTT 3.1, and its C SDK.
            Fields::new(
                "PROD123456dev1",
                "PROD123456dev1;21010406;9DXch;1795240549864",
                "4a06bba38a5fc619b7704a7efb9ff91fae0987ba;hmacsha1",
            ),
            Fields::new(
                "PROD123456dev1",
                "PROD123456dev1;21010406;e9kH0;92233720368547758",
                "7a23522108c84426d26921702a77d6890fe94a54;hmacsha1",
            ),
            Fields::new(
                "PROD123456dev1",
                "PROD123456dev1;21010406;abcde;9223372036854775807",
                "329d3db98d3214458de109da4d598a1d91b401e141d5b8dab8d76fc206790fa6;hmacsha256",
            ),
        ] {
            let said = answer(&gateway, version, &fields).await;
            assert_eq!(said, ReasonCode::Success, "{version:?} {fields:?}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_stale_and_malformed_passwords_get_the_answer_of_unknown_devices() {
    let gateway = with_every_form().await;
    let device = "PROD123456_huawei";
    let tencent = |expiry: &str, password: &str| {
        let username = format!("PROD123456dev1;21010406;9DXch;{expiry}");
        Fields::new("PROD123456dev1", &username, password)
    };
    let good = huawei(device, '0', "2025020219", "12345678");
    let good_password = good.password.clone().expect("given");
    let mac = "4a06bba38a5fc619b7704a7efb9ff91fae0987ba";
    let bad = [
        Fields::new("c", "PROD123456_native", "wrong-secret!"),
        Fields::new("c", "PROD123456_nobody", "s3cret-s3cret"),
        Fields::new("c", "PROD123456_native", [0xff, 0x00, 0xfe]),
        Fields::new("c", "PROD123456_native", ""),
        huawei(device, '0', "2025020219", "12345679"),
        huawei("PROD123456_nobody", '0', "2025020219", "12345678"),
        huawei(device, '1', &hour(-3), "12345678"),
        huawei(device, '1', &hour(3), "12345678"),
        Fields::new(&good.client_id, device, "12345678"),
        Fields::new(&good.client_id, device, &good_password[..63]),
        Fields::new("PROD123456_huawei_0_0_2025020218", device, &good_password),
        tencent("1795240549865", &format!("{mac};hmacsha1")),
        tencent("1795240549864", mac),
        tencent("1795240549864", &format!("{mac};hmacsha256")),
        tencent("1795240549864", &format!("{mac};rsa-sha256")),
        tencent("1", &format!("{mac};hmacsha1")),
        Fields::new("app:billing", "billing", "s3cret-s3cret"),
    ];
    for version in [V31, V311, V5] {
        for fields in &bad {
            let said = answer(&gateway, version, fields).await;
            assert_eq!(said, refused(version), "{version:?} {fields:?}");
        }
        let silent = Fields {
            password: None,
            ..Fields::new("c", "PROD123456_native", "")
        };
        assert_eq!(answer(&gateway, version, &silent).await, refused(version));
    }
    gateway.metric_is(STALE, 9.0).await;
    // Each form only where the product allows it.
    let native = json!({"name": "P", "credential_forms": ["native"]});
    let path = "/products/PROD123456";
    gateway
        .api(hyper::Method::PUT, path, Some(&native))
        .await
        .ok(200);
    assert_eq!(answer(&gateway, V311, &good).await, refused(V311));
    gateway.stop().await;
}

/// A gateway with the product `P`, whose devices may come with certificates.
async fn for_certificates(more: &Value) -> Gateway {
    let gateway = Gateway::start().await;
    let mut body = json!({
        "auth_kinds": ["secret", "x509"],
        "credential_forms": ["native"],
    });
    let fields = more.as_object().into_iter().flatten();
    fields.for_each(|(key, value)| body[key] = value.clone());
    gateway.product("P", &body).await;
    gateway
}

async fn register(site: &Site, node: &str, identity: &Identity) {
    let fingerprint = identity.fingerprint();
    let body =
        json!({"product_id": "P", "node_id": node, "auth": "x509", "fingerprint": fingerprint});
    site.post("/devices", &body).await;
}

/// What a device is told that comes with this certificate.
async fn presented(
    site: &Site,
    identity: &Identity,
    version: ProtocolVersion,
    fields: &Fields,
) -> ReasonCode {
    let mut client = Client::open_with(site, identity.tls(site)).await;
    introduce(&mut client, version, fields).await
}

fn named(device: &str) -> Fields {
    Fields {
        client_id: device.to_owned(),
        username: None,
        password: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_certificate_is_enough_and_its_password_means_nothing() {
    let gateway = for_certificates(&Value::Null).await;
    let (own, other) = (Identity::self_signed(), Identity::self_signed());
    register(&gateway, "d1", &own).await;
    register(&gateway, "d2", &other).await;
    let secret = gateway.device("P", "d3").await;
    let good = [
        named("P_d1"),
        Fields::new("c", "P_d1", ""),
        Fields::new("c", "P_d1", "what the SDK had in its file"),
        Fields::new("P_d1", "?SDK=IoTDeviceSDK/Python&Platform=x", [0xff, 0]),
        Fields::new("P_d1_0_1_2020010100", "P_d1", ""),
        Fields::new("P_d1", "P_d1;21010406;9DXch;1", "0;hmacsha1"),
    ];
    for version in [V31, V311, V5] {
        for fields in &good {
            let said = presented(&gateway, &own, version, fields).await;
            assert_eq!(said, ReasonCode::Success, "{version:?} {fields:?}");
        }
        // Another device's certificate, one that nobody has, and none.
        let stranger = Identity::self_signed();
        for identity in [&other, &stranger] {
            let said = presented(&gateway, identity, version, &named("P_d1")).await;
            assert_eq!(said, refused(version), "{version:?}");
        }
        assert_eq!(answer(&gateway, version, &good[2]).await, refused(version));
        // A device with a secret needs that, whatever it presents.
        let fields = Fields::new("c", &secret.id, &secret.secret);
        let said = presented(&gateway, &stranger, version, &fields).await;
        assert_eq!(said, ReasonCode::Success);
        let said = presented(&gateway, &own, version, &named(&secret.id)).await;
        assert_eq!(said, refused(version));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_forms_of_certificates_and_both_versions_of_tls_are_taken() {
    let gateway = for_certificates(&Value::Null).await;
    let (own, first) = (
        Identity::self_signed(),
        Identity::from_pem(
            include_str!("fixtures/version1.pem"),
            include_str!("fixtures/version1.key"),
        ),
    );
    register(&gateway, "d1", &own).await;
    register(&gateway, "d2", &first).await;
    for (identity, device) in [(&own, "P_d1"), (&first, "P_d2")] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let tls = identity.tls_over(&gateway, version);
            let mut client = Client::open_with(&gateway, tls).await;
            let said = introduce(&mut client, V311, &named(device)).await;
            assert_eq!(said, ReasonCode::Success, "{device} {version:?}");
            client.ping().await;
            // Whoever has the certificate and not the key is nobody.
            let stolen = identity.with_key_of(&Identity::self_signed());
            let tls = stolen.tls_over(&gateway, version);
            if let Some(mut client) = Client::may_open(&gateway, tls).await {
                client.speak(V311);
                let _closed = client.try_send_bytes(&[0x10]).await;
                assert_eq!(client.recv().await, None, "{device} {version:?}");
            }
        }
    }
    gateway.metric_is(FAILED_TLS, 4.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_counts_within_its_time_unless_the_operator_says_otherwise() {
    let gateway = for_certificates(&Value::Null).await;
    let (ended, later) = (Identity::valid(-2, -1), Identity::valid(1, 2));
    register(&gateway, "d1", &ended).await;
    register(&gateway, "d2", &later).await;
    let cases = [(&ended, named("P_d1")), (&later, named("P_d2"))];
    for version in [V311, V5] {
        for (identity, fields) in &cases {
            let said = presented(&gateway, identity, version, fields).await;
            assert_eq!(said, ReasonCode::NotAuthorized, "{version:?} {fields:?}");
        }
    }
    gateway.metric_is(CERTIFICATE, 4.0).await;
    let dir = gateway.stop().await;
    let gateway =
        Gateway::start_in(dir, |config| config.auth.allow_expired_certificates = true).await;
    for (identity, fields) in &cases {
        let said = presented(&gateway, identity, V311, fields).await;
        assert_eq!(said, ReasonCode::Success, "{fields:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_may_ask_for_certificates_of_its_authorities() {
    let (own, foreign) = (Authority::new(), Authority::new());
    let gateway = for_certificates(&json!({"client_ca": own.pem})).await;
    let identities = [own.sign(), foreign.sign(), Identity::self_signed()];
    for (node, identity) in ["d0", "d1", "d2"].into_iter().zip(&identities) {
        register(&gateway, node, identity).await;
    }
    // One that the authority signed and that is not the device's.
    let said = presented(&gateway, &own.sign(), V311, &named("P_d0")).await;
    assert_eq!(said, ReasonCode::BadUserNameOrPassword);
    for (device, identity, expected) in [
        ("P_d0", &identities[0], ReasonCode::Success),
        ("P_d1", &identities[1], ReasonCode::NotAuthorized),
        ("P_d2", &identities[2], ReasonCode::NotAuthorized),
    ] {
        let said = presented(&gateway, identity, V311, &named(device)).await;
        assert_eq!(said, expected, "{device}");
    }
    let shown = gateway.get("/products/P").await;
    assert_eq!(shown["client_ca"], own.pem);
    let body = json!({"name": "P", "client_ca": "-----BEGIN CERTIFICATE-----"});
    let path = "/products/P";
    let problem = gateway.api(hyper::Method::PUT, path, Some(&body)).await;
    assert!(problem.text().contains("client_ca"), "{}", problem.text());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_mqtt_listener_asks_for_certificates_and_names_no_authority() {
    let gateway = Gateway::start().await;
    let ports = &gateway.ports;
    for (address, expected) in [(ports.mqtts, (true, false)), (ports.files, (false, false))] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (tls, asked) = listens_for_requests(&gateway, version);
            let tcp = TcpStream::connect(address.expect("a listener")).await;
            let name = "localhost".try_into().expect("a name");
            let connector = tokio_rustls::TlsConnector::from(tls);
            connector
                .connect(name, tcp.expect("it listens"))
                .await
                .expect("TLS");
            assert_eq!(asked.seen(), expected, "{address:?} {version:?}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_device_is_told_so_whatever_it_holds() {
    let gateway = for_certificates(&Value::Null).await;
    let identity = Identity::self_signed();
    register(&gateway, "d1", &identity).await;
    let secret = gateway.device("P", "d2").await;
    for device in ["P_d1", &secret.id] {
        let path = format!("/devices/{device}");
        let body = json!({"enabled": false});
        gateway
            .api(hyper::Method::PATCH, &path, Some(&body))
            .await
            .ok(200);
    }
    let fields = Fields::new("c", &secret.id, &secret.secret);
    for version in [V31, V311, V5] {
        let said = presented(&gateway, &identity, version, &named("P_d1")).await;
        assert_eq!(said, ReasonCode::NotAuthorized, "{version:?}");
        let said = answer(&gateway, version, &fields).await;
        assert_eq!(said, ReasonCode::NotAuthorized, "{version:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_fails_too_often_waits_unless_it_is_connected() {
    let gateway = Gateway::with(|config| {
        config.auth.max_login_delay = Duration::from_secs(1);
    })
    .await;
    let [connected, away] = gateway.devices(["d1", "d2"]).await;
    let mut live = Client::log_in(&gateway, &Login::of(&connected)).await;
    for device in [&connected, &away] {
        let wrong = Fields::new("c", &device.id, "wrong-secret");
        for _ in 0..6 {
            assert_eq!(answer(&gateway, V311, &wrong).await, refused(V311));
        }
    }
    // Nothing is looked at: the right secret waits, too, and is told so.
    let right = Fields::new("c", &away.id, &away.secret);
    let said = answer(&gateway, V5, &right).await;
    assert_eq!(said, ReasonCode::ConnectionRateExceeded);
    let said = answer(&gateway, V311, &right).await;
    assert_eq!(said, ReasonCode::ServerUnavailable);
    gateway.metric_is(THROTTLED, 2.0).await;
    // Who is connected is not locked out by others who use its name.
    live.ping().await;
    let said = answer(
        &gateway,
        V5,
        &Fields::new("c", &connected.id, &connected.secret),
    )
    .await;
    assert_eq!(said, ReasonCode::Success);
    // That is no way to guess its secret from elsewhere.
    let live = Client::log_in(&gateway, &Login::of(&connected)).await;
    let wrong = Fields::new("c", &connected.id, "wrong-secret");
    for attempt in 0..7 {
        let mut stranger = Client::open_from(&gateway, [127, 0, 9, 1]).await;
        let said = introduce(&mut stranger, V5, &wrong).await;
        let waits = said == ReasonCode::ConnectionRateExceeded;
        assert_eq!(waits, attempt == 6, "{attempt}: {said:?}");
    }
    drop(live);
    until("an end of the waiting", || async {
        let said = answer(&gateway, V5, &right).await;
        (said == ReasonCode::Success).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_fails_too_often_is_closed_before_tls_unless_someone_there_is_known() {
    let gateway = Gateway::with(|config| {
        config.auth.source_failures = 10;
        config.auth.max_login_delay = Duration::from_secs(2);
    })
    .await;
    let [device] = gateway.devices(["d1"]).await;
    let right = Fields::new("c", &device.id, &device.secret);
    let address = gateway.ports.mqtts.expect("a listener");
    let guess = async |count: usize| {
        for index in 0..count {
            let wrong = Fields::new("c", &format!("P_guess{index}"), "wrong-secret");
            assert_eq!(answer(&gateway, V311, &wrong).await, refused(V311));
        }
    };
    guess(11).await;
    let mut closed = TcpStream::connect(address).await.expect("it listens");
    let read = timeout(PATIENCE, closed.read(&mut [0; 1])).await;
    assert_eq!(read.expect("closed at once").unwrap_or(0), 0);
    gateway.metric_is(CLOSED_EARLY, 1.0).await;
    // Later the device comes in, and from then on it does not wait for its neighbours.
    until("an end of the waiting", || async {
        let tls = Arc::clone(&gateway.tls);
        let mut client = Client::may_open(&gateway, tls).await?;
        let said = introduce(&mut client, V5, &right).await;
        (said == ReasonCode::Success).then_some(())
    })
    .await;
    guess(1).await;
    assert_eq!(
        answer(&gateway, V5, &Fields::new("c", "P_other", "wrong-secret")).await,
        ReasonCode::ConnectionRateExceeded
    );
    let said = answer(&gateway, V5, &right).await;
    assert_eq!(said, ReasonCode::Success);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_while_the_gateway_is_stopped_and_devices_keep_their_secrets() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let data_dir = gateway.data_dir.to_str().expect("UTF-8").to_owned();
    let rotate = || headgate(&["keys", "rotate", "--data-dir", &data_dir], &[]);
    let refused = rotate();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is in use by another headgate"));
    // It goes on as if nothing had been.
    drop(Client::log_in(&gateway, &Login::of(&device)).await);

    let key = gateway.data_dir.join("keys/sealing.key");
    let before = std::fs::read(&key).expect("a key");
    let dir = gateway.stop().await;
    let rotated = rotate();
    assert_eq!(text(&rotated.stderr), "1 secrets sealed again\n");
    assert!(text(&rotated.stdout).ends_with("1 secrets and 1 settings were sealed again\n"));
    assert_eq!(rotated.status.code(), Some(0));
    assert_ne!(std::fs::read(&key).expect("a key"), before);

    let gateway = Gateway::start_in(dir, |_| {}).await;
    Client::log_in(&gateway, &Login::of(&device)).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_administrator_sees_when_tokens_were_used_and_what_was_done() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let path = format!("/devices/{}", device.id);
    let body = json!({"enabled": false});
    gateway
        .api(hyper::Method::PATCH, &path, Some(&body))
        .await
        .ok(200);
    let audit = gateway.get("/audit?limit=1").await;
    assert_eq!(audit["items"][0]["action"], "device.freeze");
    assert_eq!(audit["items"][0]["subject"], *device.id);
    assert_eq!(audit["items"][0]["actor"], "first-token");
    let next = audit["next"].as_str().expect("more").to_owned();
    let earlier = gateway.get(&format!("/audit?cursor={next}")).await;
    assert_eq!(earlier["items"][0]["action"], "device.create");
    // What was used is written down at the latest when the gateway stops.
    let dir = gateway.stop().await;
    let gateway = Gateway::start_in(dir, |_| {}).await;
    let tokens = gateway.get("/tokens").await;
    assert_eq!(tokens["items"][0]["name"], "first-token");
    assert!(tokens["items"][0]["last_used_at"].is_string(), "{tokens}");
    assert!(!tokens.to_string().contains(&gateway.token));
    gateway.stop().await;
}

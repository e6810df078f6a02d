//! Devices against a real registry.

use headgate_protocol::identity::NodeId;

use super::*;
use crate::{
    model::{Actor, CredentialSlot, Role, Secret, Transports, product::tests::product},
    service::registry::{NewDevice, RegistryService},
    store::registry::{DevicePatch, sqlite_url},
};

/// Someone without a certificate.
fn stranger() -> Peer {
    Peer {
        address: ([192, 0, 2, 1], 40_000).into(),
        certificate: None,
    }
}

struct Fixture {
    metrics: Metrics,
    auth: DeviceAuthenticator,
    service: RegistryService,
    actor: Actor,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(&sqlite_url(&dir.path().join("r.db")), 2)
            .await
            .unwrap();
        let sealer = Sealer::open_or_create(&dir.path().join("key")).unwrap();
        let metrics = Metrics::new();
        let auth = DeviceAuthenticator::new(
            registry.clone(),
            sealer.clone(),
            &AuthConfig::default(),
            &metrics,
        )
        .unwrap();
        let service = RegistryService::new(registry, sealer, auth.clone());
        let actor = Actor::new("admin".to_owned(), Role::Admin);
        service
            .create_product(&actor, product("meter"))
            .await
            .unwrap();
        Self {
            metrics,
            auth,
            service,
            actor,
            _dir: dir,
        }
    }

    async fn add(&self, node: &str, secret: Option<&str>) -> Secret {
        let new = NewDevice {
            secret: secret.map(|text| Secret::given(text.to_owned()).unwrap()),
            ..NewDevice::of(ProductId::new("meter").unwrap(), NodeId::new(node).unwrap())
        };
        let created = self.service.create_device(&self.actor, new).await.unwrap();
        created.secret.unwrap()
    }

    async fn claim(
        &self,
        identity: &str,
        password: &[u8],
    ) -> Result<AuthenticatedDevice, AuthError> {
        let claim = Claim::read("c1", Some(identity), Some(password));
        self.auth
            .authenticate(&claim, &stranger(), Millis::now())
            .await
    }

    async fn is_refused(&self, identity: &str, password: &[u8]) -> bool {
        matches!(
            self.claim(identity, password).await,
            Err(AuthError::Refused)
        )
    }
}

#[tokio::test]
async fn a_device_comes_in_with_its_secret_alone() {
    let fixture = Fixture::new().await;
    let secret = fixture.add("n1", None).await;
    for _ in 0..2 {
        let device = fixture.claim("meter_n1", secret.as_bytes()).await.unwrap();
        assert_eq!(device.device_id.as_str(), "meter_n1");
        assert_eq!(device.node_id.as_str(), "n1");
        assert_eq!(device.product.id.as_str(), "meter");
    }
    let mut longer = secret.as_bytes().to_vec();
    longer.push(b'0');
    for wrong in [&b""[..], &secret.as_bytes()[..31], &longer, DUMMY_SECRET] {
        assert!(fixture.is_refused("meter_n1", wrong).await);
    }
    for unknown in ["meter_n2", "n1", "metern1", "", "/", &"x".repeat(300)] {
        assert!(
            fixture.is_refused(unknown, secret.as_bytes()).await,
            "{unknown}"
        );
        assert!(fixture.is_refused(unknown, DUMMY_SECRET).await, "{unknown}");
    }
    let silent = Claim::read("c1", Some("meter_n1"), None);
    let refused = fixture
        .auth
        .authenticate(&silent, &stranger(), Millis::now())
        .await;
    assert!(matches!(refused, Err(AuthError::Malformed { .. })));
}

#[tokio::test]
async fn both_secrets_are_valid_and_each_is_replaced_alone() {
    let fixture = Fixture::new().await;
    let first = fixture.add("n1", Some("first-secret")).await;
    let id = DeviceId::new("meter_n1").unwrap();
    assert!(fixture.claim("meter_n1", first.as_bytes()).await.is_ok());
    let second = fixture
        .service
        .reset_secret(&fixture.actor, &id, CredentialSlot::Secondary, None, false)
        .await
        .unwrap();
    for secret in [&first, &second] {
        assert!(fixture.claim("meter_n1", secret.as_bytes()).await.is_ok());
    }
    let third = fixture
        .service
        .reset_secret(&fixture.actor, &id, CredentialSlot::Primary, None, false)
        .await
        .unwrap();
    assert!(fixture.is_refused("meter_n1", first.as_bytes()).await);
    for secret in [&second, &third] {
        assert!(fixture.claim("meter_n1", secret.as_bytes()).await.is_ok());
    }
}

#[tokio::test]
async fn a_frozen_device_is_told_so_only_with_its_secret() {
    let fixture = Fixture::new().await;
    let secret = fixture.add("n1", None).await;
    let id = DeviceId::new("meter_n1").unwrap();
    assert!(fixture.claim("meter_n1", secret.as_bytes()).await.is_ok());
    let patch = |enabled| DevicePatch {
        enabled: Some(enabled),
        ..DevicePatch::default()
    };
    fixture
        .service
        .patch_device(&fixture.actor, &id, &patch(false))
        .await
        .unwrap();
    let frozen = fixture.claim("meter_n1", secret.as_bytes()).await;
    assert!(matches!(frozen, Err(AuthError::Disabled)));
    assert!(fixture.is_refused("meter_n1", b"wrong").await);
    fixture
        .service
        .patch_device(&fixture.actor, &id, &patch(true))
        .await
        .unwrap();
    assert!(fixture.claim("meter_n1", secret.as_bytes()).await.is_ok());
    fixture
        .service
        .delete_device(&fixture.actor, &id)
        .await
        .unwrap();
    assert!(fixture.is_refused("meter_n1", secret.as_bytes()).await);
}

#[tokio::test]
async fn every_name_works_as_long_as_the_product_allows_it() {
    let fixture = Fixture::new().await;
    let secret = fixture.add("n1", None).await;
    let mut coap = product("meter");
    coap.transports = Transports {
        mqtt: true,
        coap: true,
    };
    assert!(fixture.is_refused("n1", secret.as_bytes()).await);
    fixture
        .service
        .update_product(&fixture.actor, coap, None)
        .await
        .unwrap();
    let device = fixture.claim("n1", secret.as_bytes()).await.unwrap();
    assert!(device.product.transports.coap);
    fixture
        .service
        .update_product(&fixture.actor, product("meter"), None)
        .await
        .unwrap();
    assert!(fixture.is_refused("n1", secret.as_bytes()).await);

    let mut huawei = product("meter");
    huawei.credential_forms = vec![CredentialForm::Huawei];
    fixture
        .service
        .update_product(&fixture.actor, huawei, None)
        .await
        .unwrap();
    assert!(fixture.is_refused("meter_n1", secret.as_bytes()).await);
}

#[tokio::test]
async fn ten_thousand_devices_that_come_at_once_cost_at_most_a_hundred_queries() {
    let fixture = Fixture::new().await;
    let secret = fixture.add("n0", None).await;
    for node in 1..200 {
        fixture
            .add(&format!("n{node}"), Some(&format!("secret-{node}")))
            .await;
    }
    // Of 10,000 names 200 are devices': whether there is one is asked all the same.
    let names: Vec<String> = (0..10_000).map(|node| format!("meter_n{node}")).collect();
    let claims = names.iter().enumerate().map(|(node, name)| {
        let (fixture, secret) = (&fixture, &secret);
        async move {
            let own = format!("secret-{node}");
            let password = if node == 0 {
                secret.as_bytes()
            } else {
                own.as_bytes()
            };
            fixture.claim(name, password).await.is_ok()
        }
    });
    let results = futures_util::future::join_all(claims).await;
    assert!(results[..200].iter().all(|is_in| *is_in));
    assert!(results[200..].iter().all(|is_in| !*is_in));
    let queries = fixture.metrics.auth_queries.get();
    assert!(queries <= 100, "{queries} queries");
    // Those that are kept in memory cost none.
    for name in &names[..200] {
        assert!(fixture.is_refused(name, b"wrong").await);
    }
    assert_eq!(fixture.metrics.auth_queries.get(), queries);
}

#[tokio::test]
async fn a_dropped_look_up_does_not_leave_the_others_waiting() {
    let fixture = Fixture::new().await;
    let secret = fixture.add("n1", None).await;
    let mut first = Box::pin(fixture.claim("meter_n1", secret.as_bytes()));
    let mut second = Box::pin(fixture.claim("meter_n1", secret.as_bytes()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // The first queries for both and is dropped in the middle.
    assert!(first.as_mut().poll(&mut context).is_pending());
    assert!(second.as_mut().poll(&mut context).is_pending());
    drop(first);
    assert!(second.await.is_ok());
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let fixture = Fixture::new().await;
    let secret = fixture.add("n1", Some("topsecret-1")).await;
    let device = fixture.claim("meter_n1", secret.as_bytes()).await.unwrap();
    let shown = format!("{:?} {device:?} {:?}", fixture.auth, fixture.service);
    assert!(!shown.contains("topsecret"));
}

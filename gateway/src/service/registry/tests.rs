//! Products and devices against a real registry.

use headgate_protocol::identity::{NodeId, ProductId};
use parking_lot::Mutex;

use super::*;
use crate::{
    config::AuthConfig,
    model::{
        Actor, AuthKind, CredentialSlot, Fingerprint, Page, PskEncoding, Role, Secret, Transports,
        product::tests::product,
    },
    store::registry::{AuditFilter, DeviceFilter, DevicePatch, sqlite_url},
    telemetry::metrics::Metrics,
};

#[derive(Default)]
struct Barred(Mutex<Vec<String>>);

impl DeviceWatch for Barred {
    fn device_barred(&self, device: &DeviceId) {
        self.0.lock().push(device.to_string());
    }

    fn product_changed(&self, _product: &Product) {}

    fn product_deleted(&self, _product: &ProductId) {}
}

struct Fixture {
    service: RegistryService,
    registry: Registry,
    barred: Arc<Barred>,
    actor: Actor,
    dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(&sqlite_url(&dir.path().join("r.db")), 2)
            .await
            .unwrap();
        let sealer = Sealer::open_or_create(&dir.path().join("key")).unwrap();
        let auth = DeviceAuthenticator::new(
            registry.clone(),
            sealer.clone(),
            &AuthConfig::default(),
            &Metrics::new(),
        )
        .unwrap();
        let barred = Arc::new(Barred::default());
        let service = RegistryService::new(registry.clone(), sealer, auth)
            .with_watch(Arc::clone(&barred) as Arc<dyn DeviceWatch>);
        let actor = Actor::new("ann".to_owned(), Role::Operator);
        service
            .create_product(&actor, product("meter"))
            .await
            .unwrap();
        Self {
            service,
            registry,
            barred,
            actor,
            dir,
        }
    }

    async fn add(&self, new: NewDevice) -> Result<CreatedDevice, RegistryError> {
        self.service.create_device(&self.actor, new).await
    }
}

fn new(node: &str) -> NewDevice {
    NewDevice::of(ProductId::new("meter").unwrap(), NodeId::new(node).unwrap())
}

fn field<T>(result: Result<T, RegistryError>) -> &'static str {
    match result {
        Err(RegistryError::Invalid(invalid)) => invalid.field,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn a_device_gets_its_defaults_and_a_secret_of_32_hex_digits() {
    let fixture = Fixture::new().await;
    let created = fixture.add(new("n1")).await.unwrap();
    assert_eq!(created.device.id.as_str(), "meter_n1");
    assert_eq!(created.device.auth, AuthKind::Secret);
    let secret = created.secret.unwrap();
    assert_eq!(secret.reveal().len(), 32);
    assert!(secret.reveal().bytes().all(|b| b.is_ascii_hexdigit()));
    let read = fixture.service.device(&created.device.id).await.unwrap();
    assert_eq!(read, created.device);
    let other = fixture.add(new("n2")).await.unwrap();
    assert_ne!(other.secret.unwrap().reveal(), secret.reveal());
}

#[tokio::test]
async fn a_certificate_device_has_a_fingerprint_and_no_secret() {
    let fixture = Fixture::new().await;
    let mut certified = product("certified");
    certified.auth_kinds = vec![AuthKind::X509];
    fixture
        .service
        .create_product(&fixture.actor, certified)
        .await
        .unwrap();
    let one = Some(Fingerprint::new([1; 32]));
    let new = |fingerprint, secondary_fingerprint| NewDevice {
        product_id: ProductId::new("certified").unwrap(),
        fingerprint,
        secondary_fingerprint,
        ..new("n1")
    };
    assert_eq!(field(fixture.add(new(None, None)).await), "fingerprint");
    assert_eq!(field(fixture.add(new(None, one)).await), "fingerprint");
    let secret = NewDevice {
        secret: Some(Secret::given("12345678".to_owned()).unwrap()),
        ..new(one, None)
    };
    assert_eq!(field(fixture.add(secret).await), "secret");
    let created = fixture.add(new(one, one)).await.unwrap();
    assert!(created.secret.is_none());
    let of_secret_device = NewDevice {
        product_id: ProductId::new("meter").unwrap(),
        ..new(one, None)
    };
    assert_eq!(field(fixture.add(of_secret_device).await), "fingerprint");
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_naming_the_field() {
    let fixture = Fixture::new().await;
    let bad = NewDevice {
        name: "x".repeat(65),
        ..new("n1")
    };
    assert_eq!(field(fixture.add(bad).await), "name");
    let bad = NewDevice {
        auth: Some(AuthKind::None),
        ..new("n1")
    };
    assert_eq!(field(fixture.add(bad).await), "auth");
    let bad = NewDevice {
        psk_encoding: Some(PskEncoding::Hex),
        secret: Some(Secret::given("not-hex!".replace('!', "x")).unwrap()),
        ..new("n1")
    };
    assert_eq!(field(fixture.add(bad).await), "secret");
    let missing = NewDevice {
        product_id: ProductId::new("nowhere").unwrap(),
        ..new("n1")
    };
    let missing = fixture.add(missing).await;
    assert!(matches!(
        missing,
        Err(RegistryError::NotFound { what: "product" })
    ));
    let mut bad = product("other");
    bad.name.clear();
    assert_eq!(
        field(
            fixture
                .service
                .create_product(&fixture.actor, bad.clone())
                .await
        ),
        "name"
    );
    assert_eq!(
        field(
            fixture
                .service
                .update_product(&fixture.actor, bad, None)
                .await
        ),
        "name"
    );
    let page = Page::new(None, Some("?".to_owned())).unwrap();
    assert_eq!(field(fixture.service.products(&page).await), "cursor");
    let devices = fixture
        .service
        .devices(&DeviceFilter::default(), &Page::default())
        .await;
    assert_eq!(devices.unwrap().items, []);
}

#[tokio::test]
async fn a_device_without_authentication_has_no_secret() {
    let fixture = Fixture::new().await;
    let mut coap = product("nb");
    coap.transports = Transports {
        mqtt: false,
        coap: true,
    };
    coap.auth_kinds = vec![AuthKind::None, AuthKind::X509];
    fixture
        .service
        .create_product(&fixture.actor, coap)
        .await
        .unwrap();
    let nb = |auth, secret: Option<&str>| NewDevice {
        product_id: ProductId::new("nb").unwrap(),
        auth,
        secret: secret.map(|text| Secret::given(text.to_owned()).unwrap()),
        ..new("n1")
    };
    assert_eq!(
        field(fixture.add(nb(None, Some("12345678"))).await),
        "secret"
    );
    assert_eq!(
        field(fixture.add(nb(Some(AuthKind::X509), None)).await),
        "fingerprint"
    );
    let created = fixture.add(nb(None, None)).await.unwrap();
    assert!(created.secret.is_none());
    let reset = fixture.service.reset_secret(
        &fixture.actor,
        &created.device.id,
        CredentialSlot::Primary,
        None,
        false,
    );
    assert_eq!(field(reset.await), "auth");
}

#[tokio::test]
async fn a_taken_name_is_refused_naming_the_other_device() {
    let fixture = Fixture::new().await;
    fixture.add(new("n1")).await.unwrap();
    let again = fixture.add(new("n1")).await;
    assert!(
        matches!(&again, Err(RegistryError::Conflict { what: "device id", with }) if with == "device meter_n1"),
        "{again:?}"
    );
}

#[tokio::test]
async fn frozen_and_deleted_devices_are_barred_others_not() {
    let fixture = Fixture::new().await;
    let id = fixture.add(new("n1")).await.unwrap().device.id;
    for (name, enabled) in [
        (Some("roof"), None),
        (None, Some(true)),
        (None, Some(false)),
    ] {
        let patch = DevicePatch {
            name: name.map(str::to_owned),
            enabled,
            ..DevicePatch::default()
        };
        fixture
            .service
            .patch_device(&fixture.actor, &id, &patch)
            .await
            .unwrap();
    }
    assert_eq!(*fixture.barred.0.lock(), ["meter_n1"]);
    fixture
        .service
        .delete_device(&fixture.actor, &id)
        .await
        .unwrap();
    assert_eq!(*fixture.barred.0.lock(), ["meter_n1", "meter_n1"]);
    let gone = fixture.service.delete_device(&fixture.actor, &id).await;
    assert!(matches!(
        gone,
        Err(RegistryError::NotFound { what: "device" })
    ));
}

#[tokio::test]
async fn every_change_is_audited_with_its_actor() {
    let fixture = Fixture::new().await;
    let service = &fixture.service;
    let id = fixture.add(new("n1")).await.unwrap().device.id;
    let freeze = DevicePatch {
        enabled: Some(false),
        ..DevicePatch::default()
    };
    service
        .patch_device(&fixture.actor, &id, &freeze)
        .await
        .unwrap();
    service
        .reset_secret(&fixture.actor, &id, CredentialSlot::Secondary, None, false)
        .await
        .unwrap();
    service.delete_device(&fixture.actor, &id).await.unwrap();
    service
        .update_product(&fixture.actor, product("meter"), None)
        .await
        .unwrap();
    let product = ProductId::new("meter").unwrap();
    service
        .delete_product(&fixture.actor, &product)
        .await
        .unwrap();
    let entries = fixture
        .registry
        .audit(&AuditFilter::default(), &Page::default())
        .await
        .unwrap()
        .items;
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "product.delete",
            "product.update",
            "device.delete",
            "device.reset_secret",
            "device.freeze",
            "device.create",
            "product.create"
        ]
    );
    assert!(entries.iter().all(|entry| entry.actor == "ann"));
}

#[tokio::test]
async fn no_secret_is_readable_in_the_database() {
    let fixture = Fixture::new().await;
    let given = NewDevice {
        secret: Some(Secret::given("topsecret-given".to_owned()).unwrap()),
        ..new("n1")
    };
    let created = fixture.add(given).await.unwrap();
    let made = fixture
        .service
        .reset_secret(
            &fixture.actor,
            &created.device.id,
            CredentialSlot::Secondary,
            None,
            false,
        )
        .await
        .unwrap();
    fixture.registry.close().await;
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(fixture.dir.path()).unwrap() {
        bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    for secret in [b"topsecret-given".as_slice(), made.as_bytes()] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    assert!(!format!("{created:?}").contains("topsecret"));
}

#[tokio::test]
async fn an_update_keeps_the_time_a_product_was_made() {
    let fixture = Fixture::new().await;
    let before = fixture
        .service
        .products(&Page::default())
        .await
        .unwrap()
        .items
        .remove(0);
    let mut changed = before.clone();
    changed.created_at = crate::model::Millis::from_i64(1);
    changed.description = "new".to_owned();
    let after = fixture
        .service
        .update_product(&fixture.actor, changed, None)
        .await
        .unwrap();
    assert_eq!(after.created_at, before.created_at);
    assert!(after.updated_at >= before.updated_at);
    assert_eq!(after.description, "new");
}

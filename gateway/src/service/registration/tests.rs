//! Batches against a real registry and real files.

use std::time::Duration;

use futures_util::stream;
use headgate_protocol::identity::{DeviceId, NodeId, ProductId};

use super::*;
use crate::{
    config::AuthConfig,
    model::{
        AuthKind, CredentialForm, CredentialSlot, Role, Secret, Transports, product::tests::product,
    },
    service::{
        auth::DeviceAuthenticator,
        registry::{NewDevice, RegistryService},
    },
    store::registry::{DeviceFilter, sqlite_url},
};

struct Fixture {
    service: RegistrationService,
    devices: RegistryService,
    registry: Registry,
    sealer: Sealer,
    shutdown: Shutdown,
    actor: Actor,
    dir: tempfile::TempDir,
}

const HEADING: &str = "node_id,device_name,product_id,auth_type,secret,fingerprint,description\r\n";

impl Fixture {
    async fn new() -> Self {
        Self::with(RegistrationConfig::default()).await
    }

    async fn with(config: RegistrationConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = sqlite_url(&dir.path().join("r.db"));
        let registry = Registry::open(&url, 2).await.unwrap();
        let sealer = Sealer::open_or_create(&dir.path().join("key")).unwrap();
        let shutdown = Shutdown::new();
        let metrics = Metrics::new();
        let auth = DeviceAuthenticator::new(
            registry.clone(),
            sealer.clone(),
            &AuthConfig::default(),
            &metrics,
        )
        .unwrap();
        let actor = Actor::new("ann".to_owned(), Role::Admin);
        let devices = RegistryService::new(registry.clone(), sealer.clone(), auth);
        let mut meter = product("meter");
        meter.auth_kinds.push(AuthKind::X509);
        devices.create_product(&actor, meter).await.unwrap();
        let service = start(
            &registry,
            &sealer,
            &dir.path().join("spool"),
            config,
            &shutdown,
        )
        .await;
        Self {
            service,
            devices,
            registry,
            sealer,
            shutdown,
            actor,
            dir,
        }
    }

    async fn send(&self, text: impl Into<Bytes>) -> Result<(DeviceBatch, bool), RegistrationError> {
        let bytes: Bytes = text.into();
        let slices: Vec<_> = bytes
            .chunks(40_000)
            .map(|slice| Ok::<_, io::Error>(Bytes::copy_from_slice(slice)))
            .collect();
        self.service.upload(&self.actor, stream::iter(slices)).await
    }

    /// Sends a file and waits until it is done.
    async fn register(&self, rows: &str) -> DeviceBatch {
        let (batch, is_new) = self.send(format!("{HEADING}{rows}")).await.unwrap();
        assert!(is_new);
        self.ended(batch.id).await
    }

    async fn ended(&self, id: Id) -> DeviceBatch {
        let ending = async {
            loop {
                let batch = self.service.batch(id).await.unwrap();
                if batch.has_ended() {
                    return batch;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), ending)
            .await
            .expect("an end in time")
    }

    async fn rows(&self, id: Id) -> Vec<RowResult> {
        let page = Page::new(Some(500), None).unwrap();
        let rows = self.service.rows(id, None, &page, true).await;
        rows.unwrap().items
    }

    /// Code of each row, `-` for those that went well.
    async fn codes(&self, id: Id) -> Vec<&'static str> {
        let code = |row: &RowResult| {
            row.row
                .error
                .as_ref()
                .map_or("-", |error| error.code.as_str())
        };
        self.rows(id).await.iter().map(code).collect()
    }

    async fn message(&self, id: Id, index: usize) -> String {
        let rows = self.rows(id).await;
        rows[index]
            .row
            .error
            .as_ref()
            .expect("an error")
            .message
            .clone()
    }
}

async fn start(
    registry: &Registry,
    sealer: &Sealer,
    spool: &Path,
    config: RegistrationConfig,
    shutdown: &Shutdown,
) -> RegistrationService {
    let parts = RegistrationParts {
        registry: registry.clone(),
        sealer: sealer.clone(),
        spool: spool.to_owned(),
        config,
        metrics: Metrics::new(),
    };
    RegistrationService::start(parts, shutdown).await.unwrap()
}

fn counts(batch: &DeviceBatch) -> (u32, u32, u32) {
    let counts = batch.counts;
    (counts.created, counts.unchanged, counts.failed)
}

#[tokio::test]
async fn good_rows_become_devices_with_their_credentials() {
    let fixture = Fixture::new().await;
    let print = "ab".repeat(32);
    let batch = fixture
        .register(&format!(
            "n1,Küche,meter,,,,\"two\r\nlines\"\r\nn2,,meter,secret,given_secret,,\r\nn3,,meter,,,{print},\r\n"
        ))
        .await;
    assert_eq!((batch.state, batch.total), (BatchState::Finished, 3));
    assert_eq!(counts(&batch), (3, 0, 0));
    let rows = fixture.rows(batch.id).await;
    let shown: Vec<_> = rows.iter().map(|row| row.secret.is_some()).collect();
    assert_eq!(shown, [true, false, false], "only what was made is shown");
    let made = rows[0].secret.as_ref().unwrap();
    assert_eq!(made.reveal().len(), 32);
    let ids: Vec<_> = ["meter_n1", "meter_n2", "meter_n3"].into();
    let found = fixture.registry.devices_by_alias(&ids).await.unwrap();
    let open = |at: usize| {
        let row = &found[at].1;
        let sealed = row.primary.as_ref().expect("a secret");
        fixture.sealer.open(row.device_id.as_str(), sealed).unwrap()
    };
    assert_eq!(open(0).as_slice(), made.reveal().as_bytes());
    assert_eq!(open(1).as_slice(), b"given_secret");
    assert_eq!(found[2].1.fingerprints, [Some([0xab; 32]), None]);
    let first = fixture
        .devices
        .device(&DeviceId::new("meter_n1").unwrap())
        .await
        .unwrap();
    assert_eq!(
        (first.name.as_str(), first.description.as_str()),
        ("Küche", "two\nlines")
    );
    assert_eq!(
        std::fs::read_dir(fixture.dir.path().join("spool"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_bad_row_is_named_and_stops_no_other() {
    let fixture = Fixture::new().await;
    let digits = |count: usize| "a".repeat(count);
    let rows = [
        "a+b,,meter,,,,".to_owned(),
        "a#b,,meter,,,,".to_owned(),
        "a/b,,meter,,,,".to_owned(),
        "a\0b,,meter,,,,".to_owned(),
        ",,meter,,,,".to_owned(),
        "n1,,nowhere,,,,".to_owned(),
        "n1,,,,,,".to_owned(),
        "n2,,meter,,short,,".to_owned(),
        "n3,,meter,token,,,".to_owned(),
        "n4,,meter,none,,,".to_owned(),
        format!("f39,,meter,x509,,{},", digits(39)),
        format!("f40,,meter,x509,,{},", digits(40)),
        format!("f63,,meter,x509,,{},", digits(63)),
        format!("f65,,meter,x509,,{},", digits(65)),
        "f0,,meter,x509,,,".to_owned(),
        format!("n5,{},meter,,,,", "x".repeat(65)),
        "n6,,meter,,,,,more".to_owned(),
        "good,,meter,,,,".to_owned(),
        "good,,meter,,,,again".to_owned(),
        format!("f64,,meter,x509,,{},", digits(64)),
    ];
    let batch = fixture.register(&rows.join("\n")).await;
    assert_eq!(counts(&batch), (2, 0, 18));
    let mut expected = vec!["invalid_field"; 16];
    expected[5] = "unknown_product";
    expected.extend(["malformed_row", "-", "duplicate", "-"]);
    assert_eq!(fixture.codes(batch.id).await, expected);
    assert!(fixture.message(batch.id, 11).await.contains("SHA-1"));
    assert!(fixture.message(batch.id, 13).await.contains("65"));
    assert!(fixture.message(batch.id, 0).await.starts_with("node_id"));
    assert!(fixture.message(batch.id, 18).await.contains("line 19"));
    let secret = fixture.message(batch.id, 7).await;
    assert!(!secret.contains("short"), "{secret}");
}

#[tokio::test]
async fn the_same_file_again_changes_nothing() {
    let fixture = Fixture::new().await;
    let rows = "n1,,meter,,,,\nn2,Two,meter,,given_secret,,\n";
    let first = fixture.register(rows).await;
    let (again, is_new) = fixture.send(format!("{HEADING}{rows}")).await.unwrap();
    assert_eq!((again.id, is_new), (first.id, false));
    let gone = DeviceId::new("meter_n1").unwrap();
    let deleted = fixture.devices.delete_device(&fixture.actor, &gone).await;
    deleted.unwrap();
    let made_again = fixture.register(rows).await;
    assert_eq!(counts(&made_again), (1, 1, 0));
    // Another file with the same devices.
    let more = fixture
        .register("n2,Two,meter,,given_secret,,\nn1,,meter,,,,\nn3,,meter,,,,\n")
        .await;
    assert_eq!(counts(&more), (1, 2, 0));
    assert!(
        fixture.rows(more.id).await[1].secret.is_none(),
        "made before"
    );
    let other = fixture
        .register(
            "n2,Three,meter,,,,\nn2b,,meter,,,,\nn1,,meter,,other_secret,,\nn3,,meter,x509,,,\n",
        )
        .await;
    assert_eq!(
        fixture.codes(other.id).await,
        ["already_exists", "-", "already_exists", "already_exists"]
    );
    assert!(fixture.message(other.id, 0).await.contains("device_name"));
    let secret = fixture.message(other.id, 2).await;
    assert!(secret.ends_with("another secret"), "{secret}");
    // Rows that failed are tried again with the same file.
    let late = "n9,,later,,,,\n";
    let refused = fixture.register(late).await;
    assert_eq!(counts(&refused), (0, 0, 1));
    fixture
        .devices
        .create_product(&fixture.actor, product("later"))
        .await
        .unwrap();
    assert_eq!(counts(&fixture.register(late).await), (1, 0, 0));
}

#[tokio::test]
async fn a_taken_name_is_refused_naming_the_other_device() {
    let fixture = Fixture::new().await;
    let mut coap = product("nb");
    coap.transports = Transports {
        mqtt: true,
        coap: true,
    };
    fixture
        .devices
        .create_product(&fixture.actor, coap)
        .await
        .unwrap();
    let mut tencent = product("ABCDE12345");
    tencent.credential_forms = vec![CredentialForm::Tencent];
    fixture
        .devices
        .create_product(&fixture.actor, tencent)
        .await
        .unwrap();
    let single = NewDevice {
        device_id: Some(DeviceId::new("taken").unwrap()),
        ..NewDevice::of(ProductId::new("meter").unwrap(), NodeId::new("x").unwrap())
    };
    fixture
        .devices
        .create_device(&fixture.actor, single)
        .await
        .unwrap();
    let batch = fixture
        .register("taken,,nb,,,,\nABCDE12345n1,,nb,,,,\nn1,,ABCDE12345,,,,\nfree,,nb,,,,\n")
        .await;
    assert_eq!(
        fixture.codes(batch.id).await,
        ["alias_taken", "-", "alias_taken", "-"]
    );
    assert!(fixture.message(batch.id, 0).await.contains("device taken"));
    assert!(
        fixture
            .message(batch.id, 2)
            .await
            .contains("device nb_ABCDE12345n1")
    );
    // A secret of Tencent's form is what the device's own decoder reads.
    let base64 = fixture
        .register("s1,,ABCDE12345,,SXhvMjdm+/8=,,\ns2,,ABCDE12345,,123456789,,\ns3,,meter,,SXhvMjdm+/8=,,\n")
        .await;
    assert_eq!(fixture.codes(base64.id).await, ["-", "invalid_field", "-"]);
}

#[tokio::test]
async fn a_file_that_is_no_list_changes_nothing() {
    let config = RegistrationConfig {
        max_batch_bytes: 20_000,
        max_batch_rows: 10,
        ..RegistrationConfig::default()
    };
    let fixture = Fixture::with(config).await;
    for (text, said) in [
        (String::new(), "no heading"),
        ("name,product_id\nn1,meter\n".to_owned(), "\"name\""),
        (HEADING.to_owned(), "no row"),
        (
            format!("{HEADING}{}", "n,,meter,,,,\n".repeat(11)),
            "more than 10 rows",
        ),
        (
            format!("{HEADING}{}", "x".repeat(20_000)),
            "larger than 20000 bytes",
        ),
    ] {
        let error = fixture.send(text).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let latin = [HEADING.as_bytes(), b"n1,K\xe4te,meter,,,,\n"].concat();
    let error = fixture.send(latin).await.unwrap_err().to_string();
    assert!(error.contains("line 2 is not UTF-8"), "{error}");
    let cut = [Ok(Bytes::from(HEADING)), Err(io::Error::other("reset"))];
    let error = fixture
        .service
        .upload(&fixture.actor, stream::iter(cut))
        .await;
    assert!(
        matches!(error, Err(RegistrationError::Body(_))),
        "{error:?}"
    );
    let batches = fixture
        .service
        .batches(None, &Page::default())
        .await
        .unwrap();
    assert_eq!(batches.items, []);
    assert_eq!(
        std::fs::read_dir(fixture.dir.path().join("spool"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn secrets_are_shown_until_they_are_confirmed_or_replaced() {
    let fixture = Fixture::new().await;
    let batch = fixture.register("n1,,meter,,,,\nn2,,meter,,,,\n").await;
    let shown = async |with: bool| {
        let rows = fixture
            .service
            .rows(batch.id, None, &Page::default(), with)
            .await;
        let rows = rows.unwrap().items;
        rows.iter()
            .map(|row| row.secret.is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(true).await, [true, true]);
    assert_eq!(shown(false).await, [false, false]);
    let given = Secret::given("another_one".to_owned()).unwrap();
    let (device, slot) = (DeviceId::new("meter_n1").unwrap(), CredentialSlot::Primary);
    // The stamp of the new secret must differ from that of the batch.
    while Millis::now() <= batch.finished_at.unwrap() {
        tokio::task::yield_now().await;
    }
    let reset = fixture
        .devices
        .reset_secret(&fixture.actor, &device, slot, Some(given), false);
    reset.await.unwrap();
    assert_eq!(shown(true).await, [false, true]);
    let confirmed = fixture
        .service
        .confirm(&fixture.actor, batch.id)
        .await
        .unwrap();
    assert_eq!(confirmed.secrets_until, None);
    assert_eq!(shown(true).await, [false, false]);
    let mut old = batch.clone();
    assert!(old.shows_secrets(Millis::now()));
    old.secrets_until = Some(Millis::now());
    assert!(!old.shows_secrets(Millis::now()));
}

#[tokio::test]
async fn a_batch_goes_on_after_a_restart_where_it_was() {
    let fixture = Fixture::new().await;
    fixture.shutdown.stop();
    assert!(fixture.shutdown.wait(Duration::from_secs(30)).await);
    // Taken, but no worker is there: as if the power had gone.
    let rows: Vec<_> = (0..1200).map(|at| format!("n{at},,meter,,,,")).collect();
    let text = rows.join("\n");
    let (batch, _) = fixture.send(format!("{HEADING}{text}")).await.unwrap();
    let spool = fixture.dir.path().join("spool");
    std::fs::write(spool.join("0000000000001.spool"), b"stray").unwrap();
    std::fs::write(spool.join("0000000000002.part"), b"stray").unwrap();
    let begun = fixture
        .registry
        .begin_batch(Millis::now(), None)
        .await
        .unwrap()
        .unwrap();
    let rows: Vec<_> = (0..500)
        .map(|index| BatchRow {
            index,
            line: index + 2,
            state: RowState::Unchanged,
            product_id: "meter".to_owned(),
            node_id: format!("n{index}"),
            device_id: None,
            error: None,
            secret_made_at: None,
        })
        .collect();
    let block = crate::store::registry::Block {
        batch: begun.id,
        rows,
        candidates: Vec::new(),
        products: Vec::new(),
    };
    let committed = fixture.registry.commit_block(block).await.unwrap();
    assert!(matches!(
        committed,
        crate::store::registry::Committed::Done(_)
    ));
    let shutdown = Shutdown::new();
    let config = RegistrationConfig::default();
    let service = start(
        &fixture.registry,
        &fixture.sealer,
        &spool,
        config,
        &shutdown,
    )
    .await;
    let fixture = Fixture {
        service,
        shutdown,
        ..fixture
    };
    let ended = fixture.ended(batch.id).await;
    assert_eq!(counts(&ended), (700, 500, 0));
    let filter = DeviceFilter::default();
    let page = Page::new(Some(500), None).unwrap();
    let first = fixture.registry.devices(&filter, &page).await.unwrap();
    assert_eq!(
        first.items[0].node_id.as_str(),
        "n1000",
        "rows before 500 are not done twice"
    );
    assert_eq!(
        std::fs::read_dir(&spool).unwrap().count(),
        0,
        "strays are removed"
    );
}

#[tokio::test]
async fn open_batches_are_bounded_and_deleted_ones_leave_their_devices() {
    let config = RegistrationConfig {
        max_open_batches: 2,
        ..RegistrationConfig::default()
    };
    let fixture = Fixture::with(config).await;
    let batch = fixture.register("n1,,meter,,,,\n").await;
    fixture.shutdown.stop();
    assert!(fixture.shutdown.wait(Duration::from_secs(30)).await);
    let (waits, _) = fixture
        .send(format!("{HEADING}a,,meter,,,,\n"))
        .await
        .unwrap();
    let confirm = fixture.service.confirm(&fixture.actor, waits.id).await;
    assert!(
        matches!(confirm, Err(RegistrationError::Running)),
        "{confirm:?}"
    );
    fixture
        .send(format!("{HEADING}b,,meter,,,,\n"))
        .await
        .unwrap();
    let busy = fixture.send(format!("{HEADING}c,,meter,,,,\n")).await;
    assert!(
        matches!(busy, Err(RegistrationError::Busy { open: 2 })),
        "{busy:?}"
    );
    for id in [waits.id, batch.id] {
        fixture.service.delete(&fixture.actor, id).await.unwrap();
        let gone = fixture.service.batch(id).await;
        assert!(matches!(gone, Err(RegistrationError::NotFound { .. })));
    }
    fixture
        .send(format!("{HEADING}c,,meter,,,,\n"))
        .await
        .unwrap();
    while fixture
        .registry
        .purge_batches(Millis::from_i64(0))
        .await
        .unwrap()
    {}
    let device = DeviceId::new("meter_n1").unwrap();
    fixture.devices.device(&device).await.unwrap();
    let left = fixture
        .service
        .batches(None, &Page::default())
        .await
        .unwrap();
    assert_eq!(left.items.len(), 2);
}

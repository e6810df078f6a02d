//! Devices, their names and their credentials.

use headgate_protocol::identity::DeviceId;

use super::*;
use crate::model::{
    AuthKind, CredentialForm, CredentialSlot, Device, Fingerprint, Transports,
    device::tests::device,
};

fn credential(slot: CredentialSlot, byte: u8) -> SealedCredential {
    SealedCredential {
        slot,
        key_id: "k".to_owned(),
        sealed: vec![byte; 40],
    }
}

async fn add(fixture: &Fixture, product: &Product, device: &Device) -> Result<(), StoreError> {
    let credentials = DeviceCredentials {
        secrets: vec![credential(CredentialSlot::Primary, 1)],
        fingerprints: Vec::new(),
    };
    fixture
        .insert_device(
            device,
            &device.aliases(product),
            &credentials,
            &audit("device.create"),
        )
        .await
}

/// A product whose devices have all three kinds of names.
fn many_names(id: &str) -> Product {
    let mut product = product(id);
    product.credential_forms.push(CredentialForm::Tencent);
    product.transports = Transports {
        mqtt: true,
        coap: true,
    };
    product
}

fn conflict(result: Result<(), StoreError>) -> (&'static str, String) {
    match result {
        Err(StoreError::Conflict { what, with }) => (what, with),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn devices_are_stored_changed_and_deleted() {
    let fixture = Fixture::with_product("meter").await;
    let product = product("meter");
    let stored = device("meter", "n1");
    add(&fixture, &product, &stored).await.unwrap();
    assert_eq!(
        fixture.device(&stored.id).await.unwrap(),
        Some(stored.clone())
    );

    let patch = DevicePatch {
        name: Some("Käte".to_owned()),
        ..DevicePatch::default()
    };
    let changed = fixture
        .patch_device(&stored.id, &patch, at(7), &audit("device.update"))
        .await
        .unwrap();
    let expected = Device {
        name: "Käte".to_owned(),
        updated_at: at(7),
        ..stored.clone()
    };
    assert_eq!(changed, expected);
    let patch = DevicePatch {
        enabled: Some(false),
        ..DevicePatch::default()
    };
    let changed = fixture
        .patch_device(&stored.id, &patch, at(8), &audit("device.freeze"))
        .await
        .unwrap();
    assert_eq!((changed.name.as_str(), changed.enabled), ("Käte", false));

    let in_use = fixture.delete_product(&product.id, &audit("x")).await;
    assert!(matches!(in_use, Err(StoreError::InUse { .. })));
    fixture
        .delete_device(&stored.id, &audit("x"))
        .await
        .unwrap();
    assert_eq!(fixture.device(&stored.id).await.unwrap(), None);
    assert_eq!(
        fixture.devices_by_alias(&["meter_n1"]).await.unwrap().len(),
        0
    );
    let gone = fixture.delete_device(&stored.id, &audit("x")).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
    let gone = fixture
        .patch_device(&stored.id, &patch, at(9), &audit("x"))
        .await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
}

pub(super) async fn a_name_that_another_device_has_is_refused_naming_it() {
    let fixture = Fixture::new().await;
    let (one, two) = (many_names("AAAAAAAAAA"), many_names("BBBBBBBBBB"));
    fixture.add_product(&one).await;
    fixture.add_product(&two).await;
    add(&fixture, &one, &device("AAAAAAAAAA", "n1"))
        .await
        .unwrap();

    let same = device("AAAAAAAAAA", "n1");
    assert_eq!(
        conflict(add(&fixture, &one, &same).await),
        ("device id", "device AAAAAAAAAA_n1".to_owned())
    );
    let mut same_node = same.clone();
    same_node.id = DeviceId::new("other").unwrap();
    assert_eq!(
        conflict(add(&fixture, &one, &same_node).await),
        ("node id", "device AAAAAAAAAA_n1".to_owned())
    );
    // A CoAP endpoint name is its node id alone, whatever the product.
    let same_endpoint = device("BBBBBBBBBB", "n1");
    assert_eq!(
        conflict(add(&fixture, &two, &same_endpoint).await),
        ("device alias", "device AAAAAAAAAA_n1".to_owned())
    );
    assert_eq!(fixture.device(&same_endpoint.id).await.unwrap(), None);
    let mut same_client_id = device("BBBBBBBBBB", "n2");
    same_client_id.id = DeviceId::new("AAAAAAAAAAn1").unwrap();
    assert_eq!(
        conflict(add(&fixture, &two, &same_client_id).await),
        ("device alias", "device AAAAAAAAAA_n1".to_owned())
    );
    let unknown = add(&fixture, &one, &device("nowhere", "n1")).await;
    assert!(matches!(
        unknown,
        Err(StoreError::NotFound { what: "product" })
    ));
}

pub(super) async fn a_product_that_allows_more_gives_its_devices_more_names() {
    let fixture = Fixture::new().await;
    let plain = product("AAAAAAAAAA");
    fixture.add_product(&plain).await;
    for node in ["n1", "n2"] {
        add(&fixture, &plain, &device("AAAAAAAAAA", node))
            .await
            .unwrap();
    }
    let names = ["AAAAAAAAAA_n1", "AAAAAAAAAAn1", "n1", "n2"];
    let known = async || {
        let found = fixture.devices_by_alias(&names).await.unwrap();
        found
            .into_iter()
            .map(|(alias, _)| alias)
            .collect::<Vec<_>>()
    };
    assert_eq!(known().await, ["AAAAAAAAAA_n1"]);
    let more = many_names("AAAAAAAAAA");
    fixture
        .update_product(&more, None, &audit("x"))
        .await
        .unwrap();
    assert_eq!(known().await, ["AAAAAAAAAA_n1", "AAAAAAAAAAn1", "n1", "n2"]);
    fixture
        .update_product(&plain, None, &audit("x"))
        .await
        .unwrap();
    assert_eq!(known().await, ["AAAAAAAAAA_n1"]);
}

pub(super) async fn names_that_would_clash_keep_a_product_as_it_is() {
    let fixture = Fixture::new().await;
    let (one, two) = (many_names("AAAAAAAAAA"), product("BBBBBBBBBB"));
    fixture.add_product(&one).await;
    fixture.add_product(&two).await;
    add(&fixture, &one, &device("AAAAAAAAAA", "n1"))
        .await
        .unwrap();
    add(&fixture, &two, &device("BBBBBBBBBB", "n1"))
        .await
        .unwrap();
    let more = many_names("BBBBBBBBBB");
    assert_eq!(
        conflict(fixture.update_product(&more, None, &audit("x")).await),
        ("device alias", "device AAAAAAAAAA_n1".to_owned())
    );
    assert_eq!(fixture.product(&two.id).await.unwrap(), Some(two));
    assert_eq!(
        fixture
            .devices_by_alias(&["BBBBBBBBBBn1"])
            .await
            .unwrap()
            .len(),
        0
    );
}

pub(super) async fn one_query_finds_many_devices_with_both_credentials() {
    let fixture = Fixture::with_product("meter").await;
    let product = product("meter");
    for node in 0..1_030 {
        add(&fixture, &product, &device("meter", &format!("n{node}")))
            .await
            .unwrap();
    }
    let both = DeviceId::new("meter_n7").unwrap();
    let second = credential(CredentialSlot::Secondary, 2);
    fixture
        .set_credential(&both, &second, at(3), &audit("x"))
        .await
        .unwrap();
    let mut names: Vec<String> = (0..1_030).map(|node| format!("meter_n{node}")).collect();
    names.push("meter_unknown".to_owned());
    let found = fixture.devices_by_alias(&names).await.unwrap();
    assert_eq!(found.len(), 1_030);
    for (alias, row) in found {
        assert_eq!(row.device_id.as_str(), alias);
        assert_eq!(row.primary.as_deref(), Some(&[1; 40][..]));
        let expected = (row.device_id == both).then_some(&[2; 40][..]);
        assert_eq!(row.secondary.as_deref(), expected);
    }
    assert_eq!(fixture.devices_by_ids(&names).await.unwrap().len(), 1_030);
    let nodes: Vec<String> = (0..2_000).map(|node| format!("n{node}")).collect();
    let found = fixture
        .names_by_node_ids(&product.id, &nodes)
        .await
        .unwrap();
    assert_eq!(found.len(), 1_030);
    let mut by_id = fixture.names_by_ids(&names).await.unwrap();
    assert_eq!(by_id.len(), 1_030);
    let first = by_id.swap_remove(0);
    assert_eq!(
        first.device_id.as_str(),
        format!("{}_{}", first.product_id, first.node_id)
    );
    assert_eq!(
        fixture.devices_by_alias::<&str>(&[]).await.unwrap().len(),
        0
    );
}

pub(super) async fn a_replaced_credential_leaves_the_other() {
    let fixture = Fixture::with_product("meter").await;
    let device = device("meter", "n1");
    add(&fixture, &product("meter"), &device).await.unwrap();
    for (slot, byte) in [(CredentialSlot::Secondary, 2), (CredentialSlot::Primary, 3)] {
        fixture
            .set_credential(&device.id, &credential(slot, byte), at(3), &audit("x"))
            .await
            .unwrap();
    }
    let found = fixture.devices_by_alias(&["meter_n1"]).await.unwrap();
    assert_eq!(found[0].1.primary.as_deref(), Some(&[3; 40][..]));
    assert_eq!(found[0].1.secondary.as_deref(), Some(&[2; 40][..]));
    let nobody = DeviceId::new("nobody").unwrap();
    let gone = fixture
        .set_credential(
            &nobody,
            &credential(CredentialSlot::Primary, 1),
            at(3),
            &audit("x"),
        )
        .await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
}

pub(super) async fn devices_are_filtered() {
    let fixture = Fixture::with_product("meter").await;
    fixture.add_product(&product("pump")).await;
    for (kind, node, name) in [
        ("meter", "n1", "Cellar 50%"),
        ("meter", "n2", "roof"),
        ("pump", "n3", "Roof_2"),
    ] {
        let mut device = device(kind, node);
        name.clone_into(&mut device.name);
        add(&fixture, &product(kind), &device).await.unwrap();
    }
    let frozen = DevicePatch {
        enabled: Some(false),
        ..DevicePatch::default()
    };
    fixture
        .patch_device(
            &DeviceId::new("pump_n3").unwrap(),
            &frozen,
            at(2),
            &audit("x"),
        )
        .await
        .unwrap();
    let text = |text: &str| DeviceFilter {
        text: Some(text.to_owned()),
        ..DeviceFilter::default()
    };
    for (filter, expected) in [
        (
            DeviceFilter::default(),
            vec!["meter_n1", "meter_n2", "pump_n3"],
        ),
        (text("ROOF"), vec!["meter_n2", "pump_n3"]),
        (text("n1"), vec!["meter_n1"]),
        (text("0%"), vec!["meter_n1"]),
        (text("f_2"), vec!["pump_n3"]),
        (
            DeviceFilter {
                enabled: Some(false),
                ..DeviceFilter::default()
            },
            vec!["pump_n3"],
        ),
        (
            DeviceFilter {
                product: Some(product("meter").id),
                ..text("roof")
            },
            vec!["meter_n2"],
        ),
    ] {
        let found = fixture.devices(&filter, &Page::default()).await.unwrap();
        let ids: Vec<&str> = found
            .items
            .iter()
            .map(|device| device.id.as_str())
            .collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
}

pub(super) async fn last_seen_only_moves_on() {
    let fixture = Fixture::with_product("meter").await;
    let product = product("meter");
    let ids: Vec<DeviceId> = (0..600)
        .map(|node| device("meter", &format!("n{node}")).id)
        .collect();
    for node in 0..600 {
        add(&fixture, &product, &device("meter", &format!("n{node}")))
            .await
            .unwrap();
    }
    for (seen, expected) in [(10, 10), (30, 30), (20, 30)] {
        let all: Vec<_> = ids.iter().map(|id| (id.clone(), at(seen))).collect();
        fixture.touch_last_seen(&all).await.unwrap();
        for id in [&ids[0], &ids[599]] {
            let device = fixture.device(id).await.unwrap().unwrap();
            assert_eq!(device.last_seen_at, Some(at(expected)));
        }
    }
    fixture.touch_last_seen(&[]).await.unwrap();
}

pub(super) async fn debug_shows_no_sealed_secret() {
    let sealed = credential(CredentialSlot::Primary, 113);
    assert!(!format!("{sealed:?}").contains("113"));
    let fixture = Fixture::with_product("meter").await;
    let device = device("meter", "n1");
    add(&fixture, &product("meter"), &device).await.unwrap();
    let found = fixture.devices_by_alias(&["meter_n1"]).await.unwrap();
    assert!(!format!("{found:?}").contains("[1, 1"));
}

pub(super) async fn a_certificate_device_is_found_with_its_fingerprints() {
    let fixture = Fixture::with_product("meter").await;
    let product = product("meter");
    let credentials = DeviceCredentials {
        secrets: Vec::new(),
        fingerprints: vec![
            (CredentialSlot::Primary, Fingerprint::new([1; 32])),
            (CredentialSlot::Secondary, Fingerprint::new([2; 32])),
        ],
    };
    for node in ["n1", "n2"] {
        let mut device = device("meter", node);
        device.auth = AuthKind::X509;
        let aliases = device.aliases(&product);
        fixture
            .insert_device(&device, &aliases, &credentials, &audit("device.create"))
            .await
            .unwrap();
    }
    let found = fixture
        .devices_by_alias(&["meter_n1", "meter_n2", "meter_n3"])
        .await
        .unwrap();
    let found: Vec<_> = found
        .into_iter()
        .map(|(alias, row)| (alias, row.fingerprints, row.primary.is_none()))
        .collect();
    let both = [Some([1; 32]), Some([2; 32])];
    assert_eq!(
        found,
        [
            ("meter_n1".to_owned(), both, true),
            ("meter_n2".to_owned(), both, true)
        ]
    );
}

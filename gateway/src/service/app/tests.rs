//! Applications and the way of their messages, over real stores.

mod message;
mod retained;
mod share;
mod stage;

use headgate_protocol::mqtt::QoS;

use self::stage::{Stage, app_id, device_id};
use super::AppError;
use crate::{
    model::{CredentialSlot, Message, Page},
    service::{auth::AuthError, uplink::Ended},
    store::registry::{AppFilter, AppPatch, AuditFilter},
};

/// A message of device `node` of product `P`.
pub(in crate::service) fn message(node: &str, topic: &str) -> Message {
    stage::message(node, topic, QoS::AtLeastOnce)
}

#[tokio::test]
async fn a_secret_opens_its_application_and_no_other() {
    let stage = Stage::new().await;
    let (one, other) = (stage.app("one").await, stage.app("other").await);
    assert!(one.starts_with("hga_") && one.len() == 47, "{}", one.len());
    let apps = &stage.apps;
    assert_eq!(
        apps.authenticate("one", one.as_bytes()).await.unwrap().id,
        app_id("one")
    );
    for (id, secret) in [
        ("one", other.as_str()),
        ("one", ""),
        ("none", &one),
        ("one", "hga_wrong"),
        ("One", &one),
        ("one", &format!("{one}x")),
        ("one", &"x".repeat(10_000)),
    ] {
        let refused = apps.authenticate(id, secret.as_bytes()).await;
        assert!(matches!(refused, Err(AuthError::Refused)), "{id} {secret}");
    }
}

#[tokio::test]
async fn both_secrets_are_valid_until_each_is_replaced() {
    let stage = Stage::new().await;
    let first = stage.app("a").await;
    let apps = &stage.apps;
    let valid = async |secret: &str| apps.authenticate("a", secret.as_bytes()).await.is_ok();
    let reset = async |which| {
        let id = app_id("a");
        let secret = apps.reset_secret(&stage.actor, &id, which, false);
        secret.await.unwrap().reveal().to_owned()
    };
    assert!(valid(&first).await);
    let second = reset(CredentialSlot::Secondary).await;
    assert!(valid(&first).await && valid(&second).await);
    let third = reset(CredentialSlot::Primary).await;
    assert!(
        !valid(&first).await,
        "replaced, although it was kept in memory"
    );
    assert!(valid(&second).await && valid(&third).await);
}

#[tokio::test]
async fn a_disabled_application_is_out_at_once_and_comes_in_again() {
    let stage = Stage::new().await;
    let secret = stage.app("a").await;
    let apps = &stage.apps;
    let enable = async |enabled| {
        let patch = AppPatch {
            name: None,
            enabled: Some(enabled),
            ..AppPatch::default()
        };
        apps.patch(&stage.actor, &app_id("a"), patch).await.unwrap()
    };
    let before = apps.authenticate("a", secret.as_bytes()).await.unwrap();
    let (_session, sink) = stage.session("a", &secret, &["#"]).await;
    assert!(!enable(false).await.enabled);
    assert_eq!(sink.ended(), Some(Ended::Disabled));
    let refused = apps.authenticate("a", secret.as_bytes()).await;
    assert!(matches!(refused, Err(AuthError::Disabled)));
    // One that was let in before and attaches only now.
    let _late = stage.uplink.attach(&before, stage::Recorder::new());
    assert!(!stage.uplink.is_current(&before));
    enable(true).await;
    let (_session, sink) = stage.session("a", &secret, &["#"]).await;
    assert_eq!(sink.ended(), None);
    apps.reset_secret(&stage.actor, &app_id("a"), CredentialSlot::Primary, true)
        .await
        .unwrap();
    assert_eq!(sink.ended(), Some(Ended::SecretReset));
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused() {
    let stage = Stage::with(|config| config.max_applications = 2).await;
    stage.app("a").await;
    let make = async |id: &str, name: &str| {
        let made = stage.apps.create(&stage.actor, app_id(id), name.to_owned());
        made.await.map(|_| ())
    };
    assert!(matches!(
        make("a", "x").await,
        Err(AppError::Conflict {
            what: "application id",
            ..
        })
    ));
    assert!(matches!(make("b", "").await, Err(AppError::Invalid(field)) if field.field == "name"));
    make("b", "x").await.unwrap();
    assert!(matches!(
        make("c", "x").await,
        Err(AppError::TooMany { limit: 2, .. })
    ));
    let missing = stage.apps.delete(&stage.actor, &app_id("c")).await;
    assert!(matches!(
        missing,
        Err(AppError::NotFound {
            what: "application"
        })
    ));
    let filter = AppFilter {
        text: Some("B".to_owned()),
    };
    let found = stage.apps.apps(&filter, &Page::default()).await.unwrap();
    assert_eq!(
        found
            .items
            .iter()
            .map(|app| app.id.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
}

#[tokio::test]
async fn devices_are_bound_one_by_one_and_in_thousands() {
    let stage = Stage::with(|config| config.max_per_device = 2).await;
    for app in ["a", "b", "c"] {
        stage.app(app).await;
    }
    stage.devices(1_203).await;
    let all: Vec<_> = (0..1_203).map(|n| device_id(&format!("d{n}"))).collect();
    let bind = async |app: &str, devices: &[_]| {
        let (id, devices) = (app_id(app), devices.to_vec());
        let bound = stage.apps.bind(&stage.actor, &id, devices);
        bound.await.unwrap()
    };
    let mut with_strangers = all.clone();
    with_strangers.push(device_id("stranger"));
    let report = bind("a", &with_strangers).await;
    assert_eq!((report.changed, report.over_limit.len()), (1_203, 0));
    assert_eq!(report.unknown, [device_id("stranger")]);
    assert_eq!(bind("a", &all[..3]).await.changed, 0, "bound already");
    assert_eq!(bind("b", &all[..2]).await.changed, 2);
    let report = bind("c", &all[..3]).await;
    assert_eq!((report.changed, report.over_limit), (1, all[..2].to_vec()));
    assert_eq!(stage.apps.binding_count(&app_id("a")).await.unwrap(), 1_203);
    let page = Page::new(Some(2), None).unwrap();
    let page = stage.apps.bindings(&app_id("b"), &page).await.unwrap();
    assert_eq!(page.items.len(), 2);
    assert!(page.next.is_none());
    let id = app_id("a");
    let unbound = stage.apps.unbind(&stage.actor, &id, with_strangers);
    assert_eq!(unbound.await.unwrap().changed, 1_203);
    assert_eq!(stage.apps.binding_count(&app_id("a")).await.unwrap(), 0);
    let id = app_id("x");
    let missing = stage.apps.bind(&stage.actor, &id, all);
    assert!(matches!(missing.await, Err(AppError::NotFound { .. })));
}

#[tokio::test]
async fn every_change_is_audited_and_no_secret_is_stored() {
    let stage = Stage::new().await;
    let secret = stage.app("a").await;
    stage.devices(1).await;
    let (apps, actor, id) = (&stage.apps, &stage.actor, app_id("a"));
    let devices = vec![device_id("d0")];
    apps.bind(actor, &id, devices.clone()).await.unwrap();
    apps.bind(actor, &id, devices.clone()).await.unwrap();
    apps.unbind(actor, &id, devices).await.unwrap();
    apps.patch(
        actor,
        &id,
        AppPatch {
            name: Some("n".to_owned()),
            enabled: None,
            ..AppPatch::default()
        },
    )
    .await
    .unwrap();
    apps.delete(actor, &id).await.unwrap();
    let entries = stage
        .registry
        .audit(&AuditFilter::default(), &Page::default())
        .await
        .unwrap()
        .items;
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.action.as_str(), entry.detail.as_str()))
        .filter(|(action, _)| action.starts_with("app."))
        .collect();
    assert_eq!(
        told,
        [
            ("app.delete", ""),
            ("app.update", "n"),
            ("app.unbind", "d0"),
            ("app.bind", "d0"),
            ("app.create", "a"),
        ]
    );
    let stored = stage.bytes_on_disk().await;
    assert!(
        !stored
            .windows(secret.len())
            .any(|window| window == secret.as_bytes())
    );
}

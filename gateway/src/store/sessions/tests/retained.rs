//! Retained messages and wills.

use std::time::Duration;

use super::*;
use crate::model::{Will, WillKey};

pub(super) async fn one_is_kept_for_each_device_and_topic() {
    let fixture = Fixture::new().await;
    let (first, second, other) = (message("d1", "x"), message("d1", "yy"), message("d2", "z"));
    let changes = [&first, &second, &other].map(|message| RetainedChange::Set(message, None));
    fixture.change_retained(&changes).await.unwrap();
    fixture.change_retained(&[]).await.unwrap();
    let fixture = fixture.again().await;
    let mut entries = fixture.retained_entries().await.unwrap();
    entries.sort_by(|a, b| a.device.as_str().cmp(b.device.as_str()));
    let entry = |message: &Message| RetainedEntry {
        device: message.device.device_id.clone(),
        product: message.device.product_id.clone(),
        topic: message.topic.clone(),
        bytes: mail_bytes(message),
    };
    assert_eq!(entries, [entry(&second), entry(&other)]);
    let device = &first.device.device_id;
    let wanted = [(device, &*first.topic), (device, "nothing")];
    let found = fixture.retained(&wanted, at(1)).await.unwrap();
    let mut expected = second.clone();
    expected.retain = true;
    assert_eq!(found, [expected]);

    let remove = [RetainedChange::Remove(&second, None)];
    fixture.change_retained(&remove).await.unwrap();
    assert!(fixture.retained(&wanted, at(1)).await.unwrap().is_empty());
    let forget = [RetainedChange::Forget(&other.device.device_id)];
    fixture.change_retained(&forget).await.unwrap();
    assert!(fixture.retained_entries().await.unwrap().is_empty());
}

pub(super) async fn retained_messages_expire() {
    let fixture = Fixture::new().await;
    let mut one = message("d1", "x");
    one.properties.expires_at = Some(at(50));
    let other = message("d2", "y");
    let changes = [&one, &other].map(|message| RetainedChange::Set(message, None));
    fixture.change_retained(&changes).await.unwrap();
    let wanted = [(&one.device.device_id, &*one.topic)];
    assert_eq!(fixture.retained(&wanted, at(49)).await.unwrap().len(), 1);
    assert_eq!(fixture.retained(&wanted, at(50)).await.unwrap().len(), 0);
    let gone = fixture.expire_retained(at(50)).await.unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].device, one.device.device_id);
    assert_eq!(gone[0].bytes, mail_bytes(&one));
    assert_eq!(fixture.retained_entries().await.unwrap().len(), 1);
}

pub(super) async fn wills_are_stored_replaced_and_deleted() {
    let fixture = Fixture::new().await;
    let mut gone = message("d1", "gone");
    gone.at = at(0);
    let will = Will {
        message: gone,
        expiry: Some(Duration::from_secs(9)),
        delay: Duration::from_secs(3),
    };
    let device = WillKey::Device("P_d1".parse().unwrap());
    let app = WillKey::Application("app".parse().unwrap(), "client: 1".into());
    let changes = [
        (&device, Some((&will, None))),
        (&app, Some((&will, None))),
        (&app, Some((&will, Some(at(77))))),
    ];
    fixture.change_wills(&changes).await.unwrap();
    fixture.change_wills(&[]).await.unwrap();
    let fixture = fixture.again().await;
    let mut wills = fixture.load_wills().await.unwrap();
    wills.sort_by_key(|stored| stored.due_at);
    let stored = |key: &WillKey, due_at| StoredWill {
        key: key.clone(),
        will: will.clone(),
        due_at,
    };
    assert_eq!(wills, [stored(&device, None), stored(&app, Some(at(77)))]);
    fixture.change_wills(&[(&device, None)]).await.unwrap();
    assert_eq!(fixture.load_wills().await.unwrap().len(), 1);
}

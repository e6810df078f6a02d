//! Messages that wait for devices.

use super::*;

async fn store(fixture: &Fixture, mail: &[(i64, &Message, i64)]) {
    let batch = Batch {
        mail: mail
            .iter()
            .map(|(number, message, expires)| (id(*number), *message, at(*expires)))
            .collect(),
        ..Batch::default()
    };
    fixture.commit(&batch).await.unwrap();
}

fn ids(found: &[(Id, Message)]) -> Vec<i64> {
    found.iter().map(|(id, _)| id.as_i64()).collect()
}

pub(super) async fn mail_comes_in_the_order_of_its_storing() {
    let fixture = Fixture::new().await;
    let (one, other) = (message("d1", "x\ny"), message("d2", ""));
    store(
        &fixture,
        &[(9, &one, 100), (11, &one, 100), (10, &other, 100)],
    )
    .await;
    store(&fixture, &[(1 << 60, &one, 100)]).await;
    let device = &one.device.device_id;
    let found = fixture.mail(device, None, 2, at(1)).await.unwrap();
    assert_eq!(ids(&found), [9, 11]);
    assert_eq!(found[0].1, one);
    let found = fixture.mail(device, Some(id(9)), 10, at(1)).await.unwrap();
    assert_eq!(ids(&found), [11, 1 << 60]);
    let wanted = [id(10), id(11), id(12)];
    let found = fixture.mail_of(device, &wanted).await.unwrap();
    assert_eq!(ids(&found), [11]);
    assert_eq!(fixture.last_mail().await.unwrap(), Some(id(1 << 60)));
}

pub(super) async fn mail_is_taken_out_once() {
    let fixture = Fixture::new().await;
    let one = message("d1", "x");
    store(&fixture, &[(1, &one, 100), (2, &one, 100)]).await;
    let gone = [id(1), id(5)];
    let batch = Batch {
        mail_gone: &gone,
        ..Batch::default()
    };
    let expected = MailGone {
        id: id(1),
        device: one.device.device_id.clone(),
        bytes: mail_bytes(&one),
    };
    let committed = fixture.commit(&batch).await.unwrap();
    assert_eq!(committed.mail_gone, [expected]);
    assert_eq!(fixture.commit(&batch).await.unwrap(), Committed::default());
    let cleared = fixture.clear_mail(&one.device.device_id).await.unwrap();
    assert_eq!(cleared.len(), 1);
    assert!(fixture.mail_counts().await.unwrap().is_empty());
}

pub(super) async fn mail_whose_time_is_over_is_not_given_and_goes() {
    let fixture = Fixture::new().await;
    let one = message("d1", "x");
    store(&fixture, &[(1, &one, 50), (2, &one, 60), (3, &one, 70)]).await;
    let device = &one.device.device_id;
    let found = fixture.mail(device, None, 1, at(50)).await.unwrap();
    assert_eq!(ids(&found), [2]);
    let gone = fixture.expire_mail(at(60)).await.unwrap();
    assert_eq!(gone.len(), 2);
    let found = fixture.mail(device, None, 10, at(0)).await.unwrap();
    assert_eq!(ids(&found), [3]);
}

pub(super) async fn mail_is_counted_for_each_device() {
    let fixture = Fixture::new().await;
    let (one, other) = (message("d1", "x"), message("d2", "yy"));
    store(&fixture, &[(1, &one, 50), (2, &one, 60), (3, &other, 70)]).await;
    let fixture = fixture.again().await;
    let mut counts = fixture.mail_counts().await.unwrap();
    counts.sort_by(|a, b| a.device.as_str().cmp(b.device.as_str()));
    let expected = [(&one, 2), (&other, 1)].map(|(message, messages)| MailCount {
        device: message.device.device_id.clone(),
        messages,
        bytes: mail_bytes(message) * messages as u64,
    });
    assert_eq!(counts, expected);
}

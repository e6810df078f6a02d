//! Messages that wait for sessions of applications.

use super::*;
use crate::model::Handing;

fn handing(number: u32) -> Handing {
    Handing {
        qos: QoS::ExactlyOnce,
        retain: number.is_multiple_of(2),
        subscription_ids: [number, 300]
            .into_iter()
            .filter_map(std::num::NonZeroU32::new)
            .collect(),
    }
}

async fn session(fixture: &Fixture, number: i64) -> SessionRef {
    let claim = Claim {
        key: SessionKey::Application("app".parse().unwrap(), format!("client{number}").into()),
        id: id(number),
        is_clean: false,
        expiry_secs: 100,
        max_sessions: 0,
    };
    fixture.claim(&claim).await.unwrap().session.unwrap()
}

async fn send(fixture: &Fixture, number: i64, message: &Message, sessions: &[SessionRef]) {
    let receivers: Vec<(Id, Handing)> = sessions
        .iter()
        .map(|session| (session.id, handing(session.id.as_i64().try_into().unwrap())))
        .collect();
    let batch = Batch {
        messages: vec![NewMessage {
            id: id(number),
            message,
            receivers: &receivers,
        }],
        ..Batch::default()
    };
    fixture.commit(&batch).await.unwrap();
}

fn ids(found: &[QueuedMessage]) -> Vec<i64> {
    found.iter().map(|queued| queued.id.as_i64()).collect()
}

pub(super) async fn a_message_waits_for_each_of_its_sessions() {
    let fixture = Fixture::new().await;
    let (a, b) = (session(&fixture, 1).await, session(&fixture, 2).await);
    let one = message("d1", "x");
    send(&fixture, 5, &one, &[a, b]).await;
    let found = fixture.queued(a.id, None, 10).await.unwrap();
    let expected = QueuedMessage {
        id: id(5),
        message: one.clone(),
        handing: handing(1),
    };
    assert_eq!(found, [expected]);
    let gone = [(a.id, id(5)), (a.id, id(6))];
    let batch = Batch {
        messages_gone: &gone,
        ..Batch::default()
    };
    let committed = fixture.commit(&batch).await.unwrap();
    let expected = QueueGone {
        session: a.id,
        message: id(5),
        bytes: mail_bytes(&one),
    };
    assert_eq!(committed.messages_gone, [expected]);
    assert!(fixture.queued(a.id, None, 10).await.unwrap().is_empty());
    assert_eq!(ids(&fixture.queued(b.id, None, 10).await.unwrap()), [5]);
    assert_eq!(fixture.last_message().await.unwrap(), Some(id(5)));
}

pub(super) async fn a_queue_is_read_in_pages_and_by_ids() {
    let fixture = Fixture::new().await;
    let a = session(&fixture, 1).await;
    let one = message("d1", "x");
    for number in [3, 4, 1 << 59] {
        send(&fixture, number, &one, &[a]).await;
    }
    let found = fixture.queued(a.id, None, 2).await.unwrap();
    assert_eq!(ids(&found), [3, 4]);
    let found = fixture.queued(a.id, Some(id(4)), 2).await.unwrap();
    assert_eq!(ids(&found), [1 << 59]);
    let found = fixture.queued_of(a.id, &[id(9), id(4)]).await.unwrap();
    assert_eq!(ids(&found), [4]);
}

pub(super) async fn what_waits_of_a_device_is_taken_out() {
    let fixture = Fixture::new().await;
    let a = session(&fixture, 1).await;
    let (one, other) = (message("d1", "x"), message("d2", "y"));
    send(&fixture, 3, &one, &[a]).await;
    send(&fixture, 4, &other, &[a]).await;
    let gone = fixture
        .revoke(a.id, std::slice::from_ref(&one.device.device_id))
        .await
        .unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].message, id(3));
    assert_eq!(ids(&fixture.queued(a.id, None, 9).await.unwrap()), [4]);
}

pub(super) async fn messages_expire_for_all_sessions() {
    let fixture = Fixture::new().await;
    let (a, b) = (session(&fixture, 1).await, session(&fixture, 2).await);
    let mut one = message("d1", "x");
    one.properties.expires_at = Some(at(50));
    send(&fixture, 3, &one, &[a, b]).await;
    send(&fixture, 4, &message("d1", "y"), &[a]).await;
    assert!(fixture.expire_messages(at(49)).await.unwrap().is_empty());
    assert_eq!(fixture.expire_messages(at(50)).await.unwrap().len(), 2);
    assert_eq!(ids(&fixture.queued(a.id, None, 9).await.unwrap()), [4]);
    assert!(fixture.queued(b.id, None, 9).await.unwrap().is_empty());
}

pub(super) async fn what_waited_for_a_session_that_ended_is_purged() {
    let fixture = Fixture::new().await;
    let (a, b) = (session(&fixture, 1).await, session(&fixture, 2).await);
    let one = message("d1", "x");
    send(&fixture, 3, &one, &[a, b]).await;
    fixture.discard(a.id).await.unwrap();
    assert_eq!(fixture.purge(a.id).await.unwrap().len(), 1);
    assert!(fixture.purge(a.id).await.unwrap().is_empty());
    // What a process that was killed had not purged yet goes at the next start.
    fixture.discard(b.id).await.unwrap();
    let fixture = fixture.again().await;
    assert_eq!(fixture.recover(at(1)).await.unwrap(), []);
    assert!(fixture.queued(b.id, None, 9).await.unwrap().is_empty());
}

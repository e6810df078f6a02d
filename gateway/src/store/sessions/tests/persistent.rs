//! Persistent sessions: claims, epochs, what is under way.

use std::num::NonZeroU32;

use headgate_protocol::mqtt::{PacketId, RetainHandling, Subscription};

use super::*;

fn claim_of(key: SessionKey, number: i64, is_clean: bool) -> Claim {
    Claim {
        key,
        id: id(number),
        is_clean,
        expiry_secs: 100,
        max_sessions: 0,
    }
}

fn device() -> SessionKey {
    SessionKey::Device("P_d1".parse().unwrap())
}

async fn claim(fixture: &Fixture, number: i64, is_clean: bool) -> Claimed {
    let claim = claim_of(device(), number, is_clean);
    fixture.claim(&claim).await.unwrap()
}

async fn change(fixture: &Fixture, session: SessionRef, changes: &[SessionChange]) -> bool {
    let batch = Batch {
        changes: vec![(session, changes)],
        ..Batch::default()
    };
    let committed = fixture.commit(&batch).await.unwrap();
    assert!(committed.stale.iter().all(|stale| *stale == session));
    committed.stale.is_empty()
}

fn packet(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn subscription(filter: &str, identifier: u32) -> KeptSubscription {
    KeptSubscription {
        asked: Subscription {
            filter: filter.parse().unwrap(),
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: false,
            retain_handling: RetainHandling::SendIfNew,
        },
        identifier: NonZeroU32::new(identifier),
    }
}

pub(super) async fn a_session_is_made_found_again_and_ended() {
    let fixture = Fixture::new().await;
    let first = claim(&fixture, 1, false).await;
    assert!(!first.is_present && first.discarded.is_none());
    let session = first.session.unwrap();
    let (a, b) = (subscription("a/+/é", 7), subscription("b:/#", 0));
    let changes = [
        SessionChange::Subscribed(subscription("a/+/é", 1)),
        SessionChange::Subscribed(a.clone()),
        SessionChange::Subscribed(b.clone()),
        SessionChange::Subscribed(subscription("c", 0)),
        SessionChange::Unsubscribed("c".parse().unwrap()),
        SessionChange::Taken(packet(9)),
        SessionChange::Taken(packet(10)),
        SessionChange::Taken(packet(10)),
        SessionChange::Released(packet(9)),
    ];
    assert!(change(&fixture, session, &changes).await);
    let again = claim(&fixture, 2, false).await;
    assert!(again.is_present);
    let found = again.session.unwrap();
    assert_eq!(found.id, id(1));
    assert!(found.epoch > session.epoch);
    assert_eq!(again.unreleased, [packet(10)]);
    let mut kept = again.subscriptions;
    kept.sort_by_key(|kept| kept.asked.filter.to_string());
    assert_eq!(kept, [a, b]);

    let clean = claim(&fixture, 3, true).await;
    assert_eq!((clean.is_present, clean.discarded), (false, Some(id(1))));
    let session = clean.session.unwrap();
    assert_eq!(session.id, id(3));
    assert!(change(&fixture, session, &[SessionChange::Ended]).await);
    let none = Claim {
        expiry_secs: 0,
        max_sessions: 0,
        ..claim_of(device(), 4, false)
    };
    let none = fixture.claim(&none).await.unwrap();
    assert!(none.session.is_none() && !none.is_present && none.discarded.is_none());
}

pub(super) async fn an_older_connection_changes_nothing() {
    let fixture = Fixture::new().await;
    let older = claim(&fixture, 1, false).await.session.unwrap();
    let newer = claim(&fixture, 2, false).await.session.unwrap();
    let taken = [
        SessionChange::Taken(packet(1)),
        SessionChange::Sending(packet(1), id(5)),
    ];
    assert!(!change(&fixture, older, &taken).await);
    assert!(!change(&fixture, older, &[SessionChange::Ended]).await);
    // What comes behind it in the batch is stored all the same.
    let released = [SessionChange::Taken(packet(2))];
    let batch = Batch {
        changes: vec![(older, &taken[..]), (newer, &released[..])],
        ..Batch::default()
    };
    let committed = fixture.commit(&batch).await.unwrap();
    assert_eq!(committed.stale[..], [older]);
    let found = claim(&fixture, 3, false).await;
    assert_eq!(
        (found.unreleased, found.outbound),
        (vec![packet(2)], vec![])
    );
}

pub(super) async fn what_is_under_way_keeps_its_order() {
    let fixture = Fixture::new().await;
    let session = claim(&fixture, 1, false).await.session.unwrap();
    let changes = [
        SessionChange::Sending(packet(3), id(30)),
        SessionChange::Sending(packet(1), id(10)),
        SessionChange::Sending(packet(2), id(20)),
        SessionChange::Received(id(10)),
        SessionChange::Completed(id(20)),
        SessionChange::Received(id(99)),
    ];
    assert!(change(&fixture, session, &changes).await);
    let outbound = |number, message, is_received| Outbound {
        packet_id: packet(number),
        message: id(message),
        is_received,
    };
    let found = claim(&fixture, 2, false).await;
    assert_eq!(
        found.outbound,
        [outbound(3, 30, false), outbound(1, 10, true)]
    );
}

pub(super) async fn one_identifier_is_one_exchange() {
    let fixture = Fixture::new().await;
    let session = claim(&fixture, 1, false).await.session.unwrap();
    let changes = [
        SessionChange::Sending(packet(1), id(10)),
        SessionChange::Sending(packet(1), id(11)),
    ];
    assert!(change(&fixture, session, &changes).await);
    let found = claim(&fixture, 2, false).await;
    assert_eq!(found.outbound.len(), 1);
    assert_eq!(found.outbound[0].message, id(11));
}

pub(super) async fn a_session_whose_time_is_over_is_gone() {
    let fixture = Fixture::new().await;
    let session = claim(&fixture, 1, false).await.session.unwrap();
    assert!(change(&fixture, session, &[SessionChange::Suspended(at(1_000))]).await);
    assert_eq!(fixture.expired_sessions(at(999)).await.unwrap(), []);
    let expired = fixture.expired_sessions(at(1_000)).await.unwrap();
    assert_eq!(expired, [(id(1), device())]);
    // Nobody has ended it, and it is no more.
    let claimed = claim(&fixture, 2, false).await;
    assert!(!claimed.is_present);
    assert_eq!(claimed.discarded, Some(id(1)));
    assert_eq!(fixture.expired_sessions(at(1_000)).await.unwrap(), []);
}

pub(super) async fn a_start_finds_every_session() {
    let fixture = Fixture::new().await;
    let session = claim(&fixture, 1, false).await.session.unwrap();
    let kept = [SessionChange::Subscribed(subscription("a", 0))];
    assert!(change(&fixture, session, &kept).await);
    let app = SessionKey::Application("app".parse().unwrap(), "a client: 1".into());
    let claimed = fixture
        .claim(&claim_of(app.clone(), 2, false))
        .await
        .unwrap();
    assert!(change(&fixture, claimed.session.unwrap(), &kept).await);
    let one = message("d1", "x");
    let handing = crate::model::Handing {
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: [].into_iter().collect(),
    };
    let receivers = [(id(2), handing)];
    let batch = Batch {
        messages: vec![NewMessage {
            id: id(5),
            message: &one,
            receivers: &receivers,
        }],
        ..Batch::default()
    };
    fixture.commit(&batch).await.unwrap();

    let fixture = fixture.again().await;
    let mut found = fixture.recover(at(1_000)).await.unwrap();
    found.sort_by_key(|session| session.id);
    let expected = [
        KeptSession {
            id: id(1),
            key: device(),
            subscriptions: vec![],
            messages: 0,
            bytes: 0,
            node: None,
        },
        KeptSession {
            id: id(2),
            key: app,
            subscriptions: vec![subscription("a", 0)],
            messages: 1,
            bytes: mail_bytes(&one),
            node: None,
        },
    ];
    assert_eq!(found, expected);
    // Their links ended with the process: so do they, in time.
    let expired = fixture.expired_sessions(at(101_000)).await.unwrap();
    assert_eq!(expired.len(), 2);
}

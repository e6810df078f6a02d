//! What only Redis can do wrong: who may come in, what is found there, and two gateways at once.

#[path = "../../../../tests/it/harness/redis.rs"]
pub(super) mod server;

use std::sync::Arc;

use headgate_protocol::identity::DeviceId;

use self::server::Redis;
use super::*;

async fn refused(url: &str, prefix: &str) -> String {
    match SessionStore::open_redis(url, prefix, b"r", node("n1")).await {
        Err(StoreError::Refused(sentence)) => {
            assert!(!sentence.contains("hunter"), "{sentence}");
            sentence
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_in_a_sentence() {
    let server = Redis::start();
    assert_eq!(
        refused(&server.url_with("hunter3"), "h").await,
        "sessions: Redis refuses these credentials"
    );
    let other = SessionStore::open_redis(&server.url(), "h", b"another", node("n1")).await;
    other.unwrap();
    assert!(
        refused(&server.url(), "h")
            .await
            .contains("belongs to another registry")
    );
    server.command(&["CONFIG", "SET", "maxmemory", "100mb"]);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(
        refused(&server.url(), "x")
            .await
            .contains("noeviction is needed")
    );
}

async fn opened(server: &Redis, node: NodeEntry) -> SessionStore {
    let url = server.url();
    let opened = SessionStore::open_redis(&url, "h", b"r", node);
    opened.await.unwrap()
}

#[tokio::test]
async fn a_node_writes_for_as_long_as_it_has_its_lease() {
    let server = Redis::start();
    let first = opened(&server, node("n1")).await;
    let second = opened(&server, node("n2")).await;
    let mail = message("d1", "x");
    for (number, store) in [(1, &first), (2, &second)] {
        let batch = Batch {
            mail: vec![(id(number), &mail, at(10))],
            ..Batch::default()
        };
        store.commit(&batch).await.unwrap();
    }
    let device = &mail.device.device_id;
    let found = second.mail(device, None, 10, at(1)).await.unwrap();
    assert_eq!(found.len(), 2);
    // A server that was restarted empty takes nothing, and says so, until the node has a new lease.
    server.command(&["FLUSHALL"]);
    let batch = Batch {
        mail: vec![(id(3), &mail, at(10))],
        ..Batch::default()
    };
    assert!(matches!(
        second.commit(&batch).await,
        Err(StoreError::Fenced)
    ));
    assert!(matches!(second.ping().await, Err(StoreError::Fenced)));
    let nodes = second.nodes().unwrap();
    assert_eq!(nodes.join(b"{}").await.unwrap(), None);
    second.ping().await.unwrap();
    second.commit(&batch).await.unwrap();
}

#[tokio::test]
async fn a_name_is_one_node_s_until_that_is_dead() {
    let server = Redis::start();
    let short = |instance: &str| NodeEntry {
        instance: instance.to_owned(),
        lease: std::time::Duration::from_secs(2),
        ..node("n1")
    };
    let first = opened(&server, short("here")).await;
    let nodes = first.nodes().unwrap();
    // The same machine's: the process before it is dead, and fenced.
    let again = opened(&server, short("here")).await;
    assert!(matches!(
        nodes.beat(b"{}", "").await,
        Err(StoreError::Fenced)
    ));
    // Another machine's waits, and is refused when the first is heard again.
    let alive = again.nodes().unwrap();
    let beating = async {
        loop {
            alive.beat(b"{}", "").await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let url = server.url();
    let other = SessionStore::open_redis(&url, "h", b"r", short("elsewhere"));
    tokio::select! {
        () = beating => {}
        opened = other => assert!(
            matches!(&opened, Err(StoreError::Refused(told)) if told.contains("another node is called \"n1\"")),
            "{opened:?}"
        ),
    }
    opened(&server, short("elsewhere")).await;
}

#[tokio::test]
async fn a_node_s_place_is_its_name_s_and_nobody_else_s() {
    let server = Redis::start();
    let place = |store: &SessionStore| store.nodes().unwrap().place();
    let first = opened(&server, node("n1")).await;
    let second = opened(&server, node("n2")).await;
    assert_eq!((place(&first), place(&second)), (2, 3));
    first.nodes().unwrap().part().await.unwrap();
    let third = opened(&server, node("n3")).await;
    let first = opened(&server, node("n1")).await;
    assert_eq!((place(&first), place(&third)), (2, 4));
    // The last place comes before the first, which is taken.
    server.command(&["SET", "{h}:place", "65533"]);
    let places = [node("n4"), node("n5"), node("n6")].map(|node| opened(&server, node));
    let mut found = Vec::new();
    for opening in places {
        found.push(place(&opening.await));
    }
    assert_eq!(found, [65_535, 1, 5]);
    // A server that forgot everything is told the places that stand in Connection IDs already.
    server.command(&["FLUSHALL"]);
    for (store, place) in [(&third, 4), (&first, 2)] {
        let nodes = store.nodes().unwrap();
        assert_eq!(nodes.join(b"{}").await.unwrap(), None);
        assert_eq!(nodes.place(), place);
    }
    assert_eq!(place(&opened(&server, node("n7")).await), 3);
}

#[tokio::test]
async fn nodes_are_told_in_order_and_a_missing_word_shows() {
    let server = Redis::start();
    let (first, second) = (
        opened(&server, node("n1")).await,
        opened(&server, node("n2")).await,
    );
    let (first, second) = (first.nodes().unwrap(), second.nodes().unwrap());
    let beat = first.beat(br#"{"a":1}"#, "").await.unwrap();
    assert_eq!((beat.nodes.len(), beat.waiting), (2, 0));
    for word in ["a", "b"] {
        let told = first.tell(&[], "k", 7, word.as_bytes()).await.unwrap();
        assert_eq!(told, [second.number()]);
    }
    let (told, seen) = second.listen("").await.unwrap();
    let words: Vec<_> = told.iter().map(|one| (one.seq, &one.body[..])).collect();
    assert_eq!(words, [(1, &b"a"[..]), (2, b"b")]);
    assert_eq!((told[0].from, told[0].ask), (first.number(), 7));
    for number in 0..2_500 {
        let body = number.to_string();
        first
            .tell(&[second.number()], "k", 0, body.as_bytes())
            .await
            .unwrap();
    }
    let (told, _) = second.listen(&seen.unwrap()).await.unwrap();
    assert!(told[0].seq > 3, "the oldest are gone");
    assert!(second.beat(b"{}", "").await.unwrap().waiting < 1_200);
    first.part().await.unwrap();
    let told = second.tell(&[first.number()], "k", 0, b"").await.unwrap();
    assert!(told.is_empty(), "it has ended");
    assert_eq!(second.beat(b"{}", "").await.unwrap().nodes.len(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_no_answer_and_is_used_again() {
    let server = Redis::start();
    let store = opened(&server, node("n1")).await;
    server.signal(rustix::process::Signal::STOP);
    let span = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(span, store.ping()).await.is_err());
    server.signal(rustix::process::Signal::CONT);
    store.ping().await.unwrap();
    // Nor is a connection that was cut of any harm.
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let again = async || {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while store.save_cursors(&[]).await.is_err() || store.ping().await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "never again");
        }
    };
    again().await;
    // Nor a server that was killed and has what it kept, the node's lease too.
    server.restart(true);
    again().await;
}

#[tokio::test]
async fn a_node_that_lost_a_device_moves_none_of_its_cursors() {
    let server = Redis::start();
    let first = opened(&server, node("n1")).await;
    let second = opened(&server, node("n2")).await;
    let device: DeviceId = "P_d".parse().unwrap();
    let claim = |number| Claim {
        key: SessionKey::Device(device.clone()),
        id: id(number),
        is_clean: false,
        expiry_secs: 0,
        max_sessions: 0,
    };
    let cursor = |epoch: i64, acked: u64| Cursor {
        delivery: id(7),
        attempt: 1,
        acked,
        ranges: Vec::new(),
        updated_at: at(1),
        claim: Some((device.clone(), epoch)),
    };
    let acked = async || {
        let found = first.cursors_of(&[id(7)]).await.unwrap();
        found.first().map(|cursor| cursor.acked)
    };
    let before = first.claim(&claim(1)).await.unwrap().place.unwrap().epoch;
    first.save_cursors(&[cursor(before, 10)]).await.unwrap();
    assert_eq!(acked().await, Some(10));
    let after = second.claim(&claim(2)).await.unwrap().place.unwrap().epoch;
    assert!(after > before);
    first.save_cursors(&[cursor(before, 99)]).await.unwrap();
    assert_eq!(acked().await, Some(10), "it is another node's");
    second.save_cursors(&[cursor(after, 20)]).await.unwrap();
    assert_eq!(acked().await, Some(20));
}

#[tokio::test]
async fn what_a_client_said_before_it_went_elsewhere_is_not_stored_after_that() {
    let server = Redis::start();
    let first = opened(&server, node("n1")).await;
    let second = opened(&server, node("n2")).await;
    let key = SessionKey::Device("P_d".parse().unwrap());
    let claim = |number, key: &SessionKey, expiry_secs| Claim {
        key: key.clone(),
        id: id(number),
        is_clean: false,
        expiry_secs,
        max_sessions: 0,
    };
    let listener = SessionKey::Application("app".parse().unwrap(), "app:app:x".into());
    let listening = second.claim(&claim(1, &listener, 100)).await.unwrap();
    let queue = listening.session.unwrap().id;
    let place = async |store: &SessionStore| {
        let claimed = store.claim(&claim(2, &key, 0)).await.unwrap();
        Standing {
            key: key.clone(),
            epoch: claimed.place.unwrap().epoch,
        }
    };
    let (before, after) = (place(&first).await, place(&second).await);
    let late = message("d", "late");
    let handing = crate::model::Handing {
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: [].into_iter().collect(),
    };
    let receivers = [(queue, handing)];
    let new = |number| NewMessage {
        id: id(number),
        message: &late,
        receivers: &receivers,
    };
    let nodes = second.nodes().unwrap();
    let batch = Batch {
        mail: vec![(id(1), &late, at(10))],
        messages: vec![new(1), new(2), new(3)],
        shared: Some(Shared {
            senders: vec![
                (id(1), Some(&before)),
                (id(2), Some(&after)),
                (id(3), None),
                (id(4), Some(&before)),
            ],
            forwards: vec![
                (id(3), nodes.number(), &b"told"[..]),
                (id(4), nodes.number(), b"late"),
            ],
            limits: SharedLimits {
                queue_messages: 10,
                queue_bytes: 10_000,
                queue_total_bytes: 10_000,
                ..SharedLimits::default()
            },
            ..Shared::default()
        }),
        ..Batch::default()
    };
    let numbered = first.commit(&batch).await.unwrap().numbered;
    let is_late: Vec<bool> = numbered.iter().map(|one| one.is_late).collect();
    assert_eq!(is_late, [true, false, false, true]);
    let found = second.queued(queue, None, 10).await.unwrap();
    let found: Vec<Id> = found.iter().map(|queued| queued.id).collect();
    assert_eq!(found, [numbered[1].id, numbered[2].id]);
    assert_eq!(first.last_mail().await.unwrap(), None);
    let (told, _) = nodes.listen("").await.unwrap();
    let told = told.iter().filter(|one| one.kind == "publish");
    let told: Vec<_> = told.map(|one| &one.body[..]).collect();
    assert_eq!(told, [b"told"]);

    let kept = [
        RetainedChange::Set(&late, Some(&after)),
        RetainedChange::Remove(&late, Some(&before)),
        RetainedChange::Set(&late, Some(&before)),
    ];
    assert_eq!(first.change_retained(&kept).await.unwrap(), [1, 2]);
    assert_eq!(first.retained_entries().await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_key_is_on_one_slot_and_an_idle_session_is_small() {
    let server = Arc::new(Redis::start());
    let fixture = SERVER.scope(Arc::clone(&server), Fixture::new()).await;
    let before: u64 = memory(&server);
    for number in 1..=2_000 {
        let claim = Claim {
            key: SessionKey::Device(format!("P_d{number}").parse().unwrap()),
            id: id(number),
            is_clean: false,
            expiry_secs: 100,
            max_sessions: 0,
        };
        fixture.claim(&claim).await.unwrap();
    }
    let each = (memory(&server) - before) / 2_000;
    assert!(each < 1_024, "{each} bytes for each session");
    let keys = server.command(&["KEYS", "*"]);
    assert!(keys.lines().all(|key| key.starts_with('{')), "{keys}");
}

fn memory(server: &Redis) -> u64 {
    let info = server.command(&["INFO", "memory"]);
    let mut lines = info.lines();
    let bytes = lines.find_map(|line| line.strip_prefix("used_memory:"));
    bytes.unwrap().trim().parse().unwrap()
}

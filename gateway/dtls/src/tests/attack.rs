//! What somebody without a key can do: nothing that lasts.

use std::time::{Duration, Instant};

use super::pair::{KEY, World, address, psk};
use crate::{
    Client, ClientConfig, ClientOutput, Event, Output, Server, ServerConfig,
    tests::pair::certificate,
};

/// The first datagram of a client.
fn hello() -> Vec<u8> {
    let config = ClientConfig::default();
    let mut client = Client::connect(&config, &psk("device-1", KEY), Instant::now()).unwrap();
    match client.poll_output() {
        Some(ClientOutput::Transmit(datagram)) => datagram,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hellos_without_a_cookie_leave_nothing_behind() {
    let now = Instant::now();
    let mut server = Server::new(ServerConfig::default(), now).unwrap();
    let hello = hello();
    // What the first one makes stays: the context for strangers.
    server.handle_datagram(now, address(1), &hello);
    while server.poll_output().is_some() {}
    let before = resident_bytes();
    for port in 2..=20_001 {
        server.handle_datagram(now, address(port), &hello);
        let Some(Output::Transmit { peer, datagram }) = server.poll_output() else {
            panic!("no cookie");
        };
        assert_eq!(peer, address(port));
        assert!(datagram.len() <= hello.len(), "no amplification");
        assert_eq!(server.poll_output(), None);
    }
    assert_eq!(server.depths().handshakes, 0);
    assert_eq!(server.depths().bytes, 0);
    assert_eq!(server.counters().cookies, 20_001);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 1024 * 1024, "{grown} bytes");
}

/// Memory of this process.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident = pages.split_whitespace().nth(1).unwrap();
    resident.parse::<usize>().unwrap() * 4_096
}

#[test]
fn a_flood_between_its_two_hellos_does_not_keep_a_client_out() {
    let mut world = World::new(ServerConfig::default());
    let config = ClientConfig::default();
    let mut client = Client::connect(&config, &psk("device-1", KEY), world.now).unwrap();
    let Some(ClientOutput::Transmit(first)) = client.poll_output() else {
        panic!("no hello");
    };
    world.clients.insert(1, client);
    world.server.handle_datagram(world.now, address(1), &first);
    let Some(Output::Transmit { datagram, .. }) = world.server.poll_output() else {
        panic!("no cookie");
    };
    let flood = hello();
    for n in 0..10_000u16 {
        world.deliver(2 + n, &flood);
    }
    world.now += Duration::from_secs(20);
    let client = world.clients.get_mut(&1).unwrap();
    client.handle_datagram(world.now, &datagram);
    world.run();
    assert!(world.clients[&1].is_connected());
}

#[test]
fn a_cookie_of_another_address_is_none() {
    let mut world = World::new(ServerConfig::default());
    world.device(1);
    // The second hello carried the cookie for port 1.
    let (_, with_cookie) = world.seen[1].clone();
    for port in 2..=100 {
        world.deliver(port, &with_cookie);
    }
    assert_eq!(world.server.depths().handshakes, 0);
    assert_eq!(world.server.counters().handshakes, 1);
}

#[test]
fn replayed_records_are_not_taken_twice() {
    let mut world = World::new(ServerConfig::default());
    world.device(1);
    world.say(1, "a");
    world.say(1, "b");
    let seen = world.seen.clone();
    let events = world.events.len();
    for (_, datagram) in &seen {
        world.deliver(1, datagram);
        world.deliver(9, datagram);
    }
    assert_eq!(world.events.len(), events, "{:?}", &world.events[events..]);
    assert_eq!(world.server.counters().moved, 0, "nor do they move anybody");
    assert_eq!(world.say(1, "c").len(), 1);
}

#[test]
fn a_late_record_from_elsewhere_is_taken_and_moves_nobody() {
    let mut world = World::new(ServerConfig::default());
    let session = world.device(1);
    world.say(1, "a");
    // Someone on the way holds a record back and sends it from an address of their own.
    world.loses = |_| true;
    assert_eq!(world.say(1, "held"), []);
    world.loses = |_| false;
    let (_, held) = world.seen.last().unwrap().clone();
    assert_eq!(world.say(1, "b").len(), 1);
    world.deliver(9, &held);
    let taken = Event::Data {
        session,
        data: b"held".to_vec(),
        peer: address(9),
    };
    assert_eq!(world.events.last(), Some(&taken));
    assert_eq!(world.server.address(session), Some(address(1)));
}

#[test]
fn records_of_another_epoch_and_changed_ones_are_ignored() {
    let mut world = World::new(ServerConfig::default());
    world.device(1);
    world.say(1, "a");
    world.loses = |_| true;
    world.say(1, "b");
    world.loses = |_| false;
    let (_, record) = world.seen.last().unwrap().clone();
    let events = world.events.len();
    for (at, bit) in (0..record.len()).flat_map(|at| [(at, 1), (at, 0x80)]) {
        let mut changed = record.clone();
        changed[at] ^= bit;
        world.deliver(9, &changed);
    }
    for epoch in [0, 2, 9] {
        let mut changed = record.clone();
        changed[4] = epoch;
        world.deliver(9, &changed);
    }
    assert_eq!(world.events.len(), events);
    assert_eq!(world.server.counters().moved, 0);
    world.deliver(1, &record);
    assert_eq!(world.events.len(), events + 1, "as it was it is taken");
}

#[test]
fn a_hello_in_someone_elses_name_ends_no_session() {
    let fixed = ClientConfig {
        with_cid: false,
        ..ClientConfig::default()
    };
    let mut world = World::new(ServerConfig::default());
    world.device_with(1, &fixed);
    world.deliver(1, &hello());
    assert_eq!(world.say(1, "still here").len(), 1);

    // Not even with a cookie, from someone who sees what is sent there but has no key.
    let client = world.clients.remove(&1).unwrap();
    world.connect(1, &fixed, &psk("device-1", b"another key"));
    assert!(!world.clients[&1].is_connected());
    world.clients.insert(1, client);
    assert_eq!(world.say(1, "still here").len(), 1);
}

#[test]
fn junk_in_a_handshake_does_not_outlive_it() {
    let mut world = World::new(ServerConfig {
        certificate: Some(certificate("gateway")),
        ..ServerConfig::default()
    });
    let own = crate::Credential::Certificate(certificate("device"));
    world.connect(1, &ClientConfig::default(), &own);
    let flights = std::mem::take(&mut world.seen);
    let (_, with_certificate) = flights
        .iter()
        .find(|(_, datagram)| datagram.len() > 400)
        .unwrap();
    for at in (13..with_certificate.len()).step_by(7) {
        // The same handshake with one byte of the certificate's flight changed.
        let port = 1_000 + u16::try_from(at).unwrap();
        let client = Client::connect(&ClientConfig::default(), &own, world.now).unwrap();
        world.clients.insert(port, client);
        let mut is_changed = false;
        loop {
            let output = world.clients.get_mut(&port).unwrap().poll_output();
            let Some(output) = output else { break };
            let ClientOutput::Transmit(mut datagram) = output else {
                continue;
            };
            if datagram.len() > 400 && !is_changed {
                is_changed = true;
                let at = at.min(datagram.len() - 1);
                datagram[at] ^= 0x41;
            }
            world.deliver(port, &datagram);
        }
        world.clients.remove(&port);
    }
    world.pass(70);
    assert_eq!(world.server.depths().handshakes, 0);
    world.connect(2, &ClientConfig::default(), &own);
    assert!(
        world.clients[&2].is_connected(),
        "the next one is not held liable"
    );
}

#[test]
fn random_datagrams_are_survived() {
    let mut world = World::new(ServerConfig::default());
    world.device(1);
    world.say(1, "a");
    let seen = world.seen.clone();
    let mut state = 7_u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap()
    };
    for _ in 0..20_000 {
        let mut datagram = seen[next() % seen.len()].1.clone();
        for _ in 0..=(next() % 4) {
            let at = next() % datagram.len();
            datagram[at] = u8::try_from(next() % 256).unwrap();
        }
        datagram.truncate(1 + next() % datagram.len());
        let port = 1 + u16::try_from(next() % 3).unwrap();
        world.deliver(port, &datagram);
    }
    world.pass(70);
    assert!(world.server.depths().handshakes <= 1);
    let newcomer = world.device(9);
    assert_eq!(world.say(9, "b"), [(newcomer, b"b".to_vec())]);
}

#[test]
fn failed_handshakes_use_up_nothing() {
    let mut world = World::new(ServerConfig {
        max_handshakes: 2,
        max_handshakes_per_second: 1_000,
        ..ServerConfig::default()
    });
    for n in 0..300 {
        world.connect(
            1 + n % 50,
            &ClientConfig::default(),
            &psk("device-1", b"wrong"),
        );
        world.now += Duration::from_millis(10);
    }
    assert_eq!(world.server.depths().handshakes, 0);
    world.device(99);
    assert_eq!(world.say(99, "a").len(), 1);
}

#[test]
fn handshakes_are_limited_in_number_and_rate() {
    let mut world = World::new(ServerConfig {
        max_handshakes: 3,
        max_handshakes_per_second: 5,
        ..ServerConfig::default()
    });
    // Everybody answers the cookie and says nothing after that.
    let begin = |world: &mut World, port: u16| {
        let credential = psk("device-1", KEY);
        let client = Client::connect(&ClientConfig::default(), &credential, world.now).unwrap();
        world.clients.insert(port, client);
        for _ in 0..2 {
            let Some(ClientOutput::Transmit(datagram)) =
                world.clients.get_mut(&port).unwrap().poll_output()
            else {
                panic!("no hello");
            };
            world.deliver(port, &datagram);
        }
        world.clients.remove(&port);
    };
    for port in 1..=9 {
        begin(&mut world, port);
    }
    assert_eq!(world.server.depths().handshakes, 3);
    assert_eq!(world.server.counters().limited, 6);
    world.pass(61);
    assert_eq!(world.server.depths().handshakes, 0);
    for port in 1..=5 {
        world.device(port);
    }
    assert_eq!(world.server.counters().limited, 6);
    world.connect(6, &ClientConfig::default(), &psk("device-6", KEY));
    assert!(!world.clients[&6].is_connected(), "too many in this second");
    world.pass(3);
    assert!(world.clients[&6].is_connected(), "its next hello");
}

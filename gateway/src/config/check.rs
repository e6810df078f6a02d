//! What only shows when several keys are seen together.
//!
//! Runs after every key has been checked by itself.
//! Invariants: a problem names the key that the reader should change, where that key was given.

use std::net::SocketAddr;

use super::{Config, ListenerConfig, Profile, Secret, section::Section as _, source::Collected};

/// Adds the problems of a configuration as a whole.
pub(super) fn check(config: &Config, collected: &mut Collected) {
    if config.data_dir.as_os_str().is_empty() {
        problem(
            collected,
            "data_dir",
            "no home directory is known: give --data-dir",
        );
    }
    check_backends(config, collected);
    check_certificates(config, collected);
    check_listeners(config, collected);
    for (number, listener) in config.listeners.iter().enumerate() {
        let name = format!("{}.{number}", ListenerConfig::NAME);
        check_listener(&name, listener, collected);
    }
    check_limits(config, collected);
}

fn problem(collected: &mut Collected, key: &str, message: &str) {
    let origin = collected.origin(key);
    collected.problem(origin, format!("{key}: {message}"));
}

/// Where things are kept. What is elsewhere can be opened by two gateways at once: the registry's lock is what keeps the
/// second one from the sessions.
fn check_backends(config: &Config, collected: &mut Collected) {
    let places = [
        (
            "registry.url",
            &config.registry.url,
            "sqlite:///",
            Some("postgres://user@host/database"),
        ),
        (
            "sessions.url",
            &config.sessions.url,
            "sqlite:///",
            Some("redis://host"),
        ),
        (
            "blobs.url",
            &config.blobs.url,
            "file:///",
            Some("s3://bucket/prefix"),
        ),
    ];
    for (key, url, embedded, remote) in places {
        let Some(url) = url.as_ref().map(Secret::expose) else {
            continue;
        };
        // The address may carry a password: only its scheme is shown.
        let (scheme, place) = url.split_once("://").unwrap_or(("", url));
        let is_remote = match scheme {
            "postgres" | "postgresql" => key == "registry.url",
            "redis" | "rediss" => key == "sessions.url",
            "s3" => key == "blobs.url",
            _ => false,
        };
        if !place.is_empty() && (is_remote || url.starts_with(embedded) && place != "/") {
            continue;
        }
        let message = if let Some(remote) = remote {
            format!("expected {embedded} and an absolute path, or {remote}")
        } else {
            format!("expected {embedded} and an absolute path")
        };
        problem(collected, key, &message);
    }
    check_bucket(config, collected);
    let begins = |url: &Option<Secret>, schemes: &[&str]| {
        let url = url.as_ref().map_or("", Secret::expose);
        schemes.iter().any(|scheme| url.starts_with(scheme))
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !config.sessions.prefix.chars().all(is_name) {
        problem(
            collected,
            "sessions.prefix",
            "expected letters, digits, - and _",
        );
    }
    if begins(&config.sessions.url, &["redis://", "rediss://"])
        && !begins(&config.registry.url, &["postgres://", "postgresql://"])
    {
        let message =
            "redis:// needs registry.url to be postgres://: what nodes share they share all of";
        problem(collected, "sessions.url", message);
    }
    if begins(&config.sessions.url, &["redis://", "rediss://"]) && config.blobs.url.is_none() {
        let message =
            "redis:// needs blobs.url: s3://, or file:/// and a directory that every node sees";
        problem(collected, "sessions.url", message);
    }
    let is_node = |c: char| is_name(c) || c == '.';
    if config.cluster.node.as_ref().is_some_and(|node| {
        !node.chars().all(is_node) || !node.chars().any(|c| c.is_ascii_alphanumeric())
    }) {
        let message = "expected letters, digits, -, _ and dots";
        problem(collected, "cluster.node", message);
    }
}

/// What belongs to a bucket, where blobs are in one.
fn check_bucket(config: &Config, collected: &mut Collected) {
    let blobs = &config.blobs;
    let url = blobs.url.as_ref().map_or("", Secret::expose);
    let given = [
        ("blobs.endpoint", blobs.endpoint.is_some()),
        ("blobs.access_key_id", blobs.access_key_id.is_some()),
        ("blobs.secret_access_key", blobs.secret_access_key.is_some()),
    ];
    let Some(place) = url.strip_prefix("s3://") else {
        for (key, _) in given.iter().filter(|(_, given)| *given) {
            problem(collected, key, "of no use unless blobs.url is s3://");
        }
        return;
    };
    let bucket = place.split('/').next().unwrap_or_default();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if bucket.is_empty() || !bucket.chars().all(is_name) || url.contains('?') {
        problem(collected, "blobs.url", "expected s3://bucket/prefix");
    }
    if let Some(endpoint) = &blobs.endpoint
        && !endpoint.starts_with("http://")
        && !endpoint.starts_with("https://")
    {
        problem(collected, "blobs.endpoint", "expected https:// or http://");
    }
    let (id, key) = (&blobs.access_key_id, &blobs.secret_access_key);
    match (id, key) {
        (Some(_), None) => problem(
            collected,
            "blobs.access_key_id",
            "given without blobs.secret_access_key",
        ),
        (None, Some(_)) => problem(
            collected,
            "blobs.secret_access_key",
            "given without blobs.access_key_id",
        ),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// A certificate needs its key, and the other way round.
fn check_certificates(config: &Config, collected: &mut Collected) {
    let listeners = config.listeners.iter().enumerate().map(|(number, own)| {
        let name = format!("{}.{number}", ListenerConfig::NAME);
        (name, &own.certificate, &own.key)
    });
    let pairs = [
        ("tls".to_owned(), &config.tls.certificate, &config.tls.key),
        (
            "http".to_owned(),
            &config.http.certificate,
            &config.http.key,
        ),
        (
            "coaps".to_owned(),
            &config.coaps.certificate,
            &config.coaps.key,
        ),
    ];
    for (section, certificate, key) in pairs.into_iter().chain(listeners) {
        let (given, missing) = match (certificate, key) {
            (Some(_), None) => ("certificate", "key"),
            (None, Some(_)) => ("key", "certificate"),
            (Some(_), Some(_)) | (None, None) => continue,
        };
        problem(
            collected,
            &format!("{section}.{given}"),
            &format!("given without {section}.{missing}"),
        );
    }
}

/// No two listeners on one address, and at least one for devices.
fn check_listeners(config: &Config, collected: &mut Collected) {
    let own = |key: &str, address| (key.to_owned(), address);
    let further = config
        .listeners
        .iter()
        .enumerate()
        .map(|(number, further)| {
            let key = format!("{}.{number}.address", ListenerConfig::NAME);
            (key, further.address)
        });
    let listeners: Vec<_> = [
        own("mqtt.listen", config.mqtt.listen),
        own("mqtt.plain_listen", config.mqtt.plain_listen),
        own("http.listen", Some(config.http.listen)),
        own("files.listen", config.files.listen),
        own("metrics.listen", config.metrics.listen),
    ]
    .into_iter()
    .chain(further)
    .collect();
    for (index, (key, address)) in listeners.iter().enumerate() {
        let Some(address) = address else { continue };
        let earlier = listeners.iter().take(index);
        let clash = earlier
            .filter_map(|(name, other)| Some((name, (*other)?)))
            .find(|(_, other)| overlap(*address, *other));
        if let Some((name, other)) = clash {
            problem(
                collected,
                key,
                &format!("{address} is taken by {name} ({other})"),
            );
        }
    }
    let has_simple = config.mqtt.listen.is_some() || config.mqtt.plain_listen.is_some();
    let mut further = config.listeners.iter();
    if !has_simple && !further.any(|own| own.profile == Profile::Devices) {
        problem(
            collected,
            "mqtt.listen",
            "no device could connect: mqtt.plain_listen is off as well",
        );
    }
}

/// One table of a listener by itself.
fn check_listener(name: &str, listener: &ListenerConfig, collected: &mut Collected) {
    let Some(address) = listener.address else {
        return problem(collected, name, "a listener needs an address");
    };
    if listener.certificate.is_some() && !listener.tls {
        let message = "of no use where tls is false";
        problem(collected, &format!("{name}.certificate"), message);
    }
    if listener.profile == Profile::Conformance {
        let key = format!("{name}.profile");
        if !address.ip().is_loopback() {
            let message =
                "conformance lets anyone in: it needs a loopback address such as 127.0.0.1";
            problem(collected, &key, message);
        }
        if !listener.proxy_protocol.is_empty() {
            let message = "conformance takes no connections of others: leave proxy_protocol out";
            problem(collected, &key, message);
        }
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (any || a.ip() == b.ip())
}

/// A PUBLISH around a chunk: fixed header, topic, packet id, chunk header.
const HEADER_BYTES: usize = 512;

/// Limits that contain one another.
fn check_limits(config: &Config, collected: &mut Collected) {
    let (mqtt, delivery, resources) = (&config.mqtt, &config.delivery, &config.resources);
    let uploads = &config.uploads;
    let contained = [
        (
            delivery.chunk_bytes + HEADER_BYTES <= mqtt.max_packet_bytes,
            "delivery.chunk_bytes",
            "a chunk with its header must fit mqtt.max_packet_bytes",
        ),
        (
            delivery.chunk_bytes <= delivery.window_bytes,
            "delivery.window_bytes",
            "must hold at least one chunk (delivery.chunk_bytes)",
        ),
        (
            delivery.window_bytes <= delivery.max_window_bytes_total,
            "delivery.max_window_bytes_total",
            "must hold at least one window (delivery.window_bytes)",
        ),
        (
            mqtt.max_connect_bytes <= mqtt.max_packet_bytes,
            "mqtt.max_connect_bytes",
            "must not be above mqtt.max_packet_bytes",
        ),
        (
            mqtt.max_handshakes <= mqtt.max_connections,
            "mqtt.max_handshakes",
            "must not be above mqtt.max_connections",
        ),
        (
            delivery.max_task_rows <= delivery.max_open_deliveries,
            "delivery.max_task_rows",
            "must not be above delivery.max_open_deliveries",
        ),
        (
            resources.max_size_bytes <= resources.max_total_bytes,
            "resources.max_size_bytes",
            "must not be above resources.max_total_bytes",
        ),
        (
            uploads.chunk_bytes + HEADER_BYTES <= mqtt.max_packet_bytes,
            "uploads.chunk_bytes",
            "a chunk with its header must fit mqtt.max_packet_bytes",
        ),
        (
            uploads.chunk_bytes <= uploads.window_bytes,
            "uploads.window_bytes",
            "must hold at least one chunk (uploads.chunk_bytes)",
        ),
        (
            uploads.max_size_bytes <= uploads.max_bytes_per_device,
            "uploads.max_size_bytes",
            "must not be above uploads.max_bytes_per_device",
        ),
        (
            uploads.max_bytes_per_device <= uploads.max_total_bytes,
            "uploads.max_bytes_per_device",
            "must not be above uploads.max_total_bytes",
        ),
        (
            delivery.slot_hold <= delivery.step_timeout,
            "delivery.slot_hold",
            "must not be above delivery.step_timeout",
        ),
    ];
    let http_idle = config
        .http
        .body_idle_timeout
        .max(config.http.header_timeout);
    let contained = contained.into_iter().chain([(
        config.applications.stream_keep_alive < http_idle,
        "applications.stream_keep_alive",
        "must be below http.body_idle_timeout, which ends a stream without bytes",
    )]);
    for (holds, key, message) in contained {
        if !holds {
            problem(collected, key, message);
        }
    }
}

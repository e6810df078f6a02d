use super::*;

#[test]
fn everything_is_rendered_under_its_name() {
    let metrics = Metrics::new();
    metrics.connections_mqtt.secret.set(3);
    metrics.disconnects(DisconnectReason::Takeover).inc();
    metrics.messages_dropped(DropReason::OutboxFull).inc();
    metrics.packets_in(3).inc();
    metrics.packets_out(4).inc_by(2);
    metrics
        .store_seconds("registry", "device_by_id")
        .observe(0.002);
    let text = metrics.render();
    for line in [
        "headgate_connections{auth=\"secret\",protocol=\"mqtt\"} 3",
        "headgate_disconnects_total{protocol=\"mqtt\",reason=\"takeover\"} 1",
        "headgate_disconnects_total{protocol=\"mqtt\",reason=\"keep_alive\"} 0",
        "headgate_messages_dropped_total{reason=\"outbox_full\"} 1",
        "headgate_packets_total{direction=\"in\",protocol=\"mqtt\",type=\"publish\"} 1",
        "headgate_packets_total{direction=\"out\",protocol=\"mqtt\",type=\"puback\"} 2",
        "headgate_store_seconds_count{operation=\"device_by_id\",store=\"registry\"} 1",
        "headgate_registration_rows_total{result=\"created\"} 0",
        "headgate_registration_batches{state=\"waiting\"} 0",
        "headgate_draining 0",
        "headgate_delivery_chunks_total{protocol=\"mqtt\",result=\"sent\"} 0",
        "headgate_bytes_total{direction=\"out\",protocol=\"files\"} 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

#[test]
fn the_process_is_described() {
    let metrics = Metrics::new();
    let value = |text: &str, name: &str| -> f64 {
        let prefix = format!("{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.expect(name).parse().expect("a number")
    };
    let text = metrics.render();
    assert!(value(&text, "process_resident_memory_bytes") > 1_000_000.0);
    assert!(value(&text, "process_open_fds") >= 3.0);
    assert!(value(&text, "process_max_fds") >= 64.0);
    assert!(value(&text, "process_threads") >= 1.0);
    assert!(value(&text, "process_start_time_seconds") > 1.6e9);
    let first = value(&text, "process_cpu_seconds_total");
    assert!(value(&metrics.render(), "process_cpu_seconds_total") >= first);
}

#[test]
fn every_label_has_its_own_child() {
    for (index, reason) in DisconnectReason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), index);
    }
    for (index, reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), index);
    }
}

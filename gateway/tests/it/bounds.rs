//! What a client may ask of a connection, and that it gets no more: sizes, counts, quotas.

use std::num::{NonZeroU16, NonZeroU32};

use headgate_protocol::mqtt::{
    Packet, Properties,
    ProtocolVersion::{V5, V311},
    QoS, ReasonCode,
};
use serde_json::json;
use tokio::net::TcpStream;

use super::harness::{Client, Device, Gateway, Login, connect, content, publish, until};

/// A session of MQTT 5 with these properties in its CONNECT, that listens at QoS 1.
async fn listening_with(gateway: &Gateway, device: &Device, properties: Properties) -> Client {
    let packet = connect(&Login::of(device).over(V5));
    let Packet::Connect(mut connect) = packet else {
        unreachable!("made as CONNECT")
    };
    connect.properties = Some(Box::new(properties));
    let mut client = Client::open(gateway).await;
    client.speak(V5);
    client.send(&Packet::Connect(connect)).await;
    assert_eq!(client.connack().await.reason, ReasonCode::Success);
    let (down, chunks) = (device.down(), device.chunks());
    client.subscribe(&[&down, &chunks], QoS::AtLeastOnce).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_any_size_and_cut_come_back_whole() {
    let gateway = Gateway::start().await;
    let devices = gateway.devices(["d1", "d2", "d3"]).await;
    let rounds = devices
        .iter()
        .zip([17, 1_000, 40_000])
        .map(async |(device, cut)| {
            let mut client = Client::log_in(&gateway, &Login::of(device)).await;
            let own = format!("P/{}/echo", device.node);
            client.subscribe(&[&own], QoS::AtMostOnce).await;
            let noise = content(260_000);
            for size in [0, 1, 100, 8_100, 8_192, 16_400, 70_000, 250_000, 3] {
                // Three at once, so that the end of one and the beginning of the next come together.
                let sent = [&noise[..size], &noise[1..=size], &noise[2..size + 2]];
                let mut bytes = bytes::BytesMut::new();
                for payload in sent {
                    let packet = publish(&own, payload, None);
                    packet.encode(V311, &mut bytes).expect("encoded");
                }
                let cut = cut.max(bytes.len() / 500);
                for part in bytes.chunks(cut) {
                    client.send_bytes(part).await;
                }
                for payload in sent {
                    let message = client.message().await;
                    assert!(message.payload == payload, "{size} in parts of {cut}");
                }
            }
        });
    futures_util::future::join_all(rounds).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_no_packet_larger_than_it_takes() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let resource = gateway.resource("P", "r", &content(10_000)).await;
    gateway.task(&resource, &[&device]).await;
    let small = Properties {
        maximum_packet_size: NonZeroU32::new(300),
        ..Properties::default()
    };
    let mut client = listening_with(&gateway, &device, small).await;
    let ask = json!({"type": "get_download_task"});
    client.tell(&device, &ask).await;
    // The answer, with its URL, is larger than that. [MQTT-3.1.2-24]
    assert_eq!(client.ping().await, []);
    let dropped = r#"headgate_messages_dropped_total{reason="too_large"}"#;
    assert!(gateway.metric(dropped).await >= 1.0);

    let some = Properties {
        maximum_packet_size: NonZeroU32::new(2_000),
        ..Properties::default()
    };
    let mut client = listening_with(&gateway, &device, some).await;
    let transfer = client.announced().await.transfer;
    let ask = json!({"type": "get_chunks", "transfer": transfer, "offset": 0, "window": 1});
    let refused = client.exchange(&device, &ask).await;
    assert_eq!(refused["code"], "bad_request", "{refused}");
    let ask = json!({
        "type": "get_chunks", "transfer": transfer, "offset": 0, "window": 4,
        "chunk_size": 1_500,
    });
    client.tell(&device, &ask).await;
    let mut have = Vec::new();
    client.take_until(&mut have, 10_000).await;
    assert!(have == content(10_000), "the bytes differ");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receive_maximum_of_a_client_bounds_its_window() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let bytes = content(100_000);
    let resource = gateway.resource("P", "r", &bytes).await;
    gateway.task(&resource, &[&device]).await;
    let narrow = Properties {
        receive_maximum: NonZeroU16::new(2),
        ..Properties::default()
    };
    let mut client = listening_with(&gateway, &device, narrow).await;
    let transfer = client.announced().await.transfer;
    client.acknowledges = false;
    client.want(&device, &transfer, 0, 8).await;
    let first = [client.message().await, client.message().await];
    assert_eq!(client.ping().await, [], "two and no more");
    // A message waits behind them, and goes before the next chunk.
    let ask = json!({"type": "get_manifest", "transfer": transfer});
    client.tell(&device, &ask).await;
    assert_eq!(client.ping().await, []);
    client.acknowledges = true;
    for message in &first {
        client.acknowledge(message.packet_id.expect("QoS 1")).await;
    }
    assert_eq!(client.told().await["type"], "manifest");
    let mut have = [&first[0].payload[..], &first[1].payload[..]].concat();
    client.take_until(&mut have, bytes.len()).await;
    assert!(have == bytes, "the bytes differ");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_client_that_acknowledges_nothing_is_bounded() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::listening(&gateway, &device).await;
    client.acknowledges = false;
    let mut answers = 0;
    for _ in 0..400 {
        client
            .tell(&device, &json!({"type": "get_download_task"}))
            .await;
        answers += client.ping().await.len();
    }
    assert_eq!(answers, 64, "as many as may be under way");
    let dropped = r#"headgate_messages_dropped_total{reason="outbox_full"}"#;
    gateway.metric_is(dropped, 400.0 - 64.0 - 64.0).await;
    drop(client);
    gateway.metric_is("headgate_outbox_bytes", 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_more_than_may_be_is_closed_at_once() {
    let gateway = Gateway::with(|config| config.mqtt.max_connections = 2).await;
    let [device] = gateway.devices(["d1"]).await;
    let first = Client::log_in(&gateway, &Login::of(&device)).await;
    let second = Client::open(&gateway).await;
    let address = gateway.ports.mqtts.expect("a listener");
    let mut third = TcpStream::connect(address).await.expect("it listens");
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut third, &mut byte).await;
    assert_eq!(read.unwrap_or(0), 0, "closed");
    let refused = r#"headgate_connect_attempts_total{outcome="over_limit",protocol="mqtt"}"#;
    gateway.metric_is(refused, 1.0).await;
    drop((first, second));
    // Their places are free again.
    until("a place", || async {
        let mut tcp = TcpStream::connect(address).await.ok()?;
        let mut byte = [0];
        let waiting = tokio::io::AsyncReadExt::read(&mut tcp, &mut byte);
        let closed = tokio::time::timeout(std::time::Duration::from_millis(200), waiting).await;
        closed.is_err().then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_a_device_that_reads_nothing_are_bounded_and_none_is_lost() {
    const QUESTIONS: usize = 2_000;
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let resource = gateway.resource("P", "r", &content(8 << 20)).await;
    gateway.task(&resource, &[&device]).await;
    let mut client = Client::open_narrow(&gateway).await;
    assert_eq!(
        client.introduce(&Login::of(&device)).await.reason,
        ReasonCode::Success
    );
    // At QoS 0 no Receive Maximum holds the answers back.
    client.subscribe(&[&device.down()], QoS::AtMostOnce).await;
    client.subscribe(&[&device.chunks()], QoS::AtMostOnce).await;
    let transfer = client.announced().await.transfer;
    // More bytes than any socket's buffers hold, so that what follows waits in the gateway.
    let flood = json!({
        "type": "get_chunks", "transfer": transfer, "offset": 0, "count": 64,
        "chunk_size": 131_072,
    });
    client.tell(&device, &flood).await;
    gateway.metric_is("headgate_paused_connections", 1.0).await;
    let ask = json!({"type": "get_manifest", "transfer": transfer, "from": 0, "count": 64});
    let mut questions = bytes::BytesMut::new();
    for _ in 0..QUESTIONS {
        let packet = publish(&device.up(), ask.to_string().as_bytes(), None);
        packet.encode(V311, &mut questions).expect("encoded");
    }
    client.send_bytes(&questions).await;
    let waiting = until("answers wait", async || {
        let bytes = gateway.metric("headgate_outbox_bytes").await;
        (bytes > 200_000.0).then_some(bytes)
    })
    .await;
    assert!(waiting < 300_000.0, "{waiting} bytes wait for one device");
    let mut manifests = 0;
    while manifests < QUESTIONS {
        let message = client.message().await;
        manifests += usize::from(message.topic.as_str() == device.down());
    }
    gateway.stop().await;
}

//! One delivery over two nodes and two wires: begun by MQTT at one, ended by CoAP over DTLS at the other, and back.

use std::time::{Duration, Instant};

use headgate_dtls::{Client as DtlsClient, ClientConfig, ClientOutput, Credential};
use headgate_protocol::coap::Szx;
use serde_json::json;
use tokio::{net::UdpSocket, time::timeout};

use super::{Cluster, has};
use crate::harness::{Client, Coap, Device, Gateway, content, json_of, until};

const SIZE: usize = 200_000;
/// Where wire and node are changed: chunks of MQTT are 15 blocks.
const HALF: usize = 92_160;
const PATIENCE: Duration = Duration::from_secs(30);

/// Two nodes, and a device that may come to each by either wire, with a delivery.
async fn stage(cluster: &mut Cluster, bytes: &[u8]) -> (Gateway, Gateway, Device, String) {
    let secured = [("HEADGATE__COAPS__LISTEN", "127.0.0.1:0".to_owned())];
    let (a, b) = (
        cluster.node_with("a", &secured).await,
        cluster.node_with("b", &secured).await,
    );
    let device = a.two_wired().await;
    let resource = a.resource("W", "firmware", bytes).await;
    let task = b.task(&resource, &[&device]).await;
    (a, b, device, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_began_by_mqtt_at_one_node_ends_by_coap_at_the_other() {
    let mut cluster = Cluster::new();
    let bytes = content(SIZE);
    let (a, b, device, task) = stage(&mut cluster, &bytes).await;
    let mut client = Client::listening(&a, &device).await;
    let announced = client.announced().await;
    client.want(&device, &announced.transfer, 0, 2).await;
    let mut have = Vec::new();
    client.take_until(&mut have, HALF).await;
    client.ping().await;
    drop(client);
    // How far it is is written down when its connection is gone.
    has(&b, "a", "devices", 0).await;
    until("a checkpoint", || async {
        (cluster.stores.redis.command(&["HLEN", "{headgate}:cursor"]) == "1").then_some(())
    })
    .await;
    let mut coap = Coap::secure(&b, "w1", &device.secret).await;
    coap.register("w1").await;
    let told = waits(&mut coap).await;
    assert_eq!(told["transfer"], json!(announced.transfer), "the same one");
    assert!(told["acked"].as_u64() >= Some(61_440), "{told}");
    have.truncate(HALF);
    coap.take_rest(&announced.transfer, have, &bytes).await;
    for node in [&a, &b] {
        node.delivery_in("delivered", &task, &device).await;
    }
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_began_by_coap_at_one_node_ends_by_mqtt_at_the_other() {
    let mut cluster = Cluster::new();
    let bytes = content(SIZE);
    let (a, b, device, task) = stage(&mut cluster, &bytes).await;
    let mut coap = Coap::secure(&a, "W_w1", &device.secret).await;
    coap.register("w1").await;
    let told = waits(&mut coap).await;
    let transfer = told["transfer"].as_str().expect("an id").to_owned();
    let mut have = coap.fetch(&transfer, (0, HALF as u64), Szx::MAX).await;

    let mut client = Client::listening(&b, &device).await;
    let announced = client.announced().await;
    assert_eq!(announced.transfer, transfer, "the same one");
    let at = have.len();
    client.want(&device, &transfer, at as u64, 8).await;
    client.take_until(&mut have, SIZE).await;
    assert!(have == bytes, "other bytes");
    // What went out at the other node is written down there within a moment.
    let mut receipt = client.report(&device, &transfer, "done").await;
    while receipt["result_code"] == -1 && receipt["result_msg"].as_str().is_some_and(is_again) {
        receipt = client.report(&device, &transfer, "done").await;
    }
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    for node in [&a, &b] {
        node.delivery_in("delivered", &task, &device).await;
    }
    b.stop().await;
    a.stop().await;
}

fn is_again(told: &str) -> bool {
    told.starts_with("try again")
}

/// What the device is offered: a node that it has just come to looks it up first.
async fn waits(coap: &mut Coap) -> serde_json::Value {
    let asking = async {
        loop {
            let told = json_of(&coap.get("t").await);
            if !told["transfer"].is_null() {
                return told;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("an offer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_id_tells_which_node_gave_it() {
    let mut cluster = Cluster::new();
    let (a, b, device, _) = stage(&mut cluster, b"bytes").await;
    let (at_a, at_b) = (numbered(&a, &device).await, numbered(&b, &device).await);
    assert!(at_a > 0 && at_b > 0 && at_a != at_b, "{at_a} and {at_b}");
    b.stop().await;
    a.stop().await;
}

/// The first two bytes of the Connection ID that a device is given: its records bear it, behind type, version and number.
async fn numbered(gateway: &Gateway, device: &Device) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = gateway.ports.coaps.expect("a CoAPS listener");
    socket.connect(address).await.expect("an address");
    let key = hex::decode(&device.secret).expect("hexadecimal").into();
    let credential = Credential::Psk {
        identity: device.node.clone().into_bytes(),
        key,
    };
    let config = ClientConfig {
        with_cid: true,
        ..ClientConfig::default()
    };
    let mut client = DtlsClient::connect(&config, &credential, Instant::now()).expect("a client");
    let mut datagram = [0; 2_048];
    loop {
        while let Some(output) = client.poll_output() {
            if let ClientOutput::Transmit(record) = output {
                socket.send(&record).await.expect("sent");
            }
        }
        if client.is_connected() {
            break;
        }
        let come = timeout(Duration::from_secs(10), socket.recv(&mut datagram)).await;
        let length = come.expect("an answer").expect("received");
        client.handle_datagram(Instant::now(), &datagram[..length]);
    }
    client
        .send(Instant::now(), &[0x40, 0, 0, 1])
        .expect("a session");
    let record = match client.poll_output() {
        Some(ClientOutput::Transmit(record)) => record,
        _ => Vec::default(),
    };
    assert_eq!(record.first(), Some(&25), "a record with a Connection ID");
    u16::from_be_bytes([record[11], record[12]])
}

//! The same bytes by HTTPS, as curl fetches them from the announced address.

use serde_json::json;

use super::{
    harness::{Client, Gateway, content, run},
    transfer::Scene,
};

/// What curl prints behind the body, and the body.
struct Fetched {
    status: u16,
    head: String,
    body: Vec<u8>,
}

async fn fetch(gateway: &Gateway, url: &str, more: &[&str]) -> Fetched {
    let ca = gateway.data_dir.join("tls/ca.pem");
    let ca = ca.to_str().expect("UTF-8");
    let mut arguments = vec!["-sS", "-i", "--cacert", ca, url];
    arguments.extend(more);
    let out = run("curl", &arguments).await.ok();
    let end = out.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = out.split_at(end.expect("a head") + 4);
    let head = String::from_utf8(head.to_vec()).expect("UTF-8");
    let status = head.split(' ').nth(1).expect("a status");
    Fetched {
        status: status.parse().expect("a number"),
        body: body.to_vec(),
        head,
    }
}

fn url_of(scene: &Scene) -> String {
    scene.announced.message["url"]
        .as_str()
        .expect("a URL")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_fetched_whole_and_in_ranges_and_done_is_believed() {
    let bytes = content(300_000);
    let mut scene = Scene::new(&bytes).await;
    let url = url_of(&scene);
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert!(url.len() < 1_000);
    for (range, expected) in [
        ("0-0", &bytes[..1]),
        ("100-61540", &bytes[100..=61_540]),
        ("299999-400000", &bytes[299_999..]),
        ("-5", &bytes[299_995..]),
    ] {
        let part = fetch(&scene.gateway, &url, &["-r", range]).await;
        assert_eq!(part.status, 206, "{}", part.head);
        assert!(part.body == expected, "{range}: wrong bytes");
    }
    let beyond = fetch(&scene.gateway, &url, &["-r", "300000-"]).await;
    assert_eq!(beyond.status, 416, "{}", beyond.head);

    // Some ranges are not the whole.
    let transfer = scene.transfer().to_owned();
    let report = json!({
        "type": "report_download_progress", "progress": {"state": "downloading", "percent": 10},
    });
    scene.client.exchange(&scene.device, &report).await;
    let whole = fetch(&scene.gateway, &url, &[]).await;
    assert_eq!(whole.status, 200);
    assert!(whole.body == bytes, "the bytes differ");
    assert!(
        whole.head.contains("\r\nContent-Length: 300000\r\n"),
        "{}",
        whole.head
    );
    assert!(whole.head.len() < 1_024);
    let receipt = scene.client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    assert_eq!(scene.state().await, "delivered");
    let after = fetch(&scene.gateway, &url, &[]).await;
    assert!((400..500).contains(&after.status), "{}", after.head);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_that_leave_a_gap_are_not_the_whole() {
    let mut scene = Scene::new(&content(300_000)).await;
    let url = url_of(&scene);
    for range in ["0-99999", "100001-"] {
        let part = fetch(&scene.gateway, &url, &["-r", range]).await;
        assert_eq!(part.status, 206);
    }
    let transfer = scene.transfer().to_owned();
    let receipt = scene.client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], -1, "{receipt}");
    assert_eq!(scene.state().await, "failed");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_was_forged_or_cancelled_opens_nothing() {
    let mut scene = Scene::new(&content(300_000)).await;
    let url = url_of(&scene);
    let (front, token) = url.rsplit_once('/').expect("a path");
    let last = if token.ends_with('A') { 'B' } else { 'A' };
    let shortened: String = token.chars().take(token.len() - 1).collect();
    let mut flipped: Vec<char> = token.chars().collect();
    flipped[3] = if flipped[3] == 'A' { 'B' } else { 'A' };
    let flipped: String = flipped.into_iter().collect();
    let long = "A".repeat(2_000);
    for forged in [
        format!("{shortened}{last}"),
        shortened.clone(),
        flipped,
        long,
    ] {
        let answer = fetch(&scene.gateway, &format!("{front}/{forged}"), &[]).await;
        assert_eq!(answer.status, 403, "{forged}: {}", answer.head);
        assert!(answer.body.len() < 1_000);
    }
    let path = format!("/deliveries/{}/cancel", scene.transfer());
    scene.gateway.act(&path).await;
    let answer = fetch(&scene.gateway, &url, &[]).await;
    assert_eq!(answer.status, 403, "{}", answer.head);
    assert_eq!(scene.client.told().await["type"], "cancel_download");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_outlives_a_restart() {
    let bytes = content(100_000);
    let scene = Scene::new(&bytes).await;
    let url = url_of(&scene);
    let (_, token) = url.rsplit_once('/').expect("a path");
    let dir = scene.gateway.stop().await;
    let gateway = Gateway::start_in(dir, |_| {}).await;
    let address = gateway.ports.files.expect("a listener");
    let url = format!("https://{address}/files/{token}");
    let whole = fetch(&gateway, &url, &[]).await;
    assert!(whole.status == 200 && whole.body == bytes, "{}", whole.head);
    let mut client = Client::listening(&gateway, &scene.device).await;
    let transfer = client.announced().await.transfer;
    let receipt = client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    gateway.stop().await;
}

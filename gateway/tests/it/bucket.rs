//! A gateway whose bytes are in a bucket.

use headgate::config::{Config, Secret};
use rustix::process::Signal;

use super::{
    harness::{Client, Gateway, S3, content, until},
    transfer::Scene,
};

fn keep_in(config: &mut Config, service: &S3) {
    config.blobs.url = Some(Secret::new("s3://firmware/gateway".to_owned()));
    config.blobs.endpoint = Some(service.endpoint());
    config.blobs.access_key_id = Some("key".to_owned());
    config.blobs.secret_access_key = Some(Secret::new("hunter2".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_comes_out_of_it_after_a_restart() {
    let service = S3::start();
    let bytes = content(2_000_000);
    let gateway = Gateway::with(|config| keep_in(config, &service)).await;
    let scene = Scene::in_gateway(gateway, &bytes).await;
    let objects = service
        .ask("GET", "/firmware?list-type=2")
        .expect("an answer");
    assert_eq!(objects.matches("<Key>gateway/").count(), 2, "{objects}");
    let dir = scene.gateway.stop().await;
    let files = std::fs::read_dir(dir.path().join("data/blobs"));
    assert_eq!(files.map_or(0, Iterator::count), 0);

    let gateway = Gateway::start_in(dir, |config| keep_in(config, &service)).await;
    let mut client = Client::listening(&gateway, &scene.device).await;
    let announced = client.announced().await;
    let got = client.take_all(&scene.device, &announced).await;
    assert!(got == bytes, "the bytes differ");
    let report = client.report(&scene.device, &announced.transfer, "done");
    assert_eq!(report.await["result_code"], 0);
    // Nothing is left of one that is deleted.
    let path = format!("/resources/{}", scene.resource);
    gateway.api(hyper::Method::DELETE, &path, None).await;
    until("one object", || async {
        let objects = service.ask("GET", "/firmware?list-type=2")?;
        (objects.matches("<Key>gateway/").count() == 1).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_away_is_told_and_a_delivery_goes_on_when_it_is_back() {
    let service = S3::start();
    let bytes = content(300_000);
    let gateway = Gateway::with(|config| keep_in(config, &service)).await;
    let mut scene = Scene::in_gateway(gateway, &bytes).await;
    service.signal(Signal::STOP);
    until("not ready", || async {
        let told = scene.gateway.ops("/readyz").await;
        (told.status == 503 && told.text().contains("blobs")).then_some(())
    })
    .await;
    scene
        .gateway
        .metric_is(r#"headgate_store_up{store="blobs"}"#, 0.0)
        .await;
    service.signal(Signal::CONT);
    let got = scene.client.take_all(&scene.device, &scene.announced).await;
    assert!(got == bytes, "the bytes differ");
    until("ready", || async {
        (scene.gateway.ops("/readyz").await.status == 200).then_some(())
    })
    .await;
    scene.gateway.stop().await;
}

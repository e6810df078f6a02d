//! Whole runs against the fake, MQTT and API.

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};
use crate::content::Content;
use crate::fake::api::FakeApi;
use crate::fake::{Fake, Fault};

mod coap;

async fn run(api: &FakeApi, fault: Fault, line: &str) -> Result<Report, RunError> {
    let content = Content::generated(1, 100_000).unwrap();
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut content.reader(), &mut bytes).unwrap();
    let fake = Fake::named(content.resource_name(), bytes, fault, None).await;
    let line = format!(
        "swarm {line} --plain --host 127.0.0.1 --port {} --http-url http://{} --token token",
        fake.address.port(),
        api.address
    );
    let cli = Cli::parse_from(line.split_ascii_whitespace());
    crate::scenario::run(&cli.command, CancellationToken::new()).await
}

#[tokio::test]
async fn a_run_removes_what_it_made() {
    let api = FakeApi::start().await;
    api.made.lock().busy = 1;
    let report = run(&api, Fault::None, "deliver -c 7 --size 100000")
        .await
        .unwrap();
    assert!(report.ok, "{report}");
    assert!(report.errors.is_empty(), "{report}");
    let delivery = report.delivery.unwrap();
    assert_eq!(delivery.bytes, 700_000);
    assert_eq!(delivery.gateway_counts.unwrap()["delivered"], 7);
    let made = api.made.lock();
    // A product, seven devices, a resource and a task; tasks are the gateway's own record.
    assert_eq!((made.posts, made.deletes), (10, 9));
    assert!(
        made.items.keys().all(|key| key.starts_with("tasks/")),
        "{:?}",
        made.items.keys()
    );
}

#[tokio::test]
async fn devices_take_what_somebody_else_delivers() {
    let api = FakeApi::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let content = Content::generated(1, 100_000).unwrap();
    io::copy(&mut content.reader(), &mut file.as_file()).unwrap();
    let line = format!("deliver -c 3 --wait --file {}", file.path().display());
    let report = run(&api, Fault::None, &line).await.unwrap();
    assert!(report.ok, "{report}");
    let delivery = report.delivery.unwrap();
    assert_eq!(delivery.bytes, 300_000);
    assert_eq!(delivery.gateway_counts, None);
    // A product and three devices, which whoever delivers may want to look at.
    let made = api.made.lock();
    assert_eq!((made.posts, made.deletes), (4, 0));
}

#[tokio::test]
async fn keep_makes_the_next_run_find_everything() {
    let api = FakeApi::start().await;
    let line = "deliver -c 7 --size 100000 --keep";
    assert!(run(&api, Fault::None, line).await.unwrap().ok);
    assert_eq!(api.made.lock().posts, 10);
    assert!(run(&api, Fault::None, line).await.unwrap().ok);
    assert_eq!(
        api.made.lock().posts,
        11,
        "a second run makes nothing but its task"
    );
    assert_eq!(api.made.lock().deletes, 0);
}

#[tokio::test]
async fn a_wrong_device_fails_the_run() {
    let api = FakeApi::start().await;
    let report = run(&api, Fault::WrongByte, "deliver -c 2 --size 100000")
        .await
        .unwrap();
    assert_eq!((report.ok, report.devices.wrong), (false, 2));
    assert!(api.made.lock().deletes > 0);
}

#[tokio::test]
async fn a_delivery_that_the_run_cancels_is_no_failure() {
    let api = FakeApi::start().await;
    let line = "deliver -c 3 --size 100000 --cancel-after 50ms";
    let report = run(&api, Fault::Mute, line).await.unwrap();
    assert!(report.ok, "{report}");
    assert_eq!((report.devices.ok, report.devices.left), (0, 3));
    assert!(report.errors.is_empty(), "{report}");
}

#[tokio::test]
async fn devices_connect_and_stay() {
    let api = FakeApi::start().await;
    let report = run(&api, Fault::None, "connect -c 5 -R 100 --hold 100ms")
        .await
        .unwrap();
    assert!(report.ok, "{report}");
    assert_eq!((report.connect.connected, report.devices.ok), (5, 5));
    // Five starts, 10 ms apart.
    assert!(report.connect.seconds >= 0.04, "{report}");
}

#[tokio::test]
async fn many_devices_are_made_by_one_batch() {
    let api = FakeApi::start().await;
    let line = "connect -c 500 -R 100000 --hold 10ms --keep";
    let report = run(&api, Fault::None, line).await.unwrap();
    assert!(report.ok, "{report}");
    let made = api.made.lock();
    assert_eq!(made.posts, 2, "a product and a batch");
    let devices = made.items.keys().filter(|key| key.starts_with("devices/"));
    assert_eq!(devices.count(), 500);
}

#[tokio::test]
async fn nobody_listening_is_told_in_words() {
    let api = FakeApi::start().await;
    let line =
        "swarm connect --plain -h 127.0.0.1 -p 1 --http-url http://127.0.0.1:1 --token token";
    let Command::Connect(args) = Cli::parse_from(line.split(' ')).command else {
        panic!("connect")
    };
    let error = connect::run(&args, CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("is the gateway running"),
        "{error}"
    );
    assert_eq!(api.made.lock().posts, 0);
}

#[tokio::test]
async fn devices_that_only_shake_hands_never_log_in() {
    let api = FakeApi::start().await;
    let fake = Fake::start(Vec::new(), Fault::None, None).await;
    let line = format!(
        "swarm connect -c 3 --hold 0s --handshake-only --plain -h 127.0.0.1 -p {} --http-url http://{} --token token",
        fake.address.port(),
        api.address
    );
    let Command::Connect(args) = Cli::parse_from(line.split(' ')).command else {
        panic!("connect")
    };
    let report = connect::run(&args, CancellationToken::new()).await.unwrap();
    assert!(report.ok, "{report:?}");
    assert!(fake.seen().logins.is_empty());
}

#[tokio::test]
async fn an_interrupt_ends_the_run_with_its_report() {
    let api = FakeApi::start().await;
    let fake = Fake::start(Vec::new(), Fault::None, None).await;
    let line = format!(
        "swarm connect -c 3 --hold 1h --plain -h 127.0.0.1 -p {} --http-url http://{} --token token",
        fake.address.port(),
        api.address
    );
    let Command::Connect(args) = Cli::parse_from(line.split(' ')).command else {
        panic!("connect")
    };
    let interrupt = CancellationToken::new();
    let (report, ()) = tokio::join!(connect::run(&args, interrupt.clone()), async {
        while fake.seen().logins.len() < 3 {
            tokio::task::yield_now().await;
        }
        interrupt.cancel();
    });
    let report = report.unwrap();
    assert!(report.interrupted && !report.ok);
    assert!(api.made.lock().items.is_empty());
}

#[tokio::test]
async fn a_gateway_that_gave_up_ends_the_run() {
    let api = FakeApi::start().await;
    let start = Instant::now();
    let report = run(&api, Fault::Mute, "deliver -c 2 --size 100000")
        .await
        .unwrap();
    assert_eq!((report.ok, report.devices.failed), (false, 2));
    assert_eq!(report.errors["gateway_gave_up"].count, 1);
    assert!(start.elapsed() < Duration::from_mins(1));
}

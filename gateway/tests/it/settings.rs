//! Settings that are read again at SIGHUP: with the certificates, or not at all.

use std::{fs, path::Path};

use hyper::Method;
use rustix::process::Signal;

use super::harness::{Answer, Authority, Client, Gateway, Login, Site, until};

const FAILED: &str = r#"headgate_tls_reloads_total{result="failed"}"#;

/// A gateway as a process, whose configuration and certificate are files below `files`.
async fn gateway(files: &Path, authority: &Authority) -> Gateway {
    certify(files, authority);
    write(files, "1", "info");
    let config = files.join("headgate.toml").display().to_string();
    let directory = tempfile::tempdir().expect("a directory");
    Gateway::process(directory, &[("HEADGATE_CONFIG", &config)]).await
}

fn certify(files: &Path, authority: &Authority) {
    let [certificate, key] = authority.server();
    fs::write(files.join("key.pem"), key).expect("written");
    fs::write(files.join("certificate.pem"), certificate).expect("written");
}

fn write(files: &Path, max_connections: &str, level: &str) {
    let files = files.display();
    let text = format!(
        "[log]\nlevel = \"{level}\"\n[mqtt]\nmax_connections = {max_connections}\nmax_handshakes = 1\n\
         max_handshakes_per_network = 1\n[tls]\nreload_interval = \"off\"\ncertificate = \"{files}/certificate.pem\"\nkey = \"{files}/key.pem\"\n"
    );
    fs::write(format!("{files}/headgate.toml"), text).expect("written");
}

/// Asks the node to look at its files, as an operator does.
async fn reload(gateway: &Gateway) -> Answer {
    let nodes = gateway.get("/nodes").await;
    let id = nodes["items"][0]["id"].as_str().expect("an id");
    let path = format!("/nodes/{id}/reload");
    gateway.api(Method::POST, &path, None).await
}

/// Who comes in beside those that are there.
async fn comes_in(site: &Site, authority: &Authority, login: &Login) -> Option<Client> {
    let mut client = Client::may_open(site, authority.trusted()).await?;
    client.introduce(login).await;
    Some(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_is_raised_and_lowered_while_devices_are_connected() {
    let files = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let gateway = gateway(files.path(), &authority).await;
    let [first, second, third] = gateway.devices(["d1", "d2", "d3"]).await;
    let first = comes_in(&gateway, &authority, &Login::of(&first)).await;
    let mut first = first.expect("the first place");
    let second = Login::of(&second);
    assert!(comes_in(&gateway, &authority, &second).await.is_none());

    write(files.path(), "2", "warn");
    gateway.signal(Signal::HUP);
    let beside = until("another place", || comes_in(&gateway, &authority, &second)).await;
    // One less than there are: nobody is sent away, and nobody comes.
    write(files.path(), "1", "warn");
    gateway.signal(Signal::HUP);
    drop(beside);
    let third = Login::of(&third);
    until("the lower bound", || async {
        let came = comes_in(&gateway, &authority, &third).await;
        came.is_none().then_some(())
    })
    .await;
    first.ping().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_be_used_leave_all_as_it_was() {
    let files = tempfile::tempdir().expect("a directory");
    let (old, new) = (Authority::new(), Authority::new());
    let gateway = gateway(files.path(), &old).await;
    let [first, second] = gateway.devices(["d1", "d2"]).await;
    let [first, second] = [&first, &second].map(Login::of);
    let _first = comes_in(&gateway, &old, &first).await.expect("a place");

    // A certificate that is good beside a setting that is not: what an operator asks for is told so.
    certify(files.path(), &new);
    write(files.path(), "0", "info");
    let asked = reload(&gateway).await;
    assert_eq!(asked.status, 409, "{}", asked.text());
    // Settings that are good beside a certificate that is not.
    write(files.path(), "5", "info");
    fs::write(files.path().join("certificate.pem"), "none").expect("written");
    assert_eq!(reload(&gateway).await.status, 409);
    gateway.metric_is(FAILED, 1.0).await;
    assert!(comes_in(&gateway, &old, &second).await.is_none());

    certify(files.path(), &new);
    assert_eq!(reload(&gateway).await.status, 200);
    assert!(comes_in(&gateway, &new, &second).await.is_some());
    gateway.stop().await;
}

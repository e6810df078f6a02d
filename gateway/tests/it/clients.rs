//! Delivery by hand: what the README shows is run as it stands there, with the clients that people
//! have.

use std::fs;

use serde_json::Value;

use super::harness::{Gateway, need, run, sha256};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
const SECTION: &str = "\n## The same by hand\n";

/// The commands of the README's section, one block after the other.
fn commands() -> String {
    let readme = fs::read_to_string(README).expect("a README");
    let (_, rest) = readme.split_once(SECTION).expect("the section");
    let (section, _) = rest.split_once("\n## ").expect("another section");
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .collect()
}

/// Puts this test's own place where the README has the usual one.
fn placed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the README no longer says {from}");
    text.replace(from, to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_readme_shows_by_hand_delivers_a_resource() {
    for program in ["mosquitto_sub", "mosquitto_rr", "mosquitto_pub", "curl"] {
        need(program);
    }
    let gateway = Gateway::start().await;
    let work = tempfile::tempdir().expect("a directory");
    let data = format!("DATA={}", gateway.data_dir.display());
    let api = gateway.ports.http.expect("a listener").to_string();
    let port = gateway.ports.mqtts.expect("a listener").port();
    let script = placed(&commands(), "DATA=~/.local/state/headgate", &data);
    let script = placed(&script, "127.0.0.1:8080", &api);
    let script = placed(&script, "-p 8883", &format!("-p {port}"));
    let path = work.path().join("by-hand.sh");
    let cd = format!("set -eu -o pipefail\ncd {}\n", work.path().display());
    fs::write(&path, cd + &script).expect("written");
    let ran = run("bash", &[path.to_str().expect("UTF-8")]).await;
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.success, "{printed}\n{}", ran.stderr);

    let read = |name: &str| fs::read(work.path().join(name)).expect(name);
    let firmware = read("firmware.bin");
    assert!(read("by-mqtt.bin") == firmware, "by MQTT: other bytes");
    assert!(read("by-https.bin") == firmware, "by HTTPS: other bytes");
    let download: Value = serde_json::from_slice(&read("download.json")).expect("JSON");
    assert_eq!(download["type"], "download");
    assert_eq!(download["sha256"], sha256(&firmware));
    let transfer = download["transfer"].as_str().expect("an id");
    let delivery = gateway.get(&format!("/deliveries/{transfer}")).await;
    assert_eq!(delivery["state"], "delivered", "{printed}");
    let digest = sha256(&firmware);
    assert_eq!(printed.matches(&*digest).count(), 5, "{printed}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_says_why_it_was_not_let_in() {
    need("mosquitto_sub");
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let port = gateway.ports.mqtts.expect("a listener").port().to_string();
    let ca = gateway.data_dir.join("tls/ca.pem").display().to_string();
    let attempt = async |user: &str, secret: &str, version: &str, filter: &str| {
        let who = ["-h", "localhost", "-p", &port, "--cafile", &ca, "-u", user];
        let what = ["-P", secret, "-V", version, "-t", filter, "-W", "20"];
        run("mosquitto_sub", &[who, what].concat()).await
    };
    for (version, said) in [
        ("mqttv311", "bad user name or password"),
        ("mqttv5", "Not authorized"),
    ] {
        for user in [&*device.id, "P_d9"] {
            let refused = attempt(user, "wrong-secret", version, "x").await;
            assert!(!refused.success);
            assert!(
                refused.stderr.contains(said),
                "{version}: {}",
                refused.stderr
            );
        }
        let foreign = attempt(&device.id, &device.secret, version, "P/d2/#").await;
        assert!(
            foreign.stderr.contains("denied"),
            "{version}: {}",
            foreign.stderr
        );
    }
    gateway.stop().await;
}

//! Rules and dashboard: what they ask for exists, and Prometheus takes them.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header::HOST};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{deploy, yaml};
use crate::harness::{Gateway, fetch, library_or_path, run, until};

/// What a histogram's family has beside its name.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Names of metrics in an expression or a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| {
            ["headgate_", "process_", "tokio_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        })
        .map(|word| {
            let stem = SUFFIXES.iter().find_map(|suffix| word.strip_suffix(suffix));
            stem.filter(|stem| stem.ends_with("_seconds") || stem.ends_with("_bytes"))
                .unwrap_or(word)
                .to_owned()
        })
        .collect()
}

/// The families of a live node.
async fn families() -> BTreeSet<String> {
    let gateway = Gateway::start().await;
    let page = gateway.ops("/metrics").await.text().to_owned();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// Every value of `expr` in a JSON document.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(
                fields
                    .get("expr")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            fields.values().for_each(|field| expressions(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let families = families().await;
    let dashboard = fs::read(deploy("grafana/headgate.json")).expect("the dashboard");
    let dashboard = serde_json::from_slice(&dashboard).expect("JSON");
    let rules = yaml(&deploy("prometheus/headgate.rules.yaml")).await;
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    expressions(&Value::Array(rules), &mut asked);
    assert!(asked.len() > 40, "{}", asked.len());
    let asked: BTreeSet<_> = asked
        .iter()
        .flat_map(|expression| names(expression))
        .collect();
    let unknown: Vec<_> = asked.difference(&families).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[tokio::test]
async fn every_metric_is_documented_and_no_other() {
    let families = families().await;
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(text).expect("docs/metrics.md");
    let documented = names(&text);
    let missing: Vec<_> = families.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    let gone: Vec<_> = documented.difference(&families).collect();
    assert!(gone.is_empty(), "only in docs/metrics.md: {gone:?}");
}

#[tokio::test]
async fn the_rules_of_the_operator_are_those_of_the_file() {
    let file = yaml(&deploy("prometheus/headgate.rules.yaml")).await;
    let object = yaml(&deploy("kubernetes/monitoring/prometheusrule.yaml")).await;
    assert_eq!(object[0]["spec"], file[0]);
    assert_eq!(object[0]["kind"], "PrometheusRule");
}

#[tokio::test]
async fn prometheus_takes_rules_and_configuration() {
    let promtool = library_or_path("prometheus/usr/bin/promtool", "promtool");
    let rules = deploy("prometheus/headgate.rules.yaml");
    run(
        &promtool,
        &["check", "rules", rules.to_str().expect("UTF-8")],
    )
    .await
    .ok();
    let config = deploy("prometheus/prometheus.yaml");
    run(
        &promtool,
        &["check", "config", config.to_str().expect("UTF-8")],
    )
    .await
    .ok();
}

/// A Prometheus that is killed at the end of the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_a_node_and_finds_what_the_rules_look_for() {
    let gateway = Gateway::start().await;
    let target = gateway.ports.metrics.expect("the metrics listener");
    let directory = tempfile::tempdir().expect("a directory");
    let config = fs::read_to_string(deploy("prometheus/prometheus.yaml")).expect("the file");
    let config = config
        .replace("127.0.0.1:9464", &target.to_string())
        .replace("15s", "1s");
    let file = directory.path().join("prometheus.yaml");
    fs::write(&file, config).expect("written");
    let rules = "headgate.rules.yaml";
    fs::copy(
        deploy("prometheus").join(rules),
        directory.path().join(rules),
    )
    .expect("copied");
    let address = free_address();
    let program = library_or_path("prometheus/usr/bin/prometheus", "prometheus");
    let started = Command::new(program)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.path().join("data").display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _prometheus = Prometheus(started.expect("Prometheus runs"));
    let path = "/api/v1/query?query=sum(headgate_build_info%7Bjob%3D%22headgate%22%7D)";
    let value = until("a scrape", || async {
        let answer = ask(address, path).await?;
        let answer: Value = serde_json::from_slice(&answer).ok()?;
        let value = answer.pointer("/data/result/0/value/1")?;
        Some(value.as_str()?.to_owned())
    })
    .await;
    assert_eq!(value, "1");
    let rules = ask(address, "/api/v1/rules").await.expect("an answer");
    let rules: Value = serde_json::from_slice(&rules).expect("JSON");
    let loaded = rules["data"]["groups"][0]["rules"]
        .as_array()
        .expect("rules")
        .len();
    let file = yaml(&deploy("prometheus/headgate.rules.yaml")).await;
    assert_eq!(
        loaded,
        file[0]["groups"][0]["rules"]
            .as_array()
            .expect("rules")
            .len()
    );
}

/// What is answered, once something listens.
async fn ask(address: SocketAddr, path: &str) -> Option<Bytes> {
    TcpStream::connect(address).await.ok()?;
    let request = Request::builder()
        .uri(path)
        .header(HOST, address.to_string());
    let request = request.body(Full::default()).expect("a request");
    let answer = fetch(address, request).await;
    (answer.status == 200).then_some(answer.body)
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

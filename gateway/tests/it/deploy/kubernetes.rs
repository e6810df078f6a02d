//! The manifests: against the schemas of Kubernetes, and against each other.

use std::{collections::BTreeSet, fs, path::PathBuf};

use headgate::config::Config;
use serde_json::Value;

use super::{deploy, yaml};
use crate::harness::{library, run};

/// Both ways of running, each with what runs it.
const OVERLAYS: [(&str, &str); 2] = [("embedded", "StatefulSet"), ("cluster", "Deployment")];

/// A directory with a kustomization.
fn directory(name: &str) -> PathBuf {
    deploy("kubernetes").join(name)
}

/// The objects and the patches that a kustomization names; it names every file beside it.
async fn named(of: &str) -> (Vec<Value>, Vec<Value>) {
    let kustomization = yaml(&directory(of).join("kustomization.yaml"))
        .await
        .remove(0);
    let texts = |key: &str| -> Vec<String> {
        let all = kustomization[key].as_array().into_iter().flatten();
        all.filter_map(|item| item.as_str().or_else(|| item["path"].as_str()))
            .map(str::to_owned)
            .collect()
    };
    let (resources, patches) = (texts("resources"), texts("patches"));
    let files = fs::read_dir(directory(of)).expect("a directory");
    let files: BTreeSet<_> = files
        .map(|file| {
            file.expect("a file")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name != "kustomization.yaml")
        .collect();
    let listed = resources
        .iter()
        .chain(&patches)
        .filter(|name| !name.starts_with(".."));
    assert_eq!(listed.cloned().collect::<BTreeSet<_>>(), files, "{of}");
    let mut found = (Vec::new(), Vec::new());
    for name in resources.iter().filter(|name| !name.starts_with("..")) {
        found.0.extend(yaml(&directory(of).join(name)).await);
    }
    for name in patches {
        found.1.extend(yaml(&directory(of).join(name)).await);
    }
    found
}

fn name_of(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// What an overlay makes: its own objects and those of the base, patched.
async fn objects(overlay: &str) -> Vec<Value> {
    let (mut objects, _) = named("base").await;
    let (own, patches) = named(&format!("overlays/{overlay}")).await;
    objects.extend(own);
    for patch in patches {
        let name = name_of(&patch);
        let mut targets = objects.iter_mut().filter(|object| name_of(object) == name);
        let target = targets.next().expect("an object that is patched");
        merge(target, &patch);
    }
    objects
}

/// As a strategic merge does where no list is merged by its items' names.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["kind"] == kind)
        .expect(kind)
}

#[tokio::test]
async fn every_object_is_what_its_schema_asks_for() {
    let tool = library("python/bin/kubernetes-validate");
    let directory = tempfile::tempdir().expect("a directory");
    for (overlay, _) in OVERLAYS {
        for object in objects(overlay).await {
            let (kind, name) = name_of(&object);
            // JSON is YAML.
            let path = directory
                .path()
                .join(format!("{overlay}-{kind}-{name}.yaml"));
            fs::write(&path, object.to_string()).expect("written");
            let printed = run(&tool, &["--strict", path.to_str().expect("UTF-8")]).await;
            assert!(
                printed.success,
                "{overlay} {kind} {name}: {}",
                printed.stderr
            );
        }
    }
}

#[tokio::test]
async fn kustomize_makes_the_same_objects_where_it_is_installed() {
    let version = std::process::Command::new("kubectl")
        .args(["kustomize", "--help"])
        .output();
    if !version.is_ok_and(|output| output.status.success()) {
        return;
    }
    for (overlay, _) in OVERLAYS {
        let path = directory(&format!("overlays/{overlay}"));
        let made = run("kubectl", &["kustomize", path.to_str().expect("UTF-8")])
            .await
            .ok();
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), made).expect("written");
        let made = yaml(file.path()).await;
        let names = |objects: &[Value]| objects.iter().map(name_of).collect::<BTreeSet<_>>();
        assert_eq!(names(&made), names(&objects(overlay).await));
        let policies = (one(&made, "NetworkPolicy"), objects(overlay).await);
        assert_eq!(
            policies.0["spec"],
            one(&policies.1, "NetworkPolicy")["spec"]
        );
    }
}

#[tokio::test]
async fn the_configuration_in_the_manifests_is_one_that_the_program_takes() {
    let objects = objects("embedded").await;
    let config = one(&objects, "ConfigMap")["data"]["headgate.toml"].clone();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("headgate.toml");
    // The certificate comes from a secret of the cluster.
    let lines = config.as_str().expect("text").lines();
    let lines: Vec<_> = lines
        .filter(|line| !line.contains("/etc/headgate/tls/"))
        .collect();
    fs::write(&file, lines.join("\n")).expect("written");
    let arguments = ["config", "check", "--config", file.to_str().expect("UTF-8")];
    run(env!("CARGO_BIN_EXE_headgate"), &arguments).await.ok();
}

#[tokio::test]
async fn the_settings_of_the_cluster_are_keys_of_the_program() {
    let objects = objects("cluster").await;
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    let example = fs::read_to_string(deploy("headgate.example.toml")).expect("the example");
    for setting in container["env"].as_array().expect("settings") {
        let name = setting["name"].as_str().expect("text");
        let (section, key) = name
            .strip_prefix("HEADGATE__")
            .and_then(|name| name.split_once("__"))
            .expect("a key");
        let section = format!("\n[{}]\n", section.to_lowercase());
        let (_, rest) = example.split_once(&section).expect(name);
        let body = rest.split("\n[").next().expect("a section");
        assert!(
            body.contains(&format!("#{} = ", key.to_lowercase())),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_pod_has_the_time_that_its_drain_takes() {
    for (overlay, kind) in OVERLAYS {
        let objects = objects(overlay).await;
        let config = one(&objects, "ConfigMap")["data"]["headgate.toml"].clone();
        let config: toml::Table = config.as_str().expect("text").parse().expect("TOML");
        let seconds = |key: &str| -> u64 {
            let text = config["shutdown"][key].as_str().expect("a time");
            text.trim_end_matches('s').parse().expect("seconds")
        };
        let rate = config["shutdown"]["disconnect_rate"]
            .as_integer()
            .expect("a rate");
        let devices = Config::embedded("unused").mqtt.max_connections;
        let leaving = devices as u64 / rate.unsigned_abs();
        let pod = &one(&objects, kind)["spec"]["template"]["spec"];
        let before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
        let given = pod["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("seconds");
        let needed = before.expect("seconds") + seconds("drain_delay") + leaving + seconds("grace");
        assert!(given > needed, "{overlay}: {given} for {needed}");
    }
}

#[tokio::test]
async fn devices_keep_their_addresses_by_tcp_and_by_udp() {
    let objects = objects("cluster").await;
    let mut protocols = BTreeSet::new();
    for service in objects
        .iter()
        .filter(|object| object["spec"]["type"] == "LoadBalancer")
    {
        assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
        for port in service["spec"]["ports"].as_array().expect("ports") {
            protocols.insert(port["protocol"].as_str().unwrap_or("TCP").to_owned());
        }
    }
    assert_eq!(
        protocols,
        BTreeSet::from(["TCP".to_owned(), "UDP".to_owned()])
    );
}

#[tokio::test]
async fn gateways_go_rarely_and_one_at_a_time() {
    let objects = objects("cluster").await;
    let scaler = &one(&objects, "HorizontalPodAutoscaler")["spec"];
    let target = &scaler["scaleTargetRef"];
    assert_eq!(
        target["name"],
        one(&objects, "Deployment")["metadata"]["name"]
    );
    let down = &scaler["behavior"]["scaleDown"];
    assert!(down["stabilizationWindowSeconds"].as_u64() >= Some(1_800));
    assert_eq!(down["policies"][0]["value"], 1);
    let metric = scaler["metrics"][0]["pods"]["metric"]["name"]
        .as_str()
        .expect("a name");
    let documented = deploy("../docs/metrics.md");
    let documented = fs::read_to_string(documented).expect("the metrics");
    assert!(documented.contains(metric), "{metric}");
    let rolling = &one(&objects, "Deployment")["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(rolling["maxUnavailable"], 0);
}

#[tokio::test]
async fn services_probes_and_policies_name_ports_that_the_pod_has() {
    for (overlay, kind) in OVERLAYS {
        let objects = objects(overlay).await;
        let container = &one(&objects, kind)["spec"]["template"]["spec"]["containers"][0];
        let ports = container["ports"].as_array().expect("ports");
        let ports: BTreeSet<_> = ports
            .iter()
            .filter_map(|port| port["name"].as_str())
            .collect();
        let mut used = BTreeSet::new();
        for object in &objects {
            let of_services = object["spec"]["ports"].as_array();
            let of_policies = object["spec"]["ingress"].as_array();
            let of_policies = of_policies.into_iter().flatten().map(|rule| &rule["ports"]);
            let of_policies = of_policies.filter_map(Value::as_array).flatten();
            used.extend(
                of_services
                    .into_iter()
                    .flatten()
                    .filter_map(|port| port["targetPort"].as_str()),
            );
            used.extend(of_policies.filter_map(|port| port["port"].as_str()));
        }
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            used.extend(container[probe]["httpGet"]["port"].as_str());
        }
        assert_eq!(used, ports, "{overlay}");
    }
}

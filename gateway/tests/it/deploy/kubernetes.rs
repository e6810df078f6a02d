//! The manifests: against the schemas of Kubernetes, and against each other.

use std::{collections::BTreeSet, fs};

use headgate::config::Config;
use serde_json::Value;

use super::{deploy, yaml};
use crate::harness::{library, run};

/// The objects that a kustomization names, with the files that it names them by.
async fn objects(of: &str) -> Vec<(String, Value)> {
    let directory = deploy("kubernetes").join(of);
    let kustomization = yaml(&directory.join("kustomization.yaml")).await.remove(0);
    let named = kustomization["resources"].as_array().expect("resources");
    let named: BTreeSet<_> = named.iter().filter_map(Value::as_str).collect();
    let files = fs::read_dir(&directory).expect("a directory");
    let files: BTreeSet<_> = files
        .map(|file| {
            file.expect("a file")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name != "kustomization.yaml")
        .collect();
    assert_eq!(named, files.iter().map(String::as_str).collect());
    let mut objects = Vec::new();
    for file in files {
        let found = yaml(&directory.join(&file)).await;
        objects.extend(found.into_iter().map(|object| (file.clone(), object)));
    }
    objects
}

fn one<'a>(objects: &'a [(String, Value)], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|(_, object)| object["kind"] == kind);
    &found.next().expect(kind).1
}

#[tokio::test]
async fn every_manifest_is_what_its_schema_asks_for() {
    let tool = library("python/bin/kubernetes-validate");
    for (file, object) in objects("base").await {
        let path = deploy("kubernetes/base").join(&file);
        let printed = run(&tool, &["--strict", path.to_str().expect("UTF-8")]).await;
        assert!(
            printed.success,
            "{file} {}: {}",
            object["kind"], printed.stderr
        );
    }
}

#[tokio::test]
async fn the_configuration_in_the_manifests_is_one_that_the_program_takes() {
    let objects = objects("base").await;
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
async fn a_pod_has_the_time_that_its_drain_takes() {
    let objects = objects("base").await;
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
    let pod = &one(&objects, "StatefulSet")["spec"]["template"]["spec"];
    let given = pod["terminationGracePeriodSeconds"]
        .as_u64()
        .expect("seconds");
    assert!(given > seconds("drain_delay") + leaving + seconds("grace"));
}

#[tokio::test]
async fn services_probes_and_policies_name_ports_that_the_pod_has() {
    let objects = objects("base").await;
    let container = &one(&objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0];
    let ports = container["ports"].as_array().expect("ports");
    let ports: BTreeSet<_> = ports
        .iter()
        .filter_map(|port| port["name"].as_str())
        .collect();
    let mut used = BTreeSet::new();
    for (_, object) in &objects {
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
    assert_eq!(used, ports);
}

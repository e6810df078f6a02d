//! The image and the Compose file: read by a parser and against a schema of others, and held to this repository.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::{deploy, yaml};
use crate::harness::{library, run};

const PARSE: &str = "import json, sys; from dockerfile_parse import DockerfileParser; \
    print(json.dumps(DockerfileParser(fileobj=open(sys.argv[1], 'rb')).structure))";
const CHECK: &str = "import json, sys, yaml, jsonschema, importlib.util, pathlib; \
    spec = importlib.util.find_spec('compose'); \
    schema = pathlib.Path(spec.submodule_search_locations[0]) / 'config/compose_spec.json'; \
    jsonschema.validate(yaml.safe_load(open(sys.argv[1])), json.load(open(schema)))";

/// The instructions of the Dockerfile, each with its value.
async fn instructions() -> Vec<(String, String)> {
    let path = deploy("docker/Dockerfile");
    // A parser of Dockerfiles opens what it reads for writing too: it gets a copy.
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("Dockerfile");
    fs::copy(path, &copy).expect("copied");
    let python = library("deploy/bin/python");
    let program = PARSE.replace("'rb'", "'r+b'");
    let printed = run(&python, &["-c", &program, copy.to_str().expect("UTF-8")]).await;
    let structure: Vec<Value> = serde_json::from_slice(&printed.ok()).expect("JSON");
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    let steps = structure
        .iter()
        .map(|step| (text(step, "instruction"), text(step, "value")));
    steps.filter(|(name, _)| name != "COMMENT").collect()
}

fn values<'a>(steps: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let named = steps.iter().filter(|(step, _)| step == name);
    named.map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn the_image_copies_and_builds_what_is_there() {
    let steps = instructions().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut copied = BTreeSet::new();
    for copy in values(&steps, "COPY") {
        let mut words: Vec<_> = copy.split_ascii_whitespace().collect();
        let to = words.pop().expect("a destination");
        if words.first().is_some_and(|word| word.starts_with("--from")) {
            assert_eq!((words[1], to), ("/out/headgate", "/usr/bin/headgate"));
            continue;
        }
        for from in words {
            assert!(root.join(from).exists(), "{from}");
            copied.insert(from.to_owned());
        }
    }
    // Every member of the workspace: cargo reads them all, whichever it builds.
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    for member in manifest["workspace"]["members"]
        .as_array()
        .expect("members")
    {
        let member = member.as_str().expect("a path");
        let top = member.split('/').next().expect("a directory");
        assert!(copied.contains(top), "{member}");
    }
    let oldest = manifest["workspace"]["package"]["rust-version"]
        .as_str()
        .expect("a version");
    let builder = values(&steps, "FROM")[0];
    assert!(
        builder.starts_with(&format!("rust:{oldest}")),
        "{builder}: {oldest}"
    );
    let runs = values(&steps, "RUN").join(" ");
    assert!(
        runs.contains("cargo build --release --locked -p headgate "),
        "{runs}"
    );
    assert!(
        runs.contains("target/release/headgate /out/headgate"),
        "{runs}"
    );
}

#[tokio::test]
async fn the_image_runs_without_rights_and_says_how_it_is() {
    let steps = instructions().await;
    let last = steps
        .iter()
        .rposition(|(name, _)| name == "FROM")
        .expect("a stage");
    let stage = &steps[last..];
    assert_eq!(values(stage, "USER"), ["10001:10001"]);
    let exposed: BTreeSet<_> = values(stage, "EXPOSE")[0]
        .split(' ')
        .map(str::to_owned)
        .collect();
    for manifest in ["embedded/statefulset.yaml", "cluster/deployment.yaml"] {
        let workload = yaml(&deploy("kubernetes/overlays").join(manifest))
            .await
            .remove(0);
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsUser"], 10_001);
        let ports = pod["containers"][0]["ports"].as_array().expect("ports");
        let ports: BTreeSet<_> = ports
            .iter()
            .map(|port| {
                let protocol = port["protocol"].as_str().unwrap_or("TCP").to_lowercase();
                format!("{}/{protocol}", port["containerPort"])
            })
            .collect();
        assert_eq!(ports, exposed, "{manifest}");
    }
    assert!(
        values(stage, "HEALTHCHECK")[0].contains("9464")
            && values(stage, "HEALTHCHECK")[0].contains("/readyz")
    );
    // What the image is started with is a command line of the program.
    assert_eq!(values(stage, "ENTRYPOINT"), [r#"["/usr/bin/headgate"]"#]);
    let command: Vec<String> = serde_json::from_str(values(stage, "CMD")[0]).expect("JSON");
    assert_eq!(command[..2], ["serve", "--data-dir"]);
}

#[tokio::test]
async fn the_check_of_the_image_asks_a_gateway_that_is_ready() {
    let steps = instructions().await;
    let check = values(&steps, "HEALTHCHECK")[0]
        .split_once("CMD ")
        .expect("a command")
        .1;
    let command: Vec<String> = serde_json::from_str(check).expect("JSON");
    let gateway = crate::harness::Gateway::start().await;
    let port = gateway.ports.metrics.expect("a port").port().to_string();
    let ours = command[2].replace("9464", &port);
    run("bash", &["-c", &ours]).await.ok();
    let nobody = command[2].replace("9464", "1");
    assert!(!run("bash", &["-c", &nobody]).await.success);
}

#[tokio::test]
async fn the_compose_file_is_one_and_its_settings_are_the_programs() {
    let path = deploy("docker/compose.yaml");
    let python = library("deploy/bin/python");
    let arguments = ["-c", CHECK, path.to_str().expect("UTF-8")];
    run(&python, &arguments).await.ok();
    let compose = yaml(&path).await.remove(0);
    for node in ["node1", "node2"] {
        let service = &compose["services"][node];
        let context = deploy("docker").join(service["build"]["context"].as_str().expect("a path"));
        let dockerfile = service["build"]["dockerfile"].as_str().expect("a path");
        assert!(context.join(dockerfile).exists());
        let environment = service["environment"].as_object().expect("settings");
        let mut settings: Vec<_> = environment
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().expect("text").to_owned()))
            .collect();
        settings.sort();
        let directory = tempfile::tempdir().expect("a directory");
        let mut arguments = vec!["-i".to_owned(), "PATH=/usr/bin:/bin".to_owned()];
        arguments.extend(settings.iter().map(|(key, value)| format!("{key}={value}")));
        arguments.push(env!("CARGO_BIN_EXE_headgate").to_owned());
        let data = directory.path().to_str().expect("UTF-8");
        arguments.extend(["config", "check", "--data-dir", data].map(str::to_owned));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run("env", &arguments).await.ok();
        let after = service["depends_on"].as_object().expect("services");
        for name in after.keys() {
            assert!(compose["services"][name].is_object(), "{name}");
        }
    }
}

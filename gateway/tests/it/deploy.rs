//! What is in `deploy/`: read by the tools that its users have, and held to what the program does.

mod containers;
mod kubernetes;
mod monitoring;
mod systemd;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::harness::{library, run};

/// A file or directory of `deploy/`.
fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}

/// The documents of a YAML file.
async fn yaml(path: &Path) -> Vec<Value> {
    const READ: &str = "import json, sys, yaml; \
        print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let python = library("python/bin/python");
    let printed = run(&python, &["-c", READ, path.to_str().expect("UTF-8")]).await;
    serde_json::from_slice(&printed.ok()).expect("JSON")
}

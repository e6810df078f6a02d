//! The tables of `docs/conformance.md` and `docs/coap-conformance.md`: every row has a test or a reason, and every test is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Normative statements that the standards number: MQTT 5.0, MQTT 3.1.1, and the rows of failures
/// of other software.
const SECTIONS: [&str; 3] = [
    "## MQTT 5.0",
    "## MQTT 3.1.1",
    "## Known failures of others",
];

#[test]
fn every_row_names_tests_that_are_there_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/conformance.md")).expect("the table");
    let mut sources = BTreeMap::new();
    for dir in [
        "protocol/src",
        "gateway/src",
        "gateway/dtls/src",
        "gateway/tests",
    ] {
        read_sources(&root.join(dir), &mut sources);
    }
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let mut section = "";
    for line in text.lines() {
        if let Some(known) = SECTIONS.iter().find(|known| line.starts_with(**known)) {
            section = known;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, clause, _, .., tests, _] = &cells[..] else {
            continue;
        };
        if !clause.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        if !seen.insert((section, (*clause).to_owned())) {
            wrong.push(format!("{section} {clause}: twice"));
        }
        if tests.is_empty() {
            wrong.push(format!("{section} {clause}: neither a test nor a reason"));
        }
        let named = tests.split('`').skip(1).step_by(2);
        for name in named.filter(|name| name.contains("::")) {
            if !exists(name, &sources) {
                wrong.push(format!("{section} {clause}: there is no {name}"));
            }
        }
    }
    let counted = |section: &str| seen.iter().filter(|(of, _)| *of == section).count();
    let counts = SECTIONS.map(counted);
    println!("clauses of MQTT 5.0 and 3.1.1, failures of others: {counts:?}");
    assert!(
        counts[0] > 200 && counts[1] > 120 && counts[2] == 26,
        "{counts:?}"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_description_of_coap_names_tests_that_are_there_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/coap-conformance.md")).expect("the table");
    let mut sources = BTreeMap::new();
    for dir in [
        "protocol/src",
        "gateway/src",
        "gateway/tests",
        "gateway/dtls/src",
    ] {
        read_sources(&root.join(dir), &mut sources);
    }
    let (mut descriptions, mut purposes) = (BTreeSet::new(), BTreeSet::new());
    let mut inputs = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut is_of_inputs = false;
    for line in text.lines() {
        if line.starts_with("## ") {
            is_of_inputs = line == "## Bad input";
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, tests, seen) = match &cells[..] {
            [_, name, _, tests, _] if name.starts_with("TD_COAP_") => {
                (name, tests, &mut descriptions)
            }
            [_, name, _, tests, _]
                if name.starts_with("MessageFormat_") || name.starts_with("Server_") =>
            {
                (name, tests, &mut purposes)
            }
            [_, name, tests, _] if is_of_inputs && tests.contains("::") => {
                (name, tests, &mut inputs)
            }
            _ => continue,
        };
        if !seen.insert((*name).to_owned()) || tests.is_empty() {
            wrong.push(format!("{name}: twice, or neither a test nor a reason"));
        }
        let named = tests.split('`').skip(1).step_by(2);
        for test in named.filter(|test| test.contains("::")) {
            if !exists(test, &sources) {
                wrong.push(format!("{name}: there is no {test}"));
            }
        }
    }
    let counts = (descriptions.len(), purposes.len(), inputs.len());
    assert_eq!(counts, (43, 57, 17));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether `file::function` names a function of such a file.
fn exists(name: &str, sources: &BTreeMap<PathBuf, String>) -> bool {
    let Some((file, function)) = name.rsplit_once("::") else {
        return false;
    };
    let (file, start) = (format!("{file}.rs"), format!("fn {function}("));
    sources
        .iter()
        .any(|(path, text)| path.ends_with(&file) && text.contains(&start))
}

fn read_sources(dir: &Path, into: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("node_modules") {
                read_sources(&path, into);
            }
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            into.insert(path, text);
        }
    }
}

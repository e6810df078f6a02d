//! Every address of the console: who may see it, who may send its form, and that a form of another session does nothing.

use std::{collections::BTreeSet, fs, path::Path};

use hyper::Method;
use serde_json::json;

use super::{
    Gateway, ask,
    security::{FORM, Session, session, session_of},
};

/// Whom an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Viewer,
    Operator,
    Admin,
}
use Who::{Admin, Operator, Viewer};

/// What an address takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    Nothing,
    Fields(Who),
    File(Who),
}
use Sends::{Fields, File, Nothing};

/// Each with who may see it, if it shows anything, and what is sent to it.
const ADDRESSES: &[(&str, Option<Who>, Sends)] = &[
    ("/", Some(Viewer), Nothing),
    ("/account", Some(Viewer), Fields(Viewer)),
    ("/applications", Some(Viewer), Fields(Operator)),
    ("/applications/new", Some(Operator), Nothing),
    ("/applications/{id}", Some(Viewer), Nothing),
    ("/applications/{id}/bind", None, Fields(Operator)),
    (
        "/applications/{id}/delete",
        Some(Operator),
        Fields(Operator),
    ),
    ("/applications/{id}/disable", None, Fields(Operator)),
    ("/applications/{id}/edit", Some(Operator), Fields(Operator)),
    ("/applications/{id}/enable", None, Fields(Operator)),
    ("/applications/{id}/import", None, File(Operator)),
    ("/applications/{id}/secret", None, Fields(Operator)),
    ("/applications/{id}/unbind", None, Fields(Operator)),
    ("/audit", Some(Admin), Nothing),
    ("/batches", Some(Viewer), File(Operator)),
    ("/batches/template.csv", Some(Viewer), Nothing),
    ("/batches/{id}", Some(Viewer), Nothing),
    ("/batches/{id}/confirm", None, Fields(Operator)),
    ("/batches/{id}/delete", None, Fields(Operator)),
    ("/batches/{id}/result.csv", Some(Operator), Nothing),
    ("/deliver", Some(Operator), Fields(Operator)),
    ("/deliver/change", None, Fields(Operator)),
    ("/deliver/devices", Some(Viewer), Nothing),
    ("/deliver/preview", None, File(Operator)),
    ("/deliver/template.csv", Some(Viewer), Nothing),
    ("/deliveries/{id}", Some(Viewer), Nothing),
    ("/deliveries/{id}/cancel", None, Fields(Operator)),
    ("/deliveries/{id}/retry", None, Fields(Operator)),
    ("/devices", Some(Viewer), File(Operator)),
    ("/devices/new", Some(Operator), Nothing),
    ("/devices/{id}", Some(Viewer), Nothing),
    ("/devices/{id}/clear", None, Fields(Operator)),
    ("/devices/{id}/credentials", Some(Operator), Nothing),
    ("/devices/{id}/delete", Some(Operator), Fields(Operator)),
    ("/devices/{id}/edit", Some(Operator), Fields(Operator)),
    ("/devices/{id}/fingerprint", None, File(Operator)),
    ("/devices/{id}/freeze", None, Fields(Operator)),
    ("/devices/{id}/kick", None, Fields(Operator)),
    ("/devices/{id}/live", Some(Viewer), Nothing),
    ("/devices/{id}/secret", None, Fields(Operator)),
    ("/devices/{id}/unfreeze", None, Fields(Operator)),
    ("/nodes", Some(Viewer), Nothing),
    ("/nodes/{id}/drain", Some(Admin), Fields(Admin)),
    ("/nodes/{id}/reload", None, Fields(Admin)),
    ("/operators", Some(Admin), Fields(Admin)),
    ("/operators/named/{name}", Some(Admin), Fields(Admin)),
    ("/operators/named/{name}/delete", None, Fields(Admin)),
    ("/operators/named/{name}/password", None, Fields(Admin)),
    ("/operators/new", Some(Admin), Nothing),
    ("/products", Some(Viewer), Fields(Admin)),
    ("/products/new", Some(Admin), Nothing),
    ("/products/{id}", Some(Viewer), Nothing),
    ("/products/{id}/delete", Some(Admin), Fields(Admin)),
    ("/products/{id}/edit", Some(Admin), Fields(Admin)),
    ("/resources", Some(Viewer), File(Operator)),
    ("/resources/new", Some(Operator), Nothing),
    ("/resources/{id}", Some(Viewer), Nothing),
    ("/resources/{id}/content", Some(Viewer), File(Operator)),
    ("/resources/{id}/delete", Some(Operator), Fields(Operator)),
    ("/resources/{id}/edit", Some(Operator), Fields(Operator)),
    ("/sign-out", None, Fields(Viewer)),
    ("/tasks", Some(Viewer), Nothing),
    ("/tasks/{id}", Some(Viewer), Nothing),
    ("/tasks/{id}/cancel", None, Fields(Operator)),
    ("/tasks/{id}/chosen", None, Fields(Operator)),
    ("/tasks/{id}/delete", None, Fields(Operator)),
    ("/tasks/{id}/live", Some(Viewer), Nothing),
    ("/tasks/{id}/pause", None, Fields(Operator)),
    ("/tasks/{id}/promote", None, Fields(Operator)),
    ("/tasks/{id}/report.csv", Some(Viewer), Nothing),
    ("/tasks/{id}/resume", None, Fields(Operator)),
    ("/tasks/{id}/retry", None, Fields(Operator)),
    ("/tokens", Some(Admin), Fields(Admin)),
    ("/tokens/new", Some(Admin), Nothing),
    ("/tokens/{id}/revoke", Some(Admin), Fields(Admin)),
    ("/uploads", Some(Viewer), Nothing),
    ("/uploads/{id}/content", Some(Viewer), Nothing),
    ("/uploads/{id}/delete", Some(Operator), Fields(Operator)),
];

/// Adds the addresses that the files below a directory route.
fn routed(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            routed(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        for way in [".route(", ".get(", ".post("] {
            let routes = text.split(way).skip(1);
            let quoted =
                routes.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            found.extend(
                quoted
                    .filter(|path| path.starts_with('/'))
                    .map(str::to_owned),
            );
        }
    }
}

#[test]
fn every_address_of_the_console_is_known_here() {
    let mut found = BTreeSet::new();
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src/edge/console");
    routed(Path::new(sources), &mut found);
    // For everyone.
    assert!(found.remove("/sign-in") && found.remove("/assets/{revision}/{name}"));
    let known: BTreeSet<String> = ADDRESSES
        .iter()
        .map(|(path, ..)| (*path).to_owned())
        .collect();
    assert_eq!(found, known);
}

/// Sends a form that was made for the session whose `token` it has; gives the status of the answer.
async fn send(gateway: &Gateway, path: &str, cookie: &str, token: &str, sends: Sends) -> u16 {
    let (kind, body) = match sends {
        File(_) => (
            ("content-type", "multipart/form-data; boundary=x"),
            format!(
                "--x\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\n{token}\r\n--x\r\n\
                 Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nabc\r\n--x--\r\n"
            ),
        ),
        Fields(_) | Nothing => (FORM, format!("csrf={token}")),
    };
    let headers = [("cookie", cookie), kind];
    ask(gateway, Method::POST, path, &headers, &body)
        .await
        .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_another_role_or_a_form_of_another_session_changes_nothing() {
    const PASSWORD: &str = "a-long-password";
    let gateway = Gateway::start().await;
    for (name, role) in [("vera", "viewer"), ("otto", "operator")] {
        let body = json!({"name": name, "role": role, "password": PASSWORD});
        gateway.post("/operators", &body).await;
    }
    let sessions: [(Who, Session); 3] = [
        (Viewer, session_of(&gateway, "vera", PASSWORD).await),
        (Operator, session_of(&gateway, "otto", PASSWORD).await),
        (Admin, session(&gateway).await),
    ];
    let strange = &session(&gateway).await.token;
    let before = gateway.get("/audit?limit=1").await;
    for (pattern, sees, sends) in ADDRESSES {
        // Nothing has this name: who gets as far as to look for it is told so.
        let path = pattern
            .replace("{id}", "0000000000001")
            .replace("{name}", "nobody");
        for (who, session) in &sessions {
            if let Some(least) = sees {
                let headers = [("cookie", session.cookie.as_str())];
                let answer = ask(&gateway, Method::GET, &path, &headers, "").await;
                let is_refused = answer.status == 403;
                assert_eq!(is_refused, who < least, "GET {path} as {who:?}");
            }
            let (Fields(least) | File(least)) = *sends else {
                continue;
            };
            let forged = send(&gateway, &path, &session.cookie, strange, *sends).await;
            let is_refused = forged == 403 || (*who >= least && forged == 404);
            assert!(
                is_refused,
                "a form of another session to {path} as {who:?}: {forged}"
            );
            if *who < least {
                let status = send(&gateway, &path, &session.cookie, &session.token, *sends).await;
                assert_eq!(status, 403, "POST {path} as {who:?}");
            }
        }
        let stranger = ask(&gateway, Method::GET, &path, &[], "").await;
        assert!(
            matches!(stranger.status, 401 | 405),
            "{path}: {}",
            stranger.status
        );
    }
    assert_eq!(
        gateway.get("/audit?limit=1").await,
        before,
        "nothing was done"
    );
    gateway.stop().await;
}

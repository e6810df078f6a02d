//! Requests that no page of the console sends: forged, from elsewhere, out of time, by another role.

use std::time::Duration;

use hyper::Method;

use super::{Answer, Gateway, ask, password};
use crate::harness::{Client, until};

pub(super) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Someone who is signed in.
pub(super) struct Session {
    pub(super) cookie: String,
    /// What this session's forms carry.
    pub(super) token: String,
}

async fn sign_in(gateway: &Gateway, name: &str, password: &str) -> Answer {
    let body = format!("name={name}&password={password}&next=/resources");
    ask(gateway, Method::POST, "/sign-in", &[FORM], &body).await
}

pub(super) async fn session(gateway: &Gateway) -> Session {
    session_of(gateway, "admin", &password(gateway)).await
}

pub(super) async fn session_of(gateway: &Gateway, name: &str, password: &str) -> Session {
    let answer = sign_in(gateway, name, password).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/resources")
    );
    let cookie = answer.header("set-cookie");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let page = ask(gateway, Method::GET, "/", &[("cookie", &cookie)], "").await;
    let (_, rest) = page
        .text()
        .split_once("name=\"csrf\" value=\"")
        .expect("a form");
    let token = rest.split('"').next().expect("a value").to_owned();
    Session { cookie, token }
}

async fn is_in(gateway: &Gateway, cookie: &str) -> bool {
    let page = ask(gateway, Method::GET, "/", &[("cookie", cookie)], "").await;
    page.status == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_taken_from_its_own_session_and_page_alone() {
    let gateway = Gateway::start().await;
    let (own, other) = (session(&gateway).await, session(&gateway).await);
    let cookie = ("cookie", own.cookie.as_str());
    let right = format!("csrf={}", own.token);
    let of_other = format!("csrf={}", other.token);
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[cookie, FORM], ""),
        (&[cookie, FORM], "csrf="),
        (&[cookie, FORM], "csrf=x"),
        (&[cookie, FORM], &of_other),
        (&[cookie, FORM, ("sec-fetch-site", "cross-site")], &right),
        (&[cookie, FORM, ("origin", "https://evil.example")], &right),
        (&[cookie, FORM, ("origin", "null")], &right),
    ];
    for (headers, body) in cases {
        let answer = ask(&gateway, Method::POST, "/sign-out", headers, body).await;
        assert_eq!(answer.status, 403, "{headers:?} {body}");
        assert!(answer.text().contains("not made for your session"));
        assert!(is_in(&gateway, &own.cookie).await, "nothing was done");
    }
    let json = [cookie, ("content-type", "application/json")];
    let answer = ask(&gateway, Method::POST, "/sign-out", &json, &right).await;
    assert_eq!(answer.status, 400);
    let answer = ask(&gateway, Method::POST, "/sign-out", &[cookie, FORM], &right).await;
    assert_eq!(answer.status, 303);
    assert!(!is_in(&gateway, &own.cookie).await && is_in(&gateway, &other.cookie).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_see_nothing_and_every_page_says_what_browsers_may_not_do() {
    let gateway = Gateway::start().await;
    let html = ("accept", "text/html");
    for path in ["/", "/resources", "/no-such-page", "/tasks?run=running"] {
        let page = ask(&gateway, Method::GET, path, &[html], "").await;
        assert_eq!(page.status, 303, "{path}");
        assert!(page.header("location").starts_with("/sign-in?next=%2F"));
        let script = ask(&gateway, Method::GET, path, &[], "").await;
        assert_eq!(script.status, 401, "{path}");
    }
    let own = session(&gateway).await;
    for path in ["/", "/sign-in", "/no-such-page"] {
        let page = ask(&gateway, Method::GET, path, &[("cookie", &own.cookie)], "").await;
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; "),
            "{path}"
        );
        assert!(!policy.contains("unsafe"));
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert!(!page.text().contains("style=") && !page.text().contains("<script>"));
    }
    let api = ask(
        &gateway,
        Method::GET,
        "/api/v1/devices",
        &[("cookie", &own.cookie)],
        "",
    )
    .await;
    assert_eq!(api.status, 401, "the cookie opens pages alone");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_out_of_time_changes_nothing() {
    let gateway = Gateway::with(|config| {
        config.console.session_idle_timeout = Duration::from_millis(1);
    })
    .await;
    let answer = sign_in(&gateway, "admin", &password(&gateway)).await;
    let cookie = answer.header("set-cookie");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    until("the end of the session", || async {
        (!is_in(&gateway, &cookie).await).then_some(())
    })
    .await;
    let html = [("cookie", cookie.as_str()), ("accept", "text/html")];
    let page = ask(&gateway, Method::GET, "/resources", &html, "").await;
    assert_eq!(
        page.header("location"),
        "/sign-in?next=%2Fresources&ended=1"
    );
    let form = [("cookie", cookie.as_str()), FORM];
    let answer = ask(&gateway, Method::POST, "/sign-out", &form, "csrf=x").await;
    assert_eq!(answer.status, 401);
    assert!(
        answer
            .text()
            .contains("Your session has ended. Nothing was changed.")
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_lock_out_also_the_right_one() {
    let gateway = Gateway::with(|config| config.console.sign_in_failures = 2).await;
    for _ in 0..2 {
        let answer = sign_in(&gateway, "admin", "wrong").await;
        assert_eq!(answer.status, 422);
        assert!(answer.header("set-cookie").is_empty());
    }
    let answer = sign_in(&gateway, "admin", &password(&gateway)).await;
    assert_eq!(answer.status, 429);
    let secs: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=900).contains(&secs));
    let entries = gateway.get("/audit").await;
    let actions = entries["items"].as_array().expect("entries").iter();
    let locked = actions.filter(|entry| entry["action"] == "operator.lock_out");
    assert_eq!(locked.count(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_who_is_disabled_is_out_at_once() {
    let gateway = Gateway::start().await;
    let viewer =
        serde_json::json!({"name": "vera", "role": "viewer", "password": "a-long-password"});
    gateway.post("/operators", &viewer).await;
    let vera = session_of(&gateway, "vera", "a-long-password").await;
    let page = ask(
        &gateway,
        Method::GET,
        "/resources",
        &[("cookie", &vera.cookie)],
        "",
    )
    .await;
    assert!(!page.text().contains("/resources/new"), "offered nothing");
    let disabled = serde_json::json!({"enabled": false});
    gateway
        .api(Method::PATCH, "/operators/vera", Some(&disabled))
        .await
        .ok(200);
    assert!(!is_in(&gateway, &vera.cookie).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_overtaken_while_editing_is_told_and_stores_nothing() {
    let gateway = Gateway::start().await;
    gateway.devices(["d1"]).await;
    gateway.resource("P", "firmware", &[7; 100]).await;
    gateway
        .post("/apps", &serde_json::json!({"id": "a", "name": "a"}))
        .await;
    let own = session(&gateway).await;
    let headers = [("cookie", own.cookie.as_str()), FORM];
    let resources = gateway.get("/resources").await;
    let resource = resources["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for (path, fields) in [
        (
            format!("/resources/{resource}/edit"),
            "name=other&description=mine",
        ),
        (
            "/products/P/edit".to_owned(),
            "name=mine&auth_kinds=secret&transports=mqtt&credential_forms=native",
        ),
        ("/devices/P_d1/edit".to_owned(), "name=mine"),
        ("/applications/a/edit".to_owned(), "name=mine"),
        ("/operators/named/admin".to_owned(), "role=viewer&enabled=1"),
    ] {
        let body = format!("csrf={}&revision=1&{fields}", own.token);
        let answer = ask(&gateway, Method::POST, &path, &headers, &body).await;
        assert_eq!(answer.status, 409, "{path}: {}", answer.text());
        let text = answer.text();
        assert!(text.contains("Someone else changed this"), "{path}");
        assert!(
            !text.contains("value=\"mine\""),
            "{path} shows what is there"
        );
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_password_ends_the_other_sessions_and_wrong_ones_lock_out() {
    let gateway = Gateway::with(|config| config.console.sign_in_failures = 2).await;
    let viewer =
        serde_json::json!({"name": "vera", "role": "viewer", "password": "a-long-password"});
    gateway.post("/operators", &viewer).await;
    let (here, there) = (
        session_of(&gateway, "vera", "a-long-password").await,
        session_of(&gateway, "vera", "a-long-password").await,
    );
    let headers = [("cookie", here.cookie.as_str()), FORM];
    let change = async |current: &str, new: &str, again: &str| {
        let body = format!(
            "csrf={}&current={current}&password={new}&password_again={again}",
            here.token
        );
        ask(&gateway, Method::POST, "/account", &headers, &body).await
    };
    for (current, new, again, said) in [
        (
            "a-long-password",
            "another-password",
            "another",
            "are not the same",
        ),
        ("a-long-password", "short", "short", "shorter than 12"),
        (
            "none-of-hers",
            "another-password",
            "another-password",
            "This is not your password.",
        ),
    ] {
        let answer = change(current, new, again).await;
        assert_eq!(answer.status, 422, "{said}");
        assert!(answer.text().contains(said), "{said}");
        assert!(!answer.text().contains(current), "nothing typed comes back");
    }
    assert!(is_in(&gateway, &there.cookie).await, "nothing has changed");
    let answer = change("a-long-password", "another-password", "another-password").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/account?note=password-changed")
    );
    let cookie = answer
        .header("set-cookie")
        .split(';')
        .next()
        .expect("a pair");
    assert!(is_in(&gateway, cookie).await, "who changed it stays");
    for ended in [&here, &there] {
        assert!(!is_in(&gateway, &ended.cookie).await, "all others are over");
    }
    let here = session_of(&gateway, "vera", "another-password").await;
    let headers = [("cookie", here.cookie.as_str()), FORM];
    let body = format!(
        "csrf={}&current=wrong&password=x&password_again=x",
        here.token
    );
    for status in [422, 422, 429] {
        let answer = ask(&gateway, Method::POST, "/account", &headers, &body).await;
        assert_eq!(answer.status, status);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_a_path_or_a_script_stays_a_name() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::listening(&gateway, &device).await;
    let name = "..\\..\"; x=1 <script>é.txt";
    client.upload(&device, name, &[7; 1_000]).await;
    let own = session(&gateway).await;
    let cookie = [("cookie", own.cookie.as_str())];
    let page = ask(&gateway, Method::GET, "/uploads", &cookie, "").await;
    assert!(!page.text().contains("<script>é"), "a tag is a text");
    let uploads = gateway.get("/uploads").await;
    let id = uploads["items"][0]["id"].as_str().expect("an id");
    let path = format!("/uploads/{id}/content");
    let file = ask(&gateway, Method::GET, &path, &cookie, "").await;
    let shown = file.header("content-disposition");
    let named = shown.strip_prefix("attachment; filename*=UTF-8''");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '%');
    assert!(
        named.is_some_and(|name| name.chars().all(is_plain)),
        "{shown}"
    );
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    for path in [
        "/uploads/..%2f..%2fadmin.token/content",
        "/devices/..%2f..%2fetc",
        "/assets/x/..%2fconsole.rs",
    ] {
        let answer = ask(&gateway, Method::GET, path, &cookie, "").await;
        assert_eq!(answer.status, 404, "{path}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_and_what_it_loads_are_small() {
    const MOST: usize = 150_000;
    let gateway = Gateway::start().await;
    let names: Vec<String> = (0..60)
        .map(|number| format!("a-rather-long-node-id-{number}"))
        .collect();
    let rows = names
        .iter()
        .map(|name| format!("{name},P,A device of the {name}\n"));
    let rows: String = rows.collect();
    gateway.product("P", &serde_json::Value::Null).await;
    let batch = format!("node_id,product_id,device_name\n{rows}");
    let batch = gateway
        .ask(Method::POST, "/device-batches", "text/csv", batch.into())
        .await
        .ok(201);
    let batch = batch["id"].as_str().expect("an id").to_owned();
    until("the batch", || async {
        let known = gateway.get(&format!("/device-batches/{batch}")).await;
        (known["state"] == "finished").then_some(())
    })
    .await;
    let resource = gateway.resource("P", "firmware", &[7; 100]).await;
    let body = serde_json::json!({"resource_id": resource, "node_ids": names});
    let task = gateway.post("/tasks", &body).await;
    let task = task["id"].as_str().expect("an id");
    let own = session(&gateway).await;
    let cookie = [("cookie", own.cookie.as_str())];
    let mut weight = 0;
    let page = ask(&gateway, Method::GET, "/", &cookie, "").await;
    let text = page.text().to_owned();
    let mut assets: Vec<&str> = text
        .split('"')
        .filter(|part| part.starts_with("/assets/"))
        .collect();
    assets.sort_unstable();
    assets.dedup();
    assert_eq!(assets.len(), 3, "style, script and icon");
    for path in assets {
        let asset = ask(&gateway, Method::GET, path, &[], "").await;
        weight += asset.text().len();
        assert!(
            asset.header("cache-control").contains("immutable"),
            "{path}"
        );
    }
    let one = format!("/tasks/{task}");
    let batch = format!("/batches/{batch}");
    for path in [
        "/",
        "/devices",
        "/deliver",
        "/devices/new",
        "/products/P/edit",
        &one,
        &batch,
    ] {
        let page = ask(&gateway, Method::GET, path, &cookie, "").await;
        let all = weight + page.text().len();
        assert!(page.status == 200 && all < MOST, "{path}: {all} bytes");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_cut_or_odd_stores_nothing() {
    let gateway = Gateway::start().await;
    gateway.product("P", &serde_json::Value::Null).await;
    let own = session(&gateway).await;
    let multipart = ("content-type", "multipart/form-data; boundary=x");
    let headers = [("cookie", own.cookie.as_str()), multipart];
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let fields =
        |name: &str| part("csrf", &own.token) + &part("product", "P") + &part("name", name);
    let file = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nabc";
    let whole = "\r\n--x--\r\n";
    for (body, said) in [
        (fields("cut") + file, "The file did not arrive whole."),
        (
            fields("../../etc/passwd") + file + whole,
            "The name must have",
        ),
        (
            fields("fine") + &part("size", "7") + file + whole,
            "The file did not arrive whole.",
        ),
        (fields("none") + "--x--\r\n", "Choose a file."),
    ] {
        let answer = ask(&gateway, Method::POST, "/resources", &headers, &body).await;
        assert!(
            (400..500).contains(&answer.status),
            "{said}: {}",
            answer.status
        );
        assert!(answer.text().contains(said), "{said}: {}", answer.text());
    }
    let known = gateway.get("/resources").await;
    assert_eq!(known["items"].as_array().map(Vec::len), Some(0));
    gateway.stop().await;
}

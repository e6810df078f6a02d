//! Requests that no page of the console sends: forged, from elsewhere, out of time, by another role.

use std::time::Duration;

use hyper::Method;

use super::{Answer, Gateway, ask, password};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Someone who is signed in.
struct Session {
    cookie: String,
    /// What this session's forms carry.
    token: String,
}

async fn sign_in(gateway: &Gateway, name: &str, password: &str) -> Answer {
    let body = format!("name={name}&password={password}&next=/resources");
    ask(gateway, Method::POST, "/sign-in", &[FORM], &body).await
}

async fn session(gateway: &Gateway) -> Session {
    session_of(gateway, "admin", &password(gateway)).await
}

async fn session_of(gateway: &Gateway, name: &str, password: &str) -> Session {
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
    super::super::harness::until("the end of the session", || async {
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
async fn another_role_s_addresses_change_nothing() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let resource = gateway.resource("P", "firmware", &[7; 1_000]).await;
    let task = gateway.task(&resource, &[&device]).await;
    let deliveries = gateway.get(&format!("/tasks/{task}/deliveries")).await;
    let delivery = deliveries["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let viewer =
        serde_json::json!({"name": "vera", "role": "viewer", "password": "a-long-password"});
    gateway.post("/operators", &viewer).await;
    let (vera, admin) = (
        session_of(&gateway, "vera", "a-long-password").await,
        session(&gateway).await,
    );
    for path in ["/", "/resources", "/tasks", "/uploads"] {
        let page = ask(&gateway, Method::GET, path, &[("cookie", &vera.cookie)], "").await;
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.text().contains("/resources/new"));
    }
    for path in ["/resources/new", "/deliver"] {
        let page = ask(&gateway, Method::GET, path, &[("cookie", &vera.cookie)], "").await;
        assert_eq!(page.status, 403, "{path}");
        assert!(page.text().contains("Your role does not allow this"));
    }
    let posts = [
        format!("/resources/{resource}/edit"),
        format!("/resources/{resource}/delete"),
        format!("/tasks/{task}/pause"),
        format!("/tasks/{task}/cancel"),
        format!("/tasks/{task}/retry"),
        format!("/tasks/{task}/resume"),
        format!("/tasks/{task}/promote"),
        format!("/tasks/{task}/chosen"),
        format!("/tasks/{task}/delete"),
        format!("/deliveries/{delivery}/cancel"),
        format!("/deliveries/{delivery}/retry"),
        "/deliver".to_owned(),
        "/deliver/change".to_owned(),
    ];
    for path in &posts {
        // By role with a good form, and by a form of another session with a good role.
        for (cookie, token) in [(&vera.cookie, &vera.token), (&admin.cookie, &vera.token)] {
            let headers = [("cookie", cookie.as_str()), FORM];
            let body = format!("csrf={token}&do=cancel&chosen={delivery}");
            let answer = ask(&gateway, Method::POST, path, &headers, &body).await;
            assert_eq!(answer.status, 403, "{path}");
        }
    }
    let multipart = ("content-type", "multipart/form-data; boundary=x");
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nabc\r\n--x--\r\n";
    let replaced = format!("/resources/{resource}/content");
    for path in ["/resources", "/deliver/preview", &replaced] {
        for (cookie, token) in [(&vera.cookie, &vera.token), (&admin.cookie, &vera.token)] {
            let headers = [("cookie", cookie.as_str()), multipart];
            let body = part("csrf", token) + file;
            let answer = ask(&gateway, Method::POST, path, &headers, &body).await;
            assert_eq!(answer.status, 403, "{path}");
        }
    }
    let known = gateway.get(&format!("/resources/{resource}")).await;
    assert_eq!(
        (&known["version"], &known["name"]),
        (&1.into(), &"firmware".into())
    );
    let known = gateway.get(&format!("/tasks/{task}")).await;
    assert_eq!(known["run"], "running");
    let disabled = serde_json::json!({"enabled": false});
    gateway
        .api(Method::PATCH, "/operators/vera", Some(&disabled))
        .await
        .ok(200);
    assert!(!is_in(&gateway, &vera.cookie).await, "at once");
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

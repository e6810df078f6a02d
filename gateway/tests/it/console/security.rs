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
    let answer = sign_in(gateway, "admin", &password(gateway)).await;
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

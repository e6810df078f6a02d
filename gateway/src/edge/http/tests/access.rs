//! Operators, tokens, the audit, nodes, and tags of what is changed.

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, header},
};
use serde_json::json;

use super::stage::Stage;

#[tokio::test]
async fn a_token_is_shown_once_and_comes_in_until_it_is_revoked() {
    let mut stage = Stage::new().await;
    let body = json!({"name": "ci", "role": "viewer"});
    let made = stage.post("/api/v1/tokens", &body).await;
    let token = made.ok(201);
    let path = made.header("location").to_owned();
    let secret = token["secret"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("hgt_"));
    let shown = stage.get(&path).await.ok(200);
    assert_eq!(shown["name"], "ci");
    assert!(shown.get("secret").is_none(), "{shown}");

    let admin = std::mem::replace(&mut stage.token, secret);
    stage.get("/api/v1/products").await.ok(200);
    stage.get("/api/v1/tokens").await.problem(403, "forbidden");
    let ci = std::mem::replace(&mut stage.token, admin);
    stage.bare(Method::DELETE, &path).await.ok(204);
    stage.token = ci;
    let refused = stage.get("/api/v1/products").await;
    refused.problem(401, "unauthenticated");
}

#[tokio::test]
async fn an_operator_is_made_changed_and_deleted_and_all_of_it_is_on_record() {
    let stage = Stage::new().await;
    let body = json!({"name": "ann", "role": "operator"});
    let made = stage.post("/api/v1/operators", &body).await.ok(201);
    assert_eq!(made["password"].as_str().map(str::len), Some(24));
    let again = stage.post("/api/v1/operators", &body).await;
    assert_eq!(again.problem(409, "already-exists")["field"], "name");
    let short = json!({"name": "bob", "role": "viewer", "password": "short"});
    let refused = stage.post("/api/v1/operators", &short).await;
    assert_eq!(refused.problem(422, "invalid-field")["field"], "password");

    let path = "/api/v1/operators/ann";
    let read = stage.get(path).await;
    let tag = read.header("etag").to_owned();
    assert!(read.ok(200).get("password").is_none());
    let change = json!({"role": "viewer"});
    let changed = stage.patch(path, &change, Some(&tag)).await;
    assert_eq!(changed.ok(200)["role"], "viewer");
    let stale = stage.patch(path, &change, Some(&tag)).await;
    stale.problem(412, "stale");
    let reset = stage.post(&format!("{path}/password"), &json!({})).await;
    assert!(reset.ok(200)["password"].is_string());
    let last = stage.bare(Method::DELETE, "/api/v1/operators/admin").await;
    last.problem(409, "in-use");
    stage.bare(Method::DELETE, path).await.ok(204);
    stage.get(path).await.problem(404, "not-found");

    let audit = stage.get("/api/v1/audit?subject=ann").await.ok(200);
    let actions: Vec<_> = audit["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|entry| entry["action"].as_str().unwrap_or_default())
        .collect();
    let want = [
        "operator.delete",
        "operator.reset_password",
        "operator.update",
        "operator.create",
    ];
    assert_eq!(actions, want);
}

#[tokio::test]
async fn lists_are_paged_by_key() {
    let stage = Stage::new().await;
    for name in ["c", "a", "b"] {
        let body = json!({"name": name, "role": "viewer"});
        stage.post("/api/v1/operators", &body).await.ok(201);
    }
    let first = stage.get("/api/v1/operators?limit=2").await.ok(200);
    assert_eq!(first["items"][0]["name"], "a");
    let next = first["next"].as_str().expect("more");
    let path = format!("/api/v1/operators?limit=2&cursor={next}");
    let rest = stage.get(&path).await.ok(200);
    assert_eq!(rest["items"][0]["name"], "b");
    assert_eq!(rest["items"][1]["name"], "c");
    assert!(rest.get("next").is_none());
}

#[tokio::test]
async fn a_change_of_what_was_changed_meanwhile_is_refused() {
    let stage = Stage::furnished().await;
    let resource = stage.upload("fw", b"bytes").await;
    let app = json!({"id": "billing"});
    stage.post("/api/v1/apps", &app).await.ok(201);
    let resource = format!("/api/v1/resources/{}", resource["id"].as_str().expect("id"));
    for path in ["/api/v1/devices/p_d1", "/api/v1/apps/billing", &resource] {
        let tag = stage.get(path).await.header("etag").to_owned();
        let change = json!({"name": "another"});
        let changed = stage.patch(path, &change, Some(&tag)).await;
        changed.ok(200);
        let after = changed.header("etag").to_owned();
        assert_ne!(after, tag, "{path}");
        for stale in [tag.as_str(), "\"x\""] {
            let refused = stage.patch(path, &change, Some(stale)).await;
            refused.problem(412, "stale");
        }
        let malformed = stage.patch(path, &change, Some("x")).await;
        malformed.problem(400, "invalid-header");
        stage.patch(path, &change, Some(&after)).await.ok(200);
        stage.patch(path, &change, Some("*")).await.ok(200);
    }
    let path = "/api/v1/products/p";
    let tag = stage.get(path).await.header("etag").to_owned();
    let put = async || {
        let request = stage
            .request(Method::PUT, path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::IF_MATCH, &tag)
            .body(Body::from(json!({"name": "new"}).to_string()));
        stage.send(request.expect("a request")).await
    };
    put().await.ok(200);
    put().await.problem(412, "stale");
}

#[tokio::test]
async fn a_node_says_how_it_is_and_drains_once_asked() {
    let stage = Stage::new().await;
    let nodes = stage.get("/api/v1/nodes").await.ok(200);
    let node = &nodes["items"][0];
    // Nothing has said yet that it started.
    assert_eq!(node["state"], "not_ready", "{nodes}");
    assert_eq!(node["checks"][0]["name"], "node");
    let path = format!("/api/v1/nodes/{}", node["id"].as_str().expect("an id"));
    stage
        .get("/api/v1/nodes/nowhere")
        .await
        .problem(404, "not-found");
    // Nobody looks at certificates here.
    let reload = stage.bare(Method::POST, &format!("{path}/reload")).await;
    reload.problem(503, "overloaded");
    assert!(!stage.shutdown.is_draining());
    let drain = stage.bare(Method::POST, &format!("{path}/drain")).await;
    assert_eq!(drain.ok(202)["state"], "draining");
    assert!(stage.shutdown.is_draining());
}

#[tokio::test]
async fn whoever_tries_wrong_tokens_has_to_wait_and_the_audit_says_from_where() {
    let stage = Stage::new().await;
    let from = |token: &str, path: &str| {
        let mut request = axum::http::Request::builder()
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty())
            .expect("a request");
        let address = std::net::SocketAddr::from(([192, 0, 2, 9], 4_711));
        request.extensions_mut().insert(ConnectInfo(address));
        stage.send(request)
    };
    from(&stage.token, "/api/v1/products").await.ok(200);
    let mut answers = Vec::new();
    for attempt in 0..8 {
        let answer = from(&format!("hgt_wrong{attempt}"), "/api/v1/products").await;
        answers.push(answer.status.as_u16());
        if answer.status.as_u16() == 429 {
            answer.problem(429, "too-many-failures");
            let wait: u32 = answer.header("retry-after").parse().expect("seconds");
            assert!(wait >= 1);
        }
    }
    assert_eq!(answers, [401, 401, 401, 401, 401, 401, 429, 429]);
    from(&stage.token, "/api/v1/products").await.ok(200);
    for secret in ["hga_wrong", "hga_wronger"] {
        let answer = from(secret, "/api/v1/products").await;
        answer.problem(429, "too-many-failures");
    }
}

//! Products and devices.

use axum::{
    body::Body,
    http::{Method, header},
};
use serde_json::{Value, json};

use super::stage::Stage;

fn ids(page: &Value, key: &str) -> Vec<String> {
    let items = page["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item[key].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn product_lives_its_life() {
    let stage = Stage::new().await;
    let body = json!({"id": "meter", "name": "Meter", "transports": {"mqtt": true, "coap": true}});
    let created = stage.post("/api/v1/products", &body).await;
    assert_eq!(created.header("location"), "/api/v1/products/meter");
    let created = created.ok(201);
    assert_eq!(created["auth_kinds"], json!(["secret"]));
    assert_eq!(created["credential_forms"], json!(["native"]));
    assert_eq!(created["confirm"], "report");

    let problem = stage
        .post("/api/v1/products", &body)
        .await
        .problem(409, "already-exists");
    assert_eq!(problem["field"], "id");
    let no_transport = json!({"id": "x", "name": "x", "transports": {}});
    let problem = stage
        .post("/api/v1/products", &no_transport)
        .await
        .problem(422, "invalid-field");
    assert_eq!(problem["field"], "transports");
    let bad_id = json!({"id": "no spaces", "name": "x"});
    let problem = stage
        .post("/api/v1/products", &bad_id)
        .await
        .problem(422, "invalid-field");
    assert_eq!(problem["field"], "id");

    let path = "/api/v1/products/meter";
    let changed = json!({"name": "Meter 2", "confirm": "acked"});
    let changed = stage.with_json(Method::PUT, path, &changed).await.ok(200);
    assert_eq!(
        (&changed["name"], &changed["confirm"]),
        (&json!("Meter 2"), &json!("acked"))
    );
    assert_eq!(changed["created_at"], created["created_at"]);
    let other = json!({"id": "other", "name": "x"});
    let problem = stage
        .with_json(Method::PUT, path, &other)
        .await
        .problem(422, "invalid-field");
    assert_eq!(problem["field"], "id");
    let missing = stage
        .with_json(Method::PUT, "/api/v1/products/none", &json!({"name": "x"}))
        .await;
    missing.problem(404, "not-found");

    assert_eq!(stage.get(path).await.ok(200), changed);
    stage.bare(Method::DELETE, path).await.ok(204);
    stage.get(path).await.problem(404, "not-found");
    stage
        .bare(Method::DELETE, path)
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn device_lives_its_life() {
    let stage = Stage::furnished().await;
    let body = json!({"product_id": "p", "node_id": "n1", "name": "north"});
    let created = stage.post("/api/v1/devices", &body).await;
    assert_eq!(created.header("location"), "/api/v1/devices/p_n1");
    let created = created.ok(201);
    assert_eq!(created["device_id"], "p_n1");
    assert_eq!(created["secret"].as_str().map(str::len), Some(32));

    let problem = stage
        .post("/api/v1/devices", &body)
        .await
        .problem(409, "already-exists");
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("p_n1"))
    );
    let unknown = json!({"product_id": "none", "node_id": "n1"});
    stage
        .post("/api/v1/devices", &unknown)
        .await
        .problem(404, "not-found");
    let short = json!({"product_id": "p", "node_id": "n2", "secret": "short"});
    let problem = stage
        .post("/api/v1/devices", &short)
        .await
        .problem(422, "invalid-field");
    assert_eq!(problem["field"], "secret");
    assert!(!problem.to_string().contains("short\""));
    let bad_node = json!({"product_id": "p", "node_id": "n/1"});
    let problem = stage
        .post("/api/v1/devices", &bad_node)
        .await
        .problem(422, "invalid-field");
    assert_eq!(problem["field"], "node_id");

    let path = "/api/v1/devices/p_n1";
    let shown = stage.get(path).await.ok(200);
    assert!(shown.get("secret").is_none());
    assert_eq!(shown["enabled"], true);
    let patch = json!({"enabled": false});
    let patched = stage.with_json(Method::PATCH, path, &patch).await.ok(200);
    assert_eq!(
        (&patched["enabled"], &patched["name"]),
        (&json!(false), &json!("north"))
    );

    let secret = format!("{path}/secret");
    let reset = stage
        .post(&secret, &json!({"which": "secondary"}))
        .await
        .ok(200);
    assert_eq!(reset["secret"].as_str().map(str::len), Some(32));
    let given = stage
        .post(&secret, &json!({"secret": "a-secret-of-mine"}))
        .await
        .ok(200);
    assert_eq!(given["secret"], "a-secret-of-mine");
    let wrong = stage
        .post(&secret, &json!({"which": "third"}))
        .await
        .problem(422, "invalid-field");
    assert_eq!(wrong["field"], "which");

    stage.bare(Method::DELETE, path).await.ok(204);
    stage.get(path).await.problem(404, "not-found");
}

#[tokio::test]
async fn lists_are_filtered_and_lead_from_page_to_page() {
    let stage = Stage::furnished().await;
    let first = stage.get("/api/v1/devices?limit=3").await.ok(200);
    assert_eq!(ids(&first, "device_id"), ["p_d1", "p_d2", "p_d3"]);
    let next = first["next"].as_str().expect("more");
    let second = stage
        .get(&format!("/api/v1/devices?limit=3&cursor={next}"))
        .await
        .ok(200);
    assert_eq!(ids(&second, "device_id"), ["q_d1"]);
    assert!(second.get("next").is_none());

    let of_product = stage.get("/api/v1/devices?product=q").await.ok(200);
    assert_eq!(ids(&of_product, "device_id"), ["q_d1"]);
    let by_text = stage.get("/api/v1/devices?filter=D2").await.ok(200);
    assert_eq!(ids(&by_text, "device_id"), ["p_d2"]);
    let frozen = stage.get("/api/v1/devices?enabled=false").await.ok(200);
    assert_eq!(ids(&frozen, "device_id"), [""; 0]);
    let products = stage.get("/api/v1/products?limit=1").await.ok(200);
    assert_eq!(ids(&products, "id"), ["p"]);
}

#[tokio::test]
async fn product_in_use_names_what_uses_it() {
    let stage = Stage::furnished().await;
    let answer = stage.bare(Method::DELETE, "/api/v1/products/q").await;
    let problem = answer.problem(409, "in-use");
    let users = problem["used_by"].as_array().expect("users");
    assert!(
        users
            .iter()
            .any(|user| user.as_str().is_some_and(|user| user.contains("device"))),
        "{problem}"
    );
}

#[tokio::test]
async fn post_with_a_key_is_carried_out_once() {
    let stage = Stage::new().await;
    let send = async |key: &str, body: &Value| {
        let request = stage
            .request(Method::POST, "/api/v1/products")
            .header("idempotency-key", key)
            .header(header::CONTENT_TYPE, "application/json");
        stage
            .send(
                request
                    .body(Body::from(body.to_string()))
                    .expect("a request"),
            )
            .await
    };
    let body = json!({"id": "p", "name": "p"});
    let first = send("k1", &body).await;
    let again = send("k1", &body).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(first.ok(201), again.ok(201));
    send("k1", &json!({"id": "q", "name": "q"}))
        .await
        .problem(422, "idempotency-key-reused");
    // A failure leaves the key free for a better request.
    send("k2", &body).await.problem(409, "already-exists");
    send("k2", &json!({"id": "q", "name": "q"})).await.ok(201);
    send(&"k".repeat(129), &body)
        .await
        .problem(400, "invalid-header");
}

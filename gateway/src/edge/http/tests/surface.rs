//! What is the same for every path: who is let in, how errors look, what the description says.

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use serde_json::{Value, json};

use super::stage::Stage;

#[tokio::test]
async fn strangers_learn_that_a_token_is_needed_and_nothing_else() {
    let stage = Stage::new().await;
    for path in [
        "/api/v1/products",
        "/api/v1/no-such-path",
        "/api/v1/tasks/template.csv",
        "/api/v1",
    ] {
        for authorization in [None, Some("Basic eDp5"), Some("Bearer wrong")] {
            let mut request = Request::builder().uri(path);
            if let Some(value) = authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            let answer = stage
                .send(request.body(Body::empty()).expect("a request"))
                .await;
            answer.problem(401, "unauthenticated");
            assert_eq!(
                answer.header("www-authenticate"),
                "Bearer realm=\"headgate\""
            );
            assert!(!answer.headers.contains_key(header::SERVER));
        }
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems() {
    let stage = Stage::new().await;
    for path in [
        "/",
        "/api",
        "/api/v1/no-such-path",
        "/api/v1/products/a/b",
        "/api/v1/tasks/x",
    ] {
        stage.get(path).await.problem(404, "not-found");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/products", "GET,HEAD,POST"),
        (Method::GET, "/api/v1/devices/d/secret", "POST,DELETE"),
        (Method::POST, "/api/openapi.json", "GET,HEAD"),
    ] {
        let request = stage
            .request(method, path)
            .body(Body::empty())
            .expect("a request");
        let answer = stage.send(request).await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow);
    }
}

#[tokio::test]
async fn bodies_are_judged_before_anything_is_done() {
    let stage = Stage::new().await;
    let send = async |content_type: &str, body: String| {
        let request = stage
            .request(Method::POST, "/api/v1/products")
            .header(header::CONTENT_TYPE, content_type);
        stage
            .send(request.body(Body::from(body)).expect("a request"))
            .await
    };
    let problem = send("application/json", "{\"id\":".to_owned())
        .await
        .problem(400, "malformed-json");
    assert_eq!(
        (&problem["line"], &problem["column"]),
        (&json!(1), &json!(6))
    );
    let problem = send(
        "application/json",
        "{\"id\":\"a\",\"nmae\":\"b\"}".to_owned(),
    )
    .await;
    let problem = problem.problem(422, "invalid-field");
    assert_eq!(problem["field"], "nmae");
    assert_eq!(problem["column"], 16);
    let problem = send("application/json", "{\"id\":\"a\"}".to_owned())
        .await
        .problem(422, "invalid-field");
    assert_eq!(problem["field"], "name");
    send("text/plain", "{}".to_owned())
        .await
        .problem(415, "unsupported-media-type");
    let large = format!("{{\"id\":\"{}\"}}", "a".repeat(2 << 20));
    send("application/json", large)
        .await
        .problem(413, "too-large");
}

#[tokio::test]
async fn queries_are_judged_by_parameter() {
    let stage = Stage::new().await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("colour=red", "colour"),
        ("cursor=%2A", "cursor"),
    ] {
        let answer = stage.get(&format!("/api/v1/devices?{query}")).await;
        assert_eq!(
            answer.problem(400, "invalid-query")["field"],
            field,
            "{query}"
        );
    }
}

#[tokio::test]
async fn request_ids_are_taken_over_or_made() {
    let stage = Stage::new().await;
    let request = stage
        .request(Method::GET, "/")
        .header("x-request-id", "mine-1");
    let answer = stage
        .send(request.body(Body::empty()).expect("a request"))
        .await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    let request = stage
        .request(Method::GET, "/")
        .header("x-request-id", "not mine");
    let answer = stage
        .send(request.body(Body::empty()).expect("a request"))
        .await;
    assert_eq!(answer.header("x-request-id").len(), 16);
}

/// Every `$ref` and every operation of the description.
fn walk<'a>(value: &'a Value, refs: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            refs.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| walk(value, refs));
        }
        Value::Array(list) => list.iter().for_each(|value| walk(value, refs)),
        _ => {}
    }
}

#[tokio::test]
async fn description_is_whole_and_names_every_route() {
    let stage = Stage::new().await;
    let request = Request::builder()
        .uri("/api/openapi.json")
        .body(Body::empty());
    let document = stage.send(request.expect("a request")).await.ok(200);
    assert_eq!(document["openapi"], "3.1.0");
    let mut refs = Vec::new();
    walk(&document, &mut refs);
    for reference in refs {
        let pointer = reference.trim_start_matches('#');
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
    let (mut operations, mut names) = (Vec::new(), Vec::new());
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            operations.push(format!("{} {path}", method.to_uppercase()));
            for status in ["401", "403", "429", "500"] {
                let answer = &operation["responses"][status];
                assert!(answer.is_object(), "{method} {path} {status}");
            }
            assert!(operation["summary"].is_string(), "{method} {path}");
            names.push(operation["operationId"].as_str().expect("a name"));
            for (status, response) in operation["responses"].as_object().expect("answers") {
                assert!(
                    response["description"].is_string() || response["$ref"].is_string(),
                    "{method} {path} {status}"
                );
            }
        }
    }
    operations.sort();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    let want = "\
        DELETE /apps/{app}|DELETE /apps/{app}/devices|DELETE /apps/{app}/devices/{device}|\
        DELETE /device-batches/{batch}|DELETE /devices/{device}|DELETE /devices/{device}/fingerprint|\
        DELETE /devices/{device}/messages|DELETE /devices/{device}/secret|DELETE /devices/{device}/session|\
        DELETE /operators/{operator}|DELETE /products/{product}|DELETE /resources/{resource}|\
        DELETE /sessions/{session}|DELETE /tasks/{task}|DELETE /tokens/{token}|DELETE /uploads/{upload}|\
        GET /apps|GET /apps/{app}|GET /apps/{app}/devices|GET /apps/{app}/messages|GET /audit|\
        GET /deliveries/{delivery}|GET /deliveries/{delivery}/timeline|GET /device-batches|\
        GET /device-batches/template.csv|GET /device-batches/{batch}|GET /device-batches/{batch}/result.csv|\
        GET /device-batches/{batch}/rows|GET /devices|GET /devices/{device}|GET /devices/{device}/messages|\
        GET /devices/{device}/session|GET /nodes|GET /nodes/{node}|GET /operators|GET /operators/{operator}|\
        GET /products|GET /products/{product}|GET /resources|GET /resources/{resource}|\
        GET /resources/{resource}/content|GET /resources/{resource}/statistics|GET /sessions|GET /tasks|\
        GET /tasks/template.csv|GET /tasks/{task}|GET /tasks/{task}/deliveries|GET /tasks/{task}/events|\
        GET /tasks/{task}/report.csv|GET /tokens|GET /tokens/{token}|GET /uploads|GET /uploads/{upload}|\
        GET /uploads/{upload}/content|PATCH /apps/{app}|PATCH /devices/{device}|PATCH /operators/{operator}|\
        PATCH /resources/{resource}|PATCH /tasks/{task}|POST /apps|POST /apps/{app}/devices|\
        POST /apps/{app}/devices:csv|POST /apps/{app}/secret|POST /deliveries/{delivery}/cancel|\
        POST /deliveries/{delivery}/retry|POST /device-batches|POST /device-batches/{batch}/confirm|\
        POST /devices|POST /devices/{device}/fingerprint|POST /devices/{device}/freeze|\
        POST /devices/{device}/messages|POST /devices/{device}/secret|POST /devices/{device}/unfreeze|\
        POST /nodes/{node}/drain|POST /nodes/{node}/evacuate|POST /nodes/{node}/reload|POST /operators|\
        POST /operators/{operator}/password|POST /products|POST /resources|POST /tasks|\
        POST /tasks/{task}/cancel|POST /tasks/{task}/pause|POST /tasks/{task}/promote|\
        POST /tasks/{task}/resume|POST /tasks/{task}/retry|POST /tokens|PUT /products/{product}|\
        PUT /resources/{resource}/content";
    assert_eq!(operations, want.split('|').collect::<Vec<_>>());
}

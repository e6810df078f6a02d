//! Tasks and deliveries.

use axum::http::Method;
use serde_json::{Value, json};

use super::stage::{Answer, Stage};
use crate::edge::http::device_csv;

async fn with_resource() -> (Stage, String) {
    let stage = Stage::furnished().await;
    let resource = stage.upload("fw", b"content").await;
    let id = resource["id"].as_str().expect("an id").to_owned();
    (stage, id)
}

async fn from_csv(stage: &Stage, resource: &str, csv: &[u8]) -> Answer {
    let fields = [
        ("resource_id", resource),
        ("name", "roll-out"),
        ("max_in_progress", "2"),
    ];
    stage.send(stage.form("/api/v1/tasks", &fields, csv)).await
}

#[tokio::test]
async fn task_for_a_list_lives_its_life() {
    let (stage, resource) = with_resource().await;
    let body = json!({"resource_id": resource, "device_ids": ["p_d1", "p_d2"]});
    let created = stage.post("/api/v1/tasks", &body).await;
    let location = created.header("location").to_owned();
    let created = created.ok(201);
    assert_eq!(created["name"], "fw v1");
    assert_eq!(
        (&created["total"], &created["counts"]["pending"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        (&created["run"], &created["creation"]),
        (&json!("running"), &json!("created"))
    );
    let list = stage
        .get("/api/v1/tasks?product=p&run=running")
        .await
        .ok(200);
    assert_eq!(list["items"][0]["id"], created["id"]);
    let none = stage.get("/api/v1/tasks?run=paused").await.ok(200);
    assert_eq!(none["items"], json!([]));

    let deliveries = format!("{location}/deliveries?state=pending&limit=1");
    let deliveries = stage.get(&deliveries).await.ok(200);
    let delivery = &deliveries["items"][0];
    assert_eq!(
        (&delivery["state"], &delivery["waiting"]),
        (&json!("pending"), &json!("offline"))
    );
    assert!(deliveries["next"].is_string());

    let paused = stage
        .bare(Method::POST, &format!("{location}/pause"))
        .await
        .ok(200);
    assert_eq!(paused["run"], "paused");
    stage
        .bare(Method::POST, &format!("{location}/pause"))
        .await
        .problem(409, "wrong-state");
    let resumed = stage
        .bare(Method::POST, &format!("{location}/resume"))
        .await
        .ok(200);
    assert_eq!(resumed["run"], "running");
    stage
        .bare(Method::POST, &format!("{location}/retry"))
        .await
        .problem(409, "wrong-state");
    let canceled = stage
        .bare(Method::POST, &format!("{location}/cancel"))
        .await
        .ok(200);
    assert_eq!(
        (&canceled["run"], &canceled["counts"]["failed"]),
        (&json!("canceled"), &json!(2))
    );
}

#[tokio::test]
async fn delivery_is_canceled_and_tried_again() {
    let (stage, resource) = with_resource().await;
    let body = json!({"resource_id": resource, "node_ids": ["d1"]});
    let task = stage.post("/api/v1/tasks", &body).await.ok(201);
    let deliveries = format!(
        "/api/v1/tasks/{}/deliveries",
        task["id"].as_str().expect("an id")
    );
    let deliveries = stage.get(&deliveries).await.ok(200);
    let id = deliveries["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/api/v1/deliveries/{id}");
    assert_eq!(stage.get(&path).await.ok(200)["device_id"], "p_d1");
    stage
        .bare(Method::POST, &format!("{path}/retry"))
        .await
        .problem(409, "wrong-state");
    let canceled = stage
        .bare(Method::POST, &format!("{path}/cancel"))
        .await
        .ok(200);
    assert_eq!(
        (&canceled["state"], &canceled["reason"]),
        (&json!("failed"), &json!("canceled"))
    );
    stage
        .bare(Method::POST, &format!("{path}/cancel"))
        .await
        .problem(409, "wrong-state");
    let again = stage
        .bare(Method::POST, &format!("{path}/retry"))
        .await
        .ok(200);
    assert_eq!(
        (&again["state"], &again["attempt"]),
        (&json!("pending"), &json!(2))
    );
    let timeline = stage.get(&format!("{path}/timeline")).await.ok(200);
    let states: Vec<_> = timeline
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| (entry["attempt"].as_u64(), entry["state"].as_str()))
        .collect();
    let want = [
        (Some(1), Some("pending")),
        (Some(1), Some("failed")),
        (Some(2), Some("pending")),
    ];
    assert_eq!(states, want);
    let missing = "/api/v1/deliveries/0000000000001";
    for action in ["", "/timeline"] {
        stage
            .get(&format!("{missing}{action}"))
            .await
            .problem(404, "not-found");
    }
}

#[tokio::test]
async fn csv_makes_a_task() {
    let (stage, resource) = with_resource().await;
    let csv = b"\xEF\xBB\xBFnote,DeviceName\r\n\"a, b\",d1\r\nx,\"d2\"\r\n";
    let task = from_csv(&stage, &resource, csv).await.ok(201);
    assert_eq!(
        (&task["name"], &task["total"]),
        (&json!("roll-out"), &json!(2))
    );
    assert_eq!(task["policy"], json!({"max_in_progress": 2}));
    let template = stage.get("/api/v1/tasks/template.csv").await;
    assert_eq!(template.header("content-type"), "text/csv; charset=utf-8");
    device_csv::read(&template.body, 10).expect("the template is one");
}

#[tokio::test]
async fn every_bad_row_is_named_and_nothing_is_made() {
    let (stage, resource) = with_resource().await;
    let csv = b"DeviceName\r\nd1\r\nnobody\r\nd1\r\nno spaces\r\n";
    let problem = from_csv(&stage, &resource, csv)
        .await
        .problem(422, "invalid-rows");
    let errors: Vec<_> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| {
            (
                error["row"].as_u64(),
                error["code"].as_str(),
                error["device"].as_str(),
            )
        })
        .collect();
    let want = [
        (Some(3), Some("unknown_device"), Some("nobody")),
        (Some(4), Some("duplicate"), Some("d1")),
        (Some(5), Some("invalid_name"), Some("no spaces")),
    ];
    assert_eq!(errors, want);
    assert_eq!(problem["error_count"], 3);
    let other = json!({"resource_id": resource, "device_ids": ["p_d1", "q_d1"]});
    let problem = stage
        .post("/api/v1/tasks", &other)
        .await
        .problem(422, "invalid-rows");
    let error = &problem["errors"][0];
    assert_eq!(
        (&error["row"], &error["code"]),
        (&json!(2), &json!("wrong_product"))
    );
    assert_eq!(stage.get("/api/v1/tasks").await.ok(200)["items"], json!([]));
}

#[tokio::test]
async fn wrong_tasks_name_the_field() {
    let (stage, resource) = with_resource().await;
    let cases = [
        (json!({"device_id": "p_d1"}), 422, "resource_id"),
        (
            json!({"resource_id": "x", "device_id": "p_d1"}),
            422,
            "resource_id",
        ),
        (json!({"resource_id": resource}), 422, "device_ids"),
        (
            json!({"resource_id": resource, "device_id": "p_d1", "node_ids": ["d2"]}),
            422,
            "device_ids",
        ),
        (
            json!({"resource_id": resource, "device_ids": []}),
            422,
            "devices",
        ),
        (
            json!({"resource_id": resource, "device_id": "p_d1", "policy": {"pace": 1}}),
            422,
            "policy.pace",
        ),
        (
            json!({"resource_id": resource, "device_id": "p_d1", "policy": {"max_in_progress": 0}}),
            422,
            "policy.max_in_progress",
        ),
        (
            json!({"resource_id": resource, "device_id": "p_d1", "name": ""}),
            422,
            "name",
        ),
    ];
    for (body, status, field) in cases {
        let problem = stage
            .post("/api/v1/tasks", &body)
            .await
            .problem(status, "invalid-field");
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    let unknown = json!({"resource_id": "0000000000001", "device_id": "p_d1"});
    stage
        .post("/api/v1/tasks", &unknown)
        .await
        .problem(404, "not-found");
    let problem = from_csv(&stage, &resource, b"Name\nd1\n")
        .await
        .problem(422, "invalid-csv");
    assert_eq!(problem["field"], Value::from("file"));
    let problem = from_csv(&stage, "x", b"DeviceName\nd1\n")
        .await
        .problem(422, "invalid-field");
    assert_eq!(problem["field"], "resource_id");
}

#[tokio::test]
async fn list_of_ten_thousand_long_ids_fits() {
    let (stage, resource) = with_resource().await;
    let devices: Vec<String> = (0..10_000).map(|index| format!("{index:0>128}")).collect();
    let body = json!({"resource_id": resource, "device_ids": devices});
    let problem = stage
        .post("/api/v1/tasks", &body)
        .await
        .problem(422, "invalid-rows");
    assert_eq!(problem["error_count"], 10_000);
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1_000));
}

#[tokio::test]
async fn a_task_is_changed_as_it_was_read_and_not_otherwise() {
    let (stage, resource) = with_resource().await;
    let body =
        json!({"resource_id": resource, "device_ids": ["p_d1"], "policy": {"max_in_progress": 5}});
    let location = stage.post("/api/v1/tasks", &body).await;
    let location = location.header("location").to_owned();
    let read = stage.get(&location).await;
    let tag = read.header("etag").to_owned();
    let change = json!({"name": "narrow", "policy": {"max_in_progress": 1}});
    let changed = stage.patch(&location, &change, Some(&tag)).await;
    assert_ne!(changed.header("etag"), tag);
    let changed = changed.ok(200);
    assert_eq!(
        (&changed["name"], &changed["policy"]),
        (&json!("narrow"), &json!({"max_in_progress": 1}))
    );
    stage
        .patch(&location, &change, Some(&tag))
        .await
        .problem(412, "stale");
    stage
        .patch(&location, &change, Some("W/\"weak\""))
        .await
        .problem(400, "invalid-header");
    let any = stage.patch(&location, &json!({}), Some("*")).await;
    assert_eq!(any.ok(200)["name"], "narrow", "nothing is changed");
    for (change, field) in [
        (
            json!({"policy": {"bytes_per_sec": 1}}),
            "policy.bytes_per_sec",
        ),
        (json!({"policy": {"speed": 1}}), "policy"),
        (json!({"name": ""}), "name"),
    ] {
        let problem = stage.patch(&location, &change, None).await;
        assert_eq!(problem.problem(422, "invalid-field")["field"], field);
    }
    stage
        .bare(Method::POST, &format!("{location}/cancel"))
        .await
        .ok(200);
    let late = json!({"policy": {"max_in_progress": 7}});
    stage
        .patch(&location, &late, None)
        .await
        .problem(409, "wrong-state");
}

#[tokio::test]
async fn a_task_for_an_application_goes_to_the_devices_that_are_bound_to_it() {
    let (stage, resource) = with_resource().await;
    let app = json!({"id": "billing", "name": "Billing"});
    stage.post("/api/v1/apps", &app).await.ok(201);
    let bound = json!({"device_ids": ["p_d2"]});
    stage
        .post("/api/v1/apps/billing/devices", &bound)
        .await
        .ok(200);
    let counts = async |filter: Value| {
        let body = json!({"resource_id": resource, "filter": filter});
        let made = stage.post("/api/v1/tasks", &body).await;
        let location = made.header("location").to_owned();
        made.ok(201);
        loop {
            let task = stage.get(&location).await.ok(200);
            match task["creation"].as_str() {
                Some("created") => break (location, task["total"].clone()),
                Some("not_started" | "creating") => tokio::task::yield_now().await,
                _ => break (location, task),
            }
        }
    };
    let (location, total) = counts(json!({"app": "billing"})).await;
    assert_eq!(total, 1);
    let deliveries = stage.get(&format!("{location}/deliveries")).await.ok(200);
    assert_eq!(deliveries["items"][0]["device_id"], "p_d2");
    assert_eq!(counts(json!({"app": "billing", "name": "d2"})).await.1, 1);
    let (_, none) = counts(json!({"app": "billing", "name": "d1"})).await;
    assert_eq!(none["creation"], "creation_failed", "it is for nobody");
}

#[tokio::test]
async fn a_cursor_of_another_list_is_the_callers_fault() {
    let stage = Stage::new().await;
    let foreign = ["", "ZGV2aWNl"];
    for list in [
        "tasks",
        "resources",
        "uploads",
        "device-batches",
        "tokens",
        "audit",
    ] {
        for cursor in foreign {
            let path = format!("/api/v1/{list}?cursor={cursor}");
            let answer = stage.get(&path).await;
            assert_eq!(
                answer.problem(400, "invalid-query")["field"],
                "cursor",
                "{path}"
            );
        }
    }
}

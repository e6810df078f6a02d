//! The HTTP side of the fake: remembers what was made, and counts every delivery as delivered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What stands at each path, and how often each was made and deleted.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// `products/p`, `devices/d`, `resources/r`, `tasks/t`.
    pub(crate) items: BTreeMap<String, Value>,
    /// POSTs that made something.
    pub(crate) posts: usize,
    /// DELETEs that found something.
    pub(crate) deletes: usize,
    /// Answers 503 to so many further requests.
    pub(crate) busy: usize,
}

/// A running API; dropping it ends it.
pub(crate) struct FakeApi {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it knows.
    pub(crate) made: Arc<Mutex<Made>>,
    _tasks: JoinSet<()>,
}

impl FakeApi {
    /// Starts with nothing made.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let made = Arc::new(Mutex::new(Made::default()));
        let shared = Arc::clone(&made);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let made = Arc::clone(&shared);
                let service = service_fn(move |request| answer(request, Arc::clone(&made)));
                connections.spawn(async move {
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self {
            address,
            made,
            _tasks: tasks,
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    made: Arc<Mutex<Made>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.headers()["authorization"], "Bearer token");
    let method = request.method().clone();
    let path = request
        .uri()
        .path()
        .strip_prefix("/api/v1/")
        .unwrap()
        .to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut made = made.lock();
    let (status, body) = if made.busy > 0 {
        made.busy -= 1;
        (StatusCode::SERVICE_UNAVAILABLE, json!({"title": "Busy"}))
    } else {
        match (method, path.contains('/')) {
            (Method::POST, false) => post(&mut made, &path, &body),
            (Method::GET, false) => (StatusCode::OK, list(&made, &path, &query)),
            (Method::GET, true) => made.items.get(&path).map_or_else(
                || (StatusCode::NOT_FOUND, json!({"title": "Not found"})),
                |item| (StatusCode::OK, item.clone()),
            ),
            (Method::POST, true) => {
                cancel(&mut made, &path);
                (StatusCode::OK, Value::Null)
            }
            (Method::DELETE, true) => {
                made.deletes += usize::from(made.items.remove(&path).is_some());
                (StatusCode::NO_CONTENT, Value::Null)
            }
            _ => (StatusCode::OK, Value::Null),
        }
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    Ok(response)
}

fn post(made: &mut Made, kind: &str, body: &Bytes) -> (StatusCode, Value) {
    made.posts += 1;
    let id = made.posts.to_string();
    if kind == "device-batches" {
        return (StatusCode::CREATED, batch(made, &id, body));
    }
    let item = if kind == "resources" {
        // The parts of the form that stand before the file, by their names.
        let form = String::from_utf8_lossy(body).into_owned();
        let field = |name: &str| {
            let (_, rest) = form
                .split_once(&format!("name=\"{name}\"\r\n\r\n"))
                .unwrap();
            rest.split_once("\r\n").unwrap().0.to_owned()
        };
        json!({"id": id, "name": field("name"), "sha256": field("sha256"), "size": field("size")})
    } else {
        let mut item: Value = serde_json::from_slice(body).unwrap();
        if kind == "tasks" {
            let count = item["device_ids"].as_array().unwrap().len();
            item["counts"] = json!({"pending": 0, "delivered": count});
        }
        if item.get("id").is_none() {
            item["id"] = json!(id);
        }
        item
    };
    let key = item
        .get("device_id")
        .unwrap_or_else(|| &item["id"])
        .as_str()
        .unwrap()
        .to_owned();
    made.items.insert(format!("{kind}/{key}"), item.clone());
    (StatusCode::CREATED, item)
}

/// Ends every delivery of a task, if that is what the path asks for.
fn cancel(made: &mut Made, path: &str) {
    let task = path.strip_suffix("/cancel");
    if let Some(item) = task.and_then(|task| made.items.get_mut(task)) {
        let count = item["device_ids"].as_array().unwrap().len();
        item["counts"] = json!({"delivered": 0, "failed": count});
    }
}

/// Makes the devices of a CSV at once; the batch says so when it is looked at.
fn batch(made: &mut Made, id: &str, body: &Bytes) -> Value {
    let text = String::from_utf8_lossy(body).into_owned();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["node_id", "product_id", "secret"]);
    for row in &rows[1..] {
        let device = format!("{}_{}", row[1], row[0]);
        let item = json!({"device_id": device, "secret": row[2]});
        made.items.insert(format!("devices/{device}"), item);
    }
    let (done, counts) = (rows.len() - 1, json!({"failed": 0}));
    made.items.insert(
        format!("device-batches/{id}"),
        json!({"id": id, "state": "finished", "done": done, "counts": counts}),
    );
    json!({"id": id, "state": "waiting", "done": 0, "counts": counts})
}

/// Two items a page, to see that all pages are read.
fn list(made: &Made, kind: &str, query: &str) -> Value {
    let from = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("cursor="))
        .map_or(0, |cursor| cursor.parse().unwrap());
    let prefix = format!("{kind}/");
    let all: Vec<_> = made
        .items
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .collect();
    let items: Vec<_> = all
        .iter()
        .skip(from)
        .take(2)
        .map(|(_, item)| item)
        .collect();
    if all.len() > from + 2 {
        json!({"items": items, "next": (from + 2).to_string()})
    } else {
        json!({"items": items})
    }
}

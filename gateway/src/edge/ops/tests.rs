use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Running {
    address: SocketAddr,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
}

async fn start() -> Running {
    let listener = OpsListener::bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port");
    let running = Running {
        address: listener.address(),
        metrics: Metrics::new(),
        readiness: Readiness::new(),
        shutdown: Shutdown::new(),
    };
    running.shutdown.spawn(listener.run(
        running.metrics.clone(),
        running.readiness.clone(),
        running.shutdown.clone(),
    ));
    running
}

impl Running {
    async fn get(&self, path: &str, more: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("open");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }
}

#[tokio::test]
async fn tells_whether_it_is_ready_and_why_not() {
    let running = start().await;
    let registry = running.readiness.check("registry");
    let answer = running.get("/readyz", "").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.ends_with("not ready: node: starting; registry: starting\n"),
        "{answer}"
    );

    registry.pass();
    running.readiness.started();
    let answer = running.get("/readyz", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nready\n"), "{answer}");
    let answer = running.get("/readyz?verbose", "").await;
    assert!(
        answer.ends_with("[+] node: ok\n[+] registry: ok\n"),
        "{answer}"
    );

    registry.fail("disk full");
    let answer = running
        .get("/readyz?verbose", "Accept: application/json\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains(r#""reason":"disk full""#), "{answer}");
}

#[tokio::test]
async fn answers_while_the_node_drains() {
    let running = start().await;
    running.readiness.started();
    running.readiness.drain();
    running.shutdown.drain();
    assert!(running.get("/livez", "").await.starts_with("HTTP/1.1 200"));
    let answer = running.get("/readyz", "").await;
    assert!(answer.ends_with("not ready: node: draining\n"), "{answer}");
    running.shutdown.stop();
    assert!(running.shutdown.wait(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn shows_the_metrics_and_no_version_elsewhere() {
    let running = start().await;
    running.metrics.connections_mqtt.secret.set(7);
    let answer = running.get("/metrics", "").await;
    assert!(answer.contains(METRICS_TYPE), "{answer}");
    assert!(
        answer.contains("\nheadgate_connections{auth=\"secret\",protocol=\"mqtt\"} 7\n"),
        "{answer}"
    );
    for name in ["tokio_workers", "process_resident_memory_bytes"] {
        assert!(answer.contains(&format!("\n{name} ")), "{name}");
    }
    for path in ["/", "/livez", "/readyz?verbose", "/files"] {
        let answer = running.get(path, "").await;
        assert!(!answer.contains(env!("CARGO_PKG_VERSION")), "{answer}");
        assert!(!answer.to_ascii_lowercase().contains("server:"), "{answer}");
    }
}

#[tokio::test]
async fn open_connections_do_not_hold_up_the_end() {
    let running = start().await;
    let _idle = TcpStream::connect(running.address).await.expect("open");
    assert!(running.get("/livez", "").await.ends_with("ok\n"));
    running.shutdown.stop();
    assert!(running.shutdown.wait(Duration::from_secs(10)).await);
}

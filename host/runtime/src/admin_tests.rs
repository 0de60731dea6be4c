use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::readiness::PartState;

fn config() -> AdminConfig {
    AdminConfig {
        address: [127, 0, 0, 1].into(),
        health_port: 0,
        metrics_port: 0,
        shutdown_timeout: Duration::ZERO,
    }
}

struct Daemon {
    readiness: Readiness,
    health: SocketAddr,
    metrics: SocketAddr,
    _serving: Serving,
}

async fn serve() -> Daemon {
    let admin = Admin::bind(&config()).await.expect("bound");
    let readiness = Readiness::default();
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let (health, metrics_address) = (admin.health_address, admin.metrics_address);
    let serving = admin.serve(readiness.clone(), metrics);
    Daemon {
        readiness,
        health,
        metrics: metrics_address,
        _serving: serving,
    }
}

/// The whole answer to one request, to the end of the connection.
async fn get(address: SocketAddr, target: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("answered and closed");
    answer
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test]
async fn healthz_is_there_from_the_start() {
    let daemon = serve().await;
    let _starting = daemon.readiness.latch("something");
    let answer = get(daemon.health, "/healthz", "*/*").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(body(&answer), "ok\n");
}

#[tokio::test]
async fn readyz_follows_latches_and_drain_and_tells_of_components() {
    let daemon = serve().await;
    let latch = daemon.readiness.latch("the policies");
    let nvml = daemon.readiness.component("nvml");
    nvml.report(
        PartState::Degraded,
        "no NVML library found; serving without it, looking again",
    );

    let starting = get(daemon.health, "/readyz", "*/*").await;
    assert!(starting.starts_with("HTTP/1.1 503 "), "{starting}");
    assert!(
        body(&starting).starts_with("starting\nwaiting for the policies\n"),
        "{starting}"
    );

    drop(latch);
    let ready = get(daemon.health, "/readyz", "*/*").await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert_eq!(
        body(&ready),
        "ready\nnvml: degraded: no NVML library found; serving without it, looking again\n"
    );

    daemon.readiness.drain();
    let draining = get(daemon.health, "/readyz", "*/*").await;
    assert!(
        draining.starts_with("HTTP/1.1 503 ") && body(&draining).starts_with("draining\n"),
        "{draining}"
    );
}

#[tokio::test]
async fn readyz_speaks_json_when_asked() {
    let daemon = serve().await;
    daemon
        .readiness
        .component("nvml")
        .report(PartState::Up, "8 GPUs");
    for (target, accept) in [
        ("/readyz?verbose&format=json", "*/*"),
        ("/readyz", "application/json"),
    ] {
        let answer = get(daemon.health, target, accept).await;
        assert!(
            answer.contains("content-type: application/json"),
            "{answer}"
        );
        let json: serde_json::Value = serde_json::from_str(body(&answer)).expect("JSON");
        let expected = serde_json::json!({
            "status": "ready", "ready": true, "waiting": [],
            "components": [{ "name": "nvml", "state": "up", "detail": "8 GPUs" }],
        });
        assert_eq!(json, expected);
    }
}

#[tokio::test]
async fn metrics_are_served_on_their_own_port() {
    let daemon = serve().await;
    let answer = get(daemon.metrics, "/metrics", "*/*").await;
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4"),
        "{answer}"
    );
    assert!(
        body(&answer).contains("\ndevice_api_server_up 1\n"),
        "{answer}"
    );
    assert!(
        get(daemon.health, "/metrics", "*/*")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        get(daemon.metrics, "/readyz", "*/*")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
}

#[tokio::test]
async fn a_port_in_use_is_refused_naming_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = taken.local_addr().expect("address").port();
    let health = Admin::bind(&AdminConfig {
        health_port: port,
        ..config()
    })
    .await
    .expect_err("in use");
    assert!(matches!(health, BindError::InUse { .. }), "{health:?}");
    assert!(
        health.to_string().contains("--health-port")
            && health.to_string().contains(&port.to_string())
    );
    let metrics = Admin::bind(&AdminConfig {
        metrics_port: port,
        ..config()
    })
    .await
    .expect_err("in use");
    assert!(metrics.to_string().contains("--metrics-port"), "{metrics}");
}

/// Clients that connect and say nothing take all places; the next one is served when their time is up.
#[tokio::test]
async fn idle_clients_do_not_shut_others_out_for_ever() {
    let bounds = Bounds {
        connections_max: 2,
        connection_max: Duration::from_millis(300),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let server = tokio::spawn(accept(
        listener,
        health_routes(Readiness::default()),
        bounds,
    ));
    let began = tokio::time::Instant::now();
    // Connected in this order, so accepted before the one that asks.
    let idle = [
        TcpStream::connect(address).await.expect("first"),
        TcpStream::connect(address).await.expect("second"),
    ];
    let answer = get(address, "/healthz", "*/*").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        began.elapsed() >= bounds.connection_max,
        "waited for a place: {:?}",
        began.elapsed()
    );
    drop(idle);
    server.abort();
}

/// A client that trickles is cut off, for all that it keeps sending.
#[tokio::test]
async fn one_request_has_a_deadline() {
    let bounds = Bounds {
        connections_max: 1,
        connection_max: Duration::from_millis(50),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let server = tokio::spawn(accept(
        listener,
        health_routes(Readiness::default()),
        bounds,
    ));
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\n")
        .await
        .expect("half a request");
    let mut answer = Vec::new();
    // A reset is an end too.
    let _end = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{answer:?}");
    server.abort();
}

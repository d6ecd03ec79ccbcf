//! The HTTP server: accepts connections within the limits and routes requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::connections::{Connections, Slot};
use crate::limits::{HEAD_TIMEOUT, MAX_HEAD_BYTES, SEND_BUFFER_BYTES};
use crate::shared::Shared;
use crate::write_timeout::WriteTimeout;
use crate::{guard, metrics, page, socket, stream};

/// Length of the system's queue of connections to accept. A client that finds it full retries after a second.
const BACKLOG: u32 = 1024;
/// Pause after `accept` failed, for instance because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Must be called inside a runtime.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted program can bind its port while old connections are in TIME_WAIT. On Windows the option would allow two
    // programs on one port.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit the size.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Never returns.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let stall_timeout = shared.config.stall_timeout;
    let router = router(shared);
    let connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without a slot the connection is closed.
                let Some(slot) = connections.open(peer.ip()) else { continue };
                let connection = WriteTimeout::new(without_delay(stream), stall_timeout);
                let task = tokio::spawn(serve_connection(connection, router.clone(), slot.clone()));
                slot.set_task(task.abort_handle());
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Sends small messages at once (`TCP_NODELAY`). Errors are ignored: a closed connection fails at its first read.
fn without_delay(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    stream
}

async fn serve_connection(connection: WriteTimeout, router: Router, slot: Slot) {
    let router = TowerToHyperService::new(router);
    let with_slot = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(slot.clone());
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), with_slot)
        .with_upgrades();
    // Clients may disconnect at any time; that is not an error.
    let _ = served.await;
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::script))
        .route("/stream.mjpg", get(stream::stream))
        .route("/snapshot", get(stream::snapshot))
        .route("/ws", get(socket::upgrade))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(metrics::health))
        .layer(from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}

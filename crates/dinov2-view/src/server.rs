//! Accepts connections and says who answers what.

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

use crate::limits::{HEAD_TIMEOUT, MAX_HEAD_BYTES, SEND_BUFFER_BYTES};
use crate::patience::Patience;
use crate::places::{Place, Places};
use crate::shared::Shared;
use crate::{guard, metrics, page, socket, stream};

/// Connections that the system keeps until they are accepted; where it has no room for one, its sender waits for a second.
const BACKLOG: u32 = 1024;
/// Pause after the system refused a connection, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Must be called inside a runtime.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted program gets its port back while old connections fade. On Windows the option would allow two at once.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Never returns.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let stall_timeout = shared.config.stall_timeout;
    let router = router(shared);
    let places = Places::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without a place it is closed at once.
                let Some(place) = places.take(peer.ip()) else { continue };
                let connection = Patience::new(without_delay(stream), stall_timeout);
                let task = tokio::spawn(answer(connection, router.clone(), place.clone()));
                place.ends(task.abort_handle());
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Small messages go out at once. A connection that is already gone fails at its first read.
fn without_delay(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    stream
}

async fn answer(connection: Patience, router: Router, place: Place) {
    let router = TowerToHyperService::new(router);
    let with_place = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), with_place)
        .with_upgrades();
    // Clients go away in the middle of everything; that is no news.
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

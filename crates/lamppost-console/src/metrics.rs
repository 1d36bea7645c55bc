//! Figures for Prometheus, and nothing else.

use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use lamppost_net::Listener;
use tokio::net::TcpStream;

use crate::bounded::{Placed, Places};

/// Connections at once, of anybody who reaches the address.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be silent: longer than most wait before they ask again.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Answers `GET /metrics` on a listener with what `figures` gives, until it is to take no further
/// request.
pub async fn serve<F, T>(
    listener: Listener,
    figures: F,
    until: impl Future<Output = ()> + Send + 'static,
) where
    F: Fn() -> T + Clone + Send + Sync + 'static,
    T: Future<Output = String> + Send,
{
    let text = move || async move {
        (
            [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            figures().await,
        )
    };
    let router = Router::new().route("/metrics", get(text));
    let tcp = Tcp { listener, places: Places::new(CONNECTIONS_MAX, Some(SILENCE_MAX)) };
    // It ends with the program: a scrape that is cut short is repeated by itself.
    drop(axum::serve(tcp, router).with_graceful_shutdown(until).await);
}

struct Tcp {
    listener: Listener,
    places: Places,
}

impl axum::serve::Listener for Tcp {
    type Io = Placed<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, std::net::SocketAddr) {
        let place = self.places.free().await;
        let (stream, address) = self.listener.accept().await;
        (self.places.give(place, stream), address)
    }

    fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        Ok(self.listener.address())
    }
}

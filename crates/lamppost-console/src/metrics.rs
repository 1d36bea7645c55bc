//! Figures for Prometheus, and nothing else.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use lamppost_net::Listener;
use tokio::net::TcpStream;

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
    // It ends with the program: a scrape that is cut short is repeated by itself.
    drop(axum::serve(Tcp(listener), router).with_graceful_shutdown(until).await);
}

struct Tcp(Listener);

impl axum::serve::Listener for Tcp {
    type Io = TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (TcpStream, std::net::SocketAddr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        Ok(self.0.address())
    }
}

//! One process: the listening port, the queue, and what ends them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Everything that it keeps.
    pub data: PathBuf,
}

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listening on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The operating system refuses threads or sockets.
    #[error("running the server")]
    System(#[source] std::io::Error),
}

/// Serves until `stop` is notified. `ready` is told the address that is listened on.
///
/// # Errors
/// The data directory cannot be used, or the address is taken.
pub fn serve(
    options: &Options,
    stop: Arc<Notify>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let runtime = tokio::runtime::Runtime::new().map_err(Error::System)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|error| Error::Listen(options.listen, error))?;
        ready(listener.local_addr().map_err(Error::System)?);
        let router = Router::new().route("/healthz", get(async || "ok\n"));
        axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.notified().await })
            .await
            .map_err(Error::System)
    })
}

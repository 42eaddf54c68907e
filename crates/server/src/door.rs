//! What stands before all routes: where a request comes from, and whether its client has asked too much.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;

use crate::limits::{Client, network, token, too_many};
use crate::server::Server;
use crate::wire::time;
use crate::{address, page};

/// Stands before routes and turns clients away that ask too much.
pub(crate) async fn guard(
    State(server): State<Arc<Server>>,
    mut request: Request,
    next: Next,
) -> Response {
    let limits = &server.limits;
    let address = address::arrive(server.settings.behind_proxy, &mut request).and_then(network);
    let now = Instant::now();
    if let Some(address) = address
        && let Err(wait) = limits.ask(Client::Address(address), now)
    {
        return too_many(wait);
    }
    let token = match token(request.headers()) {
        None => token_of_session(&server, request.headers()).await,
        token => token,
    };
    if let Some(token) = token
        && let Err(wait) = limits.ask(token, now)
    {
        return too_many(wait);
    }
    next.run(request).await
}

/// The token that a session of the page stands for.
async fn token_of_session(server: &Arc<Server>, headers: &HeaderMap) -> Option<Client> {
    let session = page::session_named(headers)?;
    let server = Arc::clone(server);
    let found = move || server.store.token_of_session(&session, time::now());
    // While the database cannot be read, nobody gets further than here in any case.
    let hash = tokio::task::spawn_blocking(found).await.ok()?.ok()??;
    hash.try_into().ok().map(Client::Token)
}

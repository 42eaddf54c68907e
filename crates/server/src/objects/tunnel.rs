//! `CONNECT storage.googleapis.com:443`: Google's command line reads logs from that name alone, and no setting of it says otherwise.
//! As its proxy the server answers in that name's place, with a certificate of its own authority. Other names are refused.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use super::answer::Secure;
use super::authority::{Authority, HOST};
use super::download::value;
use super::error::ApiError;

/// Tunnels that are open at once, at most.
const TUNNELS_MAX: usize = 512;
/// How long a client may take for TLS, and for each head of a request.
const PATIENCE: Duration = Duration::from_secs(30);

static TUNNELS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(TUNNELS_MAX)));

/// Where the authority's certificate is read, by everybody: it is no secret.
pub const CERTIFICATE: &str = "/ca.pem";

/// Puts the host of Storage before a server's own routes: `CONNECT`, and requests for that host, go to `host`, [`CERTIFICATE`] is
/// answered here, all others go to `own`. Both routers have what decides who may do what around them already.
pub fn front(own: Router, host: Router, authority: Authority) -> Router {
    Router::new().fallback_service(tower::service_fn(move |request: Request| {
        let (own, host, authority) = (own.clone(), host.clone(), authority.clone());
        async move {
            use tower::ServiceExt;
            if request.method() == Method::CONNECT {
                return Ok(connect(request, &authority, host));
            }
            let to = if is_for_host(&request) {
                host
            } else if is_certificate(&request) {
                return Ok(certificate(&authority));
            } else {
                own
            };
            to.oneshot(request).await
        }
    }))
}

fn is_certificate(request: &Request) -> bool {
    request.uri().path() == CERTIFICATE && matches!(*request.method(), Method::GET | Method::HEAD)
}

fn certificate(authority: &Authority) -> Response<Body> {
    let mut response = Response::new(Body::from(authority.certificate().to_owned()));
    let kind = HeaderValue::from_static("application/x-pem-file");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Whether a request, in absolute form or by its `Host`, is for the host of Storage.
fn is_for_host(request: &Request) -> bool {
    let in_target = request.uri().host();
    let named = in_target.or_else(|| {
        let host = value(request.headers(), &header::HOST)?;
        host.split(':').next()
    });
    named == Some(HOST)
}

/// Answers `CONNECT`, and serves `inner` inside of the tunnel. The tunnel itself is open to all who reach the server: it leads nowhere
/// but here.
fn connect(mut request: Request, authority: &Authority, inner: Router) -> Response<Body> {
    let target = request.uri().authority();
    let wanted =
        target.is_some_and(|target| target.host() == HOST && target.port_u16() == Some(443));
    if !wanted {
        let target = target.map_or("nothing", |target| target.as_str());
        let message = format!("CONNECT {target}: this server is a proxy for {HOST}:443 only");
        let mut response = ApiError::invalid(message).into_response();
        *response.status_mut() = StatusCode::FORBIDDEN;
        return response;
    }
    let acceptor = match authority.acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => return ApiError::internal(error.to_string()).into_response(),
    };
    let Ok(permit) = Arc::clone(&TUNNELS).try_acquire_owned() else {
        return ApiError::too_many("too many tunnels are open").into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let peer = request
        .extensions()
        .get::<axum::extract::ConnectInfo<std::net::SocketAddr>>()
        .copied();
    tokio::spawn(async move {
        // A client that leaves, or does not trust the authority, is nobody's trouble here.
        let Ok(raw) = upgrade.await else { return };
        let accepted = tokio::time::timeout(PATIENCE, acceptor.accept(TokioIo::new(raw))).await;
        let Ok(Ok(stream)) = accepted else { return };
        let marked = inner.layer(axum::middleware::map_request(
            move |mut request: Request| {
                request.extensions_mut().insert(Secure);
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                std::future::ready(request)
            },
        ));
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE);
        let service = TowerToHyperService::new(marked);
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
        drop(permit);
    });
    Response::new(Body::empty())
}

//! One process: the listening port, the queue, and what ends them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use crate::commands::Commands;
use crate::executor::local::Local;
use crate::left::Left;
use crate::limits::{Connection, Limits, Patient, Rates};
use crate::metrics;
use crate::objects::{self, Authority, Contents, Elsewhere, Objects};
use crate::requests::Requests;
use crate::secrets::Secrets;
use crate::server::{Logs, Server, Settings};
use crate::store::{self, Store};
use crate::tls::{self, Tls};
use crate::wire::model::Status;
use crate::wire::time;
use crate::{api, door, linger, notify, page, queue, retain, run};

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long answers may take that are on their way when the server ends.
const GRACE: Duration = Duration::from_secs(10);

/// What a server is started with.
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Everything that it keeps.
    pub data: PathBuf,
    /// The server's address as clients reach it; the one that is listened on if nothing is said.
    pub url: Option<String>,
    /// How much it runs at once, and what it takes for granted.
    pub settings: Settings,
    /// How much clients may ask for.
    pub rates: Rates,
    /// Where the contents of the buckets are; in `data` if nothing is said.
    pub objects: Option<Elsewhere>,
    /// Kiln's cache for builds; below `data` if nothing is said.
    pub cache: Option<PathBuf>,
    /// Its certificate; plain HTTP without one.
    pub tls: Option<tls::Files>,
    /// The program `kiln`.
    pub program: PathBuf,
    /// The environment of builds.
    pub env: Vec<(String, String)>,
    /// Kiln's command line.
    pub commands: Arc<dyn Commands>,
}

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("the address {0} cannot be listened on")]
    Listen(SocketAddr, #[source] io::Error),
    /// Whoever reaches the port could do everything.
    #[error(
        "{0} is no loopback address: an open server would be everybody's; give tokens to its users instead"
    )]
    Open(SocketAddr),
    /// The operating system refuses threads or sockets.
    #[error("the server cannot run")]
    System(#[source] io::Error),
    /// The data directory cannot be used.
    #[error("the data directory {0} cannot be used")]
    Data(PathBuf, #[source] io::Error),
    /// Another server uses it.
    #[error("the data directory {0} is in use by another server")]
    Busy(PathBuf),
    /// The database cannot be used.
    #[error("the server's database cannot be used")]
    Store(#[source] store::Error),
    /// Those who are to be told are not understood.
    #[error(transparent)]
    Notify(#[from] notify::Error),
    /// The certificate cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] tls::Error),
    /// The buckets cannot be used.
    #[error("the server's buckets cannot be used: {0}")]
    Objects(String),
}

/// Serves until `stop` is notified. Builds go on without the server; the next one follows them. `ready` is told the address that
/// is listened on.
///
/// # Errors
/// The data directory cannot be used, or the address is taken.
pub fn serve(
    options: Options,
    stop: Arc<Notify>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    if options.settings.open && !options.listen.ip().is_loopback() {
        return Err(Error::Open(options.listen));
    }
    let _held = hold(&options.data)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Error::System)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|error| Error::Listen(options.listen, error))?;
        let address = listener.local_addr().map_err(Error::System)?;
        let tls = options.tls.clone().map(Tls::open).transpose()?;
        let targets = notify::read(&options.data).map_err(Error::Notify)?;
        let (router, server) = assemble(options, address).await?;
        notify::start(&server, targets).map_err(Error::System)?;
        go_on(&server).map_err(Error::Store)?;
        let retain = tokio::spawn(retain::work(Arc::clone(&server)));
        let queue = tokio::spawn(queue::work(Arc::clone(&server)));
        ready(address);
        let door = Door {
            server,
            router,
            tls,
        };
        accept(listener, &door, &stop).await;
        queue.abort();
        retain.abort();
        Ok(())
    })
}

/// Opens a data directory's database, for commands beside the server.
///
/// # Errors
/// It cannot be used.
pub fn open_store(data: &Path) -> Result<Store, Error> {
    make_private(data)?;
    Store::open(data).map_err(Error::Store)
}

fn make_private(data: &Path) -> Result<(), Error> {
    let mut private = std::fs::DirBuilder::new();
    let made = private.recursive(true).mode(0o700).create(data);
    made.map_err(|error| Error::Data(data.to_owned(), error))
}

/// How long the data directory may take to be free of a server that has just ended.
const FREED: std::time::Duration = std::time::Duration::from_secs(2);

/// Makes the data directory and keeps other servers out of it.
fn hold(data: &Path) -> Result<std::fs::File, Error> {
    make_private(data)?;
    let trouble = |error| Error::Data(data.to_owned(), error);
    let file = std::fs::File::create(data.join("lock")).map_err(trouble)?;
    // A process that a killed server was just about to start has the lock too, until it is another program.
    let patience = std::time::Instant::now() + FREED;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if std::time::Instant::now() >= patience => {
                return Err(Error::Busy(data.to_owned()));
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(trouble(error)),
        }
    }
}

async fn assemble(options: Options, address: SocketAddr) -> Result<(Router, Arc<Server>), Error> {
    let data = options.data;
    let store = Store::open(&data).map_err(Error::Store)?;
    let trouble = |error: objects::ApiError| Error::Objects(error.to_string());
    let elsewhere = options.objects.as_ref();
    let contents = elsewhere.map_or(Ok(Contents::Here), Elsewhere::contents);
    let limits = objects::Limits {
        quota: options.settings.quota,
        keep_free: options.settings.keep_free,
        ..objects::Limits::default()
    };
    let objects = Objects::open(&data.join("objects"), contents.map_err(trouble)?, limits)
        .await
        .map_err(trouble)?;
    let authority = Authority::open(&data).map_err(|error| Error::Objects(error.to_string()))?;
    let scheme = if options.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = options
        .url
        .unwrap_or_else(|| format!("{scheme}://{address}"));
    let server = Arc::new(Server {
        store,
        objects,
        executor: Box::new(Local {
            program: options.program,
            env: options.env,
        }),
        commands: options.commands,
        settings: options.settings,
        url: url.trim_end_matches('/').to_owned(),
        builds: data.join("builds"),
        cache: options.cache.unwrap_or_else(|| data.join("cache")),
        images: data.join("images"),
        secrets: Secrets::of(&data),
        wake: Notify::new(),
        limits: Limits::new(options.rates),
        requests: Requests::default(),
        waits: Mutex::new(BTreeMap::new()),
        left: Left::default(),
    });
    let logs = Arc::new(Logs(Arc::clone(&server)));
    let buckets = objects::router(server.objects.clone(), logs.clone());
    let host = objects::host_router(server.objects.clone(), logs);
    let guarded = |router| api::guarded(router, Arc::clone(&server));
    let pages = page::router(Arc::clone(&server)).map_err(Error::System)?;
    let limited = |router: Router| {
        let server = Arc::clone(&server);
        router.layer(axum::middleware::from_fn_with_state(server, door::guard))
    };
    let own = guarded(buckets)
        .merge(api::router(Arc::clone(&server)))
        .merge(pages);
    let own = limited(own);
    let counted = axum::middleware::from_fn_with_state(Arc::clone(&server), metrics::measure);
    let mut router = objects::front(own, limited(guarded(host)), authority)
        .layer(counted)
        .layer(axum::middleware::from_fn(linger::listen));
    if options.tls.is_some() {
        router = router.layer(axum::middleware::map_request(
            async |mut request: axum::extract::Request| {
                request.extensions_mut().insert(objects::Secure);
                request
            },
        ));
    }
    Ok((router, server))
}

/// Goes on with the builds that ran when the last server ended.
fn go_on(server: &Arc<Server>) -> Result<(), store::Error> {
    for record in server.store.with_status(Status::Working)? {
        tokio::spawn(run::build(Arc::clone(server), record, run::From::Follow));
    }
    Ok(())
}

/// What every connection needs.
struct Door {
    server: Arc<Server>,
    router: Router,
    tls: Option<Tls>,
}

impl Door {
    /// Serves a connection in a task of its own.
    fn open(
        &self,
        (stream, peer): (TcpStream, SocketAddr),
        held: Connection,
        ended: watch::Receiver<bool>,
    ) {
        let _ = stream.set_nodelay(true);
        let stream = Patient::new(stream);
        let info = axum::Extension(axum::extract::ConnectInfo(peer));
        let router = self.router.clone().layer(info);
        let Some(tls) = &self.tls else {
            tokio::spawn(async move {
                connection_of(stream, router, ended).await;
                drop(held);
            });
            return;
        };
        let (acceptor, trouble) = tls.acceptor();
        if let Some(error) = trouble {
            let what = format!("keeps its certificate: {error}");
            // Where the database cannot be written, /readyz says so.
            drop(self.server.store.audit(time::now(), "server", &what, None));
        }
        tokio::spawn(async move {
            // A client that leaves, or trusts another certificate, is nobody's trouble here.
            if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                connection_of(stream, router, ended).await;
            }
            drop(held);
        });
    }
}

/// Takes connections until the end is asked for, and waits a while for answers that are on their way.
async fn accept(listener: TcpListener, door: &Door, stop: &Notify) {
    let (ending, ended) = watch::channel(false);
    loop {
        tokio::select! {
            () = stop.notified() => break,
            connection = listener.accept() => match connection {
                Ok(client) => tokio::select! {
                    () = stop.notified() => break,
                    held = door.server.limits.connection(client.1.ip()) => if let Some(held) = held {
                        door.open(client, held, ended.clone());
                    },
                },
                // No descriptor is left, or the client has gone: others get theirs later.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    drop(ended);
    drop(listener);
    // Whether anybody listens does not matter.
    let _ = ending.send(true);
    let _ = tokio::time::timeout(GRACE, ending.closed()).await;
}

async fn connection_of<S>(stream: S, router: Router, mut ended: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ending = async move {
        // The sender lives until all connections have ended.
        let _ = ended.wait_for(|ended| *ended).await;
        ended
    };
    let mut ending = std::pin::pin!(ending);
    tokio::select! {
        _ = connection.as_mut() => {}
        kept = ending.as_mut() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
            drop(kept);
        }
    }
}

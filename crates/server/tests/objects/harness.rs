//! A server of objects alone, on the loopback interface, and a client that sends exactly what a test says.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kiln_server::objects::{self, Authority, Contents, Elsewhere, Limits, Live, Objects, Owner};
use kiln_testkit::Bucket;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::replay::Recorder;

/// Logs that grow.
#[derive(Default)]
pub(crate) struct Logs(Mutex<HashMap<(String, String), PathBuf>>);

impl Live for Logs {
    fn find(&self, bucket: &str, name: &str) -> Option<PathBuf> {
        let all = self.0.lock().unwrap();
        all.get(&(bucket.to_owned(), name.to_owned())).cloned()
    }
}

impl Logs {
    pub(crate) fn add(&self, bucket: &str, name: &str, path: &Path) {
        let key = (bucket.to_owned(), name.to_owned());
        self.0.lock().unwrap().insert(key, path.to_owned());
    }
}

/// A build that has ended, for the part of the command line that asks for one before it reads its log.
async fn build(request: Request) -> Response {
    if !request.uri().path().ends_with("/builds/1") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let build = serde_json::json!({
        "id": "1", "projectId": "demo-proj", "status": "SUCCESS", "logsBucket": "gs://kiln-logs",
        "name": "projects/demo-proj/locations/global/builds/1", "options": { "logging": "GCS_ONLY" },
    });
    Response::new(build.to_string().into())
}

/// Where a server's contents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its own directory.
    Here,
    /// In a store that speaks as S3 does.
    Bucket,
    /// In one that speaks as Google Cloud Storage does.
    Google,
    /// In one that speaks as Azure's Blob Storage does.
    Azure,
}

/// The stores of servers, by their directories: they outlive them, until the test's end.
static STORES: Mutex<BTreeMap<PathBuf, Arc<Bucket>>> = Mutex::new(BTreeMap::new());

/// The store of the server in a directory.
pub(crate) fn store_of(data: &Path) -> Arc<Bucket> {
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = stores
        .entry(data.to_owned())
        .or_insert_with(|| Arc::new(Bucket::start()));
    Arc::clone(store)
}

/// How a server reaches a store.
pub(crate) fn elsewhere(place: Place, url: &str) -> Elsewhere {
    let account = format!(
        "{{\"gcs_base_url\":\"{url}\",\"disable_oauth\":true,\"client_email\":\"\",\"private_key\":\"\",\"private_key_id\":\"\"}}"
    );
    let text = format!(
        "AWS_ENDPOINT_URL={url}\nAWS_ALLOW_HTTP=true\nAWS_REGION=nowhere\nAWS_ACCESS_KEY_ID=id\n\
         AWS_SECRET_ACCESS_KEY=a-secret\nGOOGLE_SERVICE_ACCOUNT_KEY={account}\nAZURE_STORAGE_ENDPOINT={url}\n\
         AZURE_ALLOW_HTTP=true\nAZURE_STORAGE_ACCOUNT_NAME=account\nAZURE_STORAGE_ACCOUNT_KEY=YS1zZWNyZXQ=\n"
    );
    let scheme = match place {
        Place::Google => "gs",
        Place::Azure => "az",
        Place::Here | Place::Bucket => "s3",
    };
    Elsewhere {
        url: format!("{scheme}://bucket/a/prefix"),
        settings: objects::settings(&text).unwrap(),
        proxy: None,
        no_proxy: None,
        patience: Duration::from_secs(2),
    }
}

/// A running server. What it keeps outlives it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) logs: Arc<Logs>,
    pub(crate) objects: Objects,
    pub(crate) authority: Authority,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Server {
        Server::start_in(Place::Here, data)
    }

    pub(crate) fn start_in(place: Place, data: &Path) -> Server {
        Server::with(place, data, Limits::default(), None)
    }

    pub(crate) fn with(
        place: Place,
        data: &Path,
        limits: Limits,
        recorder: Option<Arc<Recorder>>,
    ) -> Server {
        let contents = match place {
            Place::Here => Contents::Here,
            place => elsewhere(place, &store_of(data).url()).contents().unwrap(),
        };
        let runtime = Runtime::new().unwrap();
        let logs = Arc::new(Logs::default());
        let authority = Authority::open(data).unwrap();
        let (listener, objects) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let objects = Objects::open(&data.join("objects"), contents, limits).await;
            (listener, objects.unwrap())
        });
        let live: Arc<dyn Live> = Arc::clone(&logs) as Arc<dyn Live>;
        let mut own = objects::router(objects.clone(), Arc::clone(&live)).fallback(build);
        let mut host = objects::host_router(objects.clone(), live);
        if let Some(recorder) = recorder {
            own = recorder.layer(own);
            host = recorder.layer(host);
        }
        let somebody = Extension(Owner::of("somebody"));
        let front = objects::front(
            own.layer(somebody.clone()),
            host.layer(somebody),
            authority.clone(),
        );
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, front).await });
        Server {
            address,
            logs,
            objects,
            authority,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for something of the library.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let mut stream = self.begin(method, target, headers, body.len());
        // A server that refuses a body early closes while it is being sent.
        let _ = stream.write_all(body);
        Reply::read(stream)
    }

    /// Sends the head of a request only.
    pub(crate) fn begin(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        length: usize,
    ) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        );
        if method != "GET" && method != "DELETE" || length > 0 {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], b"")
    }

    pub(crate) fn json(&self, method: &str, target: &str, body: &Value) -> Reply {
        let kind = [("Content-Type", "application/json")];
        self.send(method, target, &kind, body.to_string().as_bytes())
    }

    pub(crate) fn bucket(&self, name: &str) {
        let made = self.json(
            "POST",
            "/storage/v1/b?project=demo-proj",
            &serde_json::json!({ "name": name }),
        );
        assert_eq!(made.status, 200, "{}", made.text());
    }

    /// Stores an object in one piece.
    pub(crate) fn store(&self, bucket: &str, name: &str, content: &[u8]) -> Reply {
        let target = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}");
        self.send("POST", &target, &[("Content-Type", "text/plain")], content)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn read(mut stream: TcpStream) -> Reply {
        let mut bytes = Vec::new();
        // A reset behind the answer is no matter.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let pair = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let headers: Vec<(String, String)> = lines.map(pair).collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers
            .iter()
            .any(|(name, value)| name == "transfer-encoding" && value == "chunked")
        {
            body = unchunk(&body);
        }
        Reply {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The same from a server whose address is not told.
    pub(crate) fn neutral(mut self, address: &str) -> Reply {
        for (_, value) in &mut self.headers {
            *value = value.replace(address, "SERVER");
        }
        if let Ok(text) = std::str::from_utf8(&self.body) {
            self.body = text.replace(address, "SERVER").into_bytes();
        }
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The reason of an error of the JSON API.
    pub(crate) fn reason(&self) -> String {
        self.json()["error"]["errors"][0]["reason"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    body
}

/// Bytes that compress well and are the same everywhere.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 1000 % 251) as u8).collect()
}

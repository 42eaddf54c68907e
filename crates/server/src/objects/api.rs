//! The routes, and what is done for each.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as Received, State};
use axum::http::request::Parts;
use axum::http::{Method, Response};
use axum::response::IntoResponse;
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::answer::{base, json as answer, nothing};
use super::condition::Conditions;
use super::copy;
use super::download::Source;
use super::error::{ApiError, Result};
use super::incoming::Incoming;
use super::index::Selection;
use super::ledger::Owner;
use super::live::Live;
use super::multipart::JSON_MAX;
use super::name::{BucketName, ObjectName};
use super::route::{Query, Target, no_method, plain};
use super::store::Objects;
use super::upload::{Upload, no_encryption, parse};

/// Entries of a page, at most.
const PAGE_MAX: i64 = 1000;

/// What handlers work with.
#[derive(Clone)]
struct Service {
    source: Source,
}

impl Service {
    /// The same for whom a layer around the routes has found out: an [`Owner`] in the request's extensions.
    fn of(mut self, parts: &Parts) -> Service {
        if let Some(owner) = parts.extensions.get::<Owner>() {
            self.source.objects = self.source.objects.of(owner.clone());
        }
        self
    }
}

/// The Storage JSON API: `/storage/v1/…`, `/upload/storage/v1/…`, `/resumable/upload/storage/v1/…`, `/download/storage/v1/…`.
/// A layer around it decides who may do what.
pub fn router(objects: Objects, live: Arc<dyn Live>) -> Router {
    routes().with_state(service(objects, live))
}

/// The same, and objects at `/{bucket}/{object}`: what `storage.googleapis.com` serves. For [`front`](super::front()).
pub fn host_router(objects: Objects, live: Arc<dyn Live>) -> Router {
    let service = service(objects, live);
    routes().fallback(any(plain_address)).with_state(service)
}

fn service(objects: Objects, live: Arc<dyn Live>) -> Service {
    Service {
        source: Source { objects, live },
    }
}

fn routes() -> Router<Service> {
    let mut routes = Router::new()
        .route("/batch/storage/v1", any(batch))
        .route("/batch", any(batch));
    for (prefix, handler) in [
        ("/storage/v1", any(metadata)),
        ("/download/storage/v1", any(metadata)),
        ("/upload/storage/v1", any(upload)),
        ("/resumable/upload/storage/v1", any(upload)),
    ] {
        routes = routes.route(&format!("{prefix}/{{*path}}"), handler);
    }
    routes
}

async fn batch() -> Response<Body> {
    ApiError::not_built("batch requests; send them one by one").into_response()
}

/// `/{bucket}/{object}`, whose errors are XML.
async fn plain_address(State(service): State<Service>, request: Received) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let content = async {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(ApiError::not_built(format!(
                "{} of the XML API; the JSON API has it",
                parts.method
            )));
        }
        let (bucket, name) = plain(parts.uri.path())?;
        let query = Query::parse(parts.uri.query());
        let generation = query.number("generation")?;
        let conditions = Conditions::default();
        service
            .source
            .content(&bucket, &name, generation, &conditions, &parts.headers)
            .await
    };
    content.await.unwrap_or_else(|error| error.xml())
}

async fn upload(State(service): State<Service>, request: Received) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let service = service.of(&parts);
    let mut body = Incoming::new(body, service.source.objects.limits().silence);
    let stored: Result<_> = async {
        let objects = &service.source.objects;
        let path = parts.uri.path().trim_start_matches("/resumable");
        let rest = path.strip_prefix("/upload/storage/v1/").unwrap_or(path);
        let Target::Objects(bucket) = Target::parse(rest)? else {
            return Err(ApiError::not_found("uploads go to …/b/BUCKET/o"));
        };
        let upload = Upload {
            objects,
            bucket,
            query: Query::parse(parts.uri.query()),
            parts: &parts,
            base: &base(&parts),
        };
        upload.answer(&mut body).await
    }
    .await;
    stored.unwrap_or_else(IntoResponse::into_response)
}

async fn metadata(State(service): State<Service>, request: Received) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let service = service.of(&parts);
    let path = parts.uri.path();
    let rest = path.strip_prefix("/download").unwrap_or(path);
    let is_download = rest.len() < path.len();
    let done = async {
        no_encryption(&parts)?;
        let target = Target::parse(rest.strip_prefix("/storage/v1/").unwrap_or(rest))?;
        let call = Call {
            service: &service,
            query: Query::parse(parts.uri.query()),
            base: base(&parts),
            parts: &parts,
            is_download,
        };
        call.answer(target, body).await
    };
    done.await.unwrap_or_else(IntoResponse::into_response)
}

/// A request about buckets and objects.
struct Call<'a> {
    service: &'a Service,
    query: Query,
    base: String,
    parts: &'a Parts,
    is_download: bool,
}

impl Call<'_> {
    async fn answer(&self, target: Target, body: Body) -> Result<Response<Body>> {
        let method = &self.parts.method;
        match target {
            Target::Buckets => match *method {
                Method::GET => self.buckets().await,
                Method::POST => self.create_bucket(body).await,
                _ => self.no_method(),
            },
            Target::Bucket(name) => match *method {
                Method::GET => Ok(answer(
                    &self.objects().bucket(&name).await?.json(&self.base),
                )),
                Method::DELETE => {
                    self.objects().delete_bucket(&name).await?;
                    Ok(nothing())
                }
                Method::PATCH | Method::PUT => {
                    Err(ApiError::not_built("changes of a bucket's settings"))
                }
                _ => self.no_method(),
            },
            Target::Layout(name) => self.layout(&name).await,
            Target::ManagedFolders(name) => {
                self.objects().bucket(&name).await?;
                match *method {
                    Method::GET => Ok(answer(&json!({ "kind": "storage#managedFolders" }))),
                    _ => Err(ApiError::not_built("managed folders")),
                }
            }
            Target::Objects(bucket) => match *method {
                Method::GET => self.list(&bucket).await,
                Method::POST => Err(ApiError::invalid(
                    "objects are uploaded to /upload/storage/v1/b/BUCKET/o",
                )),
                _ => self.no_method(),
            },
            Target::Object(bucket, name) => self.object(&bucket, &name, body).await,
            Target::Copy { from, to, rewrite } => match *method {
                Method::POST => {
                    let described = self.body(body).await?;
                    let object =
                        copy::copy(self.objects(), &self.query, &from, &to, described).await?;
                    Ok(answer(&copy::answer(&object, rewrite, &self.base)))
                }
                _ => self.no_method(),
            },
            Target::Compose(bucket, name) => match *method {
                Method::POST => {
                    let wanted = self.body(body).await?;
                    let object =
                        copy::compose(self.objects(), &self.query, &bucket, &name, &wanted).await?;
                    Ok(answer(&object.json(&self.base)))
                }
                _ => self.no_method(),
            },
        }
    }

    fn objects(&self) -> &Objects {
        &self.service.source.objects
    }

    fn no_method<T>(&self) -> Result<T> {
        no_method(&self.parts.method, self.parts.uri.path())
    }

    /// A body of JSON, or none.
    async fn body(&self, body: Body) -> Result<Value> {
        let silence = self.objects().limits().silence;
        let json = Incoming::new(body, silence).whole(JSON_MAX).await?;
        if json.is_empty() {
            return Ok(Value::Null);
        }
        parse(&json)
    }

    async fn create_bucket(&self, body: Body) -> Result<Response<Body>> {
        self.query.refuse(&[
            "predefinedAcl",
            "predefinedDefaultObjectAcl",
            "enableObjectRetention",
        ])?;
        let wanted = self.body(body).await?;
        let enabled = |path: &str| wanted.pointer(path).and_then(Value::as_bool) == Some(true);
        for (path, what) in [
            ("/versioning/enabled", "versions of objects"),
            ("/hierarchicalNamespace/enabled", "hierarchical buckets"),
            ("/autoclass/enabled", "classes of storage"),
        ] {
            if enabled(path) {
                return Err(ApiError::not_built(what));
            }
        }
        for what in [
            "retentionPolicy",
            "lifecycle",
            "encryption",
            "website",
            "billing",
            "acl",
        ] {
            if !wanted[what].is_null() {
                return Err(ApiError::not_built(format!("'{what}' of a bucket")));
            }
        }
        let name = wanted["name"].as_str();
        let name = name.ok_or_else(|| ApiError::invalid("Required parameter: name"))?;
        let project = self.query.get("project").unwrap_or("");
        let bucket = self
            .objects()
            .create_bucket(&BucketName::new(name)?, project)
            .await?;
        Ok(answer(&bucket.json(&self.base)))
    }

    async fn buckets(&self) -> Result<Response<Body>> {
        self.query.refuse(&["softDeleted"])?;
        let most = self.most()?;
        let text = |name: &str| self.query.get(name).unwrap_or("");
        let from = String::from_utf8_lossy(&self.token()?).into_owned();
        let (project, prefix) = (text("project"), text("prefix"));
        let mut buckets = self
            .objects()
            .buckets(project, prefix, from, most + 1)
            .await?;
        let next = buckets.get(most).map(|next| next.name.to_string());
        buckets.truncate(most);
        let items: Vec<Value> = buckets
            .iter()
            .map(|bucket| bucket.json(&self.base))
            .collect();
        let mut list = json!({ "kind": "storage#buckets", "items": items });
        if let Some(next) = next {
            list["nextPageToken"] = BASE64.encode(next).into();
        }
        Ok(answer(&list))
    }

    async fn layout(&self, name: &BucketName) -> Result<Response<Body>> {
        self.objects().bucket(name).await?;
        Ok(answer(&json!({
            "kind": "storage#storageLayout", "bucket": name.as_str(), "location": "US", "locationType": "multi-region",
            "hierarchicalNamespace": { "enabled": false },
        })))
    }

    fn most(&self) -> Result<usize> {
        let most = self.query.number("maxResults")?.unwrap_or(PAGE_MAX);
        usize::try_from(most.clamp(1, PAGE_MAX))
            .map_err(|error| ApiError::internal(error.to_string()))
    }

    /// Where a page begins: the next name in base64, so that it survives any way of quoting.
    fn token(&self) -> Result<Vec<u8>> {
        let token = self.query.get("pageToken").unwrap_or("");
        let wrong = |_| ApiError::invalid("pageToken is not one that this server gave");
        BASE64.decode(token).map_err(wrong)
    }

    async fn list(&self, bucket: &BucketName) -> Result<Response<Body>> {
        self.query.refuse(&["softDeleted", "matchGlob", "filter"])?;
        let text = |name: &str| self.query.get(name).map(str::to_owned);
        let start = self.query.get("startOffset").unwrap_or("");
        let selection = Selection {
            prefix: text("prefix").unwrap_or_else(String::new),
            delimiter: text("delimiter").unwrap_or_else(String::new),
            from: self.token()?.max(start.as_bytes().to_vec()),
            until: text("endOffset"),
            most: self.most()?,
            trailing: self.query.flag("includeTrailingDelimiter"),
        };
        let page = self.objects().page(bucket, &selection).await?;
        let items: Vec<Value> = page
            .objects
            .iter()
            .map(|object| object.json(&self.base))
            .collect();
        let mut list = json!({ "kind": "storage#objects" });
        if !items.is_empty() {
            list["items"] = items.into();
        }
        if !page.prefixes.is_empty() {
            list["prefixes"] = page.prefixes.into();
        }
        if let Some(next) = page.next {
            list["nextPageToken"] = BASE64.encode(next).into();
        }
        Ok(answer(&list))
    }

    async fn object(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        body: Body,
    ) -> Result<Response<Body>> {
        let generation = self.query.number("generation")?;
        let conditions = Conditions::of_query(&self.query, false)?;
        let source = &self.service.source;
        match self.parts.method {
            Method::GET | Method::HEAD
                if self.is_download || self.query.get("alt") == Some("media") =>
            {
                source
                    .content(bucket, name, generation, &conditions, &self.parts.headers)
                    .await
            }
            Method::GET => {
                let described = source
                    .describe(bucket, name, generation, &conditions, &self.base)
                    .await?;
                Ok(answer(&described))
            }
            Method::DELETE => {
                self.objects()
                    .delete(bucket, name, generation, &conditions)
                    .await?;
                Ok(nothing())
            }
            Method::PATCH | Method::PUT => {
                self.query
                    .refuse(&["predefinedAcl", "overrideUnlockedRetention"])?;
                let is_patch = self.parts.method == Method::PATCH;
                let wanted = self.body(body).await?;
                let object = self
                    .objects()
                    .patch(bucket, name, generation, &conditions, move |old| {
                        copy::changed(old, wanted, is_patch)
                    })
                    .await?;
                Ok(answer(&object.json(&self.base)))
            }
            _ => self.no_method(),
        }
    }
}

//! What a build made: files with size, digest, address and a code for phones.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use qrcode::QrCode;
use qrcode::render::svg;

use super::parts::{digest, size, trusted};
use super::view::View;
use super::{Page, ansi, find, kept, session};
use crate::api;
use crate::executor::request::{Artifact, LARGEST_PICTURE};
use crate::objects::{BucketName, ObjectName, Opened};
use crate::server::split;
use crate::store::{Record, Role};
use crate::wire::error::{ApiError, Code};
use crate::wire::model::Status;

/// The last part of a file's path.
fn base(file: &Artifact) -> &str {
    file.path.rsplit('/').next().unwrap_or(&file.path)
}

/// The files of a build that went well.
pub(super) fn section(view: &View<'_>) -> Markup {
    let build = &view.record.build;
    let files = match build.status {
        Status::Success => kept::artifacts(&view.attempt),
        _ => Vec::new(),
    };
    if files.is_empty() {
        return html! {};
    }
    let main = (0..files.len()).max_by_key(|at| (is_image(&files[*at]), files[*at].size));
    html! {
        section.artifacts aria-labelledby="artifacts" {
            h2 #artifacts { "Files" }
            @for (at, file) in files.iter().enumerate() {
                @if base(file).ends_with(".png") && file.size <= LARGEST_PICTURE {
                    figure { img src={ "/builds/" (build.id) "/artifacts/" (at) } alt={ "Picture " (base(file)) } loading="lazy"; }
                }
            }
            div.with-code {
                div.scrolls tabindex="0" role="group" aria-labelledby="artifacts" {
                    table {
                        thead { tr { th scope="col" { "File" } th.number scope="col" { "Size" } th scope="col" { "SHA-256" } } }
                        tbody {
                            @for (at, file) in files.iter().enumerate() {
                                tr {
                                    td { a href={ "/builds/" (build.id) "/artifacts/" (at) } download { (ansi::plain(base(file))) } }
                                    td.number { (size(file.size)) }
                                    td { (digest(&file.sha256)) }
                                }
                            }
                        }
                    }
                }
                @if let Some(at) = main { (code(view, at, &files[at])) }
            }
            @if let Some(at) = main.filter(|at| is_image(&files[*at])) { (flash(view, &files[at])) }
        }
    }
}

fn is_image(file: &Artifact) -> bool {
    let name = base(file);
    name.ends_with(".raw")
        || name.ends_with(".tar.gz")
        || name.ends_with(".iso")
        || name.ends_with(".qcow2")
}

fn code(view: &View<'_>, at: usize, file: &Artifact) -> Markup {
    let address = format!(
        "{}/builds/{}/artifacts/{at}",
        view.page.server.url, view.record.build.id
    );
    let Ok(code) = QrCode::new(address.as_bytes()) else {
        return html! {};
    };
    let drawn = code
        .render::<svg::Color<'_>>()
        .min_dimensions(132, 132)
        .build();
    // It stands inside of a page: no head of its own.
    let drawn = drawn
        .split_once("?>")
        .map_or(drawn.as_str(), |(_, rest)| rest);
    html! {
        figure.code {
            div role="img" aria-label={ "Code of the address of " (base(file)) } { (trusted(drawn.to_owned())) }
            figcaption { "Download " (ansi::plain(base(file))) " with a phone" }
        }
    }
}

fn flash(view: &View<'_>, file: &Artifact) -> Markup {
    let place = location(view.record);
    let Some((bucket, prefix)) = place else {
        return html! {};
    };
    let line = format!("gcloud storage cp gs://{bucket}/{prefix}{} .", base(file));
    html! { p.copy-line { code data-copy=(line) { (ansi::plain(&line)) } } }
}

/// The bucket and the beginning of the names of a build's files.
fn location(record: &Record) -> Option<(String, String)> {
    let wanted = record.task.artifacts.as_ref()?;
    Some(split(&wanted.location))
}

/// Sends a file; phones ask for the rest of one that was cut off.
pub(super) async fn download(State(page): State<Arc<Page>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let headers = parts.headers.clone();
    let work = {
        let (page, parts) = (Arc::clone(&page), parts.clone());
        move || {
            session::visitor(&page, &parts.headers)?
                .caller
                .needs(Role::View)?;
            let segments = api::segments(parts.uri.path())?;
            let word = |at: usize| segments.get(at).map_or("", String::as_str);
            let record = find(&page, word(1))?;
            let missing = || ApiError::new(Code::NotFound, "the build has no such file");
            let attempt = page.server.attempt(&record.build.id, record.attempt);
            let at: usize = word(3).parse().map_err(|_| missing())?;
            let file = kept::artifacts(&attempt)
                .into_iter()
                .nth(at)
                .ok_or_else(missing)?;
            let (bucket, prefix) = location(&record).ok_or_else(missing)?;
            let object = format!("{prefix}{}", base(&file));
            Ok((bucket, object, file))
        }
    };
    let named = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(named)) => named,
        Ok(Err(error)) => return super::trouble(&page, &headers, &parts.uri, &error),
        Err(error) => {
            let error = ApiError::internal(error);
            return super::trouble(&page, &headers, &parts.uri, &error);
        }
    };
    let (bucket, object, file) = named;
    match open(&page, &bucket, &object).await {
        Ok(opened) => send(opened, &file, &headers),
        Err(error) => super::trouble(&page, &headers, &parts.uri, &error),
    }
}

async fn open(page: &Page, bucket: &str, object: &str) -> Result<Opened, ApiError> {
    let gone = |error: crate::objects::ApiError| {
        ApiError::new(Code::NotFound, format!("gs://{bucket}/{object}: {error}"))
    };
    let bucket = BucketName::new(bucket).map_err(gone)?;
    let object = ObjectName::new(object).map_err(gone)?;
    page.server
        .objects
        .open_object(&bucket, &object, None)
        .await
        .map_err(gone)
}

fn send(opened: Opened, file: &Artifact, headers: &HeaderMap) -> Response {
    let length = opened.object.size;
    let etag = format!("\"{}\"", opened.object.generation);
    let same = headers
        .get(header::IF_RANGE)
        .is_none_or(|given| given.as_bytes() == etag.as_bytes());
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let from = range.filter(|_| same).and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    let from: u64 = from.filter(|from| *from < length).unwrap_or(0);
    let status = if from > 0 {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let name: String = base(file)
        .chars()
        .map(|letter| {
            if letter.is_ascii_graphic() && letter != '"' && letter != '\\' {
                letter
            } else {
                '_'
            }
        })
        .collect();
    // Only a picture is shown; nothing that a build made is a page of this server.
    let picture = name.ends_with(".png");
    let kind = if picture {
        "image/png"
    } else {
        "application/octet-stream"
    };
    let place = if picture { "inline" } else { "attachment" };
    let mut texts = vec![
        (header::CONTENT_TYPE, kind.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("{place}; filename=\"{name}\""),
        ),
        (header::CONTENT_LENGTH, (length - from).to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, etag),
    ];
    if from > 0 {
        texts.push((
            header::CONTENT_RANGE,
            format!("bytes {from}-{}/{length}", length - 1),
        ));
    }
    let mut response = (status, Body::from_stream(opened.read(from, length))).into_response();
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

//! A source from the page: an archive, the files of a directory, or one kickstart. It is looked through before it is kept, by the
//! rules of sources, and planned before it is built.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{header, request};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::multipart::{self, Part};
use super::session::{self, Visitor};
use super::{Page, api, submit, trouble};
use crate::agent::source::{self, Most};
use crate::store::Role;
use crate::wire::error::{ApiError, Code};

/// Uploads that are held in memory at the same time.
pub(super) const AT_ONCE: usize = 2;
/// How long one may take to arrive.
const PATIENCE: Duration = Duration::from_secs(300);
/// What it may hold, unpacked.
const MOST: Most = Most {
    entries: 10_000,
    bytes: 1 << 30,
};
/// Names of kickstarts that an answer has.
const NAMED: usize = 20;

/// Takes an upload. Who may not send one is told so before it is read.
pub(super) async fn take(State(page): State<Arc<Page>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let known = {
        let (page, parts) = (Arc::clone(&page), parts.clone());
        tokio::task::spawn_blocking(move || visitor(&page, &parts))
    };
    let visitor = match known
        .await
        .unwrap_or_else(|error| Err(ApiError::internal(error)))
    {
        Ok(visitor) => visitor,
        Err(error) => return trouble(&page, &parts.headers, &parts.uri, &error),
    };
    let Ok(_place) = page.uploads.acquire().await else {
        let error = ApiError::internal("the server is about to end");
        return trouble(&page, &parts.headers, &parts.uri, &error);
    };
    let body = match api::whole(body, submit::LARGEST_UPLOAD, PATIENCE).await {
        Ok(body) => body,
        Err(error) => {
            let words = format!(
                "{}; larger sources go with kiln submit DIRECTORY",
                error.message
            );
            let error = ApiError::new(Code::InvalidArgument, words);
            return trouble(&page, &parts.headers, &parts.uri, &error);
        }
    };
    let work = Arc::clone(&page);
    super::blocking(move || {
        let done = taken(&work, &visitor, &parts, &body);
        done.unwrap_or_else(|error| trouble(&work, &parts.headers, &parts.uri, &error))
    })
    .await
}

fn visitor(page: &Page, parts: &request::Parts) -> Result<Visitor, ApiError> {
    let visitor = session::visitor(page, &parts.headers)?;
    visitor.caller.needs(Role::Submit)?;
    session::from_here(&parts.headers)?;
    Ok(visitor)
}

fn taken(
    page: &Page,
    visitor: &Visitor,
    parts: &request::Parts,
    body: &[u8],
) -> Result<Response, ApiError> {
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let boundary = multipart::boundary(kind)
        .ok_or_else(|| ApiError::invalid("the form is not multipart/form-data"))?;
    let form = multipart::parts(body, boundary, MOST.entries).map_err(ApiError::invalid)?;
    let field = |name: &str| {
        let part = form
            .iter()
            .find(|part| part.name == name && part.file.is_none());
        let text = part.and_then(|part| std::str::from_utf8(part.content).ok());
        text.unwrap_or("").trim()
    };
    visitor.sent(&parts.headers, Some(field("proof")))?;
    // A field of files that nobody has filled is one file without a name.
    let files: Vec<&Part<'_>> = form
        .iter()
        .filter(|part| part.file.as_ref().is_some_and(|name| !name.is_empty()))
        .collect();
    if files.iter().any(|part| part.name != files[0].name) {
        return Err(ApiError::invalid(
            "both a file and a directory were chosen: choose one of them",
        ));
    }
    let archive = match files.as_slice() {
        [] => {
            return Err(ApiError::invalid(
                "no file was chosen: choose an archive (.tar.gz), a directory or a kickstart",
            ));
        }
        [one] if is_gzip(one.content) => one.content.to_vec(),
        [one] if one.content.starts_with(b"PK") => {
            return Err(ApiError::invalid(
                "this is a zip archive: pack the directory with tar -czf lab.tar.gz lab, or choose the directory itself",
            ));
        }
        several => pack(several)?,
    };
    let held = source::look(&archive, MOST)
        .map_err(|error| ApiError::invalid(format!("the source cannot be taken: {error}")))?;
    let kickstart = choose(&held, field("kickstart"))?;
    submit::plan(page, visitor, archive, &kickstart, field("distribution"))
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The files of a directory as an archive, without the directory's own name.
fn pack(files: &[&Part<'_>]) -> Result<Vec<u8>, ApiError> {
    let mut paths = Vec::new();
    for part in files {
        let name = part.file.as_deref().unwrap_or("");
        let path =
            source::plain(Path::new(name)).map_err(|error| ApiError::invalid(error.to_string()))?;
        if path.as_os_str().is_empty() || name.contains(['\0', '\n', '\r']) {
            return Err(ApiError::invalid(format!(
                "a file cannot be called {name:?}"
            )));
        }
        paths.push(path);
    }
    let top = |path: &PathBuf| {
        let mut parts = path.components();
        let first = parts.next()?.as_os_str().to_owned();
        parts.next().map(|_| first)
    };
    let first = paths.first().and_then(top);
    let is_directory = first.is_some() && paths.iter().all(|path| top(path) == first);
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, part) in paths.iter().zip(files) {
        let path: PathBuf = path.components().skip(usize::from(is_directory)).collect();
        let mut head = tar::Header::new_gnu();
        head.set_size(part.content.len() as u64);
        // Browsers don't tell who may run a file; what begins like a script is one.
        head.set_mode(if part.content.starts_with(b"#!") {
            0o755
        } else {
            0o644
        });
        archive
            .append_data(&mut head, &path, part.content)
            .map_err(|error| ApiError::invalid(format!("{}: {error}", path.display())))?;
    }
    archive
        .into_inner()
        .and_then(GzEncoder::finish)
        .map_err(ApiError::internal)
}

/// Which kickstart is built: the one that was named, or the only one.
fn choose(held: &[PathBuf], named: &str) -> Result<String, ApiError> {
    let kickstarts: Vec<&str> = held
        .iter()
        .filter_map(|path| path.to_str())
        .filter(|path| path.ends_with(".ks"))
        .collect();
    let all = || {
        let shown: Vec<&str> = kickstarts.iter().copied().take(NAMED).collect();
        let more = if kickstarts.len() > NAMED {
            ", …"
        } else {
            ""
        };
        format!("{}{more}", shown.join(", "))
    };
    // Those at the top come first: the others are what these include.
    let at_top: Vec<&str> = kickstarts
        .iter()
        .copied()
        .filter(|path| !path.contains('/'))
        .collect();
    match (named, at_top.as_slice(), kickstarts.as_slice()) {
        ("", [one], _) | ("", [], [one]) => Ok((*one).to_owned()),
        ("", [], []) => Err(ApiError::invalid(
            "the source has no kickstart: no file of it ends with .ks",
        )),
        ("", _, _) => Err(ApiError::invalid(format!(
            "the source has several kickstarts, say which is to be built: {}",
            all()
        ))),
        (named, _, _) => {
            let path = source::plain(Path::new(named)).ok();
            let known = path.filter(|path| held.contains(path));
            let known = known.and_then(|path| path.to_str().map(str::to_owned));
            known.filter(|path| !path.starts_with('-')).ok_or_else(|| {
                ApiError::invalid(format!(
                    "the source has no file {named:?}; its kickstarts: {}",
                    all()
                ))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_kickstart_is_chosen_or_asked_for() {
        for (names, named, expected) in [
            (&["a.ks", "README"][..], "", Ok("a.ks")),
            (&["lab.ks", "parts/x.ks", "parts/y.ks"], "", Ok("lab.ks")),
            (&["deep/a.ks"], "", Ok("deep/a.ks")),
            (&["a.ks", "b.ks"], "./b.ks", Ok("b.ks")),
            (
                &["a.ks", "b.ks"],
                "",
                Err("several kickstarts, say which is to be built: a.ks, b.ks"),
            ),
            (&["README"], "", Err("no kickstart")),
            (&["a.ks"], "../a.ks", Err("no file \"../a.ks\"")),
            (&["a.ks"], "c.ks", Err("its kickstarts: a.ks")),
        ] {
            match (choose(&held(names), named), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.message.contains(expected), "{}", error.message)
                }
                (found, _) => panic!("{names:?} {named:?}: {found:?}"),
            }
        }
    }
}

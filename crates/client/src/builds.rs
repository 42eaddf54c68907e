//! What can be asked of a server: to keep a source, to queue, list, stop and repeat builds, to hand over what they made.

use std::io::{Read, Seek, SeekFrom};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::http::Method;

use crate::connection::{Answer, Connection, part};
use crate::source::Archive;
use crate::{Error, Kind};

/// Bytes that are sent at once.
const CHUNK: u64 = 8 << 20;
/// How often a request is repeated that got no answer.
const TRIES: u32 = 5;
/// Builds of a page.
const PAGE: usize = 100;

/// The builds of a project.
#[derive(Debug)]
pub struct Builds {
    /// The server.
    pub connection: Connection,
    /// The project.
    pub project: String,
}

/// A file that a build made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its bucket.
    pub bucket: String,
    /// Its name in the bucket.
    pub object: String,
    /// Which of those that had this name.
    pub generation: Option<String>,
    /// Hexadecimal.
    pub sha256: Option<String>,
}

impl Artifact {
    /// `gs://BUCKET/OBJECT`.
    pub fn place(&self) -> String {
        format!("gs://{}/{}", self.bucket, self.object)
    }

    /// The last part of its name.
    pub fn name(&self) -> &str {
        self.object.rsplit('/').next().unwrap_or(&self.object)
    }
}

impl Builds {
    fn path(&self, rest: &str) -> String {
        format!("/v1/projects/{}/builds{rest}", part(&self.project))
    }

    /// The bucket of sources and logs, as gcloud names it.
    pub fn bucket(&self) -> String {
        format!("{}_cloudbuild", self.project)
    }

    /// Puts a source into the project's bucket unless it is there, and returns it as a build names it, and whether it was sent.
    ///
    /// # Errors
    /// The server does not take it, or is not to be reached any more.
    pub fn keep(&self, archive: &mut Archive) -> Result<(Value, bool), Error> {
        let bucket = self.bucket();
        let object = format!("source/sha256-{}.tgz", archive.sha256);
        let path = format!("/storage/v1/b/{}/o/{}", part(&bucket), part(&object));
        let mut answer = self.connection.send(&Method::GET, &path, &[], b"")?;
        let sum = STANDARD.encode(archive.md5);
        let mut sent = false;
        let mut kept = match answer.status {
            200 => self.connection.value(&mut answer)?,
            _ => Value::Null,
        };
        // Whoever may submit may write any name: what is there under this one is compared.
        if kept["md5Hash"] != sum.as_str() {
            self.make(&bucket)?;
            kept = self.upload(&bucket, &object, archive)?;
            sent = true;
        }
        if kept["md5Hash"] != sum.as_str() {
            let message = format!("gs://{bucket}/{object} did not arrive as it was sent");
            return Err(Error::new(Kind::Environment, message));
        }
        let source =
            json!({ "bucket": bucket, "object": object, "generation": kept["generation"] });
        Ok((json!({ "storageSource": source }), sent))
    }

    /// Makes a bucket unless it is there.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn make(&self, bucket: &str) -> Result<(), Error> {
        let path = format!("/storage/v1/b?project={}", part(&self.project));
        let made = self
            .connection
            .json(&Method::POST, &path, Some(&json!({ "name": bucket })));
        match made {
            Err(error) if error.status != Some(409) => Err(error),
            _ => Ok(()),
        }
    }

    /// Uploads in pieces; what was cut off goes on where the server has it.
    fn upload(&self, bucket: &str, object: &str, archive: &mut Archive) -> Result<Value, Error> {
        let path = format!(
            "/upload/storage/v1/b/{}/o?uploadType=resumable&name={}",
            part(bucket),
            part(object)
        );
        let kind = [
            ("Content-Type", "application/json".to_owned()),
            ("X-Upload-Content-Type", "application/gzip".to_owned()),
            ("X-Upload-Content-Length", archive.size.to_string()),
        ];
        let begin = || self.connection.send(&Method::POST, &path, &kind, b"{}");
        let mut answer = repeated(begin)?;
        if answer.status >= 400 {
            return Err(self.connection.refused(&mut answer));
        }
        let place = answer.location.take().ok_or_else(|| {
            let message = format!("{} does not say where to upload to", self.connection.base());
            Error::new(Kind::Environment, message)
        })?;
        let place = place
            .find("/upload/")
            .map_or(place.clone(), |at| place[at..].to_owned());
        self.pieces(&place, archive)
    }

    fn pieces(&self, place: &str, archive: &mut Archive) -> Result<Value, Error> {
        let size = archive.size;
        let mut at = 0;
        let mut lost = 0;
        loop {
            let piece = read(archive, at)?;
            let range = match piece.len() as u64 {
                0 => format!("bytes */{size}"),
                length => format!("bytes {at}-{}/{size}", at + length - 1),
            };
            let put = |range: String, piece: &[u8]| {
                let headers = [("Content-Range", range)];
                self.connection.send(&Method::PUT, place, &headers, piece)
            };
            let mut answer = put(range, &piece);
            while let Err(error) = answer {
                lost += 1;
                if error.kind != Kind::Unreachable || lost > TRIES {
                    return Err(error.hint(
                        "submit it again; nothing was queued, and a source that is there is not sent twice",
                    ));
                }
                thread::sleep(pause(lost));
                answer = put(format!("bytes */{size}"), b"");
            }
            let mut answer = answer?;
            match answer.status {
                308 => {
                    let has = arrived(&answer);
                    lost = if has > at { 0 } else { lost + 1 };
                    if lost > TRIES {
                        let base = self.connection.base();
                        let message =
                            format!("{base} takes no more than {has} bytes of the source");
                        return Err(Error::new(Kind::Environment, message));
                    }
                    at = has;
                }
                200 | 201 => return self.connection.value(&mut answer),
                _ => return Err(self.connection.refused(&mut answer)),
            }
        }
    }

    /// Queues a build and returns it. It is asked once: an answer that is lost does not queue it twice.
    ///
    /// # Errors
    /// The server refuses it, or is not to be reached.
    pub fn create(&self, build: &Value) -> Result<Value, Error> {
        let answer = self
            .connection
            .json(&Method::POST, &self.path(""), Some(build))?;
        self.of_operation(answer)
    }

    fn of_operation(&self, mut answer: Value) -> Result<Value, Error> {
        let build = answer["metadata"]["build"].take();
        match build["id"].as_str() {
            Some(_) => Ok(build),
            None => Err(Error::new(
                Kind::Environment,
                format!(
                    "{} does not answer as a build server does: no id of a build",
                    self.connection.base()
                ),
            )),
        }
    }

    /// A build.
    ///
    /// # Errors
    /// There is none, or the server is not to be reached.
    pub fn get(&self, id: &str) -> Result<Value, Error> {
        let path = self.path(&format!("/{}", part(id)));
        self.connection.json(&Method::GET, &path, None)
    }

    /// The newest builds.
    ///
    /// # Errors
    /// The filter is none, or the server is not to be reached.
    pub fn list(&self, most: usize, filter: &str) -> Result<Vec<Value>, Error> {
        let mut builds = Vec::new();
        let mut token = String::new();
        while builds.len() < most {
            let size = PAGE.min(most - builds.len());
            let query = format!(
                "?pageSize={size}&filter={}&pageToken={}",
                part(filter),
                part(&token)
            );
            let mut page = self
                .connection
                .json(&Method::GET, &self.path(&query), None)?;
            if let Value::Array(more) = page["builds"].take() {
                builds.extend(more);
            }
            match page["nextPageToken"].as_str() {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        Ok(builds)
    }

    /// The whole id of a build: of the newest one, or of the one that begins so.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(&self, start: Option<&str>) -> Result<String, Error> {
        let base = self.connection.base();
        let id = |build: &Value| build["id"].as_str().map(str::to_owned);
        let Some(start) = start else {
            let newest = self.list(1, "")?;
            return newest.first().and_then(id).ok_or_else(|| {
                let message = format!("{base} has no builds in the project {}", self.project);
                Error::new(Kind::Usage, message).hint("`kiln submit` makes one")
            });
        };
        // A whole one, as it is printed.
        if start.len() >= 36 {
            return Ok(start.to_owned());
        }
        let all = self.list(1000, "")?;
        let mut fitting = all.iter().filter_map(id).filter(|id| id.starts_with(start));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Error::new(
                Kind::Usage,
                format!("no build of {base} has an id that begins with {start:?}"),
            )
            .hint("`kiln builds` lists them")),
            (Some(one), Some(other)) => Err(Error::new(
                Kind::Usage,
                format!(
                    "{start:?} is the beginning of several builds, {one} and {other} among them"
                ),
            )),
        }
    }

    /// Stops a build and returns it.
    ///
    /// # Errors
    /// It has ended, or the server does not allow it.
    pub fn cancel(&self, id: &str) -> Result<Value, Error> {
        let path = self.path(&format!("/{}:cancel", part(id)));
        self.connection.json(&Method::POST, &path, Some(&json!({})))
    }

    /// Queues a build again and returns the new one.
    ///
    /// # Errors
    /// It has not ended, or the server does not allow it.
    pub fn retry(&self, id: &str) -> Result<Value, Error> {
        let path = self.path(&format!("/{}:retry", part(id)));
        let answer = self
            .connection
            .json(&Method::POST, &path, Some(&json!({})))?;
        self.of_operation(answer)
    }

    /// The files that a build made; of a build that made none, none.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn artifacts(&self, build: &Value) -> Result<Vec<Artifact>, Error> {
        let Some(place) = build["results"]["artifactManifest"].as_str() else {
            return Ok(Vec::new());
        };
        let wrong = || {
            Error::new(
                Kind::Environment,
                format!("{place} is no list of artifacts"),
            )
        };
        let list = artifact(&json!({ "location": place })).ok_or_else(wrong)?;
        let mut answer = self.download(&list, 0)?;
        let mut text = String::new();
        answer
            .reader()
            .take(64 << 20)
            .read_to_string(&mut text)
            .map_err(|error| self.connection.cut(error))?;
        let lines = text.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let line = serde_json::from_str(line).map_err(|_| wrong())?;
                artifact(&line).ok_or_else(wrong)
            })
            .collect()
    }

    /// What the server knows of an artifact's object.
    ///
    /// # Errors
    /// It is gone.
    pub fn object(&self, artifact: &Artifact) -> Result<Value, Error> {
        let path = format!(
            "/storage/v1/b/{}/o/{}",
            part(&artifact.bucket),
            part(&artifact.object)
        );
        self.connection.json(&Method::GET, &path, None)
    }

    /// An artifact's bytes, from a place on.
    ///
    /// # Errors
    /// It is gone, or the server is not to be reached.
    pub fn download(&self, artifact: &Artifact, from: u64) -> Result<Answer, Error> {
        let mut path = format!(
            "/download/storage/v1/b/{}/o/{}?alt=media",
            part(&artifact.bucket),
            part(&artifact.object)
        );
        if let Some(generation) = &artifact.generation {
            path.push_str(&format!("&generation={}", part(generation)));
        }
        let headers = [("Range", format!("bytes={from}-"))];
        let headers = if from > 0 { &headers[..] } else { &[] };
        let mut answer = self.connection.send(&Method::GET, &path, headers, b"")?;
        if answer.status >= 400 {
            let error = self.connection.refused(&mut answer);
            let message = format!("{} is not on the server any more", artifact.place());
            return Err(Error { message, ..error });
        }
        Ok(answer)
    }
}

/// A line of the list of artifacts.
fn artifact(line: &Value) -> Option<Artifact> {
    let place = line["location"].as_str()?.strip_prefix("gs://")?;
    let (bucket, rest) = place.split_once('/')?;
    let (object, generation) = match rest.rsplit_once('#') {
        Some((object, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            (object, Some(number.to_owned()))
        }
        _ => (rest, None),
    };
    let hashes = line["file_hash"].as_array().into_iter().flatten();
    let mut hashes = hashes.flat_map(|hash| hash["file_hash"].as_array().into_iter().flatten());
    let sha256 = hashes.find(|hash| hash["type"] == 1);
    Some(Artifact {
        bucket: bucket.to_owned(),
        object: object.to_owned(),
        generation,
        sha256: sha256.and_then(|hash| Some(hash["value"].as_str()?.to_owned())),
    })
}

/// A piece of an archive, from a place on.
fn read(archive: &mut Archive, at: u64) -> Result<Vec<u8>, Error> {
    let mut piece = Vec::new();
    archive
        .file
        .seek(SeekFrom::Start(at))
        .and_then(|_| (&archive.file).take(CHUNK).read_to_end(&mut piece))
        .map_err(|error| {
            Error::new(
                Kind::Environment,
                "the archive of the source cannot be read",
            )
            .cause(error)
        })?;
    Ok(piece)
}

/// How many bytes of an upload have arrived: `Range: bytes=0-N`.
fn arrived(answer: &Answer) -> u64 {
    let last = answer
        .range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes=0-")?.parse::<u64>().ok());
    last.map_or(0, |last| last + 1)
}

/// Repeats what got no answer.
fn repeated(ask: impl Fn() -> Result<Answer, Error>) -> Result<Answer, Error> {
    let mut lost = 0;
    loop {
        match ask() {
            // Where nobody listens, nobody will in a second.
            Err(error) if error.kind == Kind::Unreachable && lost < TRIES => {
                lost += 1;
                thread::sleep(pause(lost));
            }
            answer => return answer,
        }
    }
}

fn pause(lost: u32) -> Duration {
    Duration::from_millis(100 << lost.min(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_list_are_read() {
        let line = json!({
            "location": "gs://b/out/x#y.txt#12",
            "file_hash": [{ "file_hash": [{ "type": 2, "value": "m" }, { "type": 1, "value": "s" }] }],
        });
        let found = artifact(&line).unwrap();
        assert_eq!(
            (found.name(), found.place().as_str()),
            ("x#y.txt", "gs://b/out/x#y.txt")
        );
        assert_eq!(found.generation.as_deref(), Some("12"));
        assert_eq!(found.sha256.as_deref(), Some("s"));
        assert_eq!(artifact(&json!({ "location": "b/x" })), None);
    }
}

//! What Azure's Blob Storage says differently from S3, for the loopback object store: blobs in blocks, lists, and removal in batches.
//! <https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api>

use std::collections::BTreeMap;

use crate::uri::decoded;

/// Contents by their paths, `container/name`.
pub(crate) type Objects = BTreeMap<String, Vec<u8>>;
/// Blocks that are in no blob yet, by the blob's path and the block's id.
pub(crate) type Blocks = BTreeMap<(String, String), Vec<u8>>;

/// What separates the answers of a batch.
pub(crate) const BOUNDARY: &str = "batchresponse";

/// The answer to a request that only Azure has.
pub(crate) fn answer(
    objects: &mut Objects,
    blocks: &mut Blocks,
    (method, path, query): (&str, &str, &str),
    body: &[u8],
) -> Option<(u16, Vec<u8>)> {
    let value = |name: &str| {
        let mut pairs = query.split('&');
        pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    Some(match (method, value("comp")?) {
        ("PUT", "block") => {
            let id = decoded(value("blockid")?);
            blocks.insert((path.to_owned(), id), body.to_vec());
            (201, Vec::new())
        }
        ("PUT", "blocklist") => {
            let text = String::from_utf8_lossy(body);
            let ids = text.split("<Uncommitted>").skip(1);
            let ids = ids.filter_map(|rest| rest.split('<').next());
            let found = ids.map(|id| blocks.get(&(path.to_owned(), id.to_owned())));
            let Some(found) = found.collect::<Option<Vec<_>>>() else {
                return Some((400, Vec::new()));
            };
            let whole = found.into_iter().flatten().copied().collect();
            objects.insert(path.to_owned(), whole);
            blocks.retain(|(of, _), _| of != path);
            (201, Vec::new())
        }
        ("GET", "list") => (200, list(objects, path, value("prefix").unwrap_or(""))),
        ("POST", "batch") => (202, batch(objects, &String::from_utf8_lossy(body))),
        _ => (400, Vec::new()),
    })
}

fn list(objects: &Objects, container: &str, prefix: &str) -> Vec<u8> {
    let start = format!("{}/", container.trim_end_matches('/'));
    let prefix = format!("{start}{}", decoded(prefix));
    let mut text = "<?xml version=\"1.0\"?><EnumerationResults><Blobs>".to_owned();
    for (name, bytes) in objects.iter().filter(|(name, _)| name.starts_with(&prefix)) {
        let name = name.strip_prefix(&start).unwrap_or(name);
        let size = bytes.len();
        text += &format!(
            "<Blob><Name>{name}</Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified>\
             <Content-Length>{size}</Content-Length><Content-Type>application/octet-stream</Content-Type><Etag>x</Etag></Properties></Blob>"
        );
    }
    text += "</Blobs><NextMarker /></EnumerationResults>";
    text.into_bytes()
}

/// Removes the blobs that a batch names, and says of each how that went.
fn batch(objects: &mut Objects, text: &str) -> Vec<u8> {
    let mut answer = String::new();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("DELETE /"));
    for (line, number) in lines.zip(0..) {
        let path = line.split([' ', '?']).next().unwrap_or(line);
        let status = match objects.remove(&decoded(path)) {
            Some(_) => "202 Accepted",
            None => "404 The specified blob does not exist.",
        };
        answer += &format!(
            "--{BOUNDARY}\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 {status}\r\nServer: x\r\n\r\n"
        );
    }
    answer += &format!("--{BOUNDARY}--\r\n");
    answer.into_bytes()
}

//! Finds the files that are to be kept, and says what they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use kiln_digest::Sha256;
use md5::{Digest as _, Md5};

use super::glob;
use crate::executor::request::{Artifact, ArtifactsRequest};

/// Why there are no artifacts.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// What was asked for is not there, or cannot be kept together.
    #[error("{0}")]
    Asked(String),
    /// A file cannot be read.
    #[error("reading the workspace: {0}")]
    Read(#[from] io::Error),
}

/// Looks for the files in a workspace.
pub(super) fn find(request: &ArtifactsRequest, workspace: &Path) -> Result<Vec<Artifact>, Trouble> {
    let mut names = BTreeMap::new();
    let mut found = Vec::new();
    for pattern in &request.paths {
        let paths = glob::find(workspace, pattern)?;
        if paths.is_empty() {
            return Err(Trouble::Asked(format!(
                "no file of the workspace fits {pattern:?}"
            )));
        }
        for path in paths {
            let text = path.display().to_string();
            let name = path.file_name().map(|name| name.to_owned());
            match names.insert(name, text.clone()) {
                Some(other) if other != text => {
                    return Err(Trouble::Asked(format!(
                        "{other} and {text} would become one object"
                    )));
                }
                Some(_) => {}
                None => found.push(describe(workspace, text)?),
            }
        }
    }
    Ok(found)
}

fn describe(workspace: &Path, path: String) -> io::Result<Artifact> {
    let file = workspace.join(&path);
    // Each digest takes a processor.
    let (sha256, others) = thread::scope(|scope| {
        let sha256 = scope.spawn(|| {
            let mut sha256 = Sha256::new();
            read(&file, |bytes| sha256.update(bytes))?;
            Ok::<_, io::Error>(sha256.finalize())
        });
        let (mut md5, mut crc) = (Md5::new(), Crc::new(CrcAlgorithm::Crc32Iscsi));
        let size = read(&file, |bytes| {
            md5.update(bytes);
            crc.update(bytes);
        });
        let sha256 = sha256
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("hashing it failed")));
        (
            sha256,
            size.map(|size| (size, md5.finalize(), crc.finalize())),
        )
    });
    let (size, md5, crc32c) = others?;
    Ok(Artifact {
        path,
        size,
        sha256: hex::encode(sha256?),
        md5: STANDARD.encode(md5),
        crc32c: u32::try_from(crc32c).ok(),
    })
}

/// Shows all bytes of a file, and says how many there are.
fn read(file: &Path, mut see: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut file = File::open(file)?;
    let mut chunk = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(size),
            length => {
                size += length as u64;
                see(&chunk[..length]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_described_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/x"), "abc").unwrap();
        let request = |paths: &[&str]| ArtifactsRequest {
            location: "gs://b".to_owned(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        };
        let found = find(&request(&["a/*", "a/x"]), dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].size, found[0].md5.as_str(), found[0].crc32c),
            (3, "kAFQmDzST7DWlj99KOF/cg==", Some(0x364b_3fb7))
        );
        let none = find(&request(&["b*"]), dir.path()).unwrap_err().to_string();
        assert_eq!(none, "no file of the workspace fits \"b*\"");
        std::fs::write(dir.path().join("x"), "").unwrap();
        let two = find(&request(&["**/x"]), dir.path())
            .unwrap_err()
            .to_string();
        assert_eq!(two, "a/x and x would become one object");
    }
}

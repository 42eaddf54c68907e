//! Package indices: chosen from what `Release` lists, fetched by hash, verified, kept uncompressed.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::release::{Listed, Release};
use super::repository::Repository;
use crate::cache::{self, intact};
use crate::decompress::Compression;
use crate::digest::Hasher;
use crate::fetch::Wanted;
use crate::{Digest, Error, ErrorKind, Fetcher, Result};

/// In the order of preference: small first, then quick to read. What `Release` lists but the mirror lacks is
/// passed over (Debian lists the plain file and does not serve it).
const ENDINGS: [&str; 4] = [".xz", ".zst", ".gz", ""];

/// Bound for an index, packed and plain. Debian's largest has 60 MiB.
const MAX_PLAIN: u64 = 2 << 30;

/// A verified package index on disk.
#[derive(Clone, Debug)]
pub struct Index {
    name: String,
    path: PathBuf,
    compression: Compression,
    listed: Listed,
}

impl Index {
    /// Path relative to the directory of `Release`, without a compression's ending: `main/binary-amd64/Packages`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file on disk. It is plain text unless `Release` does not list the plain file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file on disk is plain text.
    pub fn is_plain(&self) -> bool {
        self.compression == Compression::None
    }

    /// Like [`Index::name`], with the ending of the compression that the file on disk has.
    pub fn file_name(&self) -> String {
        format!("{}{}", self.name, self.compression.ending())
    }

    /// Reads, verifies and, if need be, decompresses it.
    ///
    /// # Errors
    /// [`ErrorKind::HashMismatch`] if the file was damaged since it was stored; [`ErrorKind::Malformed`].
    pub fn read(&self) -> Result<std::sync::Arc<str>> {
        let failed = |e| Error::io(format_args!("reading {}", self.path.display()), e);
        let bytes = fs::read(&self.path).map_err(failed)?;
        if bytes.len() as u64 != self.listed.size || Digest::of(&bytes) != self.listed.sha256 {
            let message = format!(
                "{} is damaged: it no longer has the SHA-256 {}",
                self.path.display(),
                self.listed.sha256
            );
            return Err(Error::new(ErrorKind::HashMismatch, message).with_hint(
                "Run the command again with the network: the file is then fetched anew.",
            ));
        }
        let bytes = match self.compression {
            Compression::None => bytes,
            other => {
                let mut plain = Vec::new();
                let reader = other.reader(&bytes[..]).map_err(failed)?;
                let mut reader = reader.take(MAX_PLAIN + 1);
                reader.read_to_end(&mut plain).map_err(failed)?;
                if plain.len() as u64 > MAX_PLAIN {
                    return Err(too_large(&self.file_name()));
                }
                plain
            }
        };
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        Ok(text.into())
    }

    pub(super) fn describe(&self, repository: &Repository) -> String {
        format!("{} of {}", self.name, repository.describe())
    }
}

/// The indices of a repository: names relative to the directory of `Release`.
///
/// # Errors
/// [`ErrorKind::Input`] if the suite lacks the component or the architecture.
pub(super) fn names(repository: &Repository, release: &Release) -> Result<Vec<String>> {
    if repository.is_flat() {
        let name = ["Packages", "./Packages"]
            .into_iter()
            .find(|name| is_listed(release, name));
        let name =
            name.ok_or_else(|| missing(repository, "its Release file lists no Packages".into()))?;
        return Ok(vec![name.to_owned()]);
    }
    let mut names = Vec::new();
    for component in &repository.components {
        let own = format!("{component}/binary-{}/Packages", repository.architecture);
        let all = format!("{component}/binary-all/Packages");
        let before = names.len();
        names.extend(is_listed(release, &own).then_some(own));
        names.extend((release.separate_all && is_listed(release, &all)).then_some(all));
        if names.len() == before {
            return Err(lacking(repository, release, component));
        }
    }
    Ok(names)
}

fn is_listed(release: &Release, name: &str) -> bool {
    ENDINGS
        .iter()
        .any(|ending| release.file(&format!("{name}{ending}")).is_some())
}

fn lacking(repository: &Repository, release: &Release, component: &str) -> Error {
    let has_component = release.has_prefix(&format!("{component}/"));
    match has_component {
        false => missing(
            repository,
            format!(
                "it has no component {component}; it has {}",
                release.components.join(", ")
            ),
        )
        .with_hint(
            "Say which of them you want: a [[repository]] of kiln.toml has url, suite and components.",
        ),
        true => missing(
            repository,
            format!(
                "its component {component} has no packages for {}; the suite has {}",
                repository.architecture,
                release.architectures.join(", ")
            ),
        ),
    }
}

fn missing(repository: &Repository, why: String) -> Error {
    Error::new(
        ErrorKind::Input,
        format!("{} cannot be used: {why}", repository.describe()),
    )
    .with_origin(&repository.origin)
}

fn too_large(name: &str) -> Error {
    let message = format!("{name} has more than the {MAX_PLAIN} bytes that an index may have");
    Error::new(ErrorKind::Malformed, message)
        .with_hint("The repository itself is broken; tell its maintainers, or use another mirror.")
}

/// Makes sure that `directory` has a verified index: one from an earlier time, or one from the mirror.
pub(super) fn obtain(
    fetcher: &Fetcher,
    repository: &Repository,
    release: &Release,
    name: &str,
    directory: &Path,
) -> Result<Index> {
    if let Some(index) = cached(release, name, directory)? {
        return Ok(index);
    }
    let mut absent = None;
    for ending in ENDINGS {
        let file = format!("{name}{ending}");
        let Some(listed) = release.file(&file) else {
            continue;
        };
        let plain = release.file(name).map_or(0, |plain| plain.size);
        if listed.size.max(plain) > MAX_PLAIN {
            return Err(too_large(&file));
        }
        match download(fetcher, repository, release, &file, listed, directory) {
            Ok(path) => return finish(release, name, ending, listed, &path, directory),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                absent.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(absent.unwrap_or_else(|| missing(repository, format!("{name} is not listed"))))
}

/// The index from an earlier time, if it is there and undamaged.
pub(super) fn cached(release: &Release, name: &str, directory: &Path) -> Result<Option<Index>> {
    let plain_listed = release.file(name).is_some();
    for ending in ["", ".xz", ".zst", ".gz"] {
        let compression = Compression::of_name(&format!("Packages{ending}"));
        let Some(listed) = release.file(&format!("{name}{ending}")) else {
            continue;
        };
        if plain_listed && compression != Compression::None {
            break;
        }
        let path = directory.join(listed.sha256.to_string());
        if intact(&path, listed.size, &listed.sha256)? {
            return Ok(Some(Index {
                name: name.to_owned(),
                path,
                compression,
                listed,
            }));
        }
    }
    Ok(None)
}

/// Fetches a listed file, by its hash where the repository has that, else by its name.
fn download(
    fetcher: &Fetcher,
    repository: &Repository,
    release: &Release,
    file: &str,
    listed: Listed,
    directory: &Path,
) -> Result<PathBuf> {
    let parent = file.rsplit_once('/').map_or("", |(parent, _)| parent);
    let by_hash = format!("{parent}/by-hash/SHA256/{}", listed.sha256);
    let by_hash = release
        .by_hash
        .then(|| repository.release_url(by_hash.trim_start_matches('/')));
    let by_name = repository.release_url(file);
    let fetch = |url: &str| {
        let wanted = Wanted {
            url,
            size: listed.size,
            sha256: listed.sha256,
        };
        cache::fetch(fetcher, &wanted, directory, fetcher.options().attempts)
    };
    let outcome = match by_hash.map(|url| fetch(&url)) {
        Some(Err(error)) if error.kind() == ErrorKind::NotFound => fetch(&by_name),
        None => fetch(&by_name),
        Some(other) => other,
    };
    outcome.map_err(|error| error.with_origin(&repository.origin))
}

/// Turns a verified file into its plain form, if the plain form can be verified too.
fn finish(
    release: &Release,
    name: &str,
    ending: &str,
    listed: Listed,
    path: &Path,
    directory: &Path,
) -> Result<Index> {
    let compression = Compression::of_name(&format!("Packages{ending}"));
    let name = name.to_owned();
    let plain = release
        .file(&name)
        .filter(|_| compression != Compression::None);
    let Some(plain) = plain else {
        return Ok(Index {
            name,
            path: path.to_owned(),
            compression,
            listed,
        });
    };
    let target = directory.join(plain.sha256.to_string());
    let staged = target.with_extension("part");
    let failed = |e| Error::io(format_args!("decompressing {}", path.display()), e);
    let (size, sha256) = expand(compression, path, &staged, plain.size).map_err(failed)?;
    if (size, sha256) != (plain.size, plain.sha256) {
        let message = format!(
            "{name}{ending} does not hold what Release promises: {} bytes with the SHA-256 {}, but {size} bytes with {sha256}",
            plain.size, plain.sha256
        );
        return Err(Error::new(ErrorKind::HashMismatch, message).with_hint(
            "The repository itself is broken; tell its maintainers, or use another mirror.",
        ));
    }
    fs::rename(&staged, &target).map_err(failed)?;
    let _ = fs::remove_file(path);
    Ok(Index {
        name,
        path: target,
        compression: Compression::None,
        listed: plain,
    })
}

/// Decompresses into a new file, at most one byte more than `limit`, and returns size and digest.
fn expand(
    compression: Compression,
    from: &Path,
    to: &Path,
    limit: u64,
) -> std::io::Result<(u64, Digest)> {
    let mut reader = compression
        .reader(File::open(from)?)?
        .take(limit.saturating_add(1));
    let mut writer = BufWriter::with_capacity(256 << 10, File::create(to)?);
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            writer.flush()?;
            return Ok((size, hasher.finish()));
        }
        hasher.update(&buffer[..read]);
        writer.write_all(&buffer[..read])?;
        size += read as u64;
    }
}

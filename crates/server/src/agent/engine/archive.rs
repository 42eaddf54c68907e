//! An image's archive from a build's engine. Steps are root beside that engine, so the archive is a stranger's: before it goes to
//! the store that all builds share, everything but one image under the one name that was asked for is taken out of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use tar::{Archive, Builder, EntryType, Header};

const MANIFEST: &str = "manifest.json";
/// Bytes of an archive at most.
const LARGEST: u64 = 64 << 30;
/// Bytes of its list of images at most.
const LONGEST_MANIFEST: u64 = 1 << 20;

/// An entry of the list of images, as `docker save` writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    layers: Vec<String>,
}

/// Writes an archive with the one image of another, under this name alone.
///
/// # Errors
/// It is no archive of one image, or a file cannot be read or written.
pub(super) fn only(from: &Path, name: &str, to: &Path) -> io::Result<()> {
    if from.metadata()?.len() > LARGEST {
        return Err(wrong("it is too large"));
    }
    let entry = manifest(from)?;
    let mut out = Builder::new(File::create(to)?);
    let tagged = match name
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'))
    {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    };
    let list = json!([{ "Config": entry.config, "RepoTags": [tagged], "Layers": entry.layers }])
        .to_string();
    let mut header = Header::new_gnu();
    header.set_size(list.len() as u64);
    header.set_mode(0o644);
    out.append_data(&mut header, MANIFEST, list.as_bytes())?;
    let mut archive = Archive::new(File::open(from)?);
    for file in archive.entries()? {
        let mut file = file?;
        let path = file.path()?.into_owned();
        let is_wanted = |wanted: &String| Path::new(wanted) == path;
        if !is_wanted(&entry.config) && !entry.layers.iter().any(is_wanted) {
            continue;
        }
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        match file.header().entry_type() {
            EntryType::Regular => {
                header.set_size(file.size());
                out.append_data(&mut header, path, &mut file)?;
            }
            // Layers that are the same are there once.
            EntryType::Symlink => {
                let target = file
                    .link_name()?
                    .ok_or_else(|| wrong("a link in it says nothing"))?;
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                out.append_link(&mut header, path, target)?;
            }
            _ => return Err(wrong("a layer in it is no file")),
        }
    }
    out.into_inner()?.sync_all()
}

fn manifest(from: &Path) -> io::Result<Entry> {
    let mut archive = Archive::new(File::open(from)?);
    for file in archive.entries()? {
        let file = file?;
        if file.path()?.as_os_str() != MANIFEST {
            continue;
        }
        let mut text = String::new();
        file.take(LONGEST_MANIFEST).read_to_string(&mut text)?;
        let list: Vec<Entry> =
            serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        let mut list = list.into_iter();
        return match (list.next(), list.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(wrong("it does not hold one image")),
        };
    }
    Err(wrong("it has no manifest.json"))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the image's archive: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, files: &[(&str, &str)]) {
        let mut out = Builder::new(File::create(path).unwrap());
        for (name, text) in files {
            let mut header = Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            out.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        out.finish().unwrap();
    }

    #[test]
    fn an_archive_brings_one_image_under_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let entry = r#"{"Config":"c.json","RepoTags":["gcr.io/cloud-builders/docker:latest"],"Layers":["l.tar"]}"#;
        let files = [
            ("manifest.json", &*format!("[{entry}]")),
            ("repositories", "{\"gcr.io/cloud-builders/docker\":{}}"),
            ("index.json", "{}"),
            ("c.json", "{}"),
            ("l.tar", "layer"),
            ("other.tar", "x"),
        ];
        write(&from, &files);
        only(&from, "gcr.io/p/x", &to).unwrap();
        let mut archive = Archive::new(File::open(&to).unwrap());
        let mut names = Vec::new();
        for file in archive.entries().unwrap() {
            let mut file = file.unwrap();
            names.push(file.path().unwrap().display().to_string());
            if names.len() == 1 {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert!(
                    text.contains("[\"gcr.io/p/x:latest\"]") && !text.contains("cloud-builders"),
                    "{text}"
                );
            }
        }
        assert_eq!(names, ["manifest.json", "c.json", "l.tar"]);
        for list in [&format!("[{entry},{entry}]"), "[]", "{", "[{}]"] {
            write(&from, &[("manifest.json", list)]);
            assert!(only(&from, "gcr.io/p/x", &to).is_err(), "{list}");
        }
        write(&from, &[("c.json", "{}")]);
        assert!(only(&from, "gcr.io/p/x", &to).is_err());
    }
}

//! `filelists.xml`: all files of a repository's packages. `primary` has those that others ask for mostly.

use std::collections::HashSet;
use std::io::BufRead;

use super::xml::{self, Attributes, Take};
use crate::{Digest, Result};

/// Finds which packages have one of these paths: the SHA-256 of a package's file, and the path. `what` names the document for messages.
///
/// # Errors
/// [`crate::ErrorKind::Malformed`] with the byte where it is, [`crate::ErrorKind::Io`].
pub(super) fn find(
    what: &str,
    input: impl BufRead,
    wanted: &HashSet<String>,
) -> Result<Vec<(Digest, String)>> {
    let mut finding = Finding {
        wanted,
        package: None,
        is_directory: false,
        found: Vec::new(),
    };
    xml::read(what, input, &mut finding)?;
    Ok(finding.found)
}

struct Finding<'a> {
    wanted: &'a HashSet<String>,
    /// Whose files these are; `None` where no SHA-256 says it.
    package: Option<Digest>,
    is_directory: bool,
    found: Vec<(Digest, String)>,
}

impl Take for Finding<'_> {
    fn begin(&mut self, path: &str, attributes: &Attributes) -> Result<(), String> {
        match path {
            "filelists/package" => {
                self.package = attributes.get("pkgid").and_then(|id| id.parse().ok());
            }
            "filelists/package/file" => self.is_directory = attributes.get("type") == Some("dir"),
            _ if !path.starts_with("filelists") => return Err("is no list of files".into()),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, path: &str, text: &str) -> Result<(), String> {
        // A directory is as good as a file, but it may be written with a slash at its end.
        let text = match self.is_directory {
            true => text.trim_end_matches('/'),
            false => text,
        };
        if path == "filelists/package/file"
            && let Some(package) = self.package
            && self.wanted.contains(text)
        {
            self.found.push((package, text.to_owned()));
        }
        Ok(())
    }
}

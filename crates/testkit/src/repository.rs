//! Small signed Debian repositories.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_digest::Sha256;

use crate::key::Key;
use crate::package::{Compression, Package};
use crate::server::date;

/// How a repository is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// `InRelease` only.
    Inline,
    /// `Release` and `Release.gpg` only.
    Detached,
    /// `Release` without a signature.
    None,
}

/// A repository to be written.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The suite's name, `Suite` and `Codename` of its `Release`. With a final `/` a flat repository: what all components have is in
    /// one `Packages` in that directory, and `Release` names no suite.
    pub suite: String,
    /// Component and its packages.
    pub components: Vec<(String, Vec<Package>)>,
    /// Architecture of the indices.
    pub architecture: String,
    /// Date of `Release`.
    pub date: SystemTime,
    /// How long it is valid, if that is said.
    pub valid: Option<Duration>,
    /// How it is signed.
    pub signing: Signing,
    /// The forms in which `Packages` is written.
    pub forms: Vec<Compression>,
    /// Whether `Release` lists the plain `Packages` although it may not be written.
    pub list_plain: bool,
    /// Whether files are there by hash.
    pub by_hash: bool,
}

impl Repository {
    /// Makes a repository with one component `main`, signed inline, in xz, by hash, dated now.
    pub fn new(suite: &str, packages: impl IntoIterator<Item = Package>) -> Self {
        Repository {
            suite: suite.to_owned(),
            components: vec![("main".to_owned(), packages.into_iter().collect())],
            architecture: "amd64".to_owned(),
            date: SystemTime::now(),
            valid: None,
            signing: Signing::Inline,
            forms: vec![Compression::Xz],
            list_plain: true,
            by_hash: true,
        }
    }

    /// Writes `dists/` and `pool/` below a directory.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn write(&self, root: &Path, key: &Key) {
        let mut sums = String::new();
        if self.is_flat() {
            let place = root.join(self.suite.trim_matches('/'));
            let all = self.components.iter();
            let index: String = all
                .flat_map(|(component, packages)| packages.iter().map(move |p| (component, p)))
                .map(|(component, package)| self.pool(root, component, package))
                .collect();
            self.index(&place, "Packages", index.as_bytes(), &mut sums);
            return self.sign(&place, &self.release(&sums), key);
        }
        let dists = root.join("dists").join(&self.suite);
        for (component, packages) in &self.components {
            let index: String = packages
                .iter()
                .map(|package| self.pool(root, component, package))
                .collect();
            let name = format!("{component}/binary-{}/Packages", self.architecture);
            self.index(&dists, &name, index.as_bytes(), &mut sums);
        }
        self.sign(&dists, &self.release(&sums), key);
    }

    fn is_flat(&self) -> bool {
        self.suite.ends_with('/')
    }

    /// Writes one package file and returns its stanza for the index.
    fn pool(&self, root: &Path, component: &str, package: &Package) -> String {
        let bytes = package.build();
        let path = format!("pool/{component}/{}", package.file_name());
        put(&root.join(&path), &bytes);
        let sum = sha256(&bytes);
        format!(
            "{}Filename: {path}\nSize: {}\nSHA256: {sum}\n\n",
            package.stanza(),
            bytes.len()
        )
    }

    fn index(&self, dists: &Path, name: &str, plain: &[u8], sums: &mut String) {
        let mut list = |name: &str, bytes: &[u8]| {
            // Writing to a string cannot fail.
            let _ = writeln!(sums, " {} {} {name}", sha256(bytes), bytes.len());
        };
        if self.list_plain || self.forms.contains(&Compression::None) {
            list(name, plain);
        }
        for form in &self.forms {
            let (name, bytes) = (format!("{name}{}", form.ending()), form.compress(plain));
            if *form != Compression::None {
                list(&name, &bytes);
            }
            let path = dists.join(&name);
            put(&path, &bytes);
            if self.by_hash {
                put(
                    &path
                        .with_file_name("by-hash")
                        .join("SHA256")
                        .join(sha256(&bytes)),
                    &bytes,
                );
            }
        }
    }

    fn release(&self, sums: &str) -> String {
        let components: Vec<&str> = self
            .components
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let mut text = format!(
            "Origin: Kiln test\nLabel: Kiln test\nDate: {}\n",
            date(self.date, "UTC")
        );
        if !self.is_flat() {
            text += &format!("Suite: {0}\nCodename: {0}\n", self.suite);
        }
        if let Some(valid) = self.valid {
            text.push_str(&format!(
                "Valid-Until: {}\n",
                date(self.date + valid, "UTC")
            ));
        }
        if self.by_hash {
            text.push_str("Acquire-By-Hash: yes\n");
        }
        if !self.is_flat() {
            let (architecture, components) = (&self.architecture, components.join(" "));
            text += &format!("Architectures: {architecture}\nComponents: {components}\n");
        }
        text + "SHA256:\n" + sums
    }

    fn sign(&self, dists: &Path, release: &str, key: &Key) {
        for stale in ["InRelease", "Release", "Release.gpg"] {
            let _ = fs::remove_file(dists.join(stale));
        }
        match self.signing {
            Signing::Inline => put(&dists.join("InRelease"), &key.clearsign(release)),
            Signing::Detached => {
                put(&dists.join("Release"), release.as_bytes());
                put(&dists.join("Release.gpg"), &key.detach(release.as_bytes()));
            }
            Signing::None => put(&dists.join("Release"), release.as_bytes()),
        }
        // The date that a server tells, so that two states written in the same second differ.
        for name in ["InRelease", "Release", "Release.gpg"] {
            if let Ok(file) = fs::File::open(dists.join(name)) {
                file.set_modified(self.date)
                    .unwrap_or_else(|e| panic!("setting the time of {name}: {e}"));
            }
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn put(path: &Path, bytes: &[u8]) {
    let parent = path.parent().expect("a path with a directory");
    fs::create_dir_all(parent).unwrap_or_else(|e| panic!("creating {}: {e}", parent.display()));
    fs::write(path, bytes).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
}

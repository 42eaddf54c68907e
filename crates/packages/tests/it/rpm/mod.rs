//! RPM repositories as rpm's own programs make them, and as hostile or broken servers serve them.

mod closure;
mod metadata;
mod mirrors;
mod packages;
mod presets;

use std::path::PathBuf;
use std::time::SystemTime;

use kiln_packages::Error;
use kiln_packages::rpm::{Filter, Metadata, Proof, Repository, Source};
use kiln_testkit::Mirror;
use kiln_testkit::rpm::{Gpg, Rpm};
use tempfile::TempDir;

use crate::support::fetcher;

/// A signed repository on a mirror, and the directories of a user.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) mirror: Mirror,
    pub(crate) key: Gpg,
}

/// Packages that need each other in the ways that there are.
fn packages() -> Vec<Rpm> {
    vec![
        Rpm::new("shell", "5.1")
            .tag("Epoch: 1\nProvides: /bin/sh\nRequires: libc.so.6()(64bit)\nSuggests: small-langpack")
            .file("%attr(0755,root,root)", "/usr/bin/shell", "#!/bin/true\n".repeat(5000)),
        Rpm::new("libc", "2.34").tag("Provides: libc.so.6()(64bit) = 2.34\nRequires: (langpack or nothing)"),
        Rpm::new("big-langpack", "2.34").tag("Provides: langpack"),
        Rpm::new("small-langpack", "2.34").tag("Provides: langpack"),
        Rpm::new("resolver", "4.14").tag("Requires: /usr/bin/shell, shell >= 1:5, (extra if absent)"),
    ]
}

impl World {
    pub(crate) fn new() -> Self {
        World::with(&[])
    }

    /// `options` are createrepo's.
    pub(crate) fn with(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = directory.path().join("mirror");
        let key = Gpg::generate(&directory.path().join("gpg"), "rpm@example.org");
        let built = kiln_testkit::rpm::build(&packages(), &files);
        key.sign_packages(&built);
        let world = World {
            mirror: Mirror::of(files),
            directory,
            key,
        };
        world.createrepo(options);
        world
    }

    pub(crate) fn createrepo(&self, options: &[&str]) {
        kiln_testkit::rpm::createrepo(&self.path("mirror"), options);
        self.sign();
    }

    pub(crate) fn sign(&self) {
        self.key.sign_file(&self.path("mirror/repodata/repomd.xml"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn repository(&self, source: Source) -> Repository {
        Repository {
            name: "baseos".into(),
            source,
            variables: vec![("releasever".into(), "9".into())],
            keys: ("test.asc".into(), self.key.public()),
            proof: Proof::Signature,
            cost: Repository::COST,
            filter: Filter::default(),
            proxy: None,
            origin: "lab.ks:7".into(),
        }
    }

    pub(crate) fn base(&self) -> Source {
        Source::Base(vec![self.mirror.url()])
    }

    pub(crate) fn refresh(&self) -> Result<Metadata, Error> {
        self.refresh_with(&self.repository(self.base()))
    }

    pub(crate) fn refresh_with(&self, repository: &Repository) -> Result<Metadata, Error> {
        let all = std::slice::from_ref(repository);
        kiln_packages::rpm::refresh(&fetcher(), all, &self.path("metadata"), SystemTime::now())
    }
}

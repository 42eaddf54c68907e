//! Packages into a root: unpacked by Kiln or by dpkg, configured by the real dpkg inside the root.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_sandbox::{Mount, Stream};

use super::compile;
use super::daemons;
use super::deb::{DEBS, Deb};
use super::fonts;
use super::native::{Adopted, Batch, Filter};
use super::order::{Wave, waves};
use crate::calls::WriteFile;
use crate::error::{Error, ErrorKind, Result};
use crate::family::InstallOptions;
use crate::report::Reporter;
use crate::run::{Extras, PATH, Place, standard_env};

/// Where the download store is seen inside the root.
const DOWNLOADS: &str = "/run/kiln/downloads";

/// Who unpacks packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpacker {
    /// Kiln, out of the pool in the root, and dpkg wherever Kiln would not do exactly the same.
    Pool,
    /// dpkg.
    Dpkg,
}

/// Who installs packages, beside dpkg.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) unpacker: Unpacker,
    /// What scripts need not compile themselves, where they find it.
    pub(super) compiled: &'a [Mount],
}

/// Unpacks packages, and has the root's own dpkg configure them. `installed` are configured already.
///
/// # Errors
/// A package cannot be unpacked or configured; the error names it.
pub(super) fn install(
    place: &Place<'_>,
    downloads: &Path,
    debs: &[Deb],
    installed: &[Deb],
    options: &InstallOptions,
    by: By<'_>,
) -> Result<()> {
    let waves = if options.bootstrap {
        vec![all(debs.len())]
    } else {
        waves(debs, installed)
    };
    let run = Dpkg {
        place,
        downloads,
        debs,
        options,
        done: Mutex::new(0),
        native: AtomicBool::new(by.unpacker == Unpacker::Pool),
        compiled: by.compiled,
        compiles: compile::compiles(debs.iter().chain(installed)),
        fonts: fonts::are_indexed(debs.iter().chain(installed)),
    };
    let mut places_for_pages = options.exclude_docs;
    for Wave { unpack, configure } in waves {
        run.unpack(&unpack)?;
        if std::mem::take(&mut places_for_pages) {
            run.make_places_for_pages()?;
        }
        if !configure.is_empty() {
            run.configure(&configure)?;
        }
    }
    run.configure_pending()
}

fn all(count: usize) -> Wave {
    Wave {
        unpack: (0..count).collect(),
        configure: Vec::new(),
    }
}

struct Dpkg<'a> {
    place: &'a Place<'a>,
    downloads: &'a Path,
    debs: &'a [Deb],
    options: &'a InstallOptions,
    /// Packages unpacked plus packages configured.
    done: Mutex<u64>,
    /// Whether Kiln unpacks what it can.
    native: AtomicBool,
    /// What scripts need not compile themselves, where they find it.
    compiled: &'a [Mount],
    /// Whether scripts compile for PyPy.
    compiles: bool,
    /// Whether scripts make the index of fonts.
    fonts: bool,
}

impl Dpkg<'_> {
    /// Unpacks packages, as many as possible without dpkg.
    fn unpack(&self, indices: &[usize]) -> Result<()> {
        let mut rest = indices;
        while self.native.load(Ordering::Relaxed) && !rest.is_empty() {
            let adopted = self.adopt(rest)?;
            rest = &rest[adopted.done.min(rest.len())..];
            let (Some(why), Some(&next)) = (adopted.stopped, rest.first()) else {
                break;
            };
            let what = if adopted.for_good {
                self.native.store(false, Ordering::Relaxed);
                "everything"
            } else {
                &self.debs[next].name
            };
            let line = format!("dpkg unpacks {what}: {why}");
            self.place.reporter.line(Stream::Stdout, &line);
            if !adopted.for_good {
                self.unpack_by_dpkg(&rest[..1])?;
                rest = &rest[1..];
            }
        }
        if rest.is_empty() || self.native.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.unpack_by_dpkg(rest)
    }

    fn adopt(&self, indices: &[usize]) -> Result<Adopted> {
        let dpkg = self.debs.iter().find(|d| d.name == "dpkg");
        let batch = Batch {
            keys: indices.iter().map(|&i| self.debs[i].key()).collect(),
            bootstrap: self.options.bootstrap,
            dpkg: dpkg.map(|d| (d.version.as_str(), d.architecture.as_str())),
            env: self.script_env(),
        };
        let extras = Extras {
            mounts: package_mounts(self.downloads, std::iter::empty()),
            ..Extras::default()
        };
        batch.adopt(self.place, extras, &mut |name| self.count(name))
    }

    /// The environment that dpkg would give to a maintainer script, but for what the script's package says.
    fn script_env(&self) -> Vec<(String, String)> {
        let depends = if self.options.bootstrap {
            ",depends"
        } else {
            ""
        };
        let force = format!("security-mac,downgrade,unsafe-io,confold,confdef{depends}");
        let mut env = standard_env(self.place.epoch);
        env.extend(scriptlet_env());
        let own = [
            ("DPKG_ADMINDIR", "/var/lib/dpkg"),
            ("DPKG_ROOT", ""),
            ("DPKG_FORCE", &force),
        ];
        env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        env
    }

    fn unpack_by_dpkg(&self, indices: &[usize]) -> Result<()> {
        let mut argv = self.common();
        argv.push("--unpack".to_owned());
        argv.extend(indices.iter().map(|&i| self.debs[i].inside()));
        self.run(argv, indices)
    }

    /// Makes the directories of manual pages, which the path filters leave out: scripts that link pages of their own, as
    /// those of JDKs do, fail without them. A filter that includes them would keep every link of a page that is not there.
    fn make_places_for_pages(&self) -> Result<()> {
        let sections = (1..=9).map(|section| format!("/usr/share/man/man{section}"));
        let argv: Vec<String> = ["mkdir", "-p"]
            .map(str::to_owned)
            .into_iter()
            .chain(sections)
            .collect();
        self.run(argv, &[])
    }

    fn configure(&self, indices: &[usize]) -> Result<()> {
        let mut argv = self.common();
        argv.push("--configure".to_owned());
        argv.extend(indices.iter().map(|&i| self.debs[i].label()));
        self.run_scripts(argv)
    }

    fn configure_pending(&self) -> Result<()> {
        let mut argv = self.common();
        argv.retain(|a| a != "--no-triggers");
        argv.extend(["--configure", "--pending"].map(str::to_owned));
        self.run_scripts(argv)
    }

    /// Runs dpkg, and beside it what its scripts need not wait for.
    fn run_scripts(&self, mut argv: Vec<String>) -> Result<()> {
        let mut mounts = Vec::new();
        if self.compiles {
            argv = compile::beside(argv);
            mounts.extend(compile::mounts());
        }
        if self.fonts {
            mounts.push(fonts::stand_in());
        }
        mounts.extend_from_slice(self.compiled);
        self.run_with(argv, &[], mounts)
    }

    fn common(&self) -> Vec<String> {
        let mut argv: Vec<String> = [
            "dpkg",
            "--status-fd",
            "10",
            "--no-triggers",
            "--force-unsafe-io",
            "--force-confdef",
            "--force-confold",
        ]
        .map(str::to_owned)
        .to_vec();
        if self.options.bootstrap {
            argv.push("--force-depends".to_owned());
        }
        argv.extend(path_filters(self.options));
        argv
    }

    fn run(&self, argv: Vec<String>, unpacked: &[usize]) -> Result<()> {
        self.run_with(argv, unpacked, Vec::new())
    }

    fn run_with(&self, argv: Vec<String>, unpacked: &[usize], more: Vec<Mount>) -> Result<()> {
        let (read, write) = pipe()?;
        let watcher = Watcher {
            inner: self.place.reporter,
            seen: Mutex::default(),
        };
        let place = self.place.with_reporter(&watcher);
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let mut mounts = package_mounts(self.downloads, unpacked.iter().map(|&i| &self.debs[i]));
        mounts.extend(more);
        let extras = Extras {
            mounts,
            env: scriptlet_env(),
            fds: vec![write],
            ..Extras::default()
        };
        let result = std::thread::scope(|scope| {
            scope.spawn(|| self.follow(read));
            place.exec(&words, extras)
        });
        result.map(|_| ()).map_err(|error| {
            explain(
                error,
                watcher
                    .seen
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner),
            )
        })
    }

    /// Reads dpkg's status lines (`status: NAME: STATE`, dpkg(1) `--status-fd`) and counts.
    fn follow(&self, status: OwnedFd) {
        for line in BufReader::new(File::from(status))
            .lines()
            .map_while(Result::ok)
        {
            let mut words = line.split(": ").map(str::trim);
            if words.next() != Some("status") {
                continue;
            }
            let (Some(name), Some("unpacked" | "installed")) = (words.next(), words.next()) else {
                continue;
            };
            self.count(name);
        }
    }

    /// A package got one state further.
    fn count(&self, name: &str) {
        let total = 2 * self.debs.len() as u64;
        if let Ok(mut done) = self.done.lock() {
            *done += 1;
            let done = (*done).min(total);
            self.place.reporter.progress(done, Some(total), Some(name));
        }
    }
}

/// The download store, and a readable name for each package file.
pub(crate) fn package_mounts<'a>(
    downloads: &Path,
    debs: impl Iterator<Item = &'a Deb>,
) -> Vec<Mount> {
    let bind = Mount::Bind {
        source: downloads.to_owned(),
        target: DOWNLOADS.to_owned(),
        writable: false,
    };
    let link = |deb: &Deb| {
        let file = deb.file.strip_prefix(downloads).unwrap_or(&deb.file);
        Mount::Symlink {
            target: deb.inside(),
            to: format!("{DOWNLOADS}/{}", file.display()),
        }
    };
    std::iter::once(bind)
        .chain(debs.map(link))
        .chain(daemons::for_packages())
        .collect()
}

/// Before 3.11, Python puts the sets of a module in the order of their hashes, which are drawn at random otherwise.
pub(super) const HASH_SEED: (&str, &str) = ("PYTHONHASHSEED", "0");

/// What maintainer scripts find in their environment: no questions, no running system, and no initramfs (it is made once, at the end).
pub(crate) fn scriptlet_env() -> Vec<(String, String)> {
    let path = daemons::path(PATH);
    [
        ("PATH", path.as_str()),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("DEBCONF_NOWARNINGS", "yes"),
        ("INITRD", "No"),
        HASH_SEED,
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Where documentation is.
const DOCUMENTATION: &[&str] = &[
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/info",
    "/usr/share/doc-base",
    "/usr/share/gtk-doc",
];
/// Where translations are.
const TRANSLATIONS: &str = "/usr/share/locale";

/// Directories of which the path filters leave out at least a part.
pub(super) fn filtered(options: &InstallOptions) -> Vec<&'static str> {
    let docs = options.exclude_docs.then_some(DOCUMENTATION);
    let languages = options.languages.as_ref().map(|_| TRANSLATIONS);
    docs.into_iter()
        .flatten()
        .copied()
        .chain(languages)
        .collect()
}

/// dpkg's path filters as its arguments.
fn path_filters(options: &InstallOptions) -> Vec<String> {
    let argument = |filter: Filter| {
        let kind = if filter.include { "include" } else { "exclude" };
        format!("--path-{kind}={}", filter.pattern)
    };
    filters(options).into_iter().map(argument).collect()
}

/// What `%packages` leaves out, in dpkg's terms and in order: the last match counts.
pub(super) fn filters(options: &InstallOptions) -> Vec<Filter> {
    let mut filters = Vec::new();
    let mut add = |include, pattern: String| filters.push(Filter { include, pattern });
    if options.exclude_docs {
        for path in DOCUMENTATION {
            add(false, format!("{path}/*"));
        }
        add(true, "/usr/share/doc/*/copyright".to_owned());
    }
    if let Some(languages) = &options.languages {
        // Not only LC_MESSAGES: coreutils has its words for days in LC_TIME.
        add(false, format!("{TRANSLATIONS}/*/LC_*/*"));
        for language in languages {
            let short = language.split(['_', '.', '@']).next().unwrap_or(language);
            for name in [language.as_str(), short] {
                add(true, format!("{TRANSLATIONS}/{name}/*"));
            }
        }
    }
    filters
}

/// Watches dpkg's messages for the first package that it names as failed.
struct Watcher<'a> {
    inner: &'a dyn Reporter,
    seen: Mutex<Seen>,
}

/// What dpkg's messages tell of a failure.
#[derive(Debug, Default)]
struct Seen {
    /// The first package that it names as failed.
    first: Option<String>,
    /// The package whose script runs.
    current: String,
    /// Packages whose scripts looked for a host in the network.
    offline: Vec<String>,
}

impl Seen {
    fn line(&mut self, line: &str) {
        if let Some(name) = failed_package(line) {
            self.first.get_or_insert(name);
        } else if let Some(rest) = line.strip_prefix("Setting up ") {
            let name = rest.split([' ', ':']).next().unwrap_or(rest);
            name.clone_into(&mut self.current);
        } else if UNREACHABLE.iter().any(|words| line.contains(words)) {
            self.offline.push(self.current.clone());
        }
    }

    /// Whether the failed package's script missed the network.
    fn needs_network(&self) -> bool {
        self.first
            .as_ref()
            .is_some_and(|first| self.offline.contains(first))
    }
}

/// How the C library, wget and curl say that a host cannot be found.
const UNREACHABLE: &[&str] = &[
    "Temporary failure in name resolution",
    "unable to resolve host address",
    "Could not resolve host",
];

impl Reporter for Watcher<'_> {
    fn line(&self, stream: Stream, line: &str) {
        if let Ok(mut seen) = self.seen.lock() {
            seen.line(line);
        }
        self.inner.line(stream, line);
    }

    fn progress(&self, done: u64, total: Option<u64>, item: Option<&str>) {
        self.inner.progress(done, total, item);
    }

    fn warn(&self, message: String, origin: Option<String>, hint: Option<String>) {
        self.inner.warn(message, origin, hint);
    }
}

/// `dpkg: error processing package NAME (--configure):` and `… archive …/NAME_VERSION_ARCH.deb (--unpack):`.
fn failed_package(line: &str) -> Option<String> {
    let rest = line.strip_prefix("dpkg: error processing ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let what = rest.rsplit_once(" (").map_or(rest, |(what, _)| what);
    let name = match kind {
        "archive" => what.rsplit('/').next()?.split('_').next()?,
        _ => what,
    };
    Some(name.split(':').next().unwrap_or(name).to_owned())
}

fn explain(mut error: Error, seen: Seen) -> Error {
    if error.kind != ErrorKind::Step {
        return error;
    }
    let needs_network = seen.needs_network();
    let package = seen.first;
    error.message = match &package {
        Some(name) => format!("package {name} could not be installed"),
        None => "packages could not be installed".to_owned(),
    };
    // The list of package files is of no use to people and may be longer than the screen.
    if let Some(argv) = &mut error.command {
        let files = argv.iter().filter(|a| a.starts_with(DEBS)).count();
        if files > 3 {
            argv.retain(|a| !a.starts_with(DEBS));
            argv.push(format!("… ({files} package files)"));
        }
    }
    if let Some(name) = package.as_ref().filter(|_| needs_network) {
        error.hints.push(format!(
            "the package's script downloads something, and scripts of packages have no network: take {name} out of %packages, and run \
             `apt-get install -y {name}` in %post, whose scripts have it"
        ));
    }
    error.package = package;
    error
}

/// Records which packages nobody asked for, as apt does (apt-mark(8)), so that `apt autoremove` in the image is right.
///
/// # Errors
/// The file cannot be written.
pub(super) fn mark_auto(place: &Place<'_>, debs: &[Deb]) -> Result<()> {
    let native = debs
        .iter()
        .map(|d| d.architecture.as_str())
        .find(|a| *a != "all")
        .unwrap_or("all");
    let stanza = |deb: &Deb| {
        // apt writes the native architecture for independent packages too.
        let architecture = if deb.architecture == "all" {
            native
        } else {
            &deb.architecture
        };
        format!(
            "Package: {}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n",
            deb.name
        )
    };
    let content: String = debs.iter().filter(|d| d.auto).map(stanza).collect();
    let file = WriteFile {
        path: "/var/lib/apt/extended_states".to_owned(),
        content,
        mode: 0o644,
    };
    place.call(&file, (), Extras::default())
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| Error::io("making a pipe", &std::io::Error::from(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpkg_names_the_failed_package() {
        assert_eq!(
            failed_package("dpkg: error processing package man-db (--configure):").as_deref(),
            Some("man-db")
        );
        let archive =
            "dpkg: error processing archive /run/kiln/debs/libc6_2.36-9_amd64.deb (--unpack):";
        assert_eq!(failed_package(archive).as_deref(), Some("libc6"));
        assert_eq!(
            failed_package("dpkg: error processing package libx:amd64 (--install):").as_deref(),
            Some("libx")
        );
        assert_eq!(failed_package("Setting up man-db"), None);
    }

    #[test]
    fn a_script_that_misses_the_network_is_told_from_others() {
        let told = |lines: &[&str]| {
            let mut seen = Seen::default();
            lines.iter().for_each(|line| seen.line(line));
            seen.needs_network()
        };
        let fonts = "Setting up ttf-mscorefonts-installer (3.8.1) ...";
        let offline = "wget: unable to resolve host address \u{2018}downloads.example.org\u{2019}";
        let failed = "dpkg: error processing package ttf-mscorefonts-installer (--configure):";
        assert!(told(&[fonts, offline, failed]));
        assert!(!told(&[fonts, failed]));
        // It went on without.
        assert!(!told(&[
            "Setting up other:amd64 (1) ...",
            offline,
            fonts,
            failed
        ]));
    }

    #[test]
    fn filters_keep_licences() {
        let options = InstallOptions {
            exclude_docs: true,
            languages: Some(vec!["de_DE".into()]),
            bootstrap: false,
        };
        let filters = path_filters(&options);
        for filter in filters.iter().filter(|f| f.contains("exclude")) {
            let inside = |d: &&str| filter.contains(&format!("={d}/"));
            assert!(filtered(&options).iter().any(inside), "{filter}");
        }
        assert!(filters.contains(&"--path-include=/usr/share/doc/*/copyright".to_owned()));
        assert!(filters.contains(&"--path-include=/usr/share/locale/de/*".to_owned()));
    }
}

//! Installing packages with the tools root's rpm, which writes the database that the distribution's own rpm reads.
//!
//! rpm runs in the root that it installs into: the tools root is only seen below [`TOOLS`], and its programs are started by its own
//! loader. So scriptlets have what every run has (`/proc`, `/dev`), and nothing of the tools root but rpm itself takes part.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use kiln_plan::Target;
use kiln_sandbox::{Mount, Root, Status};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::facts::{Item, mounts};
use super::kernels::{self, FindKernels};
use super::scriptlets::Listener;
use super::times::SetTimes;
use crate::calls::WriteFile;
use crate::error::{Error, ErrorKind, Result, describe};
use crate::family::InstallOptions;
use crate::run::{Extras, Place, standard_env};
use crate::skeleton::MountPoints;

/// Where the tools root is seen.
const TOOLS: &str = "/run/kiln/tools";
/// Its loader, and where that looks for libraries.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &[&str] = &["usr/lib64", "lib64", "usr/lib/x86_64-linux-gnu", "usr/lib"];
/// Where dnf notes which streams are enabled.
const MODULES: &str = "/etc/dnf/modules.d";
/// What is installed, for the last step: a root need not have rpm.
pub(super) const NOTE: &str = "/usr/lib/kiln/rpm-packages";
/// How packages are listed, in rpm's query language: name, version as a lock has it, architecture.
pub(super) const FORMAT: &str = "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH}\\n";
/// Before [`FORMAT`]: the transaction that a package came with.
pub(super) const TRANSACTION: &str = "%{INSTALLTID} ";
/// Where kernel-install has plugins of the machine's own, and those that would generate an initramfs for each kernel: Kiln has one made, of the finished root.
pub(super) const PLUGINS: &str = "etc/kernel/install.d";
const MASKED: &[&str] = &["50-dracut.install", "51-dracut-rescue.install"];

/// Makes the places of an empty root where runs mount something. What a run makes for its mounts goes away with it, which must not be a
/// directory that a package has.
pub(super) fn skeleton(place: &Place<'_>, more: &[&str]) -> Result<()> {
    let more = more.iter().map(|&path| path.to_owned()).collect();
    place.call(&MountPoints { more }, (), Extras::bare())
}

/// The tools root's rpm, at work in a root.
pub(super) struct Rpm<'a> {
    pub(super) place: &'a Place<'a>,
    /// The layers of the tools root, the top one first.
    pub(super) tools: &'a [PathBuf],
    pub(super) target: &'a Target,
}

impl Rpm<'_> {
    /// Installs packages in one transaction, and sees to it that all of them are there afterwards.
    ///
    /// # Errors
    /// A package cannot be installed; the error names it.
    pub(super) fn install(&self, items: &[Item], options: &InstallOptions) -> Result<()> {
        let mut arguments: Vec<String> = ["--verbose", "--noplugins", "--nosignature"]
            .map(str::to_owned)
            .to_vec();
        let beside = match items.iter().any(|item| item.install_only) {
            true => are_beside(items, &self.installed()?)?,
            false => false,
        };
        // Of packages that are updated, rpm takes the newest and removes all others.
        match beside {
            true => arguments.extend(["-i", "--oldpackage"].map(str::to_owned)),
            false => arguments.push("-U".to_owned()),
        }
        if options.exclude_docs {
            arguments.push("--excludedocs".to_owned());
        }
        if let Some(languages) = &options.languages {
            arguments.extend(define("_install_langs", &languages.join(":")));
        }
        arguments.extend(items.iter().map(Item::inside));
        let listener = Listener::new(self.place.reporter, items);
        let status = {
            let mut more = mounts(items);
            more.extend(MASKED.iter().map(|name| Mount::File {
                target: format!("/{PLUGINS}/{name}"),
                content: b"#!/bin/sh\nexit 0\n".to_vec(),
                mode: 0o755,
            }));
            let place = self.place.with_reporter(&listener);
            let extras = Extras {
                any_status: true,
                ..self.extras(more)
            };
            place
                .exec(&words(&self.argv("rpm", arguments)?), extras)?
                .status
        };
        let heard = listener.take();
        if let Some(failure) = heard.failures.iter().find(|failure| failure.is_fatal()) {
            return Err(failure.error());
        }
        let installed = self.installed()?;
        let missing: Vec<&Item> = items
            .iter()
            .filter(|item| !installed.contains_key(&line(item)))
            .collect();
        if status != Status::Exited(0) || !missing.is_empty() {
            return Err(not_installed(status, &missing, heard.tail));
        }
        for failure in &heard.failures {
            let (message, hint) = failure.warning();
            self.place.reporter.warn(message, None, Some(hint));
        }
        self.set_times(items, &installed)?;
        for (module, stream) in streams(items) {
            self.enable(module, stream)?;
        }
        self.note(&installed)?;
        self.note_kernels()
    }

    /// Notes which packages bring which kernel, where there are several.
    fn note_kernels(&self) -> Result<()> {
        let extras = Extras::default();
        let found = self.place.call(&FindKernels {}, (), extras)?;
        if found.len() < 2 {
            return Ok(());
        }
        let mut owners = Vec::new();
        for kernel in found {
            let path = format!("/usr/lib/modules/{kernel}/vmlinuz");
            let lines = self.query(&["-qf", "--qf", FORMAT, &path])?;
            // Of a file that no package has, rpm says a whole sentence.
            let is_package = |line: &String| line.split(' ').count() == 3;
            owners.extend(
                lines
                    .into_iter()
                    .find(is_package)
                    .map(|line| (kernel, line)),
            );
        }
        let format = format!("{}{FORMAT}{}", kernels::PACKAGE, kernels::RELATIONS);
        let relations = self.query(&["-qa", "--qf", &format])?;
        let call = WriteFile {
            path: kernels::BROUGHT.to_owned(),
            content: kernels::brought(&owners, &relations),
            mode: 0o644,
        };
        self.place.call(&call, (), Extras::default())
    }

    /// What rpm answers, whatever its status.
    fn query(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        let extras = Extras {
            any_status: true,
            ..self.extras(Vec::new())
        };
        self.place
            .lines_with(&words(&self.argv("rpm", arguments)?), extras)
    }

    /// Notes that a module's stream is enabled, as dnf does when it installs a package of it: dnf in the image sees packages of no other one.
    fn enable(&self, module: &str, stream: &str) -> Result<()> {
        let call = WriteFile {
            path: format!("{MODULES}/{module}.module"),
            content: format!(
                "[{module}]\nname={module}\nstream={stream}\nprofiles=\nstate=enabled\n\n"
            ),
            mode: 0o644,
        };
        self.place.call(&call, (), Extras::default())
    }

    /// What the database has: lines of [`FORMAT`], each with the transaction that it came with.
    fn installed(&self) -> Result<BTreeMap<String, u32>> {
        let format = format!("{TRANSACTION}{FORMAT}");
        let arguments = ["-qa", "--qf", &format].map(str::to_owned).to_vec();
        let lines = self.place.lines_with(
            &words(&self.argv("rpm", arguments)?),
            self.extras(Vec::new()),
        )?;
        let package = |line: String| {
            let (transaction, package) = line.split_once(' ')?;
            Some((package.to_owned(), transaction.parse().unwrap_or(0)))
        };
        Ok(lines.into_iter().filter_map(package).collect())
    }

    /// Where rpm noted the clock's time, it is replaced by the build's.
    fn set_times(&self, items: &[Item], installed: &BTreeMap<String, u32>) -> Result<()> {
        let Ok(epoch) = u32::try_from(self.place.epoch) else {
            return Ok(());
        };
        let noted = items.iter().filter_map(|item| installed.get(&line(item)));
        let transactions: BTreeSet<u32> = noted.copied().filter(|&id| id != epoch).collect();
        if transactions.is_empty() {
            return Ok(());
        }
        let extras = self.extras(Vec::new());
        let call = SetTimes {
            argv: self.argv("rpmdb", vec!["--nosignature".to_owned()])?,
            environment: [standard_env(self.place.epoch), extras.env.clone()].concat(),
            database: database(self.target).to_owned(),
            transactions,
            epoch,
        };
        self.place.call(&call, (), extras)
    }

    fn note(&self, installed: &BTreeMap<String, u32>) -> Result<()> {
        let call = WriteFile {
            path: NOTE.to_owned(),
            content: installed.keys().map(|line| format!("{line}\n")).collect(),
            mode: 0o644,
        };
        self.place.call(&call, (), Extras::default())
    }

    /// The command line of one of rpm's programs.
    fn argv(&self, program: &str, arguments: Vec<String>) -> Result<Vec<String>> {
        let libraries: Vec<String> = LIBRARIES
            .iter()
            .map(|name| format!("{TOOLS}/{name}"))
            .collect();
        let mut argv = vec![
            format!("{TOOLS}/{}", loader(self.tools)?.display()),
            "--library-path".to_owned(),
            libraries.join(":"),
            format!("{TOOLS}/usr/bin/{program}"),
            "--dbpath".to_owned(),
            database(self.target).to_owned(),
        ];
        // What is mounted there while rpm runs is not the root's.
        argv.extend(define("_netsharedpath", "/proc:/sys:/dev"));
        // Kiln has proven the packages by the repository's keys; rpm still compares their digests.
        argv.extend(define("_pkgverify_level", "digest"));
        argv.extend(arguments);
        Ok(argv)
    }

    fn extras(&self, more: Vec<Mount>) -> Extras {
        let mut mounts = vec![Mount::Tree {
            target: TOOLS.to_owned(),
            tree: Root::Layers {
                lower: self.tools.to_vec(),
            },
        }];
        mounts.extend(more);
        Extras {
            mounts,
            env: vec![("RPM_CONFIGDIR".to_owned(), format!("{TOOLS}/usr/lib/rpm"))],
            ..Extras::default()
        }
    }
}

/// The modules that packages are of, with their streams: names that a file can have.
fn streams(items: &[Item]) -> BTreeMap<&str, &str> {
    let fits = |name: &str| {
        !name.starts_with('.')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
    };
    let all = items.iter().filter_map(|item| item.stream.as_ref());
    let fit = all.filter(|(module, stream)| fits(module) && fits(stream));
    fit.map(|(module, stream)| (module.as_str(), stream.as_str()))
        .collect()
}

/// Whether packages come beside other versions of theirs that stay: in the same step, or there already.
///
/// # Errors
/// Another package would be updated: rpm does either for all packages of a step.
fn are_beside(items: &[Item], installed: &BTreeMap<String, u32>) -> Result<bool> {
    let is_other = |item: &Item, line: &str| {
        let mut words = line.split(' ');
        let same_name = words.next() == Some(&item.name);
        let other_version = words.next() != Some(&item.version);
        same_name && other_version && words.next() == Some(&item.architecture)
    };
    let has_other = |item: &&Item| installed.keys().any(|line| is_other(item, line));
    let (kernels, rest): (Vec<&Item>, Vec<&Item>) =
        items.iter().partition(|item| item.install_only);
    let in_step = |item: &&Item| kernels.iter().any(|other| is_other(item, &line(other)));
    let Some(kernel) = kernels.iter().find(|item| has_other(item) || in_step(item)) else {
        return Ok(false);
    };
    match rest.iter().find(|item| has_other(item)) {
        None => Ok(true),
        Some(updated) => Err(Error::new(
            ErrorKind::Definition,
            format!(
                "{} comes beside another version of it, but {} would replace one: one step cannot do both",
                kernel.nevra(),
                updated.nevra()
            ),
        )
        .hint("ask for the kernel in a layer of its own")),
    }
}

/// A package as [`FORMAT`] lists it.
fn line(item: &Item) -> String {
    format!("{} {} {}", item.name, item.version, item.architecture)
}

/// The loader's own path, below the tools root: links to it may be absolute, and lead elsewhere where the tools root is not the root.
fn loader(layers: &[PathBuf]) -> Result<PathBuf> {
    let find = |layer: &PathBuf| -> std::io::Result<PathBuf> {
        let top = layer.canonicalize()?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&File::open(&top)?, LOADER, flags, Mode::empty(), resolve)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let inner = path.strip_prefix(&top).map(PathBuf::from);
        inner.map_err(|_| std::io::Error::other("it is elsewhere"))
    };
    let mut found = layers.iter().map(find);
    let first = found.find_map(std::result::Result::ok);
    first.ok_or_else(|| {
        Error::new(
            ErrorKind::Step,
            format!("the build tools have no /{LOADER}"),
        )
        .hint("a repository of the distribution's lowest packages is missing")
    })
}

fn define(name: &str, value: &str) -> [String; 2] {
    ["--define".to_owned(), format!("{name} {value}")]
}

fn words(argv: &[String]) -> Vec<&str> {
    argv.iter().map(String::as_str).collect()
}

/// Where a distribution has rpm's database.
pub(super) fn database(target: &Target) -> &'static str {
    let release: String = target
        .release
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let is_old = release.parse().is_ok_and(|release: u32| release < 10);
    match target.distribution.as_str() {
        // Since Fedora 36, of 2022: all that can be built.
        "fedora" => "/usr/lib/sysimage/rpm",
        _ if is_old => "/var/lib/rpm",
        _ => "/usr/lib/sysimage/rpm",
    }
}

fn not_installed(status: Status, missing: &[&Item], tail: Vec<String>) -> Error {
    let count = missing.len();
    let message = match missing.first() {
        None => "rpm failed although all packages are installed".to_owned(),
        Some(first) if count == 1 => format!("{} could not be installed", first.nevra()),
        Some(first) => format!(
            "{} and {} other package{} could not be installed",
            first.nevra(),
            count - 1,
            if count == 2 { "" } else { "s" }
        ),
    };
    let mut error = Error::new(ErrorKind::Step, message);
    error.package = missing
        .first()
        .filter(|_| count == 1)
        .map(|item| item.nevra());
    error.status = Some(describe(status));
    error.causes.extend(
        tail.iter()
            .filter(|line| line.starts_with("error: "))
            .cloned(),
    );
    error.tail = tail;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_come_beside_others_and_nothing_is_updated_with_them() {
        let kernel = |version: &str| Item {
            install_only: true,
            ..Item::named("kernel-core", version)
        };
        let installed = ["kernel-core 6.1-1 x86_64", "bash 5.1-1 x86_64"];
        let installed = installed.map(|line| (line.to_owned(), 0)).into();
        let beside = |items: &[Item]| are_beside(items, &installed);
        assert!(!beside(&[kernel("6.1-1")]).unwrap());
        assert!(beside(&[kernel("6.9-1")]).unwrap());
        assert!(are_beside(&[kernel("6.9-1"), kernel("6.1-1")], &BTreeMap::new()).unwrap());
        let bash = |version: &str| Item::named("bash", version);
        assert!(beside(&[kernel("6.9-1"), bash("5.1-1")]).unwrap());
        // Without another kernel rpm updates.
        assert!(!beside(&[kernel("6.1-1"), bash("5.2-1")]).unwrap());
        let error = beside(&[kernel("6.9-1"), bash("5.2-1")]).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("kernel-core-6.9-1") && said.contains("bash-5.2-1"),
            "{said}"
        );
    }
}

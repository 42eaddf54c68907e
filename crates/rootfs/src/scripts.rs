//! `%post` and the other script sections.

mod absent;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_kickstart::Script;
use kiln_plan::Located;
use kiln_sandbox::{Mount, Root, Status};

use crate::calls::WriteFile;
use crate::error::{Error, ErrorKind, Result, describe};
use crate::network::Access;
use crate::offline;
use crate::report::Last;
use crate::run::{Extras, Place, explain_tail};

/// Where a script is seen while it runs.
const SCRIPT: &str = "/run/kiln/script";
/// Where the installer has the root while it is being made.
const SYSIMAGE: &str = "/mnt/sysimage";

/// What scripts share.
#[derive(Clone, Debug, Default)]
pub struct ScriptContext {
    /// What they have of the network.
    pub access: Access,
    /// Environment variables that the distribution's programs know.
    pub environment: &'static [(&'static str, &'static str)],
    /// The tools root, writable and thrown away: where `%post --nochroot` runs.
    pub tools: Option<Root>,
    /// What `%pre` left in `/tmp`, with room for what scripts outside of the root add.
    pub tmp: Option<Root>,
    /// A directory of the host with the layer's files of the project, which scripts see at [`crate::files::FILES`].
    pub files: Option<PathBuf>,
}

/// Runs a script. A script that fails is a warning, or with `--erroronfail` an error, as in the installer.
///
/// # Errors
/// The script failed and says `--erroronfail`; it was killed; its interpreter is missing; the sandbox cannot be made.
pub fn run(place: &Place<'_>, script: &Located<Script>, context: &ScriptContext) -> Result<()> {
    if script.item.chroot {
        return execute(place, script, context, "/", offline::stand_ins());
    }
    // Outside of the root means in the tools root, with the root where the installer has it: never on the host.
    let Some(tools) = &context.tools else {
        return Err(Error::new(
            ErrorKind::Internal,
            "a script outside of the root has no tools root",
        ));
    };
    let outside = Place {
        root: tools.clone(),
        ..place.with_reporter(place.reporter)
    };
    let tree = |target: &str, tree: &Root| Mount::Tree {
        target: target.to_owned(),
        tree: tree.clone(),
    };
    let mut mounts = vec![tree(SYSIMAGE, &place.root)];
    mounts.extend(context.tmp.as_ref().map(|tmp| tree("/tmp", tmp)));
    execute(&outside, script, context, SYSIMAGE, mounts)
}

/// Runs a script that changes no root (`%pre`, `%onerror`) at `place`, the tools root. What it leaves in `/tmp` goes to
/// `tmp`; `root` is what there is of the image.
///
/// # Errors
/// As [`run`].
pub fn run_outside(
    place: &Place<'_>,
    script: &Located<Script>,
    context: &ScriptContext,
    tmp: &Path,
    root: Option<Root>,
) -> Result<()> {
    let mut mounts = vec![Mount::Bind {
        source: tmp.to_owned(),
        target: "/tmp".to_owned(),
        writable: true,
    }];
    mounts.extend(root.map(|tree| Mount::Tree {
        target: SYSIMAGE.to_owned(),
        tree,
    }));
    execute(place, script, context, SYSIMAGE, mounts)
}

fn execute(
    place: &Place<'_>,
    script: &Located<Script>,
    context: &ScriptContext,
    root: &str,
    more: Vec<Mount>,
) -> Result<()> {
    let mut argv: Vec<&str> = script.item.interpreter.split_whitespace().collect();
    if argv.is_empty() {
        argv.push("/bin/sh");
    }
    argv.push(SCRIPT);
    let extras = Extras {
        mounts: more
            .iter()
            .cloned()
            .chain(mounts(script, context))
            .collect(),
        set_ids: true,
        env: environment(root, context),
        network: context.access.network.clone(),
        any_status: true,
        ..Extras::default()
    };
    let log = Log::new(place, &context.access, script.item.log.is_some());
    let outcome = log
        .place()
        .exec(&argv, extras)
        .map_err(|error| located(error, script, root))?;
    if let Some(path) = &script.item.log {
        write_log(place, script, path, log.text(), more)?;
    }
    match outcome.status {
        Status::Exited(0) => Ok(()),
        status => failed(place, script, &argv, status, log.tail(), &context.access),
    }
}

fn mounts(script: &Located<Script>, context: &ScriptContext) -> Vec<Mount> {
    let file = |target: &str, content: &[u8], mode| Mount::File {
        target: target.to_owned(),
        content: content.to_vec(),
        mode,
    };
    let mut mounts = vec![file(SCRIPT, script.item.body.as_bytes(), 0o700)];
    mounts.extend(context.files.as_deref().map(crate::files::mount));
    mounts.extend(context.access.mounts());
    mounts
}

/// Both conventions for the root's place, the installer's and livemedia-creator's, then what the distribution and the network need.
fn environment(root: &str, context: &ScriptContext) -> Vec<(String, String)> {
    let conventions = ["INSTALL_ROOT", "LIVE_ROOT", "ANA_INSTALL_PATH"].map(|name| (name, root));
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    conventions
        .into_iter()
        .chain(context.environment.iter().copied())
        .map(pair)
        .chain(context.access.env.iter().cloned())
        .collect()
}

fn located(mut error: Error, script: &Located<Script>, root: &str) -> Error {
    let program = script.item.interpreter.split_whitespace().next();
    let missing = program.filter(|program| {
        error.message.starts_with(&format!("running {program}"))
            && error.to_string().contains("No such file or directory")
    });
    if let Some(program) = missing {
        return without_interpreter(program, script, root);
    }
    if error.kind == ErrorKind::Step {
        error.message = format!("{} could not run to its end", header(script));
    }
    error.at(script.origin.clone())
}

fn without_interpreter(program: &str, script: &Located<Script>, root: &str) -> Error {
    let name = header(script);
    let outside = root == SYSIMAGE;
    let place = if outside {
        "the tools root, where it runs,"
    } else {
        "the root"
    };
    let error = Error::definition(format!(
        "{name} needs {program}, which {place} does not have"
    ));
    let hint = if outside {
        "write the script for /bin/sh or /usr/bin/perl: the tools root has little else".to_owned()
    } else {
        let package = program.rsplit('/').next().unwrap_or(program);
        format!(
            "add the package that brings it (probably {package}) to %packages of this layer or of one below"
        )
    };
    error.hint(hint).at(script.origin.clone())
}

fn header(script: &Located<Script>) -> &'static str {
    match script.item.kind {
        kiln_kickstart::ScriptKind::Pre => "%pre",
        kiln_kickstart::ScriptKind::PreInstall => "%pre-install",
        kiln_kickstart::ScriptKind::Post => "%post",
        kiln_kickstart::ScriptKind::OnError => "%onerror",
        kiln_kickstart::ScriptKind::Traceback => "%traceback",
    }
}

fn failed(
    place: &Place<'_>,
    script: &Located<Script>,
    argv: &[&str],
    status: Status,
    tail: Vec<String>,
    access: &Access,
) -> Result<()> {
    let name = header(script);
    let about_proxies = access.hint(&tail);
    let about_programs = absent::hint(&tail);
    if !script.item.error_on_fail {
        let hint = "say --erroronfail if the image must not be made then".to_owned();
        let about = about_proxies
            .into_iter()
            .chain(about_programs.map(|about| format!("{about};")));
        let hint = about.chain([hint]).collect::<Vec<_>>().join(" ");
        place.reporter.warn(
            format!("{name} ended with {}", describe(status)),
            Some(script.origin.clone()),
            Some(hint),
        );
        return Ok(());
    }
    let mut error = Error::new(ErrorKind::Step, format!("{name} failed")).at(script.origin.clone());
    error.command = Some(argv.iter().map(|&a| a.to_owned()).collect());
    error.status = Some(describe(status));
    error.tail = tail;
    explain_tail(&mut error);
    error.hints.extend(about_proxies);
    let is_told = about_programs.is_some();
    error.hints.extend(about_programs);
    if !is_told && matches!(status, Status::Exited(126 | 127)) {
        let hint = format!(
            "the interpreter or a command was not found in the root; `{}` needs its package in %packages",
            script.item.interpreter
        );
        error.hints.push(hint);
    }
    Err(error)
}

fn write_log(
    place: &Place<'_>,
    script: &Located<Script>,
    path: &str,
    content: String,
    mounts: Vec<Mount>,
) -> Result<()> {
    let file = WriteFile {
        path: path.to_owned(),
        content,
        mode: 0o600,
    };
    // Where the script saw it: `/tmp` may be shared with other scripts.
    let extras = Extras {
        mounts,
        ..Extras::default()
    };
    place
        .call(&file, (), extras)
        .map_err(|e| e.at(script.origin.clone()))
}

/// Listens to a script's output: for `--log` and for the failure's last lines.
struct Log<'a> {
    inner: &'a Place<'a>,
    kept: Kept<'a>,
}

struct Kept<'a> {
    access: &'a Access,
    reporter: &'a dyn crate::Reporter,
    all: bool,
    text: Mutex<(String, Last)>,
}

/// A log file in the image is cut here.
const LOG_LIMIT: usize = 16 << 20;

impl Kept<'_> {
    fn lines(&self) -> MutexGuard<'_, (String, Last)> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl crate::Reporter for Kept<'_> {
    fn line(&self, stream: kiln_sandbox::Stream, line: &str) {
        let line = &*self.access.masked(line);
        {
            let mut text = self.lines();
            if self.all && text.0.len() < LOG_LIMIT {
                text.0.push_str(line);
                text.0.push('\n');
            }
            text.1.push(stream, line);
        }
        self.reporter.line(stream, line);
    }

    fn progress(&self, done: u64, total: Option<u64>, item: Option<&str>) {
        self.reporter.progress(done, total, item);
    }

    fn warn(&self, message: String, origin: Option<String>, hint: Option<String>) {
        self.reporter.warn(message, origin, hint);
    }
}

impl<'a> Log<'a> {
    fn new(place: &'a Place<'a>, access: &'a Access, all: bool) -> Self {
        Log {
            inner: place,
            kept: Kept {
                access,
                reporter: place.reporter,
                all,
                text: Mutex::default(),
            },
        }
    }

    fn place(&self) -> Place<'_> {
        self.inner.with_reporter(&self.kept)
    }

    fn text(&self) -> String {
        self.kept.lines().0.clone()
    }

    fn tail(&self) -> Vec<String> {
        self.kept.lines().1.take()
    }
}

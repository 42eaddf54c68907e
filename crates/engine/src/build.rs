//! A build, as a list of verbs: [`make`].
//!
//! | verb | in | what it does |
//! |---|---|---|
//! | open | `define/` | reads the definition, and refuses what cannot be built |
//! | resolve | `resolve/` | decides which packages of which repositories, in a root of build tools |
//! | layers | `root/` | makes the root, a layer a step, each over those below it |
//! | image | `image/`, `initramfs/` | writes the disk |
//! | publish | `output/` | describes the artifacts and moves them to their place |
//!
//! What they hand on is in `values.rs`, what they work with in `means/`. Whatever fails because a stored layer was damaged has
//! taken that layer out of the store: then the whole list begins again (`again.rs`).

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::sync::Once;

use kiln_packages::{Lock, LockedPackage, TOOLS};
use kiln_plan::{Id, Lowered, Plan};
use kiln_rootfs::family::InstallOptions;
use kiln_rootfs::private;

use crate::again::{Damage, again};
use crate::define::check::open;
use crate::define::load::Source;
use crate::image::ahead::Recorder;
use crate::image::disk::image;
use crate::image::elsewhere;
use crate::image::layout::check_packages;
use crate::initramfs::ahead::{Ahead, Closing};
use crate::initramfs::generate::Generator;
use crate::means::Session;
use crate::means::output::Output;
use crate::output::artifacts::Publication;
use crate::output::current::{Origin, current, key, remember};
use crate::output::record::Record;
use crate::request::{BuildReport, BuildRequest, LockOptions, Locked};
use crate::resolve::lock::{afresh, download, resolve, with_tools};
use crate::resolve::signed::kept_beside;
use crate::resolve::solve::Resolver;
use crate::resolve::vendor::{keep_metadata, vendor};
use crate::root::finish::{finish, remarks, say};
use crate::root::outside::on_error;
use crate::root::slices::options;
use crate::root::steps::{Callbacks, last_epoch, layers};
use crate::space::Space;
use crate::steps::{Sink, Steps};
use crate::values::{Made, Resolved, Stack};
use crate::{Cancel, Event, Failure};

/// Builds a definition.
///
/// # Errors
/// The failure, also sent as the last event.
pub fn build(
    request: &BuildRequest,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<BuildReport, Failure> {
    let result = open(request, cancel).and_then(|opened| {
        let work = |steps: &Steps<'_>| run(request, opened, steps, cancel);
        recorded(request, Some(&request.output), sink, work)
    });
    let result = result.map_err(Failure::neutral);
    match &result {
        Ok((report, _)) => sink(Event::BuildFinished {
            seconds: report.seconds,
            output: report.output.clone(),
        }),
        Err(failure) => sink(Event::BuildFailed {
            failure: Box::new(failure.clone()),
        }),
    }
    // The artifacts of the build before go now.
    result.map(|(report, _replaced)| report)
}

/// Work whose log is kept if it fails. What can be said without a sandbox or a network has been said before.
fn recorded<T>(
    request: &BuildRequest,
    output: Option<&Path>,
    sink: Sink<'_>,
    work: impl FnOnce(&Steps<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let space = Space::new(&request.cache, output);
    let (record, notices) = match Record::begin(request) {
        Ok(begun) => begun,
        Err(failure) => return Err(space.explain(failure)),
    };
    let steps = Steps::new(sink, Some(record.log()?), space);
    steps.notices(&notices);
    work(&steps).map_err(|failure| {
        let failure = steps.space.explain(failure);
        record.keep(failure.neutral(), request, &steps)
    })
}

/// Builds what was opened; returns the report, and the files that the artifacts have replaced.
fn run(
    request: &BuildRequest,
    opened: (Source, Lowered),
    steps: &Steps<'_>,
    cancel: &Cancel,
) -> Result<(BuildReport, Vec<File>), Failure> {
    let output = Output::open(&request.output)?;
    if private::is_everybodys(output.dir()) {
        let message = format!(
            "everybody on this machine can replace what is in the output directory {}",
            output.dir().display()
        );
        let hint = "take away the right to write there, or choose another with -o DIR";
        steps.warn(message, None, Some(hint.to_owned()));
    }
    let session = Session::open(request, &opened.1, steps, cancel)?;
    let started = Once::new();
    let report = with_definition(&session, opened, |source, first| {
        let resolved = resolve(&session, source, first)?;
        let plan = &resolved.plan;
        if let Some(doubt) = fits(plan, &resolved.lock)? {
            steps.warn_once(doubt.message, None, doubt.hints.first().cloned());
        }
        steps.space.expect(&resolved.lock, plan.formats.len());
        started.call_once(|| {
            steps.emit(Event::BuildStarted {
                name: plan.name.clone(),
                plan_id: plan.id().to_string(),
            });
        });
        match without_layers(&session, &resolved, &output)? {
            Some(report) => Ok(report),
            None => make(&session, &with_tools(&session, resolved)?, &output),
        }
    });
    // What was made reaches the shared cache before the build says that it is done.
    if let (Ok(_), Some(shared)) = (&report, &session.shared) {
        shared.finish(steps);
    }
    // While the private directory is still there: it is what fills a disk.
    let report = report.map_err(|failure| steps.space.explain(failure));
    // Damaged layers were only taken away while this build held them. What cannot be emptied now, the next build reports.
    let _ = session.store.reclaim();
    report.map(|report| (report, output.close()))
}

/// What is there already, or comes whole from another machine, without a layer.
fn without_layers(
    session: &Session<'_>,
    resolved: &Resolved,
    output: &Output,
) -> Result<Option<BuildReport>, Failure> {
    let (key, store, steps) = (key(session, resolved), &session.store, session.steps);
    if let Some(report) = current(store, steps, key, None, &session.request.output) {
        return Ok(Some(report));
    }
    let Some((facts, made)) = elsewhere::take(session, resolved, output)? else {
        return Ok(None);
    };
    let remarks = remarks(&facts.finished);
    say(steps, &remarks);
    let publication = Publication {
        resolved,
        finished: &facts.finished,
        made: &made,
        epoch: resolved.epoch(session.request.epoch),
        output,
        steps,
    };
    let report = publication.publish(session.cancel)?;
    let origin = Origin {
        root: facts.layers.last().copied(),
        of_packages: facts.of_packages,
    };
    remember(store, key, origin, remarks, &report);
    Ok(Some(report))
}

/// From a resolved definition to its artifacts.
fn make(
    session: &Session<'_>,
    resolved: &Resolved,
    output: &Output,
) -> Result<BuildReport, Failure> {
    let (plan, store) = (&resolved.plan, &session.store);
    let compression = plan.compression.clone();
    let run = &session.cancel.run;
    let excluded = session.family.boot(&plan.target).excluded;
    let recorder = Recorder::start(&session.sandbox, store, run, compression.clone(), excluded)?;
    let last_changes = finish(&*session.family, resolved);
    let ahead = Ahead::new(session.cancel.child()?, last_changes, compression);
    let generator = Generator::of(session);
    let clock = |stack: &Stack| last_epoch(session, stack, plan, &resolved.lock.packages);
    std::thread::scope(|scope| {
        let _closing = Closing(&ahead);
        scope.spawn(|| ahead.work(&generator, &clock));
        let making = Making {
            session,
            resolved,
            output,
            recorder: &recorder,
            ahead: &ahead,
        };
        list(&making, session.cancel)
    })
}

/// The verbs from a resolved definition on, and what they hand on.
trait Verbs {
    /// Layers on each other.
    type Root;
    /// What is known of an image.
    type Made;

    /// Makes the layers.
    fn layers(&self) -> Result<Self::Root, Failure>;
    /// Returns the report of the artifacts that are there already, made of the same.
    fn current(&self, root: &Self::Root) -> Option<BuildReport>;
    /// Writes the image to where nobody sees it yet.
    fn image(&self, root: &Self::Root) -> Result<Self::Made, Failure>;
    /// Moves the artifacts to their places.
    fn publish(&self, root: &Self::Root, made: &Self::Made) -> Result<BuildReport, Failure>;
}

/// Goes through the verbs. A build that is cancelled within one begins no other.
fn list<V: Verbs>(verbs: &V, cancel: &Cancel) -> Result<BuildReport, Failure> {
    let root = verbs.layers()?;
    cancel.check()?;
    if let Some(report) = verbs.current(&root) {
        return Ok(report);
    }
    let made = verbs.image(&root)?;
    cancel.check()?;
    verbs.publish(&root, &made)
}

/// A build whose definition is resolved, with what works beside it.
struct Making<'a> {
    session: &'a Session<'a>,
    resolved: &'a Resolved,
    output: &'a Output,
    recorder: &'a Recorder,
    ahead: &'a Ahead,
}

impl Making<'_> {
    fn epoch(&self) -> i64 {
        self.resolved.epoch(self.session.request.epoch)
    }

    fn key(&self) -> Id {
        key(self.session, self.resolved)
    }
}

impl Verbs for Making<'_> {
    type Root = Stack;
    type Made = Made;

    fn layers(&self) -> Result<Stack, Failure> {
        let (session, resolved) = (self.session, self.resolved);
        let fetched = Cell::new(false);
        let callbacks = Callbacks {
            fetch: &|| fetch(session, &resolved.lock, &fetched),
            made: &|layer| self.recorder.add(layer),
            last_packages: &|stack| self.ahead.offer(stack),
        };
        let tools = resolved.tools.layers.iter();
        tools.for_each(|layer| self.recorder.record(layer));
        layers(session, resolved, &callbacks)
    }

    fn current(&self, root: &Stack) -> Option<BuildReport> {
        let Session {
            store,
            steps,
            request,
            ..
        } = self.session;
        current(store, steps, self.key(), Some(root), &request.output)
    }

    fn image(&self, root: &Stack) -> Result<Made, Failure> {
        let Making {
            session,
            resolved,
            output,
            ..
        } = self;
        let made = image(session, resolved, root, output, self.ahead, self.recorder);
        made.inspect_err(|failure| {
            let (scripts, tools) = (&resolved.on_error, &resolved.tools);
            on_error(session, failure, scripts, tools, Some(root));
        })
    }

    fn publish(&self, root: &Stack, made: &Made) -> Result<BuildReport, Failure> {
        let finished = root.finished()?;
        let publication = Publication {
            resolved: self.resolved,
            finished: &finished,
            made,
            epoch: self.epoch(),
            output: self.output,
            steps: self.session.steps,
        };
        let report = publication.publish(self.session.cancel)?;
        let (origin, remarks) = (Origin::of(root), remarks(&finished));
        remember(&self.session.store, self.key(), origin, remarks, &report);
        Ok(report)
    }
}

/// Goes through a list of verbs with a definition that was opened, and again where a stored layer turned out to be damaged.
fn with_definition<T>(
    session: &Session<'_>,
    opened: (Source, Lowered),
    list: impl Fn(Source, Lowered) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let open = || open(session.request, session.cancel);
    again(session, opened, open, |(source, first)| list(source, first))
}

impl Damage for Session<'_> {
    fn take_evicted(&self) -> bool {
        self.guard.take_evicted()
    }

    fn prepare(&self, failure: Failure) -> Result<(), Failure> {
        let cause = failure.causes.first().cloned();
        let hint = cause.unwrap_or_else(|| "check the disk that holds the cache".to_owned());
        self.steps.warn(failure.message, None, Some(hint));
        self.steps.begin_again();
        // Nobody holds the damaged layers any more.
        Ok(self.store.reclaim()?)
    }
}

/// Refuses a root that the disk will surely have no room for; returns what is to be said of one for which it may have none.
fn fits(plan: &Plan, lock: &Lock) -> Result<Option<Failure>, Failure> {
    let packages = lock.packages.iter().filter(|p| p.layer != TOOLS);
    let shrinks = plan
        .layers
        .iter()
        .any(|layer| !layer.scripts.is_empty() || options(layer) != InstallOptions::default());
    check_packages(&plan.disk, packages.map(|p| p.size).sum(), shrinks)
}

/// Has all packages at hand, checked once.
fn fetch(session: &Session<'_>, lock: &Lock, fetched: &Cell<bool>) -> Result<(), Failure> {
    if fetched.replace(true) {
        return Ok(());
    }
    let packages = lock.packages.iter().filter(|p| p.layer != TOOLS);
    let packages: Vec<&LockedPackage> = packages.collect();
    download(session, &packages)
}

/// Resolves a definition and gives the lock and the place where it belongs.
///
/// # Errors
/// As [`build`].
pub fn lock(
    request: &BuildRequest,
    options: &LockOptions,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<Locked, Failure> {
    let opened = open(request, cancel)?;
    let path = opened.0.lock_path();
    let work = |steps: &Steps<'_>| resolve_afresh(request, options, &path, opened, steps, cancel);
    let (lock, manifest) = recorded(request, None, sink, work).map_err(Failure::neutral)?;
    Ok(Locked {
        path,
        lock,
        manifest,
    })
}

fn resolve_afresh(
    request: &BuildRequest,
    options: &LockOptions,
    path: &Path,
    opened: (Source, Lowered),
    steps: &Steps<'_>,
    cancel: &Cancel,
) -> Result<(Lock, Option<String>), Failure> {
    let session = Session::open(request, &opened.1, steps, cancel)?;
    let pins = options.pins.as_ref();
    let (plan, lock, world) = with_definition(&session, opened, |source, first| {
        afresh(&session, source, first, pins)
    })?;
    // The lock is right whatever the layout is, and a build refuses it.
    if let Some(told) = fits(&plan, &lock).unwrap_or_else(Some) {
        steps.warn(told.message, None, told.hints.first().cloned());
    }
    let manifest = options.manifest.then(|| world.read.manifest(&lock));
    let manifest = manifest.transpose()?;
    if let Some(directory) = &options.vendor {
        vendor(&Resolver::of(&session), directory, &lock, &world, cancel)?;
    }
    if options.keep_metadata {
        keep_metadata(&kept_beside(path), &world)?;
    }
    Ok((lock, manifest))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;
    use crate::{FailureKind, Unit};

    fn request(dir: &Path) -> BuildRequest {
        fs::write(dir.join("lab.ks"), "lang C.UTF-8\n").expect("a definition");
        BuildRequest {
            files: crate::Files::of_disk(dir),
            definition: PathBuf::from("lab.ks"),
            input: kiln_plan::Input {
                distribution: Some("debian:bookworm".to_owned()),
                ..kiln_plan::Input::default()
            },
            output: dir.join("output"),
            cache: dir.join("cache"),
            state: Some(dir.join("state")),
            offline: true,
            network: crate::Reach::default(),
            locked: false,
            proxies: crate::Proxies::default(),
            from_elsewhere: false,
            epoch: None,
            threads: 1,
            vendor: None,
            allow_unsigned_lock: false,
            shared: None,
            plain_unpacking: false,
            families: crate::Families::default(),
        }
    }

    fn kept(dir: &Path) -> usize {
        dir.join("state/failed").read_dir().expect("it").count()
    }

    /// A lock has no output directory, and is recorded as a build is.
    #[test]
    fn work_that_fails_keeps_its_log_and_its_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let request = request(dir.path());
        let failing = |steps: &Steps<'_>| {
            steps.warn("the mirror is slow".to_owned(), None, None);
            steps.step("asking the mirror", None, Unit::Files, |_| {
                Err::<(), _>(Failure::new(FailureKind::Environment, "the mirror is gone"))
            })
        };
        let failure = recorded(&request, None, &|_| {}, failing).expect_err("it fails");
        let log = failure.log.expect("a log");
        assert!(log.starts_with(dir.path().join("state/failed")), "{log:?}");
        let said = fs::read_to_string(&log).expect("the log");
        for words in ["the mirror is slow", "asking the mirror"] {
            assert!(said.contains(words), "{said}");
        }
        let note = fs::read(log.with_file_name("failure.json")).expect("the failure");
        let note: serde_json::Value = serde_json::from_slice(&note).expect("JSON");
        assert_eq!(note["failure"]["message"], "the mirror is gone");
        assert_eq!(note["warnings"][0], "the mirror is slow");
        assert_eq!(kept(dir.path()), 1);
    }

    #[test]
    fn work_that_succeeds_leaves_no_record() {
        let dir = tempfile::tempdir().expect("a directory");
        let done = recorded(&request(dir.path()), None, &|_| {}, |_| Ok(7));
        assert_eq!(done.expect("done"), 7);
        assert_eq!(kept(dir.path()), 0);
    }

    #[test]
    fn a_build_that_was_cancelled_before_begins_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let request = request(dir.path());
        let cancel = Cancel::new().expect("a token");
        cancel.cancel();
        let events = Mutex::new(Vec::new());
        let sink = |event: Event| events.lock().expect("events").push(event);
        let failure = build(&request, &sink, &cancel).expect_err("cancelled");
        assert_eq!(failure.kind, FailureKind::Cancelled);
        let options = LockOptions::default();
        let failure = lock(&request, &options, &sink, &cancel).expect_err("cancelled");
        assert_eq!(failure.kind, FailureKind::Cancelled);
        let events = events.into_inner().expect("events");
        assert!(matches!(*events, [Event::BuildFailed { .. }]), "{events:?}");
        for made in ["cache", "state", "output"] {
            assert!(!dir.path().join(made).exists(), "{made}");
        }
    }

    /// A build without a root: it notes its verbs.
    struct Fake {
        cancel: Cancel,
        /// The verb in which it is cancelled; it ends well all the same, as one that was nearly done.
        cancelled_in: &'static str,
        /// The verb that finds a damaged layer, the first time.
        damaged_in: Cell<&'static str>,
        evicted: Cell<bool>,
        /// Whether the artifacts are there.
        is_current: bool,
        done: RefCell<Vec<&'static str>>,
    }

    impl Fake {
        fn new(cancelled_in: &'static str, damaged_in: &'static str, is_current: bool) -> Self {
            Fake {
                cancel: Cancel::new().expect("a token"),
                cancelled_in,
                damaged_in: Cell::new(damaged_in),
                evicted: Cell::new(false),
                is_current,
                done: RefCell::default(),
            }
        }

        fn verb(&self, name: &'static str) -> Result<(), Failure> {
            self.done.borrow_mut().push(name);
            if self.cancelled_in == name {
                self.cancel.cancel();
            }
            if self.damaged_in.get() == name {
                self.damaged_in.set("");
                self.evicted.set(true);
                return Err(Failure::new(FailureKind::Step, "a layer is damaged"));
            }
            Ok(())
        }

        fn report() -> BuildReport {
            BuildReport {
                output: PathBuf::new(),
                artifacts: Vec::new(),
                seconds: 0.0,
            }
        }

        /// The kind of failure, and the verbs that were begun.
        fn build(&self) -> (Option<FailureKind>, Vec<&'static str>) {
            let open = || self.cancel.check();
            let list = |()| list(self, &self.cancel);
            let result = again(self, (), open, list);
            (result.err().map(|f| f.kind), self.done.borrow().clone())
        }
    }

    impl Verbs for Fake {
        type Root = ();
        type Made = ();

        fn layers(&self) -> Result<(), Failure> {
            self.verb("layers")
        }

        fn current(&self, (): &()) -> Option<BuildReport> {
            self.is_current.then(Fake::report)
        }

        fn image(&self, (): &()) -> Result<(), Failure> {
            self.verb("image")
        }

        fn publish(&self, (): &(), (): &()) -> Result<BuildReport, Failure> {
            self.verb("publish").map(|()| Fake::report())
        }
    }

    impl Damage for Fake {
        fn take_evicted(&self) -> bool {
            self.evicted.replace(false)
        }

        fn prepare(&self, _: Failure) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[test]
    fn a_build_that_is_cancelled_within_a_verb_begins_no_other() {
        let cancelled = Some(FailureKind::Cancelled);
        for (within, kind, begun) in [
            ("layers", cancelled, &["layers"][..]),
            ("image", cancelled, &["layers", "image"]),
            // Its artifacts are in their places.
            ("publish", None, &["layers", "image", "publish"]),
        ] {
            assert_eq!(Fake::new(within, "", false).build(), (kind, begun.to_vec()));
            // Damage in the same verb is no reason to begin again.
            let (kind, verbs) = Fake::new(within, within, false).build();
            assert_eq!((kind, verbs.len()), (cancelled, begun.len()), "{within}");
        }
    }

    #[test]
    fn damage_in_a_verb_takes_the_whole_list_again() {
        for (damaged, begun) in [
            ("layers", &["layers", "layers", "image", "publish"][..]),
            ("image", &["layers", "image", "layers", "image", "publish"]),
        ] {
            assert_eq!(
                Fake::new("", damaged, false).build(),
                (None, begun.to_vec())
            );
        }
    }

    #[test]
    fn artifacts_that_are_there_are_neither_written_nor_moved() {
        assert_eq!(Fake::new("", "", true).build(), (None, vec!["layers"]));
        let (kind, begun) = Fake::new("layers", "", true).build();
        assert_eq!(
            (kind, begun),
            (Some(FailureKind::Cancelled), vec!["layers"])
        );
    }
}

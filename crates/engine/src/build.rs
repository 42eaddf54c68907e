//! A build, as a list of verbs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use kiln_kickstart::{Script, Severity};
use kiln_packages::{DownloadStore, FetchOptions, Fetcher, Lock, LockedPackage, Proxies};
use kiln_plan::configure::Level;
use kiln_plan::{Input, Located, Lowered, Plan, Problem};
use kiln_rootfs::family::{Installer, Job, Slice};
use kiln_rootfs::finish::Finished;
use kiln_rootfs::{Families, Family, Reach, SYSTEM, Store, private};
use kiln_sandbox::{Limits, Sandbox};

use crate::define::load::{self, Source};
use crate::define::web::{Access, Web};
use crate::image::ahead::Recorder;
use crate::initramfs::ahead::{Ahead, Closing};
use crate::output::artifacts::Made;
use crate::output::directory::Output;
use crate::output::record::Record;
use crate::resolve::signed::kept_beside;
use crate::resolve::solve::{Resolver, TOOLS, World, is_current, read_lock};
use crate::resolve::vendor::Vendored;
use crate::root::network::ScriptNetwork;
use crate::root::pre::PreFiles;
use crate::root::slices::{last_packages, slice, slices};
use crate::root::steps::{Roots, Stack};
use crate::shared::{Means, Shared, SharedCache};
use crate::space::Space;
use crate::steps::{Sink, Steps};
use crate::trust::guard::Guard;
use crate::{Cancel, Event, Failure, FailureKind};

/// What is to be built, and with what means. Everything that depends on the environment is said here.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// A `.ks`, a `kiln.toml` or its directory.
    pub definition: PathBuf,
    /// What the command line adds to it.
    pub input: Input,
    /// Where artifacts go.
    pub output: PathBuf,
    /// The cache's directory.
    pub cache: PathBuf,
    /// The state directory: what failed builds leave goes there, or to the cache where there is none.
    pub state: Option<PathBuf>,
    /// No network at all: not for packages, not for scripts.
    pub offline: bool,
    /// How far scripts reach, unless the build is offline.
    pub network: Reach,
    /// A missing or stale lock is an error.
    pub locked: bool,
    /// Proxies for fetching.
    pub proxies: Proxies,
    /// `SOURCE_DATE_EPOCH`, if the user fixed it.
    pub epoch: Option<i64>,
    /// Threads for what can be spread.
    pub threads: usize,
    /// A directory that [`lock`] made, from which everything comes; [`BuildRequest::offline`] goes with it.
    pub vendor: Option<PathBuf>,
    /// Locked packages that no signed metadata has are used with a warning.
    pub allow_unsigned_lock: bool,
    /// A cache that other machines use too.
    pub shared: Option<SharedCache>,
    /// Packages are unpacked by the distribution's own package manager alone: slower, the same result, for comparisons.
    pub plain_unpacking: bool,
    /// The families of distributions that can be built.
    pub families: Families,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// Where the artifacts are.
    pub output: PathBuf,
    /// Their files.
    pub artifacts: Vec<PathBuf>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Builds a definition.
///
/// # Errors
/// The failure, also sent as the last event.
pub fn build(
    request: &BuildRequest,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<BuildReport, Failure> {
    let result = open(request, cancel).and_then(|opened| recorded(request, opened, sink, cancel));
    let result = result.map_err(Failure::neutral);
    match &result {
        Ok(report) => sink(Event::BuildFinished {
            seconds: report.seconds,
            output: report.output.clone(),
        }),
        Err(failure) => sink(Event::BuildFailed {
            failure: Box::new(failure.clone()),
        }),
    }
    result
}

/// A build whose log is kept if it fails. What can be said without a sandbox or a network has been said before.
fn recorded(
    request: &BuildRequest,
    opened: (Source, Lowered),
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<BuildReport, Failure> {
    let space = Space::new(&request.cache, Some(&request.output));
    let (record, notices) = match Record::begin(request) {
        Ok(begun) => begun,
        Err(failure) => return Err(space.explain(failure)),
    };
    let steps = Steps::new(sink, Some(record.log()?), space);
    steps.notices(&notices);
    run(request, opened, &steps, cancel).map_err(|failure| {
        let failure = steps.space.explain(failure);
        record.keep(failure.neutral(), request, &steps)
    })
}

fn run(
    request: &BuildRequest,
    opened: (Source, Lowered),
    steps: &Steps<'_>,
    cancel: &Cancel,
) -> Result<BuildReport, Failure> {
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
    let resolved = session.opened(opened, |source, first| session.resolve(source, first))?;
    steps
        .space
        .expect(&resolved.lock, resolved.plan.formats.len());
    steps.emit(Event::BuildStarted {
        name: resolved.plan.name.clone(),
        plan_id: resolved.plan.id().to_string(),
    });
    let ahead = Ahead::new(&session, &resolved)?;
    let report = std::thread::scope(|scope| {
        let _closing = Closing(&ahead);
        scope.spawn(|| ahead.work(&session, &resolved.lock.packages));
        session.build(&resolved, &output, &ahead)
    });
    // While the private directory is still there: it is what fills a disk.
    let report = report.map_err(|failure| steps.space.explain(failure));
    // Damaged layers were only taken away while this build held them. What cannot be emptied now, the next build reports.
    drop(resolved);
    let _ = session.store.reclaim();
    report
}

/// Resolves a definition and gives the lock and the place where it belongs. With `vendor`, everything that a build of it needs
/// is put into that directory; with `keep_metadata`, the signed metadata that vouches for it lies beside the lock afterwards.
///
/// # Errors
/// As [`build`].
pub fn lock(
    request: &BuildRequest,
    vendor: Option<&Path>,
    keep_metadata: bool,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<(PathBuf, Lock), Failure> {
    let opened = open(request, cancel)?;
    let path = opened.0.lock_path();
    let steps = Steps::new(sink, None, Space::new(&request.cache, None));
    let beside = keep_metadata.then(|| kept_beside(&path));
    let lock = resolve_afresh(request, vendor, beside.as_deref(), opened, &steps, cancel);
    let lock = lock.map_err(|failure| steps.space.explain(failure).neutral())?;
    Ok((path, lock))
}

fn resolve_afresh(
    request: &BuildRequest,
    vendor: Option<&Path>,
    beside: Option<&Path>,
    opened: (Source, Lowered),
    steps: &Steps<'_>,
    cancel: &Cancel,
) -> Result<Lock, Failure> {
    let session = Session::open(request, &opened.1, steps, cancel)?;
    let (lock, world) = session.opened(opened, |source, first| {
        let Prepared {
            plan,
            world,
            tools,
            stack,
            ..
        } = session.prepare(source, first, None)?;
        let world = session.resolver().world_of(&plan, world)?;
        let (resolver, roots) = (session.resolver(), session.roots());
        let lock = resolver.solve(&plan, &world, &tools, &roots, &stack)?;
        session.vouch(&plan, &lock.packages)?;
        Ok((lock, world))
    })?;
    if let Some(directory) = vendor {
        session.vendor(directory, &lock, &world)?;
    }
    if let Some(directory) = beside {
        session.keep_metadata(directory, &world)?;
    }
    Ok(lock)
}

/// Reads a definition, as far as that goes before its `%pre` scripts.
fn open(request: &BuildRequest, cancel: &Cancel) -> Result<(Source, Lowered), Failure> {
    let allowed = &request.input.include_path;
    let source = Source::open(&request.definition, allowed, web(request, cancel))?;
    let lowered = source.lower(&Input {
        before_pre: true,
        ..request.input.clone()
    });
    // A transfer that was stopped is no mistake of the definition.
    cancel.check()?;
    if let Some(plan) = &lowered.plan {
        family(&request.families, plan)?;
    }
    Ok((source, checked(lowered)?))
}

/// How a build reads what kickstart files include from the network.
fn web(request: &BuildRequest, cancel: &Cancel) -> Web {
    let access = if request.offline {
        Access::offline()
    } else {
        Access::Online(request.proxies.clone())
    };
    Web::new(access, Some(cancel.clone()))
}

/// The family that can build a plan.
fn family(families: &Families, plan: &Plan) -> Result<Arc<dyn Family>, Failure> {
    let target = &plan.target;
    families.of(target).ok_or_else(|| {
        let message = format!(
            "{}:{} can be planned, but not built: Kiln does not install RPM packages yet",
            target.distribution, target.release
        );
        Failure::new(FailureKind::Definition, message)
            .hint("`kiln plan` shows what the definition means; build it for debian:bookworm")
    })
}

/// A plan without errors, and its `%pre` scripts.
pub(crate) fn checked(lowered: Lowered) -> Result<Lowered, Failure> {
    let errors: Vec<&Problem> = lowered
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .collect();
    let Some(first) = errors.first() else {
        return refused(&lowered).map_or(Ok(lowered), Err);
    };
    let mut failure = Failure::new(FailureKind::Definition, first.message.clone());
    failure.origin = first.origin.clone();
    failure.hints = first.hints.clone();
    failure.excerpt = first.rendered.clone();
    for more in &errors[1..] {
        let place = more
            .origin
            .as_ref()
            .map(|o| format!("{o}: "))
            .unwrap_or_default();
        failure.others.push(format!("{place}{}", more.message));
    }
    Err(failure)
}

/// Commands that no image can have.
fn refused(lowered: &Lowered) -> Option<Failure> {
    let plan = lowered.plan.as_ref()?;
    let notices = plan.layers.iter().flat_map(|l| &l.notices);
    let mut errors = notices.filter(|n| n.level == Level::Error);
    let first = errors.next()?;
    let mut failure = Failure::new(FailureKind::Definition, first.message.clone());
    failure.origin = Some(first.origin.clone());
    failure.hints.extend(first.hint.clone());
    failure
        .others
        .extend(errors.map(|n| format!("{}: {}", n.origin, n.message)));
    Some(failure)
}

/// How often a build begins again because of damaged layers. A disk that damages more than that has to be replaced.
const TRIES: usize = 4;

/// What a definition was resolved to.
pub(crate) struct Resolved {
    pub(crate) plan: Plan,
    pub(crate) lock: Lock,
    pub(crate) tools: Stack,
    pub(crate) on_error: Vec<Located<Script>>,
    pub(crate) pre: Option<PreFiles>,
}

/// A definition that was read for good, and the tools root that it is resolved in.
struct Prepared {
    lowered: Lowered,
    plan: Plan,
    world: Option<World>,
    tools: Vec<LockedPackage>,
    stack: Stack,
    pre: Option<PreFiles>,
}

/// The means of a build.
pub(crate) struct Session<'a> {
    pub(crate) request: &'a BuildRequest,
    /// Knows the distribution.
    pub(crate) family: Arc<dyn Family>,
    pub(crate) steps: &'a Steps<'a>,
    pub(crate) cancel: &'a Cancel,
    pub(crate) sandbox: Arc<Sandbox>,
    /// What a step may take.
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) downloads: DownloadStore,
    pub(crate) metadata: PathBuf,
    pub(crate) fetcher: Fetcher,
    pub(crate) now: SystemTime,
    pub(crate) shared: Option<Shared>,
    vendored: Option<Vendored>,
    network: ScriptNetwork,
    /// What is known of the layers that earlier builds made.
    pub(crate) guard: Guard,
    /// Whether the packages are at hand.
    fetched: AtomicBool,
    /// Looks at layers as they come.
    recorder: OnceLock<Recorder>,
}

impl<'a> Session<'a> {
    fn open(
        request: &'a BuildRequest,
        first: &Lowered,
        steps: &'a Steps<'a>,
        cancel: &'a Cancel,
    ) -> Result<Self, Failure> {
        let sandbox = Arc::new(Sandbox::detect().map_err(kiln_rootfs::run::sandbox_error)?);
        let store = Store::open(&request.cache, sandbox.clone())?;
        steps.notices(store.notices());
        let options = FetchOptions {
            proxies: request.proxies.clone(),
            offline: request.offline,
            ..FetchOptions::default()
        };
        let means = Means {
            store: store.clone(),
        };
        let offline = request.offline;
        let shared = Shared::open(request.shared.as_ref(), offline, steps, &cancel.run, means)?;
        let vendored = request.vendor.as_deref().map(Vendored::open).transpose()?;
        let metadata = match &vendored {
            Some(vendored) => vendored.metadata(&request.cache)?,
            None => request.cache.join("metadata"),
        };
        let guard = Guard::new(&store, &sandbox, request.threads);
        let plan = first.plan.as_ref().ok_or_else(no_plan)?;
        Ok(Session {
            family: family(&request.families, plan)?,
            shared,
            vendored,
            network: ScriptNetwork::of(request),
            request,
            steps,
            cancel,
            sandbox,
            limits: crate::define::limits::of_step(first),
            store,
            downloads: DownloadStore::open(request.cache.join("downloads"))
                .map_err(kiln_rootfs::Error::from)?,
            metadata,
            fetcher: Fetcher::new(options, cancel.fetch.clone())
                .map_err(kiln_rootfs::Error::from)?,
            now: SystemTime::now(),
            guard,
            fetched: AtomicBool::new(false),
            recorder: OnceLock::new(),
        })
    }

    /// The one that looks at this build's layers.
    fn recorder(&self, plan: &Plan) -> Result<&Recorder, Failure> {
        let compression = plan.compression.clone();
        let fresh = Recorder::start(&self.sandbox, &self.store, &self.cancel.run, compression)?;
        Ok(self.recorder.get_or_init(|| fresh))
    }

    /// From a resolved definition to its artifacts.
    fn build(
        &self,
        resolved: &Resolved,
        output: &Output,
        ahead: &Ahead,
    ) -> Result<BuildReport, Failure> {
        let mut first = true;
        let report = self.or_again(|| {
            let guess = std::mem::take(&mut first).then_some(ahead);
            let _again = match guess {
                Some(_) => None,
                // It may be what was damaged.
                None => Some(self.tools(&resolved.plan, &slice(&resolved.lock, TOOLS))?),
            };
            let root = self.root(resolved, guess)?;
            let key = self.key(resolved, &root);
            if let Some(report) = self.current(key, &self.request.output) {
                return Ok(report);
            }
            let made = self.image(resolved, &root, output, ahead);
            let made = made.inspect_err(|failure| self.on_error(failure, resolved, Some(&root)))?;
            let report = self.publish(resolved, &root.finished()?, &made, output)?;
            self.remember(key, &report);
            Ok(report)
        })?;
        self.finish_sharing();
        Ok(report)
    }

    /// Does something with a definition that was opened, and once more where a stored layer turned out to be damaged.
    fn opened<T>(
        &self,
        opened: (Source, Lowered),
        with: impl Fn(Source, Lowered) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut opened = Some(opened);
        self.or_again(|| {
            let opened = opened.take();
            let (source, first) = opened.map_or_else(|| open(self.request, self.cancel), Ok)?;
            with(source, first)
        })
    }

    /// Does something, and again where a stored layer turned out to be damaged: it is out of the store by then.
    fn or_again<T>(&self, mut work: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        for _ in 0..TRIES {
            let failure = match work() {
                Err(failure) if self.guard.take_evicted() => failure,
                other => return other,
            };
            let cause = failure.causes.first().cloned();
            self.steps.warn(
                failure.message,
                None,
                Some(cause.unwrap_or_else(|| "check the disk that holds the cache".to_owned())),
            );
            // Nobody holds the damaged layers any more.
            self.store.reclaim()?;
        }
        work()
    }

    /// Waits until all layers that were made are recorded; gives the number of blocks that were compressed ahead.
    pub(crate) fn recorded(&self) -> u64 {
        self.recorder.get().map_or(0, Recorder::finish)
    }

    /// Runs what a step runs, from now on.
    pub(crate) fn step_sandbox(&self) -> Sandbox {
        self.sandbox.limited(self.limits.clone())
    }

    pub(crate) fn resolver(&self) -> Resolver<'_> {
        Resolver {
            family: &*self.family,
            fetcher: &self.fetcher,
            downloads: &self.downloads,
            metadata: &self.metadata,
            steps: self.steps,
            now: self.now,
            answers: self.store.root().join("answers"),
        }
    }

    pub(crate) fn roots(&self) -> Roots<'_> {
        Roots {
            family: &*self.family,
            installer: None,
            store: &self.store,
            sandbox: &self.sandbox,
            limits: &self.limits,
            steps: self.steps,
            cancel: &self.cancel.run,
            downloads: &self.downloads,
            network: &self.network,
            fixed_epoch: self.request.epoch,
            threads: self.request.threads,
            name: "",
            recorder: None,
            fetch: None,
            shared: self.shared.as_ref(),
            guard: &self.guard,
            tmp: None,
            sources: None,
            project: None,
            ahead: None,
        }
    }

    /// What was made reaches the shared cache before the build says that it is done.
    fn finish_sharing(&self) {
        if let Some(shared) = &self.shared {
            shared.finish(self.steps);
        }
    }

    /// Has all packages at hand, checked once in a build.
    fn fetch(&self, lock: &Lock) -> Result<(), Failure> {
        if self.fetched.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let packages: Vec<&LockedPackage> =
            lock.packages.iter().filter(|p| p.layer != TOOLS).collect();
        self.download(&packages)
    }

    /// Has packages in the store, from the network or from the vendored directory.
    fn download(&self, packages: &[&LockedPackage]) -> Result<(), Failure> {
        let Some(vendored) = &self.vendored else {
            return self.resolver().download(packages);
        };
        let local: Vec<LockedPackage> = packages.iter().map(|p| vendored.localised(p)).collect();
        let local: Vec<&LockedPackage> = local.iter().collect();
        let done = self.resolver().download(&local);
        done.map_err(|failure| failure.hint(crate::resolve::vendor::AGAIN))
    }

    /// Who installs packages; those of the slices may be unpacked ahead.
    fn installer(&self, plan: &Plan, slices: Vec<Slice>) -> Result<Box<dyn Installer>, Failure> {
        Ok(self.family.installer(Job {
            store: self.store.clone(),
            downloads: self.downloads.clone(),
            architecture: plan.target.architecture.clone(),
            threads: self.request.threads,
            cancel: self.cancel.run.clone(),
            slices,
            plain: self.request.plain_unpacking,
        })?)
    }

    /// Finds the lock or makes one.
    fn resolve(&self, source: Source, first: Lowered) -> Result<Resolved, Failure> {
        let path = match &self.vendored {
            Some(vendored) => vendored.lock_path(),
            None => source.lock_path(),
        };
        let locked = self.request.locked || self.vendored.is_some();
        let found = read_lock(&path, self.family.lock_facts())?;
        if found.is_none() && locked {
            let failure = Failure::new(
                FailureKind::Definition,
                format!("there is no {}", path.display()),
            );
            return Err(
                failure.hint("run `kiln lock` and commit the file, or build without --locked")
            );
        }
        let Prepared {
            lowered,
            plan,
            world,
            tools,
            stack,
            pre,
        } = self.prepare(source, first, found.as_ref().map(|lock| (&*path, lock)))?;
        let lock = match found {
            Some(lock) if is_current(&lock, &plan) => {
                if pre.is_some() {
                    self.trust(&plan, &path, &lock.packages.iter().collect::<Vec<_>>())?;
                }
                lock
            }
            Some(_) if locked => {
                let failure = Failure::new(
                    FailureKind::Definition,
                    format!(
                        "{} is stale: the definition asks for other packages now",
                        path.display()
                    ),
                );
                let hint = match &self.vendored {
                    Some(_) => crate::resolve::vendor::AGAIN,
                    None => "run `kiln lock` and commit the file",
                };
                return Err(failure.hint(hint));
            }
            stale => {
                if stale.is_some() {
                    let message = format!(
                        "{} is stale: the definition asks for other packages now; resolving afresh",
                        path.display()
                    );
                    self.steps.warn(
                        message,
                        None,
                        Some("run `kiln lock` to renew it".to_owned()),
                    );
                }
                let world = self.resolver().world_of(&plan, world)?;
                self.resolver()
                    .solve(&plan, &world, &tools, &self.roots(), &stack)?
            }
        };
        Ok(Resolved {
            plan,
            lock,
            tools: stack,
            on_error: lowered.other_scripts,
            pre,
        })
    }

    /// Gets the tools root, runs `%pre` scripts in it, and reads the definition for good.
    fn prepare(
        &self,
        mut source: Source,
        first: Lowered,
        lock: Option<(&Path, &Lock)>,
    ) -> Result<Prepared, Failure> {
        let has_pre = !first.pre_scripts.is_empty();
        let Some(plan) = first.plan.clone() else {
            return Err(no_plan());
        };
        let usable = lock.filter(|(_, lock)| has_pre || is_current(lock, &plan));
        let (world, tools) = match usable {
            Some((path, lock)) => {
                // What `%pre` leaves may bring further repositories; the tools root that it runs in comes from those known by now.
                let now = |p: &&LockedPackage| !has_pre || p.layer == TOOLS;
                let packages = lock.packages.iter().filter(now);
                self.trust(&plan, path, &packages.collect::<Vec<_>>())?;
                (None, lock.of_layer(TOOLS).cloned().collect::<Vec<_>>())
            }
            None => {
                let world = self.resolver().world(&plan)?;
                let tools = world.read.tools()?;
                (Some(world), tools)
            }
        };
        let stack = self.tools(&plan, &tools.iter().collect::<Vec<_>>())?;
        let pre = if has_pre {
            let left = self.roots().pre(&first.pre_scripts, &stack);
            Some(PreFiles::new(left.inspect_err(|failure| {
                self.scripts_on_error(failure, &first.other_scripts, &stack, None);
            })?)?)
        } else {
            None
        };
        source.pre = pre.as_ref().map(PreFiles::dir);
        let lowered = checked(source.lower(&self.request.input))?;
        self.notices(&lowered);
        let Some(plan) = lowered.plan.clone() else {
            return Err(no_plan());
        };
        crate::define::owners::fit(&plan, self.sandbox.ids())?;
        Ok(Prepared {
            lowered,
            plan,
            world,
            tools,
            stack,
            pre,
        })
    }

    /// The tools root.
    fn tools(&self, plan: &Plan, packages: &[&LockedPackage]) -> Result<Stack, Failure> {
        let fetch = || self.download(packages);
        let installer = self.installer(plan, Vec::new())?;
        let roots = Roots {
            installer: Some(&*installer),
            fetch: Some(&fetch),
            ..self.roots()
        };
        roots.tools(plan, packages)
    }

    fn on_error(&self, failure: &Failure, resolved: &Resolved, root: Option<&Stack>) {
        self.scripts_on_error(failure, &resolved.on_error, &resolved.tools, root);
    }

    /// What `%onerror` and `%traceback` are for: everything that fails but the user's own stop, and what will be tried again.
    fn scripts_on_error(
        &self,
        failure: &Failure,
        scripts: &[Located<Script>],
        tools: &Stack,
        root: Option<&Stack>,
    ) {
        if failure.kind != FailureKind::Cancelled && !self.guard.has_evicted() {
            self.roots().on_error(scripts, tools, root);
        }
    }

    /// Says what was found about the definition.
    fn notices(&self, lowered: &Lowered) {
        for problem in &lowered.problems {
            self.steps.warn(
                problem.message.clone(),
                problem.origin.clone(),
                problem.hints.first().cloned(),
            );
        }
        let Some(plan) = &lowered.plan else { return };
        for notice in plan.layers.iter().flat_map(|l| &l.notices) {
            if notice.level == Level::Warning {
                self.steps.warn(
                    notice.message.clone(),
                    Some(notice.origin.clone()),
                    notice.hint.clone(),
                );
            }
        }
    }

    /// Makes all layers.
    fn root(&self, resolved: &Resolved, ahead: Option<&Ahead>) -> Result<Stack, Failure> {
        let Resolved {
            plan, lock, tools, ..
        } = resolved;
        let fetch = || self.fetch(lock);
        let recorder = self.recorder(plan)?;
        tools.layers.iter().for_each(|layer| recorder.record(layer));
        let sources = self.family.sources(plan, lock);
        let installer = self.installer(plan, slices(plan, lock))?;
        let with_files = plan.layers.iter().any(|layer| !layer.files.is_empty());
        let project = with_files
            .then(|| load::project(&self.request.definition))
            .transpose()?;
        let roots = Roots {
            project: project.as_ref(),
            recorder: Some(recorder),
            name: &plan.name,
            fetch: Some(&fetch),
            installer: Some(&*installer),
            tmp: resolved.pre.as_ref(),
            sources: Some(&sources),
            ahead: ahead.zip(last_packages(plan, lock)),
            ..self.roots()
        };
        let mut stack = roots.system(plan, &slice(lock, SYSTEM))?;
        let result = plan.layers.iter().try_for_each(|layer| {
            self.cancel.check()?;
            roots.kickstart(&mut stack, layer, &slice(lock, &layer.name), tools)
        });
        if let Err(failure) = result {
            self.on_error(&failure, resolved, Some(&stack));
            return Err(failure);
        }
        roots.finish(
            &mut stack,
            &crate::root::finish::finish(&*self.family, resolved),
        )?;
        for (message, hint) in crate::root::finish::remarks(&stack.finished()?) {
            self.steps.warn(message, None, Some(hint));
        }
        Ok(stack)
    }

    fn publish(
        &self,
        resolved: &Resolved,
        finished: &Finished,
        made: &Made,
        output: &Output,
    ) -> Result<BuildReport, Failure> {
        crate::output::artifacts::publish(self, resolved, finished, made, output)
    }
}

fn no_plan() -> Failure {
    Failure::new(
        FailureKind::Internal,
        "a definition without errors gave no plan",
    )
}

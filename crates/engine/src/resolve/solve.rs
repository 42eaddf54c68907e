//! From a plan to a lock: the file beside the definition, or the repositories' answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_kickstart::{Certificate, Command, Opt, Value};
pub(crate) use kiln_packages::TOOLS;
use kiln_packages::debian::{
    Keys, Metadata, Package, Repository, Universe, VerifiedRepository, default_repositories,
    refresh,
};
use kiln_packages::{Digest, DownloadStore, Fetcher, Lock, LockedPackage, LockedRepository};
use kiln_plan::configure;
use kiln_plan::{Hasher, Id, Located, Plan, Target};
use kiln_rootfs::Place;
use kiln_rootfs::debian::{self, Solved, package_error};

use crate::root::steps::{Roots, Stack};
use crate::steps::Steps;
use crate::{Failure, FailureKind, Unit};

/// What is needed to ask the repositories.
pub(crate) struct Resolver<'a> {
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) downloads: &'a DownloadStore,
    pub(crate) metadata: &'a Path,
    pub(crate) steps: &'a Steps<'a>,
    pub(crate) now: SystemTime,
    /// Answers of earlier builds: one lock file for each question, named by its id.
    pub(crate) answers: PathBuf,
}

/// The repositories as they are now.
pub(crate) struct World {
    metadata: Metadata,
    universe: Universe,
}

impl World {
    /// The repositories, verified.
    pub(crate) fn repositories(&self) -> &[VerifiedRepository] {
        &self.metadata.repositories
    }

    /// All packages of the repositories.
    pub(crate) fn into_universe(self) -> Universe {
        self.universe
    }

    /// Whether these are the repositories of this plan: what `%pre` left may have added some.
    fn is_of(&self, plan: &Plan) -> bool {
        let here = self.metadata.repositories.iter().map(|r| &r.repository);
        repositories(plan).is_ok_and(|wanted| wanted.iter().eq(here))
    }
}

impl Resolver<'_> {
    /// Fetches and verifies the repositories' metadata.
    pub(crate) fn world(&self, plan: &Plan) -> Result<World, Failure> {
        self.steps
            .step("reading the repositories", None, Unit::Bytes, |step| {
                let repositories = repositories(plan)?;
                let metadata = refresh(self.fetcher, &repositories, self.metadata, self.now)
                    .map_err(package_error)?;
                let universe = Universe::read(&metadata).map_err(package_error)?;
                for warning in metadata.warnings.iter().chain(universe.warnings()) {
                    self.steps.warn(warning.clone(), None, None);
                }
                step.summarise(format!(
                    "{} packages in {} repositories",
                    universe.len(),
                    repositories.len()
                ));
                Ok(World { metadata, universe })
            })
    }

    /// The repositories of a plan; those that were read before if they are the same.
    pub(crate) fn world_of(&self, plan: &Plan, before: Option<World>) -> Result<World, Failure> {
        match before.filter(|world| world.is_of(plan)) {
            Some(world) => Ok(world),
            None => self.world(plan),
        }
    }

    /// The tools root's packages.
    pub(crate) fn tools(&self, world: &World) -> Result<Vec<LockedPackage>, Failure> {
        let packages = debian::tools(&world.universe)?;
        Ok(packages.iter().map(|p| locked(p, TOOLS, true)).collect())
    }

    /// Asks apt in the tools root for the packages of all layers, unless it was asked the same before.
    pub(crate) fn solve(
        &self,
        plan: &Plan,
        world: &World,
        tools: &[LockedPackage],
        roots: &Roots<'_>,
        root: &Stack,
    ) -> Result<Lock, Failure> {
        let answer = self
            .answers
            .join(format!("{}.lock", question_id(plan, world, root)));
        if let Some(lock) = remembered(&answer) {
            self.steps.cached("resolving packages", None);
            return Ok(lock);
        }
        self.steps
            .step("resolving packages", None, Unit::Packages, |step| {
                let needs = needs(plan);
                let requests = debian::collect(plan, &needs, &world.universe)?;
                for (origin, message) in &requests.warnings {
                    self.steps.warn(message.clone(), Some(origin.clone()), None);
                }
                let place = Place {
                    sandbox: roots.sandbox,
                    root: kiln_sandbox::Root::Layers {
                        lower: root.lower(),
                    },
                    epoch: 0,
                    reporter: step,
                    cancel: roots.cancel,
                    seen: None,
                };
                let solved = roots.guard.beside(root, roots.cancel, || {
                    Ok(debian::solve(
                        &place,
                        &world.universe,
                        &world.metadata,
                        &requests,
                        &plan.target.architecture,
                    )?)
                })?;
                step.summarise(format!("{} packages", solved.len()));
                let names: Vec<String> = requests
                    .layers
                    .iter()
                    .map(|(name, _)| name.clone())
                    .collect();
                let lock = lock(plan, world, tools, &names, &solved);
                // With warnings it is asked again, so that they are seen again.
                if requests.warnings.is_empty() {
                    remember(&answer, &lock);
                }
                Ok(lock)
            })
    }

    /// Has the packages in the download store.
    pub(crate) fn download(&self, packages: &[&LockedPackage]) -> Result<(), Failure> {
        let mut items: Vec<_> = packages.iter().map(|p| p.item()).collect();
        items.sort_by_key(|item| item.sha256);
        items.dedup_by_key(|item| item.sha256);
        let bytes: u64 = items.iter().map(|i| i.size).sum();
        let title = format!("fetching {} packages", items.len());
        self.steps.step(&title, None, Unit::Bytes, |step| {
            let progress = |p: kiln_packages::Progress<'_>| {
                kiln_rootfs::Reporter::progress(step, p.done, Some(p.total), Some(p.item));
            };
            self.downloads
                .obtain_all(self.fetcher, &items, &progress)
                .map_err(package_error)?;
            step.summarise(format!("{} MB", bytes / 1_000_000));
            Ok(())
        })
    }
}

/// Reads the lock beside the definition, if there is one.
///
/// # Errors
/// It is there, but cannot be read.
pub(crate) fn read_lock(path: &Path) -> Result<Option<Lock>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            let failure = Failure::new(
                FailureKind::Definition,
                format!("{} cannot be read", path.display()),
            );
            return Err(failure.cause(crate::define::load::plain(&e)));
        }
    };
    Ok(Some(
        Lock::parse(&path.display().to_string(), &text, &[]).map_err(package_error)?,
    ))
}

/// Whether a lock answers this plan.
pub(crate) fn is_current(lock: &Lock, plan: &Plan) -> bool {
    lock.inputs.as_bytes() == inputs(plan).as_bytes() && lock.target == target(&plan.target)
}

/// All that decides apt's answer: what is asked, of which repositories, and by which tools.
fn question_id(plan: &Plan, world: &World, tools: &Stack) -> Id {
    let hasher = Hasher::new("question.v1")
        .id("request", plan.request_id())
        .id("tools", tools.id);
    let repositories = world.metadata.repositories.iter();
    repositories
        .fold(hasher, |h, r| {
            h.text("uri", &r.repository.uri)
                .bytes("release", r.release_sha256.as_bytes())
        })
        .finish()
}

/// An answer that cannot be read is none.
fn remembered(path: &Path) -> Option<Lock> {
    Lock::parse(
        &path.display().to_string(),
        &fs::read_to_string(path).ok()?,
        &[],
    )
    .ok()
}

/// Remembering only saves time, so a failure is no error.
fn remember(path: &Path, lock: &Lock) {
    let staged = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        fs::create_dir_all(path.parent()?).ok()?;
        fs::write(&staged, lock.text()).ok()?;
        fs::rename(&staged, path).ok()
    };
    if write().is_none() {
        let _ = fs::remove_file(&staged);
    }
}

fn inputs(plan: &Plan) -> Digest {
    Digest::of(plan.request_id().bytes())
}

fn target(target: &Target) -> String {
    format!(
        "{}:{}/{}",
        target.distribution, target.release, target.architecture
    )
}

/// Packages that each layer's commands need.
fn needs(plan: &Plan) -> Vec<Vec<configure::Need>> {
    lower_commands(plan)
        .into_iter()
        .map(|lowered| lowered.needs())
        .collect()
}

/// Each layer's commands as changes.
pub(crate) fn lower_commands(plan: &Plan) -> Vec<configure::Lowered> {
    let (packages, excluded) = named(plan);
    let context = configure::Context {
        family: match plan.target.family() {
            kiln_plan::Family::Debian => configure::Family::Debian,
            kiln_plan::Family::Rpm => configure::Family::Rpm,
        },
        packages: &packages,
        excluded: &excluded,
        salt: &plan.name,
    };
    let lower = |layer: &kiln_plan::Layer| {
        let lines: Vec<configure::Line<'_>> = layer
            .commands
            .iter()
            .map(|c| configure::Line {
                command: &c.item,
                origin: &c.origin,
            })
            .collect();
        let mut lowered = configure::lower(&lines, &context);
        for certificate in &layer.certificates {
            let more = lower_certificate(certificate, &context);
            lowered.changes.extend(more.changes);
            lowered.notices.extend(more.notices);
        }
        lowered
    };
    plan.layers.iter().map(lower).collect()
}

/// A `%certificate` as the command that the executor knows.
fn lower_certificate(
    certificate: &Located<Certificate>,
    context: &configure::Context<'_>,
) -> configure::Lowered {
    let Certificate {
        filename,
        dir,
        kind,
        body,
        span,
    } = &certificate.item;
    let option = |name: &str, value: &str| Opt {
        name: name.to_owned(),
        value: Value::Text(value.to_owned()),
        span: *span,
    };
    let options = std::iter::once(option("--filename", filename))
        .chain(dir.iter().map(|dir| option("--dir", dir)))
        .chain(kind.iter().map(|kind| option("--type", kind)));
    let command = Command {
        name: "%certificate".to_owned(),
        options: options.collect(),
        args: Vec::new(),
        span: *span,
    };
    let line = configure::Line {
        command: &command,
        origin: &certificate.origin,
    };
    configure::lower_certificate(line, body, context)
}

/// Names that the definition asks for and excludes; the last mention counts.
fn named(plan: &Plan) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut wanted, mut excluded) = (BTreeSet::new(), BTreeSet::new());
    let added = plan.system.packages.iter().map(|p| &p.package);
    wanted.extend(added.map(|package| debian::Form::of(package).name.to_owned()));
    for request in plan.layers.iter().flat_map(|l| &l.packages) {
        if let kiln_kickstart::PackageRef::Package(name) = &request.what {
            let (to, from) = if request.exclude {
                (&mut excluded, &mut wanted)
            } else {
                (&mut wanted, &mut excluded)
            };
            let name = debian::Form::of(name).name;
            from.remove(name);
            to.insert(name.to_owned());
        }
    }
    (wanted, excluded)
}

/// The plan's repositories with the distribution's own before them.
pub(crate) fn repositories(plan: &Plan) -> Result<Vec<Repository>, Failure> {
    let Target {
        release,
        architecture,
        ..
    } = &plan.target;
    let mut all = Vec::new();
    if plan.default_repositories {
        all = default_repositories(release, architecture).map_err(package_error)?;
    }
    for repository in &plan.repositories {
        let keys = match &repository.keys {
            None => Keys::Builtin,
            Some((name, bytes)) => Keys::Given {
                name: name.clone(),
                bytes: bytes.clone(),
            },
        };
        let made = Repository {
            uri: repository.url.clone(),
            suite: repository.suite.clone(),
            components: repository.components.clone(),
            architecture: architecture.clone(),
            keys,
            check_valid_until: repository.check_valid_until,
            origin: repository.origin.clone(),
        };
        // A kickstart's `url` usually names one of the distribution's own suites again.
        all.retain(|r| r.uri != made.uri || r.suite != made.suite);
        all.push(made);
    }
    if all.is_empty() {
        return Err(Failure::new(
            FailureKind::Definition,
            "the definition has no repositories",
        )
        .hint("drop `no-default-repositories`, or add a [[repository]]"));
    }
    Ok(all)
}

fn lock(
    plan: &Plan,
    world: &World,
    tools: &[LockedPackage],
    names: &[String],
    solved: &[Solved],
) -> Lock {
    let repositories = world
        .metadata
        .repositories
        .iter()
        .map(|verified| LockedRepository {
            uri: verified.repository.uri.clone(),
            name: verified.repository.suite.clone(),
            date: verified.release.date,
            release: verified.release_sha256,
        });
    let mut packages = tools.to_vec();
    packages.extend(
        solved
            .iter()
            .map(|s| locked(&s.package, &names[s.layer], s.auto)),
    );
    // As in its text: the order is that of installing, and decides whether a layer is the one of an earlier build.
    let order = |p: &LockedPackage| (p.name.clone(), p.architecture.clone(), p.version.clone());
    packages.sort_by_cached_key(order);
    Lock {
        target: target(&plan.target),
        inputs: inputs(plan),
        repositories: repositories.collect(),
        layers: std::iter::once(TOOLS.to_owned())
            .chain(names.iter().cloned())
            .collect(),
        packages,
    }
}

fn locked(package: &Package, layer: &str, auto: bool) -> LockedPackage {
    LockedPackage {
        name: package.name().to_owned(),
        version: package.version().to_owned(),
        architecture: package.architecture().to_owned(),
        url: package.url(),
        sha256: package.sha256(),
        size: package.size(),
        layer: layer.to_owned(),
        auto,
        facts: BTreeMap::new(),
    }
}

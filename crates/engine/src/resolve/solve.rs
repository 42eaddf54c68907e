//! From a plan to a lock: the file beside the definition, or the repositories' answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_packages::{Digest, DownloadStore, Fetcher, Lock, LockedPackage, TOOLS};
use kiln_plan::{Hasher, Id, Plan, Target};
use kiln_rootfs::{Family, Place, family};
use kiln_sandbox::{CancelToken, Root, Sandbox};

use crate::io::{plain, write_whole};
use crate::means::Session;
use crate::steps::Steps;
use crate::trust::guard::Guard;
use crate::values::Stack;
use crate::{Failure, FailureKind, Unit, counted};

/// What is needed to ask the repositories.
pub(crate) struct Resolver<'a> {
    pub(crate) family: &'a dyn Family,
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) downloads: &'a DownloadStore,
    pub(crate) metadata: &'a Path,
    pub(crate) steps: &'a Steps<'a>,
    pub(crate) now: SystemTime,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) cancel: &'a CancelToken,
    /// Keeps damage of the tools root out of the answer.
    pub(crate) guard: &'a Guard,
    /// Answers of earlier builds: one lock file for each question, named by its id.
    pub(crate) answers: PathBuf,
}

/// The repositories as they are now.
pub(crate) struct World {
    pub(crate) read: Box<dyn family::World>,
    of: Repositories,
    /// Of the manifest that pins packages.
    pins: Option<Digest>,
}

impl World {
    /// Has the packages of a manifest, and no others, be taken.
    pub(crate) fn pin(&mut self, what: &str, text: &str) -> Result<Vec<String>, Failure> {
        self.pins = Some(Digest::of(text.as_bytes()));
        Ok(self.read.pin(what, text)?)
    }
}

/// What a plan says of its repositories.
#[derive(PartialEq)]
struct Repositories {
    target: Target,
    default: bool,
    named: Vec<kiln_plan::Repository>,
    rpm: Vec<kiln_plan::RpmRepository>,
}

impl Repositories {
    fn of(plan: &Plan) -> Self {
        Repositories {
            target: plan.target.clone(),
            default: plan.default_repositories,
            named: plan.repositories.clone(),
            rpm: plan.rpm_repositories.clone(),
        }
    }
}

impl<'a> Resolver<'a> {
    pub(crate) fn of(session: &'a Session<'_>) -> Self {
        Resolver {
            family: &*session.family,
            fetcher: &session.fetcher,
            downloads: &session.downloads,
            metadata: &session.metadata,
            steps: session.steps,
            now: session.now,
            sandbox: &session.sandbox,
            cancel: &session.cancel.run,
            guard: &session.guard,
            answers: session.store.root().join("answers"),
        }
    }

    /// Fetches and verifies the repositories' metadata.
    pub(crate) fn world(&self, plan: &Plan) -> Result<World, Failure> {
        self.steps
            .step("reading the repositories", None, Unit::Bytes, |step| {
                let source = family::Metadata {
                    fetcher: self.fetcher,
                    directory: self.metadata,
                    now: self.now,
                };
                let read = self.family.world(plan, &source)?;
                for warning in read.warnings() {
                    self.steps.warn(warning, None, None);
                }
                let packages = counted(read.packages(), "package");
                let repositories = counted(read.repositories().len(), "repository");
                step.summarise(format!("{packages} in {repositories}"));
                let of = Repositories::of(plan);
                Ok(World {
                    read,
                    of,
                    pins: None,
                })
            })
    }

    /// The repositories of a plan; those that were read before if they are the same.
    pub(crate) fn world_of(&self, plan: &Plan, before: Option<World>) -> Result<World, Failure> {
        // What `%pre` left may have added some.
        match before.filter(|world| world.of == Repositories::of(plan)) {
            Some(world) => Ok(world),
            None => self.world(plan),
        }
    }

    /// Finds the packages of all layers, with what the tools root has, unless the same was asked before.
    pub(crate) fn solve(
        &self,
        plan: &Plan,
        world: &World,
        tools: &[LockedPackage],
        root: &Stack,
    ) -> Result<Lock, Failure> {
        let answer = self
            .answers
            .join(format!("{}.lock", question_id(plan, world, root)));
        if let Some(lock) = remembered(&answer, self.family.lock_facts()) {
            self.steps.cached("resolving packages", None);
            return Ok(lock);
        }
        self.steps
            .step("resolving packages", None, Unit::Packages, |step| {
                let requests = world.read.requests(plan)?;
                for (origin, message) in &requests.warnings {
                    self.steps.warn(message.clone(), Some(origin.clone()), None);
                }
                let place = Place {
                    sandbox: self.sandbox,
                    root: Root::Layers {
                        lower: root.lower(),
                    },
                    epoch: 0,
                    reporter: step,
                    cancel: self.cancel,
                    tracer: None,
                };
                let solved = self.guard.beside(root, self.cancel, || {
                    Ok(world.read.solve(&place, &requests)?)
                })?;
                step.summarise(counted(solved.len(), "package"));
                let names: Vec<String> = requests
                    .layers
                    .iter()
                    .map(|(name, _)| name.clone())
                    .collect();
                let packages = [tools, &solved].concat();
                let lock = lock(plan, world, &names, packages);
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
        let title = format!("fetching {}", counted(items.len(), "package"));
        self.steps.step(&title, None, Unit::Bytes, |step| {
            let progress = |p: kiln_packages::Progress<'_>| {
                kiln_rootfs::Reporter::progress(step, p.done, Some(p.total), Some(p.item));
            };
            self.downloads
                .obtain_all(self.fetcher, &items, &progress)
                .map_err(kiln_rootfs::Error::from)?;
            step.summarise(format!("{} MB", bytes / 1_000_000));
            Ok(())
        })
    }
}

/// Reads the lock beside the definition, if there is one.
///
/// # Errors
/// It is there, but cannot be read.
pub(crate) fn read_lock(path: &Path, facts: &[&str]) -> Result<Option<Lock>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            let failure = Failure::new(
                FailureKind::Definition,
                format!("{} cannot be read", path.display()),
            );
            return Err(failure.cause(plain(&e)));
        }
    };
    let lock = Lock::parse(&path.display().to_string(), &text, facts);
    Ok(Some(lock.map_err(kiln_rootfs::Error::from)?))
}

/// Whether a lock answers this plan.
pub(crate) fn is_current(lock: &Lock, plan: &Plan) -> bool {
    lock.inputs.as_bytes() == inputs(plan).as_bytes() && lock.target == target(&plan.target)
}

/// All that decides the answer: what is asked, of which repositories, and by which tools.
fn question_id(plan: &Plan, world: &World, tools: &Stack) -> Id {
    let hasher = Hasher::new("question.v1")
        .id("request", plan.request_id())
        .id("tools", tools.id);
    let hasher = match &world.pins {
        None => hasher,
        Some(pins) => hasher.bytes("pins", pins.as_bytes()),
    };
    let repositories = world.read.repositories().into_iter();
    repositories
        .fold(hasher, |h, r| {
            h.text("uri", &r.uri).bytes("release", r.release.as_bytes())
        })
        .finish()
}

/// An answer that cannot be read is none.
fn remembered(path: &Path, facts: &[&str]) -> Option<Lock> {
    let text = fs::read_to_string(path).ok()?;
    Lock::parse(&path.display().to_string(), &text, facts).ok()
}

/// Remembering only saves time, so a failure is no error.
fn remember(path: &Path, lock: &Lock) {
    let write = || {
        fs::create_dir_all(path.parent()?).ok()?;
        write_whole(path, lock.text().as_bytes()).ok()
    };
    let _ = write();
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

/// The lock of packages that were chosen.
fn lock(plan: &Plan, world: &World, names: &[String], packages: Vec<LockedPackage>) -> Lock {
    let mut packages = packages;
    // As in its text: the order is that of installing, and decides whether a layer is the one of an earlier build.
    let order = |p: &LockedPackage| (p.name.clone(), p.architecture.clone(), p.version.clone());
    packages.sort_by_cached_key(order);
    Lock {
        target: target(&plan.target),
        inputs: inputs(plan),
        repositories: world.read.repositories(),
        layers: std::iter::once(TOOLS.to_owned())
            .chain(names.iter().cloned())
            .collect(),
        packages,
    }
}

#[cfg(test)]
mod tests {
    use kiln_plan::{Files, Input, lower_text};

    use super::*;

    struct One(String);

    impl Files for One {
        fn read(&self, path: &str, _from: &str) -> Result<(String, Vec<u8>), String> {
            Ok((path.to_owned(), self.0.clone().into_bytes()))
        }
    }

    fn plan(release: &str, kickstart: &str) -> Plan {
        let text = format!("distribution = \"debian:{release}\"\nlayers = [\"a.ks\"]\n");
        let files = One(kickstart.to_owned());
        let lowered = lower_text("kiln.toml", &text, &Input::default(), &files);
        lowered.plan.expect("a plan")
    }

    fn answer(plan: &Plan) -> Lock {
        Lock {
            target: target(&plan.target),
            inputs: inputs(plan),
            repositories: Vec::new(),
            layers: vec![TOOLS.to_owned(), "a".to_owned()],
            packages: Vec::new(),
        }
    }

    #[test]
    fn a_lock_is_stale_once_it_is_asked_for_something_else() {
        let nano = plan("bookworm", "%packages\nnano\n%end\n");
        let lock = answer(&nano);
        assert!(is_current(&lock, &nano));
        for (release, kickstart) in [
            ("bookworm", "%packages\nvim\n%end\n"),
            ("bookworm", "%packages\nnano\nvim\n%end\n"),
            ("trixie", "%packages\nnano\n%end\n"),
        ] {
            assert!(!is_current(&lock, &plan(release, kickstart)), "{kickstart}");
        }
        // What does not ask for packages leaves it current.
        let more = "%packages\nnano\n%end\n%post\necho hello\n%end\n";
        assert!(is_current(&lock, &plan("bookworm", more)));
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("answers/1.lock");
        let lock = answer(&plan("bookworm", "%packages\nnano\n%end\n"));
        assert!(remembered(&path, &[]).is_none());
        remember(&path, &lock);
        let read = remembered(&path, &[]).expect("it was remembered");
        assert_eq!(read.inputs.as_bytes(), lock.inputs.as_bytes());
        fs::write(&path, "half of a li").expect("damage");
        assert!(remembered(&path, &[]).is_none());
    }
}

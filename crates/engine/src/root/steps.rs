//! Layers: one step, one overlay directory, found again by its id.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_kickstart::Script;
use kiln_packages::{DownloadStore, LockedPackage};
use kiln_plan::{Id, Located, Plan, ProjectFile, script_id};
use kiln_rootfs::family::{Facts, Install, InstallOptions, Installer};
use kiln_rootfs::finish::{Finish, Finished, Sources};
use kiln_rootfs::scripts::{self, ScriptContext};
use kiln_rootfs::store::{Layer, Staging};
use kiln_rootfs::{Family, Place, SYSTEM, Store, changes, offline};
use kiln_sandbox::{CancelToken, Limits, Root, Sandbox};
use serde_json::{Value, json};

use crate::define::files::{LayerFiles, Project};
use crate::image::ahead::Recorder;
use crate::initramfs::ahead::Ahead;
use crate::resolve::solve::TOOLS;
use crate::root::network::ScriptNetwork;
use crate::root::pre::PreFiles;
use crate::root::slices::options;
use crate::root::why::{self, Inputs};
use crate::shared::Shared;
use crate::steps::{Step, Steps};
use crate::trust::guard::Guard;
use crate::{Failure, FailureKind, Unit};

/// Changes whenever the code that executes steps does something else for the same inputs.
const CODE: &str = "9";

/// The stack of layers, lowest first, and the id of the top one.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) layers: Vec<Layer>,
    /// Which of them packages made, by their places.
    packages: Vec<usize>,
    pub(crate) id: Id,
    /// `SOURCE_DATE_EPOCH` of steps: the newest package so far.
    pub(crate) epoch: i64,
    /// What is known of every package so far, step by step.
    installed: Vec<Facts>,
    /// Whether the package sources are there.
    has_sources: bool,
}

impl Stack {
    /// Overlay directories, the top one first.
    pub(crate) fn lower(&self) -> Vec<PathBuf> {
        self.layers.iter().rev().map(|l| l.fs.clone()).collect()
    }

    /// What the last step found out and noted.
    pub(crate) fn finished(&self) -> Result<Finished, Failure> {
        let facts = self
            .layers
            .last()
            .map_or(Value::Null, |l| l.info.facts.clone());
        serde_json::from_value(facts).map_err(|e| {
            let message = "the last layer does not say what was found in the root";
            Failure::new(FailureKind::Internal, message).cause(e.to_string())
        })
    }

    /// Overlay directories of the layers that packages made, the top one first.
    pub(crate) fn of_packages(&self) -> Vec<PathBuf> {
        let layers = self
            .packages
            .iter()
            .rev()
            .filter_map(|at| self.layers.get(*at));
        layers.map(|l| l.fs.clone()).collect()
    }
}

/// Everything that making layers needs.
pub(crate) struct Roots<'a> {
    pub(crate) family: &'a dyn Family,
    /// Who installs packages, where some are to be.
    pub(crate) installer: Option<&'a dyn Installer>,
    pub(crate) store: &'a Store,
    pub(crate) sandbox: &'a Arc<Sandbox>,
    /// What a step may take.
    pub(crate) limits: &'a Limits,
    pub(crate) steps: &'a Steps<'a>,
    pub(crate) cancel: &'a CancelToken,
    pub(crate) downloads: &'a DownloadStore,
    pub(crate) network: &'a ScriptNetwork,
    /// A clock that the user fixed; `None` for the packages' own.
    pub(crate) fixed_epoch: Option<i64>,
    pub(crate) threads: usize,
    /// The definition's name; empty where no layer of a definition is made.
    pub(crate) name: &'a str,
    /// Is told of every layer that was made.
    pub(crate) recorder: Option<&'a Recorder>,
    /// Has all packages at hand; called before the first step that installs some.
    pub(crate) fetch: Option<&'a dyn Fn() -> Result<(), Failure>>,
    /// Where other machines' layers are.
    pub(crate) shared: Option<&'a Shared>,
    /// Keeps damage of stored layers out of new ones.
    pub(crate) guard: &'a Guard,
    /// What `%pre` left in `/tmp`.
    pub(crate) tmp: Option<&'a PreFiles>,
    /// Package sources, which the first script finds.
    pub(crate) sources: Option<&'a Sources>,
    /// Where the definition is, if a layer has files of it.
    pub(crate) project: Option<&'a Project>,
    /// Is told what is below the packages of this layer before they are installed.
    pub(crate) ahead: Option<(&'a Ahead, &'a str)>,
}

/// What a step's packages say of themselves, beside its layer: a later build needs it, but not the packages.
const FACTS: &str = "packages.json";

/// One step of the stack.
struct Work<'w> {
    inputs: Inputs,
    title: String,
    layer: &'w str,
    unit: Unit,
    /// What is known of the packages that it installs.
    facts: Option<&'w Facts>,
    against: Against,
}

/// How damage of the layers below is kept out of what a step makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    /// What it looks at is compared.
    Seen,
    /// All of them are, beside it.
    All,
}

impl Roots<'_> {
    /// The tools root.
    pub(crate) fn tools(&self, plan: &Plan, packages: &[&LockedPackage]) -> Result<Stack, Failure> {
        let inputs = self.first("tools", "tools".to_owned(), plan);
        let inputs = packages.iter().fold(inputs, |i, p| i.package(p));
        let id = inputs.id();
        let mut stack = self.empty(id);
        let work = Work {
            inputs,
            title: "unpacking the build tools".to_owned(),
            layer: "tools",
            unit: Unit::Packages,
            facts: None,
            against: Against::All,
        };
        if let Some(fetch) = self.fetch
            && self.find(id, Some(work.layer)).is_none()
        {
            fetch()?;
        }
        let layer = self.layer(&work, &stack, |place, _, _| {
            self.installer()?.tools(place, &self.facts(packages)?)?;
            Ok(Value::Null)
        })?;
        stack.layers.push(layer);
        Ok(stack)
    }

    /// The lowest layer: the essential packages, then what Kiln adds.
    pub(crate) fn system(
        &self,
        plan: &Plan,
        packages: &[&LockedPackage],
    ) -> Result<Stack, Failure> {
        let options = options(&plan.layers[0]);
        let inputs = self.first("system", self.role("system", ""), plan);
        let inputs = of_packages(inputs, packages, &options);
        let id = inputs.id();
        let mut stack = self.empty(id);
        let facts = self.facts_of(id, SYSTEM, packages)?;
        let work = Work {
            inputs,
            title: packages_title(packages),
            layer: SYSTEM,
            unit: Unit::Packages,
            facts: Some(&facts),
            against: Against::All,
        };
        stack.epoch = self.epoch(&stack, &facts);
        let layer = self.layer(&work, &stack, |place, step, staging| {
            self.installer()?.bootstrap(&Install {
                place,
                staging,
                layer: SYSTEM,
                packages: &facts,
                options: &options,
            })?;
            step.summarise(packages_summary(packages));
            Ok(Value::Null)
        })?;
        self.grow(&mut stack, layer, id, Some(facts));
        Ok(stack)
    }

    fn installer(&self) -> Result<&dyn Installer, Failure> {
        self.installer.ok_or_else(|| {
            let message = "packages are to be installed where nobody does that";
            Failure::new(FailureKind::Internal, message)
        })
    }

    /// A kickstart layer's packages, commands and scripts.
    pub(crate) fn kickstart(
        &self,
        stack: &mut Stack,
        layer: &kiln_plan::Layer,
        packages: &[&LockedPackage],
        tools: &Stack,
    ) -> Result<(), Failure> {
        let files = LayerFiles::default();
        if !layer.pre_install.is_empty() {
            self.scripts(stack, layer, &layer.pre_install, tools, &files)?;
        }
        if !packages.is_empty() {
            self.packages(stack, layer, packages)?;
        }
        // Units that commands enable and the skeleton of homes have to be there first, the owners of other files too.
        self.files(stack, layer, &files, true)?;
        if !layer.changes.is_empty() {
            self.commands(stack, layer)?;
        }
        self.files(stack, layer, &files, false)?;
        if !layer.scripts.is_empty() {
            self.scripts(stack, layer, &layer.scripts, tools, &files)?;
        }
        Ok(())
    }

    fn packages(
        &self,
        stack: &mut Stack,
        layer: &kiln_plan::Layer,
        packages: &[&LockedPackage],
    ) -> Result<(), Failure> {
        let options = options(layer);
        let inputs = self.next("packages", self.role("packages", &layer.name));
        let inputs = of_packages(inputs.below(stack.id), packages, &options);
        let id = inputs.id();
        let facts = self.facts_of(id, &layer.name, packages)?;
        let work = Work {
            inputs,
            title: packages_title(packages),
            layer: &layer.name,
            unit: Unit::Packages,
            facts: Some(&facts),
            against: Against::All,
        };
        stack.epoch = self.epoch(stack, &facts);
        let made = self.layer(&work, stack, |place, step, staging| {
            if let Some((ahead, _)) = self.ahead.filter(|(_, last)| *last == layer.name) {
                ahead.offer(stack);
            }
            let work = Install {
                place,
                staging,
                layer: &layer.name,
                packages: &facts,
                options: &options,
            };
            self.installer()?.install(&work, &stack.installed)?;
            step.summarise(packages_summary(packages));
            Ok(Value::Null)
        })?;
        self.grow(stack, made, id, Some(facts));
        Ok(())
    }

    fn commands(&self, stack: &mut Stack, layer: &kiln_plan::Layer) -> Result<(), Failure> {
        let list = &layer.changes;
        let inputs = self.next("commands", self.role("commands", &layer.name));
        let inputs = list.iter().fold(inputs.below(stack.id), |inputs, change| {
            inputs.command(&change.command, &change.actions)
        });
        let id = inputs.id();
        let title = format!("executing {} command{}", list.len(), plural(list.len()));
        let work = Work {
            inputs,
            title,
            layer: &layer.name,
            unit: Unit::Files,
            facts: None,
            against: Against::Seen,
        };
        let made = self.layer(&work, stack, |place, _, _| {
            changes::execute(place, list)?;
            Ok(Value::Null)
        })?;
        self.grow(stack, made, id, None);
        Ok(())
    }

    /// Copies the project's files: root's, or those of others.
    fn files(
        &self,
        stack: &mut Stack,
        layer: &kiln_plan::Layer,
        files: &LayerFiles,
        roots: bool,
    ) -> Result<(), Failure> {
        let wanted = layer.files.iter().filter(|f| f.to.is_some());
        let list: Vec<&ProjectFile> = wanted.filter(|f| f.is_roots() == roots).collect();
        if list.is_empty() {
            return Ok(());
        }
        let before = if roots { "" } else { "others' " };
        let role = self.role(&format!("{before}files"), &layer.name);
        let inputs = self.next("files", role).below(stack.id);
        let inputs = list.iter().fold(inputs, |inputs, file| {
            inputs.file(file.to.as_deref().unwrap_or_default(), file.id())
        });
        let id = inputs.id();
        let work = Work {
            inputs,
            title: format!("copying {} of the project's files", list.len()),
            layer: &layer.name,
            unit: Unit::Files,
            facts: None,
            against: Against::Seen,
        };
        let made = self.layer(&work, stack, |place, _, _| {
            if let Some(source) = files.copy(self.store, self.project, layer)? {
                kiln_rootfs::files::copy(place, &list, source)?;
            }
            Ok(Value::Null)
        })?;
        self.grow(stack, made, id, None);
        Ok(())
    }

    fn scripts(
        &self,
        stack: &mut Stack,
        layer: &kiln_plan::Layer,
        list: &[Located<Script>],
        tools: &Stack,
        files: &LayerFiles,
    ) -> Result<(), Failure> {
        let before = match list.first().map(|script| script.item.kind) {
            Some(kiln_kickstart::ScriptKind::PreInstall) => "%pre-install ",
            _ => "",
        };
        let role = self.role(&format!("{before}scripts"), &layer.name);
        let mut inputs = self.next("scripts", role).below(stack.id).json(
            "network",
            &self.network.settle(self.steps),
            "--network or --offline",
        );
        let wanted = !stack.has_sources && self.family.reads_sources(&stack.installed);
        let sources = self.sources.filter(|_| wanted);
        if let Some(sources) = sources {
            inputs = inputs.json("sources", sources, "the package sources");
        }
        for script in list {
            inputs = inputs.script(script_id(&script.item));
        }
        for file in &layer.files {
            inputs = inputs.file(&file.from, file.id());
        }
        if list.iter().any(|s| !s.item.chroot) {
            inputs = inputs.other("tools", tools.id, "the tools root");
            if let Some(tmp) = self.tmp {
                inputs = inputs.other("tmp", tmp.id(), "what %pre left in /tmp");
            }
        }
        // A script outside of the root sees two roots.
        let against = match list.iter().all(|script| script.item.chroot) {
            true => Against::Seen,
            false => Against::All,
        };
        let id = inputs.id();
        let count = list.len();
        let title = format!("running {count} {before}script{}", plural(count));
        let work = Work {
            inputs,
            title,
            layer: &layer.name,
            unit: Unit::Files,
            facts: None,
            against,
        };
        let made = self.layer(&work, stack, |place, _, _| {
            if against == Against::All {
                self.guard.check(tools, self.cancel)?;
            }
            if let Some(sources) = sources {
                self.family.write_sources(place, sources)?;
            }
            let (scratch, more) = (self.store.stage()?, self.store.stage()?);
            let context = ScriptContext {
                tools: Some(overlay(tools.lower(), &scratch)),
                tmp: self.tmp.map(|tmp| overlay(vec![tmp.dir()], &more)),
                files: files
                    .copy(self.store, self.project, layer)?
                    .map(Path::to_owned),
                ..self.script_context()
            };
            let run = || {
                list.iter()
                    .try_for_each(|script| scripts::run(place, script, &context))
            };
            match list.iter().any(|script| script.item.chroot) {
                true => offline::without_daemons(place, run)?,
                false => run()?,
            }
            Ok(Value::Null)
        })?;
        stack.has_sources |= sources.is_some();
        self.grow(stack, made, id, None);
        Ok(())
    }

    /// The last changes before the root becomes an image.
    pub(crate) fn finish(&self, stack: &mut Stack, finish: &Finish) -> Result<(), Failure> {
        let finish = Finish {
            sources: finish.sources.clone().filter(|_| !stack.has_sources),
            ..finish.clone()
        };
        let inputs = self
            .next("finish", self.role("finish", ""))
            .below(stack.id)
            .json("finish", &finish, "what the image needs of the root");
        let id = inputs.id();
        let work = Work {
            inputs,
            title: "finishing the root".to_owned(),
            layer: "",
            unit: Unit::Files,
            facts: None,
            against: Against::Seen,
        };
        let made = self.layer(&work, stack, |place, _, _| {
            let packages = stack.of_packages();
            let finished = self.family.finish(place, &finish, packages)?;
            Ok(json!(finished))
        })?;
        self.grow(stack, made, id, None);
        Ok(())
    }

    /// Runs `%pre` scripts in the tools root. What they leave in `/tmp` is in the staging directory's `fs`.
    pub(crate) fn pre(&self, list: &[Located<Script>], tools: &Stack) -> Result<Staging, Failure> {
        let run = || self.outside("%pre", list, tools, None);
        self.guard.beside(tools, self.cancel, run)
    }

    fn outside(
        &self,
        kind: &str,
        list: &[Located<Script>],
        tools: &Stack,
        root: Option<&Stack>,
    ) -> Result<Staging, Failure> {
        let title = format!("running {} {kind} script{}", list.len(), plural(list.len()));
        self.steps.step(&title, None, Unit::Files, |step| {
            let shared = self.store.stage()?;
            let (scratch, changes) = (self.store.stage()?, self.store.stage()?);
            let sandbox = self.sandbox.limited(self.limits.clone());
            let place = Place::over(
                &sandbox,
                tools.lower(),
                &scratch,
                tools.epoch,
                step,
                self.cancel,
            );
            for script in list {
                let root = root.map(|stack| overlay(stack.lower(), &changes));
                scripts::run_outside(&place, script, &self.script_context(), &shared.fs(), root)?;
            }
            Ok(shared)
        })
    }

    /// Runs `%onerror` and `%traceback` scripts; the failure that led here stays the one that is reported. They see the
    /// layers that were finished, and what they change is thrown away.
    pub(crate) fn on_error(&self, list: &[Located<Script>], tools: &Stack, root: Option<&Stack>) {
        if list.is_empty() {
            return;
        }
        if let Err(failure) = self.outside("%onerror", list, tools, root) {
            self.steps.warn(failure.message, failure.origin, None);
        }
    }

    fn script_context(&self) -> ScriptContext {
        ScriptContext {
            access: self.network.access(self.steps),
            environment: self.family.script_environment(),
            tools: None,
            tmp: None,
            files: None,
        }
    }

    fn empty(&self, id: Id) -> Stack {
        Stack {
            layers: Vec::new(),
            packages: Vec::new(),
            id,
            epoch: self.fixed_epoch.unwrap_or(0),
            installed: Vec::new(),
            has_sources: false,
        }
    }

    /// The first step's id starts from the target; later ones have it through their parent.
    fn first(&self, kind: &str, role: String, plan: &Plan) -> Inputs {
        let subject = "the distribution, its release or the architecture";
        self.next(kind, role).json("target", &plan.target, subject)
    }

    fn next(&self, kind: &str, role: String) -> Inputs {
        let code = format!("{CODE}{}", self.family.code());
        Inputs::new(kind, role)
            .json("code", &code, "how this version of Kiln does it")
            .json("epoch", &self.fixed_epoch, "SOURCE_DATE_EPOCH")
    }

    /// What a step is for, whatever its inputs are.
    fn role(&self, kind: &str, layer: &str) -> String {
        format!("{}/{layer}/{kind}", self.name)
    }

    fn grow(&self, stack: &mut Stack, layer: Layer, id: Id, facts: Option<Facts>) {
        if let Some(facts) = facts.filter(|facts| facts.built.is_some()) {
            stack.packages.push(stack.layers.len());
            stack.installed.push(facts);
        }
        stack.layers.push(layer);
        stack.id = id;
    }

    /// The epoch of a stack with all packages of a lock.
    pub(crate) fn last_epoch(
        &self,
        stack: &Stack,
        packages: &[LockedPackage],
    ) -> Result<i64, Failure> {
        if let Some(fixed) = self.fixed_epoch {
            return Ok(fixed);
        }
        let layers = packages.iter().filter(|p| p.layer != TOOLS);
        layers
            .map(|p| self.family.built(&self.downloads.path(&p.sha256)))
            .try_fold(stack.epoch, |newest, built| Ok(newest.max(built?)))
    }

    fn epoch(&self, stack: &Stack, facts: &Facts) -> i64 {
        let newest = facts.built.map_or(stack.epoch, |b| b.max(stack.epoch));
        self.fixed_epoch.unwrap_or(newest)
    }

    /// What the packages of a step say: as noted when it was done, or from the packages.
    fn facts_of(&self, id: Id, layer: &str, packages: &[&LockedPackage]) -> Result<Facts, Failure> {
        let noted = self
            .find(id, Some(layer))
            .and_then(|layer| std::fs::read(layer.attachment(FACTS)?).ok())
            .and_then(|text| self.family.recalled(text, packages.len()));
        if let Some(facts) = noted {
            return Ok(facts);
        }
        if let Some(fetch) = self.fetch {
            fetch()?;
        }
        self.facts(packages)
    }

    fn facts(&self, packages: &[&LockedPackage]) -> Result<Facts, Failure> {
        Ok(self.family.facts(packages, self.downloads, self.threads)?)
    }

    /// Makes a layer over a stack, or finds it.
    fn layer(
        &self,
        work: &Work<'_>,
        stack: &Stack,
        make: impl FnOnce(&Place<'_>, &Step<'_, '_>, &Staging) -> Result<Value, Failure>,
    ) -> Result<Layer, Failure> {
        let name = (!work.layer.is_empty()).then_some(work.layer);
        let id = work.inputs.id();
        if let Some(layer) = self.find(id, name) {
            let pulled = self.shared.is_some_and(|s| s.has_pulled(id));
            self.steps.cached_here(&work.title, name, pulled);
            self.push(&layer);
            return Ok(layer);
        }
        self.cancelled()?;
        let why = work.inputs.why_not_reused(self.store);
        let made = self.steps.step_because(why, &work.title, name, work.unit, |step| {
            let staging = self.store.stage()?;
            let sandbox = self.sandbox.limited(self.limits.clone());
            let place = Place::over(&sandbox, stack.lower(), &staging, stack.epoch, step, self.cancel);
            let made = self.guarded(work.against, stack, &place, |place| make(place, step, &staging));
            let made = made.and_then(|facts| step.had_room().map(|()| facts));
            match made.map_err(|failure| step.explain(failure)) {
                Ok(facts) => {
                    if let Some(facts) = work.facts.filter(|facts| facts.built.is_some()) {
                        staging.attach(FACTS, facts.text())?;
                    }
                    staging.attach(why::NOTE, &work.inputs.note())?;
                    let layer = staging.commit(id, &work.title, facts)?;
                    self.guard.trust(id);
                    if let Some(recorder) = self.recorder {
                        recorder.add(&layer);
                    }
                    Ok(layer)
                }
                Err(mut failure) => {
                    let counts = matches!(failure.kind, FailureKind::Step | FailureKind::Definition);
                    if counts && !self.guard.has_evicted() {
                        let kept = json!({ "lower": stack.lower(), "title": work.title, "layer": name, "epoch": stack.epoch, "origin": failure.origin });
                        if staging.keep_failed(&kept).is_ok() {
                            failure.reopen = Some("kiln shell --last".to_owned());
                        }
                    }
                    Err(failure)
                }
            }
        })?;
        self.push(&made);
        Ok(made)
    }

    /// Makes something over a stack that is worth nothing where the stack is damaged.
    fn guarded<T>(
        &self,
        against: Against,
        stack: &Stack,
        place: &Place<'_>,
        make: impl FnOnce(&Place<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match (against, self.recorder) {
            (Against::Seen, Some(recorder)) => {
                let size = recorder.block_size();
                self.guard.watched(stack, place, size, make)
            }
            _ => self.guard.beside(stack, self.cancel, || make(place)),
        }
    }

    /// A layer that is here, or comes from the shared cache.
    fn find(&self, id: Id, layer: Option<&str>) -> Option<Layer> {
        let pull = || {
            let pulled = self.shared?.pull(self.store, self.steps, id, layer)?;
            self.guard.trust(id);
            Some(pulled)
        };
        self.store.layer(id).or_else(pull)
    }

    fn push(&self, layer: &Layer) {
        if let Some(shared) = self.shared {
            shared.push(layer);
        }
    }

    /// A transfer that was stopped is a miss, and no reason to begin a step.
    fn cancelled(&self) -> Result<(), Failure> {
        match self.cancel.is_cancelled() {
            true => Err(Failure::new(
                FailureKind::Cancelled,
                "the build was stopped",
            )),
            false => Ok(()),
        }
    }
}

/// A root over layers whose changes go to a staging directory.
fn overlay(lower: Vec<PathBuf>, staging: &Staging) -> Root {
    Root::Overlay {
        lower,
        upper: staging.fs(),
        work: staging.work(),
    }
}

fn of_packages(inputs: Inputs, packages: &[&LockedPackage], options: &InstallOptions) -> Inputs {
    let inputs = inputs.json("options", options, "options of %packages");
    packages.iter().fold(inputs, |inputs, p| inputs.package(p))
}

fn packages_title(packages: &[&LockedPackage]) -> String {
    format!(
        "installing {} package{}",
        packages.len(),
        plural(packages.len())
    )
}

fn packages_summary(packages: &[&LockedPackage]) -> String {
    let bytes: u64 = packages.iter().map(|p| p.size).sum();
    format!("{} packages, {} MB", packages.len(), bytes / 1_000_000)
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

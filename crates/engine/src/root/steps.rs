//! The steps of a root, each of which makes a layer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_kickstart::Script;
use kiln_packages::{LockedPackage, TOOLS};
use kiln_plan::{Id, Located, Plan, ProjectFile, script_id};
use kiln_rootfs::family::{Facts, Install, InstallOptions, Installer, Job, Slice};
use kiln_rootfs::finish::{Finish, Sources};
use kiln_rootfs::scripts::{self, ScriptContext};
use kiln_rootfs::store::Layer;
use kiln_rootfs::{Place, SYSTEM, changes};
use serde_json::{Value, json};

use crate::define::files::LayerFiles;
use crate::define::load;
use crate::define::reader::Directory;
use crate::means::Session;
use crate::root::brought::located;
use crate::root::finish::{finish, remarks, say};
use crate::root::layer::{Against, Layers, Work};
use crate::root::outside::{on_error, script_context};
use crate::root::slices::{last_packages, options, slices};
use crate::root::why::Inputs;
use crate::values::{FACTS, Resolved, Stack, overlay};
use crate::{Failure, Unit, counted};

/// Changes whenever the code that executes steps does something else for the same inputs.
const CODE: &str = "9";

/// What a build does beside the steps.
pub(crate) struct Callbacks<'a> {
    /// Has all packages at hand; called before the first step that installs some.
    pub(crate) fetch: &'a dyn Fn() -> Result<(), Failure>,
    /// Called with each layer that was made.
    pub(crate) made: &'a dyn Fn(&Layer),
    /// Called with what is below the last packages before these are installed.
    pub(crate) last_packages: &'a dyn Fn(&Stack),
}

/// Makes all layers of a root.
pub(crate) fn layers(
    session: &Session<'_>,
    resolved: &Resolved,
    callbacks: &Callbacks<'_>,
) -> Result<Stack, Failure> {
    let plan = &resolved.plan;
    let with_files = plan.layers.iter().any(|layer| !layer.files.is_empty());
    let project = with_files
        .then(|| load::project(&session.request.files, &session.request.definition))
        .transpose()?;
    let roots = Roots {
        session,
        resolved,
        layers: layers_of(session, callbacks.made),
        callbacks,
        installer: installer(session, plan, resolved.tools.lower(), slices(resolved))?,
        sources: session.family.sources(plan, &resolved.lock),
        project,
        traced: Against::Traced(plan.compression.block_size),
    };
    let mut stack = roots.system(&resolved.slice(SYSTEM))?;
    let result = plan.layers.iter().try_for_each(|layer| {
        session.cancel.check()?;
        roots.kickstart(&mut stack, layer, &resolved.slice(&layer.name))
    });
    if let Err(failure) = result {
        let (scripts, tools) = (&resolved.on_error, &resolved.tools);
        on_error(session, &failure, scripts, tools, Some(&stack));
        return Err(failure);
    }
    roots.finish(&mut stack, &finish(&*session.family, resolved))?;
    say(session.steps, &remarks(&stack.finished()?));
    Ok(stack)
}

/// Makes the tools root; `fetch` has its packages at hand.
pub(crate) fn tools_root(
    session: &Session<'_>,
    plan: &Plan,
    packages: &[&LockedPackage],
    fetch: &dyn Fn() -> Result<(), Failure>,
) -> Result<Stack, Failure> {
    let layers = layers_of(session, &|_| {});
    let inputs = tools_inputs(session, plan, packages);
    let id = inputs.id();
    let mut stack = no_tools(session, id);
    let work = Work {
        inputs,
        title: "unpacking the build tools".to_owned(),
        layer: "tools",
        unit: Unit::Packages,
        facts: None,
        against: Against::All,
    };
    if layers.find(id, Some(work.layer)).is_none() {
        fetch()?;
    }
    let layer = layers.layer(&work, &stack, |place, _, _| {
        let installer = installer(session, plan, Vec::new(), Vec::new())?;
        let unpacked = installer.tools(place, &facts(session, plan, packages)?);
        unpacked.map_err(|e| {
            let mut failure = located(&*session.family, plan, packages, e.into());
            // Nobody asks for the tools: the place is that of a repository which they come from.
            let mut places = packages
                .iter()
                .filter_map(|package| session.family.brought(plan, package));
            failure.origin = failure.origin.or_else(|| places.next());
            failure
        })?;
        Ok(Value::Null)
    })?;
    stack.grow(layer, id, None);
    Ok(stack)
}

/// The tools root before anybody has needed it.
pub(crate) fn tools_to_come(
    session: &Session<'_>,
    plan: &Plan,
    packages: &[&LockedPackage],
) -> Stack {
    no_tools(session, tools_inputs(session, plan, packages).id())
}

fn no_tools(session: &Session<'_>, id: Id) -> Stack {
    Stack::new(id, session.request.epoch.unwrap_or(0))
}

fn tools_inputs(session: &Session<'_>, plan: &Plan, packages: &[&LockedPackage]) -> Inputs {
    let inputs = first_inputs(session, "tools", "tools".to_owned(), plan);
    packages.iter().fold(inputs, |i, p| i.package(p))
}

/// The clock of a stack with all packages of a lock.
pub(crate) fn last_epoch(
    session: &Session<'_>,
    stack: &Stack,
    plan: &Plan,
    packages: &[LockedPackage],
) -> Result<i64, Failure> {
    if let Some(fixed) = session.request.epoch {
        return Ok(fixed);
    }
    let layers = packages.iter().filter(|p| p.layer != TOOLS);
    let built = |p: &LockedPackage| session.family.built(plan, p, &session.downloads);
    layers
        .map(built)
        .try_fold(stack.epoch, |newest, built| Ok(newest.max(built?)))
}

fn layers_of<'a>(session: &'a Session<'_>, made: &'a dyn Fn(&Layer)) -> Layers<'a> {
    Layers {
        store: &session.store,
        sandbox: &session.sandbox,
        limits: &session.limits,
        steps: session.steps,
        cancel: &session.cancel.run,
        shared: session.shared.as_ref(),
        guard: &session.guard,
        made,
    }
}

/// Who installs packages; those of the slices may be unpacked ahead.
fn installer(
    session: &Session<'_>,
    plan: &Plan,
    tools: Vec<PathBuf>,
    slices: Vec<Slice>,
) -> Result<Box<dyn Installer>, Failure> {
    Ok(session.family.installer(Job {
        store: session.store.clone(),
        downloads: session.downloads.clone(),
        tools,
        target: plan.target.clone(),
        architecture: plan.target.architecture.clone(),
        threads: session.request.threads,
        cancel: session.cancel.run.clone(),
        slices,
        plain: session.request.plain_unpacking,
    })?)
}

/// The first step's id starts from the target; later ones have it through their parent.
fn first_inputs(session: &Session<'_>, kind: &str, role: String, plan: &Plan) -> Inputs {
    let subject = "the distribution, its release or the architecture";
    inputs(session, kind, role).json("target", &plan.target, subject)
}

fn inputs(session: &Session<'_>, kind: &str, role: String) -> Inputs {
    let code = format!("{CODE}{}", session.family.code());
    Inputs::new(kind, role)
        .json("code", &code, "how this version of Kiln does it")
        .json("epoch", &session.request.epoch, "SOURCE_DATE_EPOCH")
}

fn facts(
    session: &Session<'_>,
    plan: &Plan,
    packages: &[&LockedPackage],
) -> Result<Facts, Failure> {
    let (family, threads) = (&*session.family, session.request.threads);
    let facts = family.facts(plan, packages, &session.downloads, threads);
    facts.map_err(|error| located(family, plan, packages, error.into()))
}

/// The steps of one definition.
struct Roots<'a> {
    session: &'a Session<'a>,
    resolved: &'a Resolved,
    layers: Layers<'a>,
    callbacks: &'a Callbacks<'a>,
    installer: Box<dyn Installer>,
    /// Package sources, which the first script finds.
    sources: Sources,
    /// Where the definition is, if a layer has files of it.
    project: Option<Arc<dyn Directory>>,
    /// How damage is kept out of steps that are over soon.
    traced: Against,
}

impl Roots<'_> {
    /// The lowest layer: the essential packages, then what Kiln adds.
    fn system(&self, packages: &[&LockedPackage]) -> Result<Stack, Failure> {
        let (session, plan) = (self.session, &self.resolved.plan);
        let options = options(&plan.layers[0]);
        let inputs = first_inputs(session, "system", self.role("system", ""), plan);
        let inputs = of_packages(inputs, packages, &options);
        let id = inputs.id();
        let mut stack = Stack::new(id, session.request.epoch.unwrap_or(0));
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
        let layer = self.layers.layer(&work, &stack, |place, step, staging| {
            let installed = self.installer.bootstrap(&Install {
                place,
                staging,
                layer: SYSTEM,
                packages: &facts,
                options: &options,
            });
            installed.map_err(|e| located(&*session.family, plan, packages, e.into()))?;
            step.summarise(packages_summary(packages));
            Ok(Value::Null)
        })?;
        stack.grow(layer, id, Some(facts));
        Ok(stack)
    }

    /// A kickstart layer's packages, commands and scripts.
    fn kickstart(
        &self,
        stack: &mut Stack,
        layer: &kiln_plan::Layer,
        packages: &[&LockedPackage],
    ) -> Result<(), Failure> {
        let files = LayerFiles::default();
        if !layer.pre_install.is_empty() {
            self.scripts(stack, layer, &layer.pre_install, &files)?;
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
            self.scripts(stack, layer, &layer.scripts, &files)?;
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
        let inputs = self.inputs("packages", self.role("packages", &layer.name));
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
        let made = self.layers.layer(&work, stack, |place, step, staging| {
            if last_packages(self.resolved) == Some(layer.name.as_str()) {
                (self.callbacks.last_packages)(stack);
            }
            let work = Install {
                place,
                staging,
                layer: &layer.name,
                packages: &facts,
                options: &options,
            };
            let installed = self.installer.install(&work, &stack.installed);
            let (family, plan) = (&*self.session.family, &self.resolved.plan);
            installed.map_err(|e| located(family, plan, packages, e.into()))?;
            step.summarise(packages_summary(packages));
            Ok(Value::Null)
        })?;
        stack.grow(made, id, Some(facts));
        Ok(())
    }

    fn commands(&self, stack: &mut Stack, layer: &kiln_plan::Layer) -> Result<(), Failure> {
        let list = &layer.changes;
        let inputs = self.inputs("commands", self.role("commands", &layer.name));
        let inputs = list.iter().fold(inputs.below(stack.id), |inputs, change| {
            inputs.command(&change.command, &change.actions)
        });
        let title = format!("executing {}", counted(list.len(), "command"));
        self.grow(stack, &self.short(inputs, title, &layer.name), |place| {
            changes::execute(place, list)?;
            Ok(Value::Null)
        })
    }

    /// Copies the project's files: root's, or those of others.
    fn files(
        &self,
        stack: &mut Stack,
        layer: &kiln_plan::Layer,
        files: &LayerFiles,
        roots: bool,
    ) -> Result<(), Failure> {
        let wanted = layer.files.iter().filter(|f| f.is_roots() == roots);
        let (places, list): (Vec<&str>, Vec<&ProjectFile>) =
            wanted.filter_map(|f| Some((f.to.as_deref()?, f))).unzip();
        if list.is_empty() {
            return Ok(());
        }
        let before = if roots { "" } else { "others' " };
        let role = self.role(&format!("{before}files"), &layer.name);
        let inputs = self.inputs("files", role).below(stack.id);
        let inputs = places
            .iter()
            .zip(&list)
            .fold(inputs, |inputs, (to, file)| inputs.file(to, file.id()));
        let title = format!("copying {} of the project's files", list.len());
        self.grow(stack, &self.short(inputs, title, &layer.name), |place| {
            if let Some(source) = files.copy(&self.session.store, self.project.as_deref(), layer)? {
                kiln_rootfs::files::copy(place, &list, source)?;
            }
            Ok(Value::Null)
        })
    }

    fn scripts(
        &self,
        stack: &mut Stack,
        layer: &kiln_plan::Layer,
        list: &[Located<Script>],
        files: &LayerFiles,
    ) -> Result<(), Failure> {
        let before = match list.first().map(|script| script.item.kind) {
            Some(kiln_kickstart::ScriptKind::PreInstall) => "%pre-install ",
            _ => "",
        };
        let role = self.role(&format!("{before}scripts"), &layer.name);
        let mut inputs = self.inputs("scripts", role).below(stack.id).json(
            "network",
            &self.session.network.settle(self.session.steps),
            "--network or --offline",
        );
        let wanted = !stack.has_sources && self.session.family.reads_sources(&stack.installed);
        let sources = wanted.then_some(&self.sources);
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
            inputs = inputs.other("tools", self.resolved.tools.id, "the tools root");
            if let Some(tmp) = &self.resolved.pre {
                inputs = inputs.other("tmp", tmp.id, "what %pre left in /tmp");
            }
        }
        // A script outside of the root sees two roots.
        let against = match list.iter().all(|script| script.item.chroot) {
            true => self.traced,
            false => Against::All,
        };
        let title = format!(
            "running {}",
            counted(list.len(), &format!("{before}script"))
        );
        let work = Work {
            against,
            ..self.short(inputs, title, &layer.name)
        };
        self.grow(stack, &work, |place| {
            let (session, store) = (self.session, &self.session.store);
            let (tools, pre) = (&self.resolved.tools, self.resolved.pre.as_deref());
            if against == Against::All {
                session.guard.check(tools, &session.cancel.run)?;
            }
            if let Some(sources) = sources {
                session.family.write_sources(place, sources)?;
            }
            let (scratch, more) = (store.stage()?, store.stage()?);
            let context = ScriptContext {
                tools: Some(overlay(tools.lower(), &scratch)),
                tmp: pre.map(|pre| overlay(vec![pre.dir()], &more)),
                files: files
                    .copy(store, self.project.as_deref(), layer)?
                    .map(Path::to_owned),
                ..script_context(session)
            };
            let mut run = || {
                list.iter()
                    .try_for_each(|script| scripts::run(place, script, &context))
            };
            match list.iter().any(|script| script.item.chroot) {
                true => session.family.without_daemons(place, &mut run)?,
                false => run()?,
            }
            Ok(Value::Null)
        })?;
        stack.has_sources |= sources.is_some();
        Ok(())
    }

    /// The last changes before the root becomes an image.
    fn finish(&self, stack: &mut Stack, finish: &Finish) -> Result<(), Failure> {
        let finish = Finish {
            sources: finish.sources.clone().filter(|_| !stack.has_sources),
            ..finish.clone()
        };
        let mut inputs = self
            .inputs("finish", self.role("finish", ""))
            .below(stack.id)
            .json("finish", &finish, "what the image needs of the root");
        // Older versions left dkms's private key in; layers without it are as they were.
        if self.resolved.lock.packages.iter().any(|p| p.name == "dkms") {
            inputs = inputs.json("keys", &"without dkms's", "which keys are removed");
        }
        let packages = stack.of_packages();
        let work = self.short(inputs, "finishing the root".to_owned(), "");
        self.grow(stack, &work, |place| {
            let finished = self.session.family.finish(place, &finish, packages)?;
            Ok(json!(finished))
        })
    }

    /// A step that installs no packages and is over soon.
    fn short<'w>(&self, inputs: Inputs, title: String, layer: &'w str) -> Work<'w> {
        Work {
            inputs,
            title,
            layer,
            unit: Unit::Files,
            facts: None,
            against: self.traced,
        }
    }

    /// Puts the layer of such a step on a stack.
    fn grow(
        &self,
        stack: &mut Stack,
        work: &Work<'_>,
        make: impl FnOnce(&Place<'_>) -> Result<Value, Failure>,
    ) -> Result<(), Failure> {
        let made = self.layers.layer(work, stack, |place, _, _| make(place))?;
        stack.grow(made, work.inputs.id(), None);
        Ok(())
    }

    fn inputs(&self, kind: &str, role: String) -> Inputs {
        inputs(self.session, kind, role)
    }

    /// What a step is for, whatever its inputs are.
    fn role(&self, kind: &str, layer: &str) -> String {
        format!("{}/{layer}/{kind}", self.resolved.plan.name)
    }

    fn epoch(&self, stack: &Stack, facts: &Facts) -> i64 {
        let newest = facts.built.map_or(stack.epoch, |b| b.max(stack.epoch));
        self.session.request.epoch.unwrap_or(newest)
    }

    /// What the packages of a step say: as noted when it was done, or from the packages.
    fn facts_of(&self, id: Id, layer: &str, packages: &[&LockedPackage]) -> Result<Facts, Failure> {
        let noted = self
            .layers
            .find(id, Some(layer))
            .and_then(|layer| std::fs::read(layer.attachment(FACTS)?).ok())
            .and_then(|text| self.session.family.recalled(text, packages.len()));
        if let Some(facts) = noted {
            return Ok(facts);
        }
        (self.callbacks.fetch)()?;
        facts(self.session, &self.resolved.plan, packages)
    }
}

fn of_packages(inputs: Inputs, packages: &[&LockedPackage], options: &InstallOptions) -> Inputs {
    let inputs = inputs.json("options", options, "options of %packages");
    packages.iter().fold(inputs, |inputs, p| inputs.package(p))
}

fn packages_title(packages: &[&LockedPackage]) -> String {
    format!("installing {}", counted(packages.len(), "package"))
}

fn packages_summary(packages: &[&LockedPackage]) -> String {
    let bytes: u64 = packages.iter().map(|p| p.size).sum();
    let count = counted(packages.len(), "package");
    format!("{count}, {} MB", bytes / 1_000_000)
}

//! From a definition to a plan.

mod addons;
mod commands;
mod debian;
mod disk;
mod distribution;
mod files;
mod limits;
mod profile;
mod release;
mod repositories;
mod ubuntu;

use kiln_kickstart::{
    Command, Item, Kickstart, LoadError, Loaded, Loader, Options, PackageRef, Script, ScriptKind,
    Severity, Span, Version,
};

pub use files::Found;
use repositories::URL;

use crate::Conventions;
use crate::definition::{Definition, SystemDefinition};
use crate::disk::Disk;
use crate::model::*;
use crate::problem::Problem;

/// What Kiln's own layers are called in a lock: the base system, and the tools root, whose packages are in no image.
const OWN_LAYERS: [&str; 2] = ["system", "tools"];

/// How files are read. Paths are as the definition or a kickstart file says them.
pub trait Files {
    /// The bytes of `path`, looked up first as it stands, then beside the file `from`; the name it was found under.
    ///
    /// # Errors
    /// A sentence for people that names the places tried.
    fn read(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), String>;

    /// The bytes of what the kickstart file `from` includes: a path, or the address of a text on the network.
    ///
    /// # Errors
    /// It cannot be had.
    fn include(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), LoadError> {
        self.read(path, from).map_err(LoadError::not_found)
    }

    /// What lies at a path of the project's directory, and all below it, sorted by path; `None` if there is nothing. No link
    /// is followed out of the project.
    ///
    /// # Errors
    /// A sentence for people: it cannot be read, or is of a kind that cannot be copied.
    fn tree(&self, path: &str) -> Result<Option<Vec<Found>>, String> {
        let _ = path;
        Ok(None)
    }
}

/// What the command line adds to a definition.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// `--distribution`
    pub distribution: Option<String>,
    /// `--profile`
    pub profile: Option<String>,
    /// `--layout`
    pub layout: Option<String>,
    /// `--format`
    pub formats: Option<Vec<String>>,
    /// Distributions that the caller knows beside Kiln's own.
    pub further: Vec<Distribution>,
    /// `%pre` has not run yet: an include below `/tmp` that is not there may come from it.
    pub before_pre: bool,
}

/// The result of lowering: a plan unless there are errors, and everything to be said.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The plan; `None` when a problem is an error.
    pub plan: Option<Plan>,
    /// Findings in the order of the files.
    pub problems: Vec<Problem>,
    /// `%pre` scripts in order; they run before the kickstart files are read for good.
    pub pre_scripts: Vec<Located<Script>>,
    /// `%onerror` and `%traceback` scripts in order.
    pub other_scripts: Vec<Located<Script>>,
}

/// What a `kiln.toml` says about `include-path`; nothing where it cannot be read, which lowering it reports.
pub fn include_path(text: &str) -> Vec<String> {
    toml::from_str::<Definition>(text).map_or_else(|_| Vec::new(), |d| d.include_path)
}

/// Lowers a `kiln.toml`. `name` is the file's name for messages.
pub fn lower_text(name: &str, text: &str, input: &Input, files: &dyn Files) -> Lowered {
    match toml::from_str::<Definition>(text) {
        Ok(definition) => lower(name, &definition, input, files),
        Err(error) => {
            let line = error.span().map_or(1, |s| {
                1 + text[..s.start.min(text.len())].matches('\n').count()
            });
            let problem = Problem::error(error.message().to_owned()).at(format!("{name}:{line}"));
            Lowered {
                plan: None,
                problems: vec![problem],
                pre_scripts: Vec::new(),
                other_scripts: Vec::new(),
            }
        }
    }
}

/// Lowers a definition. `name` is the definition's file name for messages and for finding its layers.
pub fn lower(name: &str, definition: &Definition, input: &Input, files: &dyn Files) -> Lowered {
    let mut lowering = Lowering {
        name,
        files,
        input,
        problems: Vec::new(),
        missing: Vec::new(),
        pre: Vec::new(),
        other: Vec::new(),
        language: Version::default(),
        multilib: Vec::new(),
    };
    let plan = lowering.plan(definition);
    let failed = lowering
        .problems
        .iter()
        .any(|p| p.severity == Severity::Error);
    let mut plan = plan.filter(|_| !failed);
    if let Some(plan) = &mut plan
        && let Some(conventions) = lowering.conventions(&plan.target)
    {
        commands::lower(plan, conventions);
    }
    Lowered {
        plan,
        problems: lowering.problems,
        pre_scripts: lowering.pre,
        other_scripts: lowering.other,
    }
}

struct Lowering<'a> {
    name: &'a str,
    files: &'a dyn Files,
    input: &'a Input,
    problems: Vec<Problem>,
    /// Includes that are not there, as long as a `%pre` may still make them.
    missing: Vec<Problem>,
    pre: Vec<Located<Script>>,
    other: Vec<Located<Script>>,
    /// The version of the language in which the layers are written.
    language: Version,
    /// Where `%packages --multilib` stands.
    multilib: Vec<String>,
}

struct FileLoader<'a>(&'a dyn Files);

impl Loader for FileLoader<'_> {
    fn load(&mut self, path: &str, from: &str) -> Result<Loaded, LoadError> {
        self.0
            .include(path, from)
            .map(|(name, bytes)| Loaded { name, bytes })
    }
}

impl Lowering<'_> {
    fn plan(&mut self, definition: &Definition) -> Option<Plan> {
        // First and alone: what else there is to say may follow from a name that is wrong.
        let said = self.input.distribution.clone();
        let target = match said.or_else(|| definition.distribution.clone()) {
            Some(said) => Some(self.target(&said, definition)?),
            None => None,
        };
        let mut layers = self.layers(definition);
        self.project_files(definition, &mut layers);
        let target = match target {
            Some(target) => target,
            None => self.inferred(definition, &layers)?,
        };
        let conventions = self.conventions(&target)?;
        let (mut repositories, mut rpm_repositories) = (Vec::new(), Vec::new());
        match conventions {
            Conventions::Debian => {
                self.one_architecture();
                repositories = self.repositories(definition, &layers);
            }
            Conventions::Rpm => rpm_repositories = self.rpm_repositories(definition, &layers),
        }
        let (compression, formats) = self.profile(definition);
        let disk = self.disk(definition, &layers);
        let limits = self.limits(&definition.limits);
        Some(Plan {
            name: self.image_name(definition),
            boot: self.boot(definition, &layers),
            system: match self.further(&target.distribution) {
                Some(distribution) => further_system(&definition.system, distribution),
                None => system(&definition.system, &target, conventions, &disk),
            },
            // As in an installer, `url` stands in the place of the distribution's own repositories.
            default_repositories: !definition.system.no_default_repositories
                && rpm_repositories.iter().all(|r| r.name != URL),
            repositories,
            rpm_repositories,
            target,
            layers,
            disk,
            limits,
            compression,
            formats,
        })
    }

    fn image_name(&self, definition: &Definition) -> String {
        let stem = || file_stem(self.name).to_owned();
        definition
            .name
            .clone()
            .or_else(|| definition.layers.first().map(|l| file_stem(l).to_owned()))
            .unwrap_or_else(stem)
    }

    fn layers(&mut self, definition: &Definition) -> Vec<Layer> {
        if definition.layers.is_empty() {
            let problem = Problem::error("the definition has no layers").at(self.name);
            self.problems.push(problem.hint(
                "add `layers = [\"base.ks\"]`, the kickstart files from the lowest layer up",
            ));
        }
        let mut layers: Vec<Layer> = Vec::new();
        for path in &definition.layers {
            let layer = self.layer(path);
            if OWN_LAYERS.contains(&layer.name.as_str()) {
                let message = format!(
                    "a layer cannot be called `{}`: Kiln has its own",
                    layer.name
                );
                let problem = Problem::error(message).at(self.name);
                self.problems.push(problem.hint("rename the file"));
            }
            if layers.iter().any(|l| l.name == layer.name) {
                let message = format!("two layers are called `{}`", layer.name);
                self.problems.push(
                    Problem::error(message)
                        .at(self.name)
                        .hint("rename one of the files"),
                );
            }
            layers.push(layer);
        }
        if self.pre.is_empty() {
            self.problems.append(&mut self.missing);
        }
        layers
    }

    fn layer(&mut self, path: &str) -> Layer {
        let mut layer = Layer::new(file_stem(path));
        match self.files.read(path, self.name) {
            Ok((found, bytes)) => {
                let parsed = kiln_kickstart::parse(
                    &found,
                    &bytes,
                    &Options::new(self.language),
                    &mut FileLoader(self.files),
                );
                self.report(&parsed.kickstart, &parsed.diagnostics);
                self.items(parsed.kickstart, &mut layer);
            }
            Err(reason) => {
                let message = format!("layer `{path}` cannot be read: {reason}");
                self.problems.push(Problem::error(message).at(self.name));
            }
        }
        layer
    }

    fn report(&mut self, kickstart: &Kickstart, diagnostics: &[kiln_kickstart::Diagnostic]) {
        for diagnostic in diagnostics {
            // From here on the target's own data decides.
            if !self.input.before_pre && diagnostic.is_from_a_list() {
                continue;
            }
            // Live kickstarts set the root anew above what they include; its size is found here anyway.
            if diagnostic.code == "defined-twice" && is_root(kickstart, diagnostic.span) {
                continue;
            }
            let problem = Problem {
                severity: diagnostic.severity,
                origin: diagnostic.span.map(|s| kickstart.location(s)),
                message: diagnostic.message.clone(),
                hints: diagnostic.help.clone(),
                rendered: Some(kiln_kickstart::render(kickstart, diagnostic)),
            };
            if self.input.before_pre && diagnostic.code == "include-of-pre" {
                self.missing.push(problem);
            } else {
                self.problems.push(problem);
            }
        }
    }

    fn items(&mut self, kickstart: Kickstart, layer: &mut Layer) {
        let files = Kickstart {
            files: kickstart.files,
            items: Vec::new(),
            platform: String::new(),
        };
        for item in kickstart.items {
            match item {
                Item::Command(command) => {
                    layer.commands.push(Located {
                        origin: files.location(command.span),
                        item: command,
                    });
                }
                Item::Script(script) => self.script(
                    Located {
                        origin: files.location(script.span),
                        item: script,
                    },
                    layer,
                ),
                Item::Packages(section) => {
                    self.without_effect(&files, &section.header);
                    packages(&files, section, layer);
                }
                Item::Certificate(certificate) => layer.certificates.push(Located {
                    origin: files.location(certificate.span),
                    item: certificate,
                }),
                Item::Opaque(opaque) => {
                    let origin = files.location(opaque.span);
                    self.problems
                        .extend(addons::answer(&opaque).map(|problem| problem.at(origin)));
                }
            }
        }
    }

    /// Options of `%packages` that an image build has no use for.
    fn without_effect(&mut self, files: &Kickstart, header: &Command) {
        const OPTIONS: &[(&str, &str, &str)] = &[
            (
                "--timeout",
                "Kiln knows by itself when a transfer has stalled",
                "drop the option",
            ),
            ("--retries", "Kiln tries again by itself", "drop the option"),
            (
                "--ignorebroken",
                "a package that cannot be installed ends the build",
                "exclude the package, or drop the option",
            ),
        ];
        if header.flag("--multilib") {
            self.multilib.push(files.location(header.span));
        }
        for (option, why, hint) in OPTIONS.iter().filter(|(name, ..)| header.has(name)) {
            let message = format!("%packages {option} has no effect: {why}");
            let problem = Problem::warning(message).at(files.location(header.span));
            self.problems.push(problem.hint(*hint));
        }
    }

    /// Says where `--multilib` is asked for in vain.
    fn one_architecture(&mut self) {
        for origin in std::mem::take(&mut self.multilib) {
            let why = "packages of one architecture are installed";
            let problem = format!("%packages --multilib has no effect: {why}");
            let problem = Problem::warning(problem).at(origin);
            self.problems.push(problem.hint("drop the option"));
        }
    }

    fn script(&mut self, mut script: Located<Script>, layer: &mut Layer) {
        script.item.log = script.item.log.filter(|path| !path.is_empty());
        match script.item.kind {
            ScriptKind::Pre => self.pre.push(script),
            ScriptKind::Post => layer.scripts.push(script),
            ScriptKind::OnError | ScriptKind::Traceback => self.other.push(script),
            ScriptKind::PreInstall => layer.pre_install.push(script),
        }
    }

    /// The target by its name; `None` where nothing can be said of it but that it is unknown.
    fn target(&mut self, said: &str, definition: &Definition) -> Option<Target> {
        let named = match distribution::read(said, &self.input.further) {
            Ok(named) => named,
            Err(problem) => {
                self.problems.push(problem.at(self.name));
                return None;
            }
        };
        self.language = named.language;
        let further = self.further(named.distribution);
        let further = further.map(|distribution| distribution.architecture.clone());
        let is_further = further.is_some();
        let architecture =
            || further.unwrap_or_else(|| named.conventions.architecture().to_owned());
        let target = Target {
            distribution: named.distribution.to_owned(),
            release: named.release.to_owned(),
            architecture: definition.architecture.clone().unwrap_or_else(architecture),
        };
        self.problems
            .extend(named.note.map(|note| note.at(self.name)));
        if !is_further {
            let ended = release::ended(&target);
            self.problems
                .extend(ended.map(|problem| problem.at(self.name)));
        }
        if named.conventions == Conventions::Debian && !is_further {
            let defaults = !definition.system.no_default_repositories;
            if let Some(problem) = debian::problem(&target, defaults) {
                self.problems.push(problem.at(self.name));
                return None;
            }
        }
        Some(target)
    }

    /// The conventions of a target's distribution, which Kiln or the caller has to know.
    fn conventions(&mut self, target: &Target) -> Option<Conventions> {
        let further = self.further(&target.distribution);
        let known = further.map(|distribution| distribution.conventions);
        let known = known.or_else(|| target.conventions());
        if known.is_none() {
            let message = format!("no distribution is known as `{}`", target.distribution);
            self.problems.push(Problem::error(message).at(self.name));
        }
        known
    }

    /// A distribution that the caller knows.
    fn further(&self, name: &str) -> Option<&Distribution> {
        self.input.further.iter().find(|d| d.name == name)
    }

    /// The target of a definition that names none.
    fn inferred(&mut self, definition: &Definition, layers: &[Layer]) -> Option<Target> {
        if let Some(said) = repositories::suite_of_url(layers) {
            return self.target(&said, definition);
        }
        let problem = Problem::error("no distribution is named").at(self.name);
        self.problems.push(problem.hint("give --distribution debian:bookworm, or `distribution = \"debian:bookworm\"` in kiln.toml"));
        None
    }

    fn boot(&mut self, definition: &Definition, layers: &[Layer]) -> Boot {
        let mut boot = Boot {
            title: self.image_name(definition),
            append: Vec::new(),
            timeout: 5,
            default: MenuEntry::Start,
        };
        for command in commands(layers, "bootloader") {
            if let Some(said) = command.item.text("--default") {
                match MenuEntry::read(said) {
                    Some(entry) => boot.default = entry,
                    None => {
                        let message = format!(
                            "bootloader --default={said} has no effect: no entry of the menu is called so"
                        );
                        let hint = "the entries are start (0), ram (1: copied to memory) and safe (2: safe graphics)";
                        self.problems.push(
                            Problem::warning(message)
                                .at(command.origin.clone())
                                .hint(hint),
                        );
                    }
                }
            }
            if let Some(append) = command.item.text("--append") {
                boot.append = append.split_whitespace().map(str::to_owned).collect();
            }
            match command.item.int("--timeout").map(u32::try_from) {
                Some(Ok(seconds)) => boot.timeout = seconds,
                Some(Err(_)) => {
                    let problem =
                        Problem::error("bootloader --timeout takes seconds from 0 to 4294967295");
                    self.problems.push(problem.at(command.origin.clone()));
                }
                None => {}
            }
        }
        boot
    }
}

fn packages(files: &Kickstart, section: kiln_kickstart::PackagesSection, layer: &mut Layer) {
    let header = &section.header;
    // A further header sets these anew, as the reference does.
    layer.package_options = PackageOptions {
        no_core: header.flag("--nocore"),
        exclude_docs: header.flag("--excludedocs"),
        ignore_missing: header.flag("--ignoremissing"),
        exclude_weak: header.flag("--exclude-weakdeps"),
        multilib: header.flag("--multilib"),
        languages: header.text("--inst-langs").map(|l| {
            l.split([':', ','])
                .filter(|w| !w.is_empty())
                .map(str::to_owned)
                .collect()
        }),
    };
    for item in section.items {
        layer.packages.push(Request {
            origin: files.location(item.span),
            exclude: item.exclude,
            what: match item.exclude {
                true => excluded(item.what),
                false => item.what,
            },
        });
    }
}

/// Whether a place is in a line `part /`.
fn is_root(kickstart: &Kickstart, place: Option<Span>) -> bool {
    kickstart.commands().any(|c| {
        c.name == "part"
            && c.args.first().is_some_and(|mount| mount == "/")
            && place.is_some_and(|p| (p.file, p.line) == (c.span.file, c.span.line))
    })
}

/// The group that `-@ NAME --optional` means: the language keeps such a line as it is written.
fn excluded(what: PackageRef) -> PackageRef {
    let PackageRef::Group { name, .. } = &what else {
        return what;
    };
    let words = name.split_whitespace().filter(|w| !w.starts_with("--"));
    PackageRef::Group {
        name: words.collect::<Vec<_>>().join(" "),
        nodefaults: false,
        optional: false,
    }
}

/// All commands of one name, lowest layer first.
fn commands<'a>(layers: &'a [Layer], name: &'a str) -> impl Iterator<Item = &'a Located<Command>> {
    layers
        .iter()
        .flat_map(|l| &l.commands)
        .filter(move |c| c.item.name == name)
}

fn file_stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ks")
        .or_else(|| file.strip_suffix(".cfg"))
        .unwrap_or(file)
}

fn is_name(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// What every image needs beside its definition.
fn system(
    definition: &SystemDefinition,
    target: &Target,
    conventions: Conventions,
    disk: &Disk,
) -> System {
    let mut packages = match conventions {
        Conventions::Debian => debian::system(definition, target),
        Conventions::Rpm => rpm_system(definition),
    };
    if let Some(home) = disk.home() {
        packages.push(("e2fsprogs".to_owned(), "checks the /home partition at boot"));
        if conventions == Conventions::Debian && home.grow {
            packages.extend(debian::grows(target, disk.table));
        }
    }
    let firmware = definition.firmware.clone();
    let firmware = firmware.unwrap_or_else(|| match conventions {
        Conventions::Debian => vec![debian::firmware(target).to_owned()],
        Conventions::Rpm => vec!["linux-firmware".to_owned()],
    });
    packages.extend(
        firmware
            .into_iter()
            .map(|f| (f, "firmware ([system] firmware = […])")),
    );
    packages.extend(definition.add.iter().map(|p| (p.clone(), "[system] add")));
    let keep = |package: &String| !definition.without.contains(package);
    let added = packages.into_iter().filter(|(p, _)| keep(p));
    let absent = match conventions {
        Conventions::Debian => debian::absent(target),
        Conventions::Rpm => Vec::new(),
    };
    System {
        absent,
        packages: added
            .map(|(package, why)| Added {
                package,
                why: why.to_owned(),
            })
            .collect(),
        kernel: definition.kernel.clone(),
    }
}

/// What an image needs of a distribution that the caller knows.
fn further_system(definition: &SystemDefinition, distribution: &Distribution) -> System {
    let mut packages = distribution.packages.clone();
    packages.extend(definition.add.iter().map(|package| Added {
        package: package.clone(),
        why: "[system] add".to_owned(),
    }));
    packages.retain(|added| !definition.without.contains(&added.package));
    System {
        packages,
        absent: Vec::new(),
        kernel: definition.kernel.clone(),
    }
}

type Reasoned = Vec<(String, &'static str)>;

fn rpm_system(definition: &SystemDefinition) -> Reasoned {
    let kernel = definition.kernel.clone();
    let kernel = kernel.unwrap_or_else(|| "kernel".to_owned());
    vec![
        (kernel, "the kernel ([system] kernel = …)"),
        ("systemd".to_owned(), "the init system"),
        ("systemd-udev".to_owned(), "device nodes and module loading"),
        ("dracut".to_owned(), "makes the initramfs"),
        (
            "dracut-live".to_owned(),
            "finds the root on the stick and puts a RAM overlay over it",
        ),
    ]
}

//! The command line and the environment, resolved: no choice left open.
//!
//! This is the one place where the environment is read. Everything below gets values.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use kiln_engine::{Failure, FailureKind, Files};

use crate::args::{ColorWhen, Global, LogFormat};

/// Beginnings of the variables that the clouds' own tools read; they are handed to the client of a shared cache.
const CLOUDS: &[&str] = &["AWS_", "AZURE_", "GOOGLE_"];

/// The variables that Kiln looks at; all others, but [`CLOUDS`], are without effect.
const VARIABLES: &[&str] = &[
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "CLOUDSDK_CONFIG",
    "CURL_CA_BUNDLE",
    "DISPLAY",
    "HOME",
    "HTTPS_PROXY",
    "KILN_SERVER",
    "KILN_SHARED_CACHE",
    "KILN_SHARED_CACHE_KEY",
    "KILN_SHARED_CACHE_MODE",
    "KILN_TOKEN",
    "KILN_TOKEN_FILE",
    "NO_COLOR",
    "NO_PROXY",
    "PATH",
    "REQUESTS_CA_BUNDLE",
    "SOURCE_DATE_EPOCH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "WAYLAND_DISPLAY",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The variables that go on to the builds of a server, with those of [`CLOUDS`].
const HANDED_ON: &[&str] = &[
    "HOME",
    "HTTPS_PROXY",
    "KILN_SHARED_CACHE",
    "KILN_SHARED_CACHE_KEY",
    "KILN_SHARED_CACHE_MODE",
    "NO_PROXY",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// What the clouds' clients are told, credentials included.
#[derive(Clone, Default)]
pub(crate) struct Clouds(pub(crate) Vec<(String, String)>);

impl std::fmt::Debug for Clouds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clouds(…)")
    }
}

/// What the process was given besides its arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<&'static str, OsString>,
    clouds: Clouds,
    /// Whether standard output is a terminal.
    pub(crate) stdout_terminal: bool,
    /// Whether standard error is a terminal.
    pub(crate) stderr_terminal: bool,
}

impl Environment {
    /// Reads the environment of this process.
    pub(crate) fn of_process() -> Self {
        let variables = VARIABLES
            .iter()
            .filter_map(|name| Some((*name, std::env::var_os(name)?)))
            .collect();
        let clouds = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| CLOUDS.iter().any(|start| name.starts_with(start)))
            .collect();
        Environment {
            variables,
            clouds: Clouds(clouds),
            stdout_terminal: std::io::stdout().is_terminal(),
            stderr_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// What goes on to the builds of a server.
    fn handed_on(&self) -> Clouds {
        let known = HANDED_ON
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), self.text(name)?.to_owned())));
        Clouds(known.chain(self.clouds.0.iter().cloned()).collect())
    }

    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(name)
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(OsStr::to_str)
    }

    /// An absolute directory; the XDG specification has relative ones ignored.
    fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    }
}

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// Steps.
    Normal,
    /// Steps and every line that they print.
    Verbose,
}

/// How progress appears on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgressStyle {
    /// Lines that move; a terminal that can do it.
    Live,
    /// One line for each thing that happened.
    Plain,
    /// One JSON object a line.
    Json,
}

/// Proxies as curl understands the variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    /// For `http://`.
    pub(crate) http: Option<String>,
    /// For `https://`.
    pub(crate) https: Option<String>,
    /// Hosts that are asked directly, separated by commas.
    pub(crate) exempt: Option<String>,
}

/// Where a directory comes from: known, or the reason why not.
#[derive(Clone, Debug)]
struct Directory {
    path: Option<PathBuf>,
    what: &'static str,
    flag: &'static str,
    variable: &'static str,
}

impl Directory {
    fn require(&self) -> Result<&Path, Failure> {
        self.path.as_deref().ok_or_else(|| {
            let message = format!(
                "no directory for {}: neither {} nor HOME is set",
                self.what, self.variable
            );
            Failure::new(FailureKind::Environment, message)
                .hint(format!("name one with {}", self.flag))
        })
    }
}

/// What the environment says about a shared cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedVariables {
    /// `KILN_SHARED_CACHE`.
    pub(crate) url: Option<String>,
    /// `KILN_SHARED_CACHE_MODE`.
    pub(crate) mode: Option<String>,
    /// `KILN_SHARED_CACHE_KEY`: a file.
    pub(crate) key: Option<PathBuf>,
    /// The clouds' own variables.
    pub(crate) clouds: Clouds,
}

/// What the environment says about Google's command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct GcloudVariables {
    /// Its own directory: `CLOUDSDK_CONFIG`, or its usual place.
    pub(crate) directory: Option<PathBuf>,
    /// Whether `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` names certificates, which count more than its own setting.
    pub(crate) certificates: bool,
}

/// A secret, which no message shows.
#[derive(Clone, Default)]
pub(crate) struct Secret(pub(crate) Option<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the environment says about a build server.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteVariables {
    /// `KILN_SERVER`.
    pub(crate) server: Option<String>,
    /// `KILN_TOKEN`.
    pub(crate) token: Secret,
    /// `KILN_TOKEN_FILE`.
    pub(crate) token_file: Option<PathBuf>,
}

/// What all commands work with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    cache: Directory,
    state: Directory,
    config: Directory,
    source_date_epoch: Option<OsString>,
    /// `--within`
    pub(crate) within: Option<PathBuf>,
    /// `--from-elsewhere`
    pub(crate) from_elsewhere: bool,
    /// How much is said.
    pub(crate) verbosity: Verbosity,
    /// How progress appears.
    pub(crate) progress: ProgressStyle,
    /// Whether results are coloured.
    pub(crate) stdout_color: bool,
    /// Whether human text is coloured.
    pub(crate) stderr_color: bool,
    /// Proxies for downloads.
    pub(crate) proxies: Proxies,
    /// What the environment says about a shared cache.
    pub(crate) shared: SharedVariables,
    /// What the environment says about Google's command line.
    pub(crate) gcloud: GcloudVariables,
    /// What the environment says about a build server.
    pub(crate) remote: RemoteVariables,
    /// What goes on to the builds of a server.
    pub(crate) handed_on: Clouds,
    /// `PATH`: QEMU is looked for there.
    pub(crate) path: OsString,
    /// `TERM`, handed on to interactive shells.
    pub(crate) term: Option<String>,
    /// Whether the user sits in a graphical session.
    pub(crate) desktop_session: bool,
    /// Processors that this process may use.
    pub(crate) processors: usize,
}

impl Settings {
    /// Settles every choice that the global options and the environment leave open.
    pub(crate) fn resolve(global: &Global, environment: &Environment) -> Self {
        let verbosity = match (global.quiet, global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        };
        Settings {
            cache: directory(
                environment,
                &global.cache_dir,
                "caches",
                "--cache-dir",
                "XDG_CACHE_HOME",
                ".cache",
            ),
            state: directory(
                environment,
                &global.state_dir,
                "state",
                "--state-dir",
                "XDG_STATE_HOME",
                ".local/state",
            ),
            config: directory(
                environment,
                &global.config_dir,
                "configuration",
                "--config-dir",
                "XDG_CONFIG_HOME",
                ".config",
            ),
            source_date_epoch: environment.get("SOURCE_DATE_EPOCH").map(OsStr::to_owned),
            within: global.within.clone(),
            from_elsewhere: global.from_elsewhere,
            verbosity,
            progress: progress_style(global.log_format, environment),
            stdout_color: colored(global.color, environment, environment.stdout_terminal),
            stderr_color: colored(global.color, environment, environment.stderr_terminal),
            proxies: proxies(environment),
            shared: SharedVariables {
                url: environment.text("KILN_SHARED_CACHE").map(str::to_owned),
                mode: environment
                    .text("KILN_SHARED_CACHE_MODE")
                    .map(str::to_owned),
                key: environment.get("KILN_SHARED_CACHE_KEY").map(PathBuf::from),
                clouds: environment.clouds.clone(),
            },
            gcloud: GcloudVariables {
                directory: environment
                    .directory("CLOUDSDK_CONFIG")
                    .or_else(|| Some(environment.directory("HOME")?.join(".config/gcloud"))),
                certificates: ["CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"]
                    .iter()
                    .any(|name| environment.get(name).is_some()),
            },
            remote: RemoteVariables {
                server: environment.text("KILN_SERVER").map(str::to_owned),
                token: Secret(environment.text("KILN_TOKEN").map(str::to_owned)),
                token_file: environment.get("KILN_TOKEN_FILE").map(PathBuf::from),
            },
            handed_on: environment.handed_on(),
            // Without it no program is found.
            path: environment.get("PATH").unwrap_or(OsStr::new("")).to_owned(),
            term: environment.text("TERM").map(str::to_owned),
            desktop_session: ["DISPLAY", "WAYLAND_DISPLAY"]
                .iter()
                .any(|name| environment.get(name).is_some()),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }

    /// Where downloads, layers and staging live.
    pub(crate) fn cache_dir(&self) -> Result<&Path, Failure> {
        self.cache.require()
    }

    /// Where the record of the last failure lives.
    pub(crate) fn state_dir(&self) -> Result<&Path, Failure> {
        self.state.require()
    }

    /// Where the user's configuration lives.
    pub(crate) fn config_dir(&self) -> Result<&Path, Failure> {
        self.config.require()
    }

    /// The user's files, of which a definition may read those beside it and in these directories.
    pub(crate) fn files(&self, include_path: &[PathBuf]) -> Files {
        let files = Files::of_disk(Path::new("")).allow(include_path);
        files.within(self.within.as_deref())
    }

    /// Proxies for fetching.
    pub(crate) fn proxies(&self) -> kiln_engine::Proxies {
        kiln_engine::Proxies {
            http: self.proxies.http.clone(),
            https: self.proxies.https.clone(),
            exceptions: self.proxies.exempt.clone(),
        }
    }

    /// `SOURCE_DATE_EPOCH` in seconds since 1970, if set.
    pub(crate) fn source_date_epoch(&self) -> Result<Option<i64>, Failure> {
        let Some(value) = &self.source_date_epoch else {
            return Ok(None);
        };
        let seconds = value
            .to_str()
            .and_then(|text| text.parse::<i64>().ok())
            .filter(|seconds| *seconds >= 0);
        seconds.map(Some).ok_or_else(|| {
            let message =
                format!("SOURCE_DATE_EPOCH is {value:?}, not a count of seconds since 1970");
            Failure::new(FailureKind::Usage, message)
                .hint("unset it, or set it to the output of `date +%s`")
        })
    }
}

fn directory(
    environment: &Environment,
    given: &Option<PathBuf>,
    what: &'static str,
    flag: &'static str,
    variable: &'static str,
    below_home: &str,
) -> Directory {
    let path = given
        .clone()
        .or_else(|| Some(environment.directory(variable)?.join("kiln")))
        .or_else(|| Some(environment.directory("HOME")?.join(below_home).join("kiln")));
    Directory {
        path,
        what,
        flag,
        variable,
    }
}

fn progress_style(format: LogFormat, environment: &Environment) -> ProgressStyle {
    let can_move =
        environment.stderr_terminal && environment.text("TERM").is_some_and(|term| term != "dumb");
    match format {
        LogFormat::Json => ProgressStyle::Json,
        LogFormat::Human if can_move => ProgressStyle::Live,
        LogFormat::Human => ProgressStyle::Plain,
    }
}

/// Whether a stream gets colours: the flag, then `NO_COLOR`, `CLICOLOR_FORCE`, `CLICOLOR` and the terminal.
pub(crate) fn colored(when: ColorWhen, environment: &Environment, terminal: bool) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto if environment.get("NO_COLOR").is_some() => false,
        ColorWhen::Auto
            if environment
                .get("CLICOLOR_FORCE")
                .is_some_and(|force| force != "0") =>
        {
            true
        }
        ColorWhen::Auto
            if environment
                .get("CLICOLOR")
                .is_some_and(|wanted| wanted == "0") =>
        {
            false
        }
        ColorWhen::Auto => terminal && environment.text("TERM") != Some("dumb"),
    }
}

/// The lower-case names count first. `HTTP_PROXY` is left out on purpose: a web server's CGI sets it from a
/// request header, which is why curl ignores it too.
fn proxies(environment: &Environment) -> Proxies {
    let first = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| environment.text(name))
            .map(str::to_owned)
    };
    Proxies {
        http: first(&["http_proxy", "all_proxy"]),
        https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy"]),
        exempt: first(&["no_proxy", "NO_PROXY"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&'static str, &str)]) -> Environment {
        let variables = variables
            .iter()
            .map(|(name, value)| (*name, OsString::from(value)))
            .collect();
        Environment {
            variables,
            ..Environment::default()
        }
    }

    fn color(variables: &[(&'static str, &str)], terminal: bool) -> bool {
        colored(ColorWhen::Auto, &environment(variables), terminal)
    }

    #[test]
    fn colours_follow_the_terminal_and_the_variables() {
        assert!(color(&[], true));
        assert!(!color(&[], false));
        assert!(!color(&[("NO_COLOR", "1")], true));
        assert!(
            color(&[("NO_COLOR", "")], true),
            "an empty NO_COLOR counts as unset"
        );
        assert!(!color(&[("CLICOLOR", "0")], true));
        assert!(color(&[("CLICOLOR", "1")], true));
        assert!(!color(&[("CLICOLOR", "1")], false));
        assert!(color(&[("CLICOLOR_FORCE", "1")], false));
        assert!(!color(&[("CLICOLOR_FORCE", "0")], false));
        assert!(!color(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], true));
        assert!(!color(&[("TERM", "dumb")], true));
    }

    #[test]
    fn the_flag_beats_the_variables() {
        let loud = environment(&[("CLICOLOR_FORCE", "1")]);
        assert!(!colored(ColorWhen::Never, &loud, true));
        assert!(colored(
            ColorWhen::Always,
            &environment(&[("NO_COLOR", "1")]),
            false
        ));
    }

    fn settings(global: Global, variables: &[(&'static str, &str)]) -> Settings {
        Settings::resolve(&global, &environment(variables))
    }

    #[test]
    fn directories_come_from_the_flag_then_xdg_then_home() {
        let variables = [("HOME", "/h"), ("XDG_CACHE_HOME", "/c")];
        let plain = settings(Global::default(), &variables);
        assert_eq!(plain.cache_dir().unwrap(), Path::new("/c/kiln"));
        assert_eq!(
            plain.state_dir().unwrap(),
            Path::new("/h/.local/state/kiln")
        );
        assert_eq!(plain.config_dir().unwrap(), Path::new("/h/.config/kiln"));
        let moved = Global {
            cache_dir: Some("/elsewhere".into()),
            ..Global::default()
        };
        assert_eq!(
            settings(moved, &variables).cache_dir().unwrap(),
            Path::new("/elsewhere")
        );
    }

    #[test]
    fn a_relative_xdg_directory_is_ignored() {
        let found = settings(
            Global::default(),
            &[("HOME", "/h"), ("XDG_CACHE_HOME", "c")],
        );
        assert_eq!(found.cache_dir().unwrap(), Path::new("/h/.cache/kiln"));
    }

    #[test]
    fn no_home_at_all_is_the_environments_fault() {
        let failure = settings(Global::default(), &[]).cache_dir().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Environment);
        assert_eq!(
            failure.message,
            "no directory for caches: neither XDG_CACHE_HOME nor HOME is set"
        );
        assert_eq!(failure.hints, ["name one with --cache-dir"]);
    }

    #[test]
    fn source_date_epoch_must_be_a_number() {
        let epoch =
            |text| settings(Global::default(), &[("SOURCE_DATE_EPOCH", text)]).source_date_epoch();
        assert_eq!(epoch("1700000000").unwrap(), Some(1_700_000_000));
        assert_eq!(epoch("").unwrap(), None);
        assert_eq!(epoch("yesterday").unwrap_err().kind, FailureKind::Usage);
        assert_eq!(epoch("-1").unwrap_err().kind, FailureKind::Usage);
    }

    #[test]
    fn proxies_prefer_lower_case_and_ignore_http_proxy_in_capitals() {
        let found = settings(
            Global::default(),
            &[
                ("all_proxy", "http://a"),
                ("HTTPS_PROXY", "http://B"),
                ("https_proxy", "http://b"),
                ("NO_PROXY", "x"),
            ],
        );
        let expected = Proxies {
            http: Some("http://a".into()),
            https: Some("http://b".into()),
            exempt: Some("x".into()),
        };
        assert_eq!(found.proxies, expected);
    }
}

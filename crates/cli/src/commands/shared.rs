//! Where the shared cache is: the option, the environment, then the user's configuration.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use kiln_engine::{Failure, FailureKind, SharedCache, SharedKey, SharedOptions};
use serde::Deserialize;

use crate::args::{SharedArgs, SharedMode};
use crate::settings::Settings;

/// The user's configuration, below the configuration directory.
const CONFIG: &str = "config.toml";
/// Stands for no shared cache.
const OFF: &str = "off";

/// `config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    shared_cache: Section,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    url: Option<String>,
    mode: Option<String>,
    /// Relative to the file's directory.
    key: Option<PathBuf>,
}

/// The shared cache of a build, if there is one.
///
/// # Errors
/// The configuration or the key cannot be read, or makes no sense.
pub(super) fn resolve(
    args: &SharedArgs,
    settings: &Settings,
) -> Result<Option<SharedCache>, Failure> {
    // A machine without a home has no configuration either.
    let config = match settings.config_dir() {
        Ok(directory) => read(directory)?,
        Err(_) => Section::default(),
    };
    let variables = &settings.shared;
    let url = args.shared_cache.clone();
    let url = url.or_else(|| variables.url.clone()).or(config.url);
    let Some(url) = url.filter(|url| url != OFF) else {
        return Ok(None);
    };
    let mode = match (
        args.shared_cache_mode,
        variables.mode.as_ref().or(config.mode.as_ref()),
    ) {
        (Some(mode), _) => mode,
        (None, Some(text)) => mode(text)?,
        (None, None) => SharedMode::ReadWrite,
    };
    let path = args.shared_cache_key.clone();
    let path = path.or_else(|| variables.key.clone()).or(config.key);
    let options = SharedOptions {
        url,
        key: path.as_deref().map(key).transpose()?,
        settings: variables.clouds.0.clone(),
        proxy: settings.proxies.https.clone(),
        no_proxy: settings.proxies.exempt.clone(),
        ..SharedOptions::default()
    };
    Ok(Some(SharedCache {
        options,
        writable: mode == SharedMode::ReadWrite,
    }))
}

fn mode(text: &str) -> Result<SharedMode, Failure> {
    SharedMode::from_str(text, false).map_err(|_| {
        let message = format!("{text:?} is no mode of a shared cache");
        Failure::new(FailureKind::Usage, message).hint("it is `read` or `read-write`")
    })
}

fn key(path: &Path) -> Result<SharedKey, Failure> {
    let what = "the shared cache's key";
    let hint = "`openssl rand -hex 32 > FILE` makes one; all machines need the same";
    let content = secret(path, what, hint)?;
    SharedKey::new(&content).map_err(|error| unusable(path, what, hint, error.to_string()))
}

fn unusable(path: &Path, what: &str, hint: &str, why: String) -> Failure {
    let message = format!("{what} {} cannot be used", path.display());
    Failure::new(FailureKind::Environment, message)
        .cause(why)
        .hint(hint)
}

/// What a file holds that nobody else may read.
///
/// # Errors
/// It cannot be read, or others can read or change it.
pub(super) fn secret(path: &Path, what: &str, hint: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |error: std::io::Error| unusable(path, what, hint, error.to_string());
    let mut file = File::open(path).map_err(wrong)?;
    let found = file.metadata().map_err(wrong)?;
    if let Some(why) = exposed(&found, rustix::process::geteuid().as_raw()) {
        let message = format!("{what} {} is no secret", path.display());
        return Err(Failure::new(FailureKind::Environment, message)
            .cause(why)
            .hint(format!(
                "`chmod 600 {}`; take a new key if others may have read it",
                path.display()
            )));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(wrong)?;
    Ok(content)
}

/// Why a key's file does not keep it secret. Root may give a key to a group of users.
fn exposed(found: &Metadata, user: u32) -> Option<String> {
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let others = match owner {
        _ if owner == user => 0o077,
        0 => 0o037,
        _ => {
            return Some(format!(
                "it belongs to user {owner}, who can read and change it"
            ));
        }
    };
    (found.is_file() && mode & others != 0)
        .then(|| format!("others may read or change it (mode {mode:04o})"))
}

fn read(directory: &Path) -> Result<Section, Failure> {
    let path = directory.join(CONFIG);
    let unusable = |why: String| {
        let message = format!("{} cannot be used", path.display());
        Failure::new(FailureKind::Usage, message).cause(why)
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Section::default()),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let config: Config = toml::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    let mut section = config.shared_cache;
    section.key = section.key.map(|key| directory.join(key));
    Ok(section)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::args::Global;
    use crate::settings::Environment;

    fn settings(directory: &Path) -> Settings {
        let global = Global {
            config_dir: Some(directory.to_owned()),
            ..Global::default()
        };
        Settings::resolve(&global, &Environment::default())
    }

    fn resolved(args: &SharedArgs, directory: &Path) -> Option<SharedCache> {
        resolve(args, &settings(directory)).expect("a usable configuration")
    }

    #[test]
    fn the_option_beats_the_configuration() {
        let directory = tempfile::tempdir().expect("a directory");
        let none = SharedArgs::default();
        assert!(resolved(&none, directory.path()).is_none());
        let secret = directory.path().join("secret");
        fs::write(&secret, "0123456789abcdef0123").expect("a key");
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("a mode");
        let text = "[shared-cache]\nurl = \"s3://a/b\"\nmode = \"read\"\nkey = \"secret\"\n";
        fs::write(directory.path().join(CONFIG), text).expect("a configuration");
        let found = resolved(&none, directory.path()).expect("one");
        assert_eq!(found.options.url, "s3://a/b");
        assert!(found.options.key.is_some());
        assert!(!found.writable);
        let given = SharedArgs {
            shared_cache: Some("file:///x".to_owned()),
            shared_cache_mode: Some(SharedMode::ReadWrite),
            ..SharedArgs::default()
        };
        let found = resolved(&given, directory.path()).expect("one");
        assert_eq!(found.options.url, "file:///x");
        assert!(found.writable);
        let off = SharedArgs {
            shared_cache: Some(OFF.to_owned()),
            ..SharedArgs::default()
        };
        assert!(resolved(&off, directory.path()).is_none());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        fs::write(&path, "0123456789abcdef0123").expect("a key");
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
            let args = SharedArgs {
                shared_cache: Some("file:///x".to_owned()),
                shared_cache_key: Some(path.clone()),
                ..SharedArgs::default()
            };
            match resolve(&args, &settings(directory.path())) {
                Ok(_) => assert!(fine, "{mode:o}"),
                Err(failure) => {
                    assert!(!fine, "{mode:o}: {failure:?}");
                    assert!(failure.hints[0].contains("chmod 600"), "{failure:?}");
                    assert_eq!(failure.kind, FailureKind::Environment);
                }
            }
        }
        let found = fs::metadata(&path).expect("a file");
        assert!(
            exposed(&found, found.uid() + 1).is_some(),
            "somebody else's"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        for (text, kind) in [
            (
                "[shared-cache]\nmode = \"sideways\"\nurl = \"file:///x\"",
                FailureKind::Usage,
            ),
            ("[shared-cache]\nsecret = \"x\"", FailureKind::Usage),
            ("[shared-cache", FailureKind::Usage),
            (
                "[shared-cache]\nurl = \"file:///x\"\nkey = \"absent\"",
                FailureKind::Environment,
            ),
        ] {
            fs::write(directory.path().join(CONFIG), text).expect("a configuration");
            let failure = resolve(&SharedArgs::default(), &settings(directory.path()));
            assert_eq!(failure.expect_err(text).kind, kind, "{text}");
        }
    }
}

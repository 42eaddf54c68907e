//! `notify.toml` in the data directory: who is told of which builds. Secrets stand in files of their own.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::{Host, Url};

use super::Tell;
use super::commit::CommitStatus;
use super::mail::{Mail, Place, Security};
use super::message::Message;
use super::ntfy::Ntfy;
use super::webhook::Webhook;

const NAME: &str = "notify.toml";
/// Builds with this before a target's name among their tags ask for it.
const TAG: &str = "notify-";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{0} cannot be read")]
    File(PathBuf, #[source] io::Error),
    /// It says something that is not understood.
    #[error("{0}: {1}")]
    Wrong(PathBuf, String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    target: Vec<Entry>,
}

/// What is in no kind is refused by that kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    name: String,
    #[serde(default = "on_ends")]
    on: Vec<On>,
    #[serde(default)]
    builds: Builds,
    #[serde(flatten)]
    kind: Kind,
}

/// When a target is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum On {
    Start,
    Success,
    Failure,
}

fn on_ends() -> Vec<On> {
    vec![On::Success, On::Failure]
}

/// Of which builds a target is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Builds {
    /// Of all.
    #[default]
    All,
    /// Of those with the tag `notify-NAME`.
    Tagged,
}

#[derive(Debug, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
enum Kind {
    Webhook {
        url: String,
        secret_file: Option<PathBuf>,
    },
    Ntfy {
        url: String,
        token_file: Option<PathBuf>,
    },
    CommitStatus {
        url: String,
        token_file: PathBuf,
    },
    Mail {
        server: String,
        password_file: Option<PathBuf>,
        from: String,
        to: Vec<String>,
    },
}

/// Somebody who is told.
pub struct Target {
    /// Its name.
    pub name: String,
    on: Vec<On>,
    builds: Builds,
    how: Box<dyn Tell>,
}

impl Target {
    /// Whether it is to be told of a status of a build with these tags.
    pub(super) fn wants(&self, status: &str, tags: &[String]) -> bool {
        let on = match status {
            "WORKING" => On::Start,
            "SUCCESS" => On::Success,
            "QUEUED" => return false,
            _ => On::Failure,
        };
        let named = || {
            tags.iter()
                .any(|tag| tag.strip_prefix(TAG) == Some(&self.name))
        };
        self.on.contains(&on) && (self.builds == Builds::All || named())
    }

    pub(super) fn tell(&self, message: &Message<'_>) -> Result<(), super::Trouble> {
        self.how.tell(message)
    }
}

/// Reads who is told; nobody, if there is no file.
///
/// # Errors
/// The file or a file of a secret cannot be read, or is not understood.
pub fn read(data: &Path) -> Result<Vec<Target>, Error> {
    let path = data.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::File(path, error)),
    };
    let wrong = |why: String| Error::Wrong(path.clone(), why);
    let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut targets: Vec<Target> = Vec::new();
    for entry in file.target {
        let name = entry.name;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(wrong(format!(
                "{name:?} is no name: letters, digits, - _ . are"
            )));
        }
        if targets.iter().any(|target| target.name == name) {
            return Err(wrong(format!("two targets are named {name}")));
        }
        let how = how(entry.kind, data).map_err(|why| wrong(format!("target {name}: {why}")))?;
        targets.push(Target {
            name,
            on: entry.on,
            builds: entry.builds,
            how,
        });
    }
    Ok(targets)
}

fn how(kind: Kind, data: &Path) -> Result<Box<dyn Tell>, String> {
    let token = |file: PathBuf| secret(&data.join(file));
    let secret = |file: Option<PathBuf>| file.map(token).transpose();
    Ok(match kind {
        Kind::Webhook { url, secret_file } => {
            let secret = secret(secret_file)?;
            // What signs does not go along.
            Box::new(Webhook {
                url: address(&url, false)?,
                secret,
            })
        }
        Kind::Ntfy { url, token_file } => {
            let token = secret(token_file)?;
            Box::new(Ntfy {
                url: address(&url, token.is_some())?,
                token,
            })
        }
        Kind::CommitStatus { url, token_file } => {
            if !url.contains("{commit}") {
                return Err("its url needs {commit} where the commit's name goes".to_owned());
            }
            let token = token(token_file)?;
            address(&url.replace("{commit}", "0"), true)?;
            Box::new(CommitStatus { url, token })
        }
        Kind::Mail {
            server,
            password_file,
            from,
            to,
        } => {
            let place = place(&server, secret(password_file)?)?;
            if to.is_empty() {
                return Err("it names nobody to write to".to_owned());
            }
            Box::new(Mail::new(place, &from, &to)?)
        }
    })
}

/// A secret that only its owner can read.
fn secret(file: &Path) -> Result<String, String> {
    let trouble = |error: io::Error| format!("{} cannot be read: {error}", file.display());
    let mode = fs::metadata(file).map_err(trouble)?.permissions().mode();
    if mode & 0o077 != 0 {
        let shown = file.display();
        return Err(format!("{shown} can be read by others: chmod 600 {shown}"));
    }
    let text = fs::read_to_string(file).map_err(trouble)?;
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!(
            "{} does not hold one line with a secret",
            file.display()
        ));
    }
    Ok(text.to_owned())
}

/// Checks an address. What carries a token goes to this machine or over TLS.
fn address(text: &str, carries: bool) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no address: {error}"))?;
    match url.scheme() {
        "https" => Ok(text.to_owned()),
        "http" if !carries || is_here(&url) => Ok(text.to_owned()),
        "http" => Err(format!(
            "{text} would carry the token in the clear: use https://"
        )),
        _ => Err(format!("{text} is no address of the web: use https://")),
    }
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// `smtps://[USER@]HOST[:PORT]` (TLS), `smtp://…` (STARTTLS), `smtp+plain://…` (neither; only this machine).
fn place(text: &str, password: Option<String>) -> Result<Place, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no address: {error}"))?;
    let security = match url.scheme() {
        "smtps" => Security::Tls,
        "smtp" => Security::StartTls,
        // Hosts of unknown schemes are not parsed as addresses.
        "smtp+plain" if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) => {
            Security::None
        }
        _ => {
            return Err(format!(
                "{text} is no mail server: smtps://[USER@]HOST[:PORT], smtp:// for STARTTLS, smtp+plain:// for this machine"
            ));
        }
    };
    if url.password().is_some() {
        return Err("a password stands in a file: password-file".to_owned());
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let user = match (url.username(), password) {
        ("", None) => None,
        (user, Some(password)) if !user.is_empty() => Some((decoded(user), password)),
        _ => return Err("a user needs a password-file, and the other way round".to_owned()),
    };
    Ok(Place {
        host: host
            .ok_or_else(|| format!("{text} names no host"))?
            .to_owned(),
        port: url.port(),
        security,
        user,
    })
}

fn decoded(user: &str) -> String {
    percent_encoding::percent_decode_str(user)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Target>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("key", 0o600), ("open", 0o644)] {
            fs::write(dir.path().join(name), "secret\n").unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(dir.path().join(NAME), text).unwrap();
        read(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn all_kinds_are_read() {
        let targets = read_text(
            "[[target]]\nname = \"robot\"\nkind = \"webhook\"\nurl = \"http://hook.example/x\"\nsecret-file = \"key\"\n\
             [[target]]\nname = \"phone\"\nkind = \"ntfy\"\nurl = \"https://ntfy.example/t\"\non = [\"failure\"]\nbuilds = \"tagged\"\n\
             [[target]]\nname = \"git\"\nkind = \"commit-status\"\nurl = \"https://git.example/statuses/{commit}\"\ntoken-file = \"key\"\non = [\"start\", \"success\", \"failure\"]\n\
             [[target]]\nname = \"staff\"\nkind = \"mail\"\nserver = \"smtps://ann%40x@mail.example\"\npassword-file = \"key\"\nfrom = \"Kiln <k@x.example>\"\nto = [\"a@x.example\"]\n",
        );
        let targets = targets.unwrap();
        let told = |status: &str, tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let wants = targets.iter().filter(|target| target.wants(status, &tags));
            wants.map(|target| target.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(
            told("SUCCESS", &["notify-phone"]),
            ["robot", "git", "staff"]
        );
        assert_eq!(
            told("TIMEOUT", &["notify-phone"]),
            ["robot", "phone", "git", "staff"]
        );
        assert_eq!(told("FAILURE", &["phone"]), ["robot", "git", "staff"]);
        assert_eq!(told("WORKING", &[]), ["git"]);
        assert!(read(Path::new("/nowhere")).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let one = |rest: &str| {
            read_text(&format!("[[target]]\nname = \"a\"\n{rest}"))
                .err()
                .unwrap_or_default()
        };
        for (text, expected) in [
            (
                "kind = \"ntfy\"\nurl = \"http://n.example\"\ntoken-file = \"key\"",
                "in the clear",
            ),
            (
                "kind = \"ntfy\"\nurl = \"https://n.example\"\ntoken-file = \"open\"",
                "chmod 600",
            ),
            (
                "kind = \"ntfy\"\nurl = \"https://n.example\"\ntoken-file = \"none\"",
                "cannot be read",
            ),
            (
                "kind = \"ntfy\"\nurl = \"file:///etc\"",
                "no address of the web",
            ),
            (
                "kind = \"commit-status\"\nurl = \"https://g.example\"\ntoken-file = \"key\"",
                "{commit}",
            ),
            (
                "kind = \"mail\"\nserver = \"smtp+plain://mail.example\"\nfrom = \"a@b\"\nto = [\"a@b\"]",
                "no mail server",
            ),
            (
                "kind = \"mail\"\nserver = \"smtps://a:b@mail.example\"\nfrom = \"a@b\"\nto = [\"a@b\"]",
                "password-file",
            ),
            (
                "kind = \"mail\"\nserver = \"smtps://mail.example\"\nfrom = \"a b\"\nto = [\"a@b\"]",
                "no mail address",
            ),
            ("kind = \"pigeon\"", "pigeon"),
            (
                "kind = \"ntfy\"\nurl = \"https://n.example\"\ntokn-file = \"key\"",
                "tokn-file",
            ),
            (
                "kind = \"ntfy\"\nurl = \"https://n.example\"\n[[target]]\nname = \"a\"\nkind = \"ntfy\"\nurl = \"https://n.example\"",
                "two targets",
            ),
        ] {
            let said = one(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}

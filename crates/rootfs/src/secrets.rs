//! What every machine must have of its own: keys and ids that package scripts make while they are installed would be the same
//! on every stick, and known to all who have one. They are removed, and made again at boot.
//!
//! What the definition brought stays: `packages` is a tree of the layers that packages made, and nothing else. A file that is
//! the same there was made by a package; one that is not there, or is another one there, was put in its place on purpose.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::regular;
use kiln_packages::glob_matches;
use serde::{Deserialize, Serialize};

/// What became of the keys and ids in a root. All paths are absolute in it, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Removed; made again at every boot of the stick.
    pub remade: Vec<String>,
    /// Removed; what needs them makes them.
    pub removed: Vec<String>,
    /// Put there by the definition's scripts, files or commands, and left: every stick has the same.
    pub kept: Vec<String>,
    /// Private keys that packages made and nobody can make again: every stick has the same.
    pub shared: Vec<String>,
}

/// What only a family knows of the keys in its roots.
pub(crate) struct Ways {
    /// The service that runs sshd.
    pub(crate) ssh_service: &'static str,
    /// Directories of the package manager below `/var/lib`, in which there are no keys.
    pub(crate) databases: &'static [&'static str],
    /// Returns the absolute paths of the files that packages brought to a root, which are public.
    pub(crate) brought: fn(&Path) -> io::Result<HashSet<String>>,
}

impl Ways {
    /// Of a family that knows nothing: a key that a package brought is told as one that its scripts made.
    pub(crate) const COMMON: Ways = Ways {
        ssh_service: "sshd",
        databases: &[],
        brought: |_| Ok(HashSet::new()),
    };
}

/// Files that belong together, and how they are made anew. `*` stands for a part of a name.
struct Recipe {
    paths: &'static [&'static str],
    /// What has to be there to make them.
    program: &'static str,
    /// For `/bin/sh`; nothing where the program makes them by itself.
    remake: &'static str,
}

const RECIPES: &[Recipe] = &[
    Recipe {
        paths: &[
            "/etc/ssl/private/ssl-cert-snakeoil.key",
            "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        ],
        program: "/usr/sbin/make-ssl-cert",
        remake: "/usr/sbin/make-ssl-cert generate-default-snakeoil --force-overwrite",
    },
    Recipe {
        paths: &["/etc/bind/rndc.key"],
        program: "/usr/sbin/rndc-confgen",
        remake: "/usr/sbin/rndc-confgen -a -c /etc/bind/rndc.key",
    },
    Recipe {
        paths: &["/etc/dropbear/dropbear_*_host_key"],
        program: "/usr/bin/dropbearkey",
        remake: "/usr/bin/dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key",
    },
    Recipe {
        paths: &["/etc/xrdp/rsakeys.ini"],
        program: "/usr/bin/xrdp-keygen",
        remake: "/usr/bin/xrdp-keygen xrdp /etc/xrdp/rsakeys.ini",
    },
    Recipe {
        paths: &[
            "/etc/unbound/unbound_control.key",
            "/etc/unbound/unbound_control.pem",
            "/etc/unbound/unbound_server.key",
            "/etc/unbound/unbound_server.pem",
        ],
        program: "/usr/sbin/unbound-control-setup",
        remake: "/usr/sbin/unbound-control-setup",
    },
    Recipe {
        paths: &["/etc/nvme/hostid", "/etc/nvme/hostnqn"],
        program: "/usr/sbin/nvme",
        remake: "cat /proc/sys/kernel/random/uuid >/etc/nvme/hostid; /usr/sbin/nvme gen-hostnqn >/etc/nvme/hostnqn",
    },
    // Made by what uses them.
    Recipe {
        paths: &[
            "/etc/cups/ssl/*",
            "/var/lib/NetworkManager/*.lease",
            "/var/lib/NetworkManager/secret_key",
            "/var/lib/NetworkManager/seen-bssids",
            "/var/lib/NetworkManager/timestamps",
            // Signs the modules that are built on the machine. The certificate stays: it knows those that the image has.
            "/var/lib/dkms/mok.key",
            "/var/lib/dhcp/*.lease*",
            "/var/lib/dhcpcd/*.lease*",
            "/var/lib/libuuid/clock.txt",
            "/var/lib/sss/secrets/*",
            "/var/lib/systemd/credential.secret",
            "/var/lib/systemd/random-seed",
            "/var/lib/urandom/random-seed",
        ],
        program: "",
        remake: "",
    },
];

/// Settings with an id in a line of their own: how the line begins, what Kiln writes for it, and what makes it anew at boot.
const LINES: &[(&str, &str, &str, &str)] = &[
    (
        "/etc/popularity-contest.conf",
        "MY_HOSTID=",
        "MY_HOSTID=\"\"",
        "sed -i \"s/^MY_HOSTID=.*/MY_HOSTID=\\\"$(tr -d - </proc/sys/kernel/random/uuid)\\\"/\" /etc/popularity-contest.conf",
    ),
    // open-iscsi's own start script makes the name.
    (
        "/etc/iscsi/initiatorname.iscsi",
        "InitiatorName=",
        "GenerateName=yes",
        "",
    ),
];

/// Where private keys are looked for that no recipe knows. Others (`/usr`) belong to packages, which bring the same to everybody.
const SEARCHED: &[&str] = &["/etc", "/opt", "/root", "/srv", "/var/lib"];

/// A key is not larger.
const LARGEST_KEY: u64 = 64 << 10;

/// Removes what has to be each machine's own below `root`. `ssh` keys are [`crate::finish`]'s part.
pub(crate) fn remove(root: &Path, packages: &Path, ways: &Ways) -> io::Result<Secrets> {
    let trees = Trees { root, packages };
    let mut secrets = Secrets::default();
    let mut script = String::new();
    for recipe in RECIPES {
        trees.recipe(recipe, &mut secrets, &mut script)?;
    }
    for line in LINES {
        trees.line(*line, &mut secrets, &mut script)?;
    }
    trees.search(ways, &mut secrets)?;
    if !script.is_empty() {
        trees.at_boot(&script)?;
    }
    for list in [
        &mut secrets.remade,
        &mut secrets.removed,
        &mut secrets.kept,
        &mut secrets.shared,
    ] {
        list.sort();
        list.dedup();
    }
    Ok(secrets)
}

/// A root, and the tree of what packages made of it.
pub(crate) struct Trees<'a> {
    pub(super) root: &'a Path,
    pub(super) packages: &'a Path,
}

impl Trees<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether a file is the one that packages made.
    pub(crate) fn is_of_packages(&self, path: &str) -> io::Result<bool> {
        let theirs = self.packages.join(path.trim_start_matches('/'));
        match (regular::read(self.at(path)), regular::read(theirs)) {
            (Ok(here), Ok(there)) => Ok(here == there),
            (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            (Err(e), _) | (_, Err(e)) => Err(e),
        }
    }

    /// Files that a pattern names, whose last part may have one or two `*`. Directories and links are none.
    fn named(&self, pattern: &str) -> io::Result<Vec<String>> {
        let (above, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let entries = match fs::read_dir(self.at(above)) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Vec::new());
            }
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_file() && glob_matches(name.as_bytes(), file.as_bytes()) {
                found.push(format!("{above}/{file}"));
            }
        }
        Ok(found)
    }

    fn recipe(
        &self,
        recipe: &Recipe,
        secrets: &mut Secrets,
        script: &mut String,
    ) -> io::Result<()> {
        let mut found = Vec::new();
        for pattern in recipe.paths {
            found.extend(self.named(pattern)?);
        }
        let mut purposely = Vec::new();
        for path in &found {
            if !self.is_of_packages(path)? {
                purposely.push(path.clone());
            }
        }
        if recipe.remake.is_empty() {
            for path in found.iter().filter(|path| !purposely.contains(path)) {
                fs::remove_file(self.at(path))?;
                secrets.removed.push(path.clone());
            }
            secrets.kept.extend(purposely);
            return Ok(());
        }
        // A key and its certificate stay or go together; without the program they could only go.
        if !purposely.is_empty() || !self.at(recipe.program).exists() {
            secrets.kept.extend(purposely);
            return Ok(());
        }
        let Some(first) = found.first() else {
            return Ok(());
        };
        *script += &format!("if [ ! -s {first} ]; then\n    {}\n", recipe.remake);
        for path in &found {
            let there = fs::metadata(self.at(path))?;
            let (uid, gid, mode) = (there.uid(), there.gid(), there.mode() & 0o7777);
            *script += &format!(
                "    [ ! -e {path} ] || {{ chown {uid}:{gid} {path}; chmod {mode:o} {path}; }}\n"
            );
            fs::remove_file(self.at(path))?;
            self.remove_links_to(path)?;
        }
        *script += "fi\n";
        secrets.remade.extend(found);
        Ok(())
    }

    /// A certificate's directory has links that are named by its hash; the new one has another.
    fn remove_links_to(&self, path: &str) -> io::Result<()> {
        let path = Path::new(path);
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        for entry in fs::read_dir(self.at(&above.to_string_lossy()))? {
            let link = entry?.path();
            if fs::read_link(&link).is_ok_and(|target| target == name || target == path) {
                fs::remove_file(link)?;
            }
        }
        Ok(())
    }

    fn line(
        &self,
        (path, begins, instead, remake): (&str, &str, &str, &str),
        secrets: &mut Secrets,
        script: &mut String,
    ) -> io::Result<()> {
        let text = match regular::text(self.at(path)) {
            Ok(text) => text,
            Err(_) => return Ok(()),
        };
        let is_id = |line: &str| line.starts_with(begins) && line != instead;
        let theirs = regular::text(self.packages.join(path.trim_start_matches('/')));
        let Some(id) = text.lines().find(|line| is_id(line)) else {
            return Ok(());
        };
        if !theirs.is_ok_and(|theirs| theirs.lines().any(|line| line == id)) {
            secrets.kept.push(path.to_owned());
            return Ok(());
        }
        let of_line = |line| if is_id(line) { instead } else { line };
        let new: Vec<&str> = text.lines().map(of_line).collect();
        fs::write(self.at(path), new.join("\n") + "\n")?;
        match remake {
            "" => secrets.removed.push(path.to_owned()),
            _ => {
                *script += &format!("! grep -qxF '{instead}' {path} || {remake}\n");
                secrets.remade.push(path.to_owned());
            }
        }
        Ok(())
    }

    /// Looks for private keys that packages' scripts made and no recipe knows.
    fn search(&self, ways: &Ways, secrets: &mut Secrets) -> io::Result<()> {
        let mut candidates = Vec::new();
        for top in SEARCHED {
            self.candidates(top, ways, &mut candidates)?;
        }
        candidates.retain(|path| !secrets.kept.contains(path));
        if candidates.is_empty() {
            return Ok(());
        }
        // What a package brings as a file is public already.
        let brought = (ways.brought)(self.root)?;
        candidates.retain(|path| !brought.contains(path));
        for path in candidates {
            match self.is_of_packages(&path)? {
                true => secrets.shared.push(path),
                false => secrets.kept.push(path),
            }
        }
        Ok(())
    }

    fn candidates(&self, directory: &str, ways: &Ways, found: &mut Vec<String>) -> io::Result<()> {
        if ways.databases.contains(&directory) {
            return Ok(());
        }
        let entries = match fs::read_dir(self.at(directory)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = format!("{directory}/{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.candidates(&path, ways, found)?;
            } else if kind.is_file() && is_private_key(&entry.path(), &name)? {
                found.push(path);
            }
        }
        Ok(())
    }

    /// A unit that makes what was removed, before anything that needs it.
    fn at_boot(&self, commands: &str) -> io::Result<()> {
        let script = "/usr/lib/kiln/secrets";
        let wants = "/etc/systemd/system/sysinit.target.wants";
        for dir in ["/usr/lib/kiln", wants] {
            fs::create_dir_all(self.at(dir))?;
        }
        let text = format!(
            "#!/bin/sh\n# Written by Kiln: keys and ids that every machine has of its own.\n{commands}exit 0\n"
        );
        fs::write(self.at(script), text)?;
        fs::set_permissions(self.at(script), fs::Permissions::from_mode(0o755))?;
        fs::write(self.at("/etc/systemd/system/kiln-secrets.service"), UNIT)?;
        let link = self.at(&format!("{wants}/kiln-secrets.service"));
        match symlink("../kiln-secrets.service", link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }
}

const UNIT: &str = r"# Written by Kiln: packages made these while the image was built, the same for every stick.
[Unit]
Description=Make the keys and ids that every machine has of its own
DefaultDependencies=no
Conflicts=shutdown.target
After=local-fs.target systemd-tmpfiles-setup.service
Before=sysinit.target shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/kiln/secrets
";

/// Whether a file holds a private key. Only what looks like one from outside is opened.
fn is_private_key(path: &Path, name: &str) -> io::Result<bool> {
    let there = fs::symlink_metadata(path)?;
    let named = name.contains("key") || name.ends_with(".pem");
    if there.len() > LARGEST_KEY || !(named || there.mode() & 0o004 == 0) {
        return Ok(false);
    }
    let mut content = Vec::new();
    let file = regular::open(path)?;
    file.take(LARGEST_KEY).read_to_end(&mut content)?;
    let text = String::from_utf8_lossy(&content);
    Ok(text.lines().any(|line| {
        line.starts_with("-----BEGIN ") && line.trim_end().ends_with("PRIVATE KEY-----")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root whose files are `(path, what packages made, what is there in the end)`.
    fn root(files: &[(&str, Option<&str>, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (path, of_packages, there) in files {
            for (tree, content) in [("packages", *of_packages), ("root", Some(*there))] {
                if let Some(content) = content {
                    let path = place.path().join(tree).join(&path[1..]);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, content).unwrap();
                }
            }
        }
        place
    }

    /// Of a family whose packages brought an example.
    const WAYS: Ways = Ways {
        brought: |_| Ok(HashSet::from(["/etc/odd/example.key".to_owned()])),
        databases: &["/var/lib/manager"],
        ..Ways::COMMON
    };

    fn removed(place: &tempfile::TempDir) -> Secrets {
        let at = |name| place.path().join(name);
        remove(&at("root"), &at("packages"), &WAYS).unwrap()
    }

    fn there(place: &tempfile::TempDir, path: &str) -> Option<String> {
        fs::read_to_string(place.path().join("root").join(&path[1..])).ok()
    }

    const KEY: &str = "/etc/ssl/private/ssl-cert-snakeoil.key";
    const CERTIFICATE: &str = "/etc/ssl/certs/ssl-cert-snakeoil.pem";
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    #[test]
    fn keys_of_package_scripts_go_and_are_made_at_boot() {
        let place = root(&[
            ("/usr/sbin/make-ssl-cert", Some(""), ""),
            (KEY, Some(PEM), PEM),
            (CERTIFICATE, Some("c"), "c"),
            (
                "/etc/popularity-contest.conf",
                Some("A=1\nMY_HOSTID=\"77\"\n"),
                "A=1\nMY_HOSTID=\"77\"\nB=2\n",
            ),
            (
                "/etc/iscsi/initiatorname.iscsi",
                Some("InitiatorName=iqn.x\n"),
                "InitiatorName=iqn.x\n",
            ),
            ("/var/lib/dhcp/dhclient.eth0.leases", Some("lease"), "lease"),
        ]);
        let certs = place.path().join("root/etc/ssl/certs");
        symlink("ssl-cert-snakeoil.pem", certs.join("abcd1234.0")).unwrap();
        let secrets = removed(&place);
        assert_eq!(
            secrets.remade,
            ["/etc/popularity-contest.conf", CERTIFICATE, KEY]
        );
        assert_eq!(
            secrets.removed,
            [
                "/etc/iscsi/initiatorname.iscsi",
                "/var/lib/dhcp/dhclient.eth0.leases"
            ]
        );
        assert_eq!(
            (there(&place, KEY), there(&place, CERTIFICATE)),
            (None, None)
        );
        assert!(certs.join("abcd1234.0").symlink_metadata().is_err());
        assert_eq!(
            there(&place, "/etc/iscsi/initiatorname.iscsi").unwrap(),
            "GenerateName=yes\n"
        );
        assert_eq!(
            there(&place, "/etc/popularity-contest.conf").unwrap(),
            "A=1\nMY_HOSTID=\"\"\nB=2\n"
        );
        let script = there(&place, "/usr/lib/kiln/secrets").unwrap();
        assert!(
            script.contains("make-ssl-cert generate-default-snakeoil")
                && script.contains("MY_HOSTID"),
            "{script}"
        );
        assert!(
            there(
                &place,
                "/etc/systemd/system/sysinit.target.wants/kiln-secrets.service"
            )
            .is_some()
        );
    }

    #[test]
    fn a_key_that_signs_modules_goes_and_the_certificate_of_those_there_are_stays() {
        let (key, certificate) = ("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub");
        let place = root(&[
            (key, Some(PEM), PEM),
            (certificate, Some("der"), "der"),
            ("/usr/sbin/dkms", Some(""), ""),
        ]);
        let secrets = removed(&place);
        assert_eq!(secrets.removed, [key]);
        assert!(secrets.shared.is_empty() && secrets.kept.is_empty());
        assert_eq!(there(&place, key), None);
        assert_eq!(there(&place, certificate).as_deref(), Some("der"));
    }

    #[test]
    fn what_the_definition_brought_stays() {
        let place = root(&[
            ("/usr/sbin/make-ssl-cert", Some(""), ""),
            (KEY, Some(PEM), "-----BEGIN PRIVATE KEY-----\nmine\n"),
            (CERTIFICATE, Some("c"), "c"),
            (
                "/etc/iscsi/initiatorname.iscsi",
                Some("InitiatorName=iqn.x\n"),
                "InitiatorName=iqn.mine\n",
            ),
            ("/var/lib/NetworkManager/secret_key", None, "mine"),
            ("/opt/app/own.pem", None, PEM),
        ]);
        let secrets = removed(&place);
        assert!(
            secrets.remade.is_empty() && secrets.removed.is_empty() && secrets.shared.is_empty()
        );
        assert_eq!(
            secrets.kept,
            [
                "/etc/iscsi/initiatorname.iscsi",
                KEY,
                "/opt/app/own.pem",
                "/var/lib/NetworkManager/secret_key"
            ]
        );
        assert_eq!(there(&place, CERTIFICATE).unwrap(), "c");
        assert!(there(&place, "/usr/lib/kiln/secrets").is_none());
    }

    #[test]
    fn a_key_that_nobody_can_make_again_is_told() {
        let place = root(&[
            ("/etc/odd/server.key", Some(PEM), PEM),
            ("/etc/odd/example.key", Some(PEM), PEM),
            ("/var/lib/manager/own.key", Some(PEM), PEM),
            ("/etc/odd/monkey", Some("no key\n"), "no key\n"),
        ]);
        let secrets = removed(&place);
        assert_eq!(secrets.shared, ["/etc/odd/server.key"]);
        assert!(there(&place, "/etc/odd/server.key").is_some());
    }
}

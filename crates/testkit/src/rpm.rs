//! Small RPM repositories, made on the spot by rpm's and createrepo's own programs (Debian packages rpm, createrepo-c, gnupg).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package to be built: a name, version and release, and pieces of its spec file.
#[derive(Clone, Debug)]
pub struct Rpm {
    name: String,
    version: String,
    tags: String,
    files: Vec<(String, String, Vec<u8>)>,
    install: String,
    sections: String,
    payload: &'static str,
    arch: &'static str,
}

impl Rpm {
    /// A package of `noarch` with release 1 and nothing in it.
    pub fn new(name: &str, version: &str) -> Self {
        Rpm {
            name: name.to_owned(),
            version: version.to_owned(),
            tags: String::new(),
            files: Vec::new(),
            install: String::new(),
            sections: String::new(),
            payload: "w3.zstdio",
            arch: "noarch",
        }
    }

    /// Adds lines such as `Requires: bash >= 5`.
    #[must_use]
    pub fn tag(mut self, lines: &str) -> Self {
        self.tags.push_str(lines);
        self.tags.push('\n');
        self
    }

    /// Adds a file; `directives` stand before it in `%files`: `%attr(4755,root,root)`.
    #[must_use]
    pub fn file(mut self, directives: &str, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files
            .push((directives.to_owned(), path.to_owned(), content.into()));
        self
    }

    /// Adds lines to `%install`, and lines to `%files` for what they make.
    #[must_use]
    pub fn made(mut self, lines: &str, files: &str) -> Self {
        self.install.push_str(lines);
        self.install.push('\n');
        self.files
            .push((files.to_owned(), String::new(), Vec::new()));
        self
    }

    /// Adds sections: scriptlets, triggers.
    #[must_use]
    pub fn section(mut self, text: &str) -> Self {
        self.sections.push_str(text);
        self.sections.push('\n');
        self
    }

    /// How the payload is compressed, in rpm's words: `w9.gzdio`, `w6.xzdio`, `w9.bzdio`, `w.ufdio`.
    #[must_use]
    pub fn payload(mut self, how: &'static str) -> Self {
        self.payload = how;
        self
    }

    /// For which architecture it is: `x86_64`, `i686`.
    #[must_use]
    pub fn arch(mut self, arch: &'static str) -> Self {
        self.arch = arch;
        self
    }

    fn spec(&self) -> String {
        let Rpm {
            name,
            version,
            tags,
            install,
            sections,
            ..
        } = self;
        let list: String = self
            .files
            .iter()
            .map(|(directives, path, _)| match path.as_str() {
                "" => format!("{directives}\n"),
                path => format!("{directives} \"{path}\"\n"),
            })
            .collect();
        // rpmbuild is told what else there is.
        let arch = match self.arch {
            "noarch" => "BuildArch: noarch\n",
            _ => "",
        };
        format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: {name}\nLicense: MIT\n{arch}AutoReqProv: no\n{tags}\n\
             %description\n{name}\n%install\ncp -a %{{content}}/. %{{buildroot}}/\n{install}{sections}\n%files\n%defattr(-,root,root)\n{list}"
        )
    }

    /// Builds it into a directory.
    fn build(&self, into: &Path, work: &Path) {
        let content = work
            .join("content")
            .join(format!("{}-{}.{}", self.name, self.version, self.arch));
        fs::create_dir_all(&content).expect("a directory");
        for (_, path, bytes) in self.files.iter().filter(|(_, path, _)| !path.is_empty()) {
            let path = content.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, bytes).expect("a file");
        }
        let spec = work.join(format!("{}.spec", self.name));
        fs::write(&spec, self.spec()).expect("a spec file");
        let mut rpmbuild = Command::new("rpmbuild");
        let target = format!("{}-linux", self.arch);
        rpmbuild.args(["-bb", "--quiet", "--nodeps", "--target", &target]);
        let definitions = [
            format!("_topdir {}", work.display()),
            format!("_rpmdir {}", into.display()),
            format!("content {}", content.display()),
            format!("_dbpath {}", work.join("db").display()),
            format!("_tmppath {}", work.display()),
            "_rpmfilename %%{NVRA}.rpm".to_owned(),
            format!("_binary_payload {}", self.payload),
            "__os_install_post %{nil}".to_owned(),
            "debug_package %{nil}".to_owned(),
            "_buildhost localhost".to_owned(),
            // Capabilities and owners need no privilege: they are noted, not set.
            "_build_id_links none".to_owned(),
            // A package may bring a shell of this machine's.
            "_binaries_in_noarch_packages_terminate_build 0".to_owned(),
        ];
        for text in &definitions {
            rpmbuild.args(["--define", text]);
        }
        run(rpmbuild.arg(spec));
    }
}

/// A key of GnuPG's in a directory of its own.
#[derive(Clone, Debug)]
pub struct Gpg {
    home: PathBuf,
    user: String,
}

impl Gpg {
    /// Makes one, of 2,048 bits as distributions have at least.
    ///
    /// # Panics
    /// If there is no gpg.
    pub fn generate(home: &Path, user: &str) -> Self {
        fs::create_dir_all(home).expect("a directory");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(home, mode).expect("its mode");
        let key = Gpg {
            home: home.to_owned(),
            user: user.to_owned(),
        };
        run(key.gpg().args([
            "--passphrase",
            "",
            "--quick-gen-key",
            user,
            "rsa2048",
            "sign",
            "never",
        ]));
        key
    }

    /// The one in a directory, made unless it is there.
    ///
    /// # Panics
    /// If there is no gpg.
    pub fn keep(home: &Path, user: &str) -> Self {
        match home.join("pubring.kbx").exists() {
            false => Gpg::generate(home, user),
            true => Gpg {
                home: home.to_owned(),
                user: user.to_owned(),
            },
        }
    }

    fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir")
            .arg(&self.home)
            .args(["--batch", "--quiet", "--yes"]);
        gpg
    }

    /// The public certificate, armoured.
    ///
    /// # Panics
    /// If gpg fails.
    pub fn public(&self) -> Vec<u8> {
        run(self.gpg().args(["--armor", "--export", &self.user]))
    }

    /// Signs packages by `rpmsign`.
    ///
    /// # Panics
    /// If it fails.
    pub fn sign_packages(&self, packages: &[PathBuf]) {
        self.sign_packages_with(packages, &[]);
    }

    /// The same, with further options of `rpmsign`: `--rpmv3` adds a signature of header and payload together.
    ///
    /// # Panics
    /// If it fails.
    pub fn sign_packages_with(&self, packages: &[PathBuf], options: &[&str]) {
        let mut rpmsign = Command::new("rpmsign");
        rpmsign.env("GNUPGHOME", &self.home).arg("--addsign");
        for text in [
            format!("_gpg_name {}", self.user),
            format!("_gpg_path {}", self.home.display()),
            "__gpg /usr/bin/gpg".to_owned(),
        ] {
            rpmsign.args(["--define", &text]);
        }
        run(rpmsign.args(options).args(packages));
    }

    /// Writes a detached signature beside a file: `FILE.asc`.
    ///
    /// # Panics
    /// If gpg fails.
    pub fn sign_file(&self, file: &Path) {
        run(self.gpg().args(["--armor", "--detach-sign"]).arg(file));
    }

    /// Ends the agent that gpg started for the directory. The next use starts another.
    pub fn rest(&self) {
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(&self.home)
            .args(["--kill", "all"])
            .output();
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Gives the signature of a package's header the number of another tag, which is none of rpm's any more: only signatures of header and
/// payload are left.
///
/// # Panics
/// If there is none.
pub fn forget_header_signature(package: &Path) {
    const RSA_OF_HEADER: u32 = 268;
    const OF_NOBODY: u32 = 263;
    // Behind the lead is a header's head, which says how many tags follow, of 16 bytes each.
    let mut bytes = fs::read(package).expect("a package");
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (first, count) = (96 + 16, word(96 + 8) as usize);
    let mut tags = (first..first + 16 * count).step_by(16);
    let at = tags.find(|&at| word(at) == RSA_OF_HEADER);
    let at = at.expect("a signature of the header");
    bytes[at..at + 4].copy_from_slice(&OF_NOBODY.to_be_bytes());
    fs::write(package, bytes).expect("a package");
}

/// Builds packages into `directory/Packages`; returns their paths.
///
/// # Panics
/// If rpmbuild fails.
pub fn build(packages: &[Rpm], directory: &Path) -> Vec<PathBuf> {
    let (into, work) = (directory.join("Packages"), directory.join("work"));
    fs::create_dir_all(&into).expect("a directory");
    packages
        .iter()
        .for_each(|package| package.build(&into, &work));
    fs::remove_dir_all(work).expect("removing what building left");
    let mut files: Vec<PathBuf> = fs::read_dir(into)
        .expect("a directory")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// Writes the metadata of a directory with packages by `createrepo_c`, which gets further options.
///
/// # Panics
/// If it fails.
pub fn createrepo(directory: &Path, options: &[&str]) {
    run(Command::new("createrepo_c")
        .args(["--quiet", "--no-database"])
        .args(options)
        .arg(directory));
}

/// Runs a program, and returns what it prints.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.env("LC_ALL", "C").output();
    let output =
        output.unwrap_or_else(|e| panic!("this test needs {:?}: {e}", command.get_program()));
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&said)
    );
    output.stdout
}

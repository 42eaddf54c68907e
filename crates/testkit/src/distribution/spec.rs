//! Spec files, and packages made of them by rpmbuild.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::deb::Entries;
use super::names::FILESYSTEM;
use super::run;

/// What marks the releases of this distribution's packages.
pub(super) const DIST: &str = ".kd9";

/// A package's spec file, but for its files.
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) summary: String,
    pub(super) is_noarch: bool,
    /// Lines such as `Requires: bash`.
    pub(super) tags: Vec<String>,
    /// Scriptlets, triggers, subpackages, and `%files`.
    pub(super) sections: String,
}

/// Epoch, version and release as rpm takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) epoch: Option<String>,
    pub(super) version: String,
    pub(super) release: String,
}

impl Version {
    /// Of a Debian version: `1:2.0-3`.
    pub(super) fn of_debian(text: &str) -> Self {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (Some(epoch.to_owned()), rest),
            None => (None, text),
        };
        let (version, release) = rest.rsplit_once('-').unwrap_or((rest, "1"));
        Version {
            epoch,
            version: version.replace('-', "_"),
            release: format!("{}{DIST}", release.replace('-', "_")),
        }
    }

    /// `1:2.0-3.kd9`, as dependencies have it.
    pub(super) fn full(&self) -> String {
        let epoch = self
            .epoch
            .as_ref()
            .map_or(String::new(), |epoch| format!("{epoch}:"));
        format!("{epoch}{}-{}", self.version, self.release)
    }
}

impl Spec {
    fn text(&self, content: &Path) -> String {
        let Spec {
            name,
            version,
            summary,
            sections,
            ..
        } = self;
        let epoch = version
            .epoch
            .as_ref()
            .map_or(String::new(), |epoch| format!("Epoch: {epoch}\n"));
        let arch = if self.is_noarch {
            "BuildArch: noarch\n"
        } else {
            ""
        };
        let tags: String = self.tags.iter().map(|tag| format!("{tag}\n")).collect();
        format!(
            "Name: {name}\n{epoch}Version: {}\nRelease: {}\nSummary: {summary}\nLicense: as the package that it is made of\n\
             {arch}AutoReqProv: no\n{tags}\n%description\nMade for Kiln's tests.\n\n\
             %install\nmkdir -p %{{buildroot}}\ncp -al {}/. %{{buildroot}}/\n\n{sections}\n",
            version.version,
            version.release,
            content.display()
        )
    }

    /// Builds it, with the files below `content`, into a directory. `work` is there for nothing else.
    pub(super) fn build(&self, content: &Path, work: &Path, into: &Path) {
        let spec = work.join("package.spec");
        fs::write(&spec, self.text(content)).expect("a spec file");
        let target = if self.is_noarch {
            "noarch-linux"
        } else {
            "x86_64-linux"
        };
        let mut rpmbuild = Command::new("rpmbuild");
        rpmbuild.args(["-bb", "--quiet", "--nodeps", "--target", target]);
        for definition in [
            format!("_topdir {}", work.display()),
            format!("_rpmdir {}", into.display()),
            format!("_dbpath {}", work.join("db").display()),
            format!("_tmppath {}", work.display()),
            "_rpmfilename %%{NVRA}.rpm".to_owned(),
            "_binary_payload w3.zstdio".to_owned(),
            "_build_id_links none".to_owned(),
            "_buildhost localhost".to_owned(),
            "_unpackaged_files_terminate_build 0".to_owned(),
            "__os_install_post %{nil}".to_owned(),
            "__spec_install_post %{nil}".to_owned(),
            "debug_package %{nil}".to_owned(),
        ] {
            rpmbuild.args(["--define", &definition]);
        }
        run(rpmbuild.arg(spec));
    }
}

/// `%files` lines with owners and modes. Directories of the package filesystem are left to it.
pub(super) fn file_lines<'a>(
    entries: &Entries,
    paths: impl Iterator<Item = &'a String>,
    is_configuration: impl Fn(&str) -> bool,
) -> String {
    let mut lines = String::from("%defattr(-,root,root)\n");
    for path in paths {
        let entry = &entries[path];
        if entry.is_directory && FILESYSTEM.contains(&path.as_str()) {
            continue;
        }
        let kind = match (entry.is_directory, is_configuration(path)) {
            (true, _) => "%dir ",
            (false, true) => "%config(noreplace) ",
            (false, false) => "",
        };
        let capabilities = entry
            .capabilities
            .map_or(String::new(), |caps| format!("%caps({caps}) "));
        let translated = path.strip_prefix("usr/share/locale/");
        let language = match translated.and_then(|rest| rest.split_once('/')) {
            Some((language, _)) if !entry.is_directory => format!("%lang({language}) "),
            _ => String::new(),
        };
        lines.push_str(&format!(
            "{kind}{language}%attr({:04o},{},{}) {capabilities}\"/{}\"\n",
            entry.mode,
            entry.user,
            entry.group,
            pattern(path)
        ));
    }
    lines
}

/// A path as `%files` takes it: these are globs, with macros.
fn pattern(path: &str) -> String {
    let fit = |c: char| match c {
        '[' | ']' | '{' | '}' | '*' | '\\' | '"' | '\'' => "?".to_owned(),
        '%' => "%%".to_owned(),
        c => c.to_string(),
    };
    path.chars().map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_translated() {
        for (debian, full) in [
            ("1:2.0-3", "1:2.0-3.kd9"),
            ("5.2-1-2", "5.2_1-2.kd9"),
            ("20230311", "20230311-1.kd9"),
            ("1.3.4~rc1+b2-3.1", "1.3.4~rc1+b2-3.1.kd9"),
        ] {
            assert_eq!(Version::of_debian(debian).full(), full);
        }
    }
}

//! The index of fonts, made without a pause.
//!
//! Every layer with fonts in it has `fc-cache` run once or twice, and each time both processors have nothing to do for two seconds.

use kiln_sandbox::Mount;

use super::daemons;
use super::deb::Deb;

/// Whether scripts of packages may make the index.
pub(super) fn are_indexed<'a>(mut debs: impl Iterator<Item = &'a Deb>) -> bool {
    debs.any(|deb| deb.name == "fontconfig")
}

/// What scripts call in place of `fc-cache`.
pub(super) fn stand_in() -> Mount {
    Mount::File {
        target: format!("{}/fc-cache", daemons::OWN),
        content: include_bytes!("fc-cache.pl").to_vec(),
        mode: 0o755,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Command, Output};

    fn call(dir: &Path, real: Option<&str>, words: &[&str]) -> Output {
        let place = dir.join("real");
        if let Some(text) = real {
            fs::write(&place, text).expect("a program");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let text = include_str!("fc-cache.pl");
        let own = text.replace("/usr/bin/fc-cache", &place.display().to_string());
        assert_ne!(own, text);
        let script = dir.join("fc-cache");
        fs::write(&script, own).expect("a script");
        let mut command = Command::new("timeout");
        command.args(["120", "perl"]).arg(script).args(words);
        command.output().expect("timeout and perl")
    }

    #[test]
    fn only_the_pause_is_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = "#!/bin/sh\nsleep 100000\necho \"$*\"; echo trouble >&2\nexit 3\n";
        let output = call(dir.path(), Some(real), &["-s", "-f", "a b"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_eq!(output.stdout, b"-s -f a b\n");
        assert_eq!(output.stderr, b"trouble\n");
    }

    #[test]
    fn nothing_is_done_before_fontconfig_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let output = call(dir.path(), None, &["-f"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

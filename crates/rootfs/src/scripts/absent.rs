//! Programs that a script wanted and the root has not: what the shell says of them, and which package brings them.

/// Programs of kickstarts for RPM distributions, and their packages there.
const PACKAGES: &[(&str, &str)] = &[
    ("authselect", "authselect"),
    ("chkconfig", "chkconfig"),
    ("dnf", "dnf"),
    ("dracut", "dracut"),
    ("firewall-offline-cmd", "firewalld"),
    ("gsettings", "glib2"),
    ("plymouth-set-default-theme", "plymouth-scripts"),
    ("restorecon", "policycoreutils"),
    ("rpm", "rpm"),
    ("semanage", "policycoreutils-python-utils"),
    ("setsebool", "policycoreutils"),
    ("useradd", "shadow-utils"),
    ("usermod", "shadow-utils"),
    ("yum", "yum"),
];

/// A hint about the last program that the shell did not find.
pub(super) fn hint(tail: &[String]) -> Option<String> {
    let path = tail.iter().rev().find_map(|line| program(line))?;
    let name = path.rsplit('/').next().unwrap_or(path);
    let known = PACKAGES.iter().find(|(program, _)| *program == name);
    let package = known.map_or(String::new(), |(_, package)| {
        format!("; on RPM distributions that is {package}")
    });
    Some(format!(
        "the root has no {path}: add the package that brings it to %packages{package}"
    ))
}

/// `script: line 3: semanage: command not found` (bash), `script: 3: semanage: not found` (dash), `…: /sbin/restorecon: No such file or directory`.
fn program(line: &str) -> Option<&str> {
    let endings = [
        ": command not found",
        ": not found",
        ": No such file or directory",
    ];
    let (index, rest) = endings
        .iter()
        .enumerate()
        .find_map(|(index, ending)| Some((index, line.strip_suffix(ending)?)))?;
    let mut parts = rest.rsplit(": ");
    let name = parts.next()?;
    let before = parts.next()?;
    let number = before.strip_prefix("line ").unwrap_or(before);
    let is_line = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let is_program = !name.is_empty() && !name.contains(char::is_whitespace);
    // That a file is not there is said of other things than programs, too.
    let is_path = index < 2 || ["/bin/", "/sbin/"].iter().any(|part| name.contains(part));
    (is_line && is_program && is_path).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<String> {
        hint(&["before".to_owned(), line.to_owned(), "after".to_owned()])
    }

    #[test]
    fn the_program_and_its_package_are_named() {
        let bash = of("/run/kiln/script: line 3: semanage: command not found").expect("a hint");
        assert!(
            bash.contains("no semanage") && bash.ends_with("policycoreutils-python-utils"),
            "{bash}"
        );
        let dash = of("/run/kiln/script: 7: frobnicate: not found").expect("a hint");
        assert!(dash.ends_with("to %packages"), "{dash}");
        let path = of("/run/kiln/script: line 2: /sbin/restorecon: No such file or directory")
            .expect("a hint");
        assert!(
            path.contains("no /sbin/restorecon") && path.ends_with("policycoreutils"),
            "{path}"
        );
    }

    #[test]
    fn other_lines_are_not_about_programs() {
        for line in [
            "grep: /etc/fstab: No such file or directory",
            "/run/kiln/script: line 4: /etc/none: No such file or directory",
            "package foo: not found",
            ": not found",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}

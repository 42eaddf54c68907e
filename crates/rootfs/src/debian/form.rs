//! What a package is asked for as, beside its name: the forms that apt-get(8) knows.

use kiln_packages::debian::Universe;
use kiln_packages::glob_matches;

/// `name[:architecture]`, `name[:architecture]=version` or `name[:architecture]/suite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form<'a> {
    /// The package.
    pub(super) name: &'a str,
    architecture: Option<&'a str>,
    version: Option<&'a str>,
    suite: Option<&'a str>,
}

/// Whether a text is more than a name or a pattern of names: no package has one of these characters in its name.
pub(super) fn is_special(text: &str) -> bool {
    text.contains([':', '=', '/'])
}

impl<'a> Form<'a> {
    /// Reads a form; everything is one.
    pub(super) fn of(text: &'a str) -> Self {
        let (head, version, suite) = match text.find(['=', '/']) {
            None => (text, None, None),
            Some(at) if text[at..].starts_with('=') => (&text[..at], Some(&text[at + 1..]), None),
            Some(at) => (&text[..at], None, Some(&text[at + 1..])),
        };
        let (name, architecture) = match head.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (head, None),
        };
        Form {
            name,
            architecture,
            version,
            suite,
        }
    }

    /// Why this form of a text cannot be asked for in an image of an architecture, and what to do instead.
    pub(super) fn unsupported(&self, text: &str, architecture: &str) -> Option<(String, String)> {
        let forms = "a package is asked for as `name`, `name=version` or `name/suite`";
        let no = |why: &str, hint: &str| Some((why.to_owned(), hint.to_owned()));
        if text.contains("://") || text.starts_with(['.', '/']) || text.ends_with(".deb") {
            return no(
                "packages come from repositories, not from files or addresses",
                "put the package into a signed repository and name that with [[repository]]",
            );
        }
        let parts = [Some(self.name), self.architecture, self.version, self.suite];
        if parts.into_iter().flatten().any(str::is_empty) {
            return no("a part of it is empty", forms);
        }
        if self.name.contains(['*', '?', '[']) {
            return no("a pattern has no architecture, version or suite", forms);
        }
        match self.architecture {
            Some(other) if ![architecture, "native", "any", "all"].contains(&other) => Some((
                format!(
                    "the image is for {architecture}, and packages for {other} cannot be mixed in"
                ),
                format!(
                    "a %post script can: dpkg --add-architecture {other} && apt-get update && apt-get install -y {}",
                    self.name
                ),
            )),
            _ => None,
        }
    }

    /// Whether the repositories have it; if not, what is not there and what is.
    pub(super) fn find(&self, universe: &Universe) -> Result<(), (String, String)> {
        let name = self.name;
        let versions = universe.versions(name);
        if let Some(version) = self.version {
            let fits = |v: &str| glob_matches(version.as_bytes(), v.as_bytes());
            if !versions.iter().any(|p| fits(p.version())) {
                let mut there: Vec<&str> = versions.iter().map(|p| p.version()).collect();
                there.dedup();
                let hint = format!("the repositories have {}", there.join(", "));
                return Err((format!("version `{version}` of the package `{name}`"), hint));
            }
        }
        if let Some(suite) = self.suite {
            let mut there: Vec<&str> = versions
                .iter()
                .flat_map(|p| universe.suites_of(p))
                .collect();
            if !there.contains(&suite) {
                there.sort_unstable();
                there.dedup();
                let hint = format!("the suites that have it are {}", there.join(", "));
                return Err((format!("package `{name}` of the suite `{suite}`"), hint));
            }
        }
        Ok(())
    }

    /// As apt is asked.
    pub(super) fn for_apt(&self) -> String {
        match (self.version, self.suite) {
            (Some(version), _) => format!("{}={version}", self.name),
            (_, Some(suite)) => format!("{}/{suite}", self.name),
            _ => self.name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart() {
        let parts = |text| {
            let form = Form::of(text);
            (form.name, form.architecture, form.version, form.suite)
        };
        assert_eq!(parts("g++"), ("g++", None, None, None));
        assert_eq!(parts("a:i386"), ("a", Some("i386"), None, None));
        assert_eq!(parts("a=1:2/3"), ("a", None, Some("1:2/3"), None));
        assert_eq!(
            parts("a:amd64/stable"),
            ("a", Some("amd64"), None, Some("stable"))
        );
        for text in [
            "a:i386",
            "a=",
            ":amd64",
            "a/",
            "./a.deb",
            "a*=1",
            "a_1_all.deb",
            "/tmp/a",
        ] {
            assert!(
                Form::of(text).unsupported(text, "amd64").is_some(),
                "{text}"
            );
        }
        for text in ["a:amd64", "a:any", "a=1:2", "a/stable", "a=1*"] {
            assert_eq!(Form::of(text).unsupported(text, "amd64"), None, "{text}");
        }
        assert_eq!(Form::of("a:amd64=1").for_apt(), "a=1");
    }
}

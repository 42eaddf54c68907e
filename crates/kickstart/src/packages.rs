//! The lines of `%packages`.

use crate::report::{Report, quote};
use crate::words::is_space;
use crate::{PackageItem, PackageRef, Span, causes};

/// Reads one line without its end; `None` for blank lines and comments. `at` makes a span of two byte columns.
pub(crate) fn read(
    line: &str,
    at: impl Fn(usize, usize) -> Span,
    report: &mut Report,
) -> Option<PackageItem> {
    let code = line.split('#').next().unwrap_or("");
    let text = code.trim_matches(is_space);
    if text.is_empty() {
        return None;
    }
    let start = code.len() - code.trim_start_matches(is_space).len();
    let span = at(start, start + text.len());
    let (exclude, name) = match text.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, text),
    };
    if let Some(cause) = causes::of_package(text, start) {
        let span = at(cause.start, cause.end);
        report.warning(cause.code, span, cause.message, cause.help);
    }
    if name.is_empty() {
        report.error_help(
            "empty-package",
            span,
            "a `-` must be followed by the name of what is excluded".to_owned(),
            "write `-package` or `-@group`",
        );
        return None;
    }
    let what = match name.strip_prefix('@') {
        None => PackageRef::Package(name.to_owned()),
        Some(name) if exclude => excluded_group(name),
        Some(name) => group(name, span, report)?,
    };
    Some(PackageItem {
        exclude,
        what,
        span,
    })
}

/// The reference looks for no option in the name of a group that is excluded, and takes no blank away.
fn excluded_group(text: &str) -> PackageRef {
    if let Some(name) = text.strip_prefix('^') {
        return PackageRef::Environment(name.to_owned());
    }
    match text.split_once(':') {
        Some((name, rest)) if !text.contains(char::is_whitespace) => module(name, rest),
        _ => PackageRef::Group {
            name: text.to_owned(),
            nodefaults: false,
            optional: false,
        },
    }
}

fn module(name: &str, rest: &str) -> PackageRef {
    let (stream, profile) = match rest.split_once('/') {
        Some((stream, profile)) => (stream, Some(profile.to_owned())),
        None => (rest, None),
    };
    PackageRef::Module {
        name: name.to_owned(),
        stream: stream.to_owned(),
        profile,
    }
}

fn group(text: &str, span: Span, report: &mut Report) -> Option<PackageRef> {
    if let Some(name) = text.strip_prefix('^') {
        return Some(PackageRef::Environment(name.to_owned()));
    }
    let (name, nodefaults, optional) = group_options(text, span, report)?;
    if nodefaults && optional {
        report.error_help(
            "conflicting-options",
            span,
            "`--nodefaults` and `--optional` exclude each other".to_owned(),
            "keep one of them",
        );
    }
    Some(match name.split_once(':') {
        Some((name, rest)) if !nodefaults && !optional => module(name, rest),
        _ => PackageRef::Group {
            name,
            nodefaults,
            optional,
        },
    })
}

/// Takes `--nodefaults` and `--optional` (or prefixes of them) out of the words of a group line.
fn group_options(text: &str, span: Span, report: &mut Report) -> Option<(String, bool, bool)> {
    let (mut nodefaults, mut optional) = (false, false);
    let mut name = Vec::new();
    for word in text.split_whitespace() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
        let is =
            |full: &str| option.len() > 2 && option.starts_with("--") && full.starts_with(option);
        let flag = match (is("--nodefaults"), is("--optional")) {
            (true, _) => &mut nodefaults,
            (_, true) => &mut optional,
            _ => {
                name.push(word);
                continue;
            }
        };
        *flag = true;
        if value.is_some() {
            let message = format!("{} takes no value", quote(option));
            let help = format!("write {} alone", quote(option));
            report.error_help("unexpected-value", span, message, help);
            return None;
        }
    }
    Some((name.join(" "), nodefaults, optional))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileId;

    fn one(line: &str) -> Option<PackageItem> {
        let span = |a: usize, b: usize| Span {
            file: FileId(0),
            line: 1,
            start: a as u32,
            end: b as u32,
        };
        read(line, span, &mut Report::default())
    }

    #[test]
    fn one_item_a_line() {
        assert_eq!(one("  # nothing"), None);
        let item = one("  vim nano # editors").unwrap();
        assert_eq!(item.what, PackageRef::Package("vim nano".into()));
        assert_eq!((item.span.start, item.span.end), (2, 10));
        assert!(one("-foo*").unwrap().exclude);
    }

    #[test]
    fn groups_environments_and_modules() {
        assert_eq!(
            one("@^server").unwrap().what,
            PackageRef::Environment("server".into())
        );
        let PackageRef::Group {
            name,
            nodefaults,
            optional,
        } = one("@a b --nodef").unwrap().what
        else {
            panic!("not a group");
        };
        assert_eq!((name.as_str(), nodefaults, optional), ("a b", true, false));
        let module = one("-@nodejs:18/minimal").unwrap();
        assert!(module.exclude);
        assert_eq!(
            module.what,
            PackageRef::Module {
                name: "nodejs".into(),
                stream: "18".into(),
                profile: Some("minimal".into())
            }
        );
    }
}

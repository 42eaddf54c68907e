//! Module streams that a definition asks for by `@module:stream/profile`.

use kiln_packages::nearest;
use kiln_packages::rpm::modules::{Modules, Stream};

/// A stream that is there, and the packages of what is asked of it.
pub(super) struct Chosen<'a> {
    /// The stream: the default one where none was said.
    pub(super) stream: &'a str,
    /// Packages of the profile, or of the default profiles.
    pub(super) packages: Vec<&'a str>,
}

/// Why there is none: what is missing, and a hint.
pub(super) struct Absent {
    /// As a subject: ``module `nodejs` ``.
    pub(super) what: String,
    /// What to do.
    pub(super) hint: String,
}

/// Finds a stream of a module (an empty name is the default one's) and what its profile has.
pub(super) fn choose<'a>(
    modules: &'a Modules,
    module: &str,
    stream: &str,
    profile: Option<&str>,
) -> Result<Chosen<'a>, Absent> {
    let absent = |what: String, hint: String| Err(Absent { what, hint });
    let of_module: Vec<&Stream> = modules
        .streams
        .iter()
        .filter(|s| s.module == module)
        .collect();
    if of_module.is_empty() {
        let known = modules.streams.iter().map(|s| s.module.as_str());
        let hint = hint_of("module", nearest(module, known, 3));
        return absent(format!("module `{module}`"), hint);
    }
    let defaults = modules.defaults.get(module);
    let default = defaults.and_then(|defaults| defaults.stream.as_deref());
    let named = Some(stream).filter(|stream| !stream.is_empty());
    let Some(wanted) = named.or(default) else {
        let hint = format!("name one of {}", streams(&of_module, module));
        return absent(format!("default stream of the module `{module}`"), hint);
    };
    let found: Vec<&Stream> = of_module
        .iter()
        .filter(|s| s.stream == wanted)
        .copied()
        .collect();
    let Some(first) = found.first() else {
        let hint = format!("the module has {}", streams(&of_module, module));
        return absent(format!("stream `@{module}:{wanted}`"), hint);
    };
    let usual = defaults.and_then(|defaults| defaults.profiles.get(wanted));
    let asked: Vec<&str> = match profile {
        Some(profile) => vec![profile],
        None => usual.into_iter().flatten().map(String::as_str).collect(),
    };
    if asked.is_empty() {
        let what = format!("default profile of `@{module}:{wanted}`");
        return absent(what, profiles(&found, module));
    }
    let mut packages = Vec::new();
    for name in asked {
        let of = found.iter().filter_map(|s| s.profiles.get(name));
        let mut of = of.peekable();
        if of.peek().is_none() {
            let what = format!("profile `@{module}:{wanted}/{name}`");
            return absent(what, profiles(&found, module));
        }
        packages.extend(of.flatten().map(String::as_str));
    }
    packages.sort_unstable();
    packages.dedup();
    Ok(Chosen {
        stream: &first.stream,
        packages,
    })
}

fn profiles(found: &[&Stream], module: &str) -> String {
    let of = |stream: &&Stream| -> Vec<String> {
        let names = stream.profiles.keys();
        names
            .map(|profile| format!("@{module}:{}/{profile}", stream.stream))
            .collect()
    };
    let mut all: Vec<String> = found.iter().flat_map(of).collect();
    all.sort();
    all.dedup();
    match all.is_empty() {
        true => "the stream has no profiles, and nothing can be asked of it".to_owned(),
        false => format!("the stream has {}", all.join(", ")),
    }
}

fn streams(of_module: &[&Stream], module: &str) -> String {
    let mut all: Vec<String> = of_module
        .iter()
        .map(|s| format!("@{module}:{}", s.stream))
        .collect();
    all.sort();
    all.dedup();
    all.join(", ")
}

/// What to say of a name that is not there.
pub(super) fn hint_of(what: &str, near: Vec<&str>) -> String {
    match near.is_empty() {
        true => {
            format!("no repository of the definition has such a {what}; is a repository missing?")
        }
        false => format!("did you mean {}?", near.join(", ")),
    }
}

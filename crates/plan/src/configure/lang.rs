//! `lang`: the system's locale and further ones.

use super::{Action, draft::Draft};

pub(super) fn lower(draft: &mut Draft<'_>) {
    let Some(said) = draft.command.args.first() else {
        return draft.error("names no locale", "write for example `lang en_US.UTF-8`");
    };
    let Some(default) = locale(draft, said) else {
        return;
    };
    let mut names = vec![default.clone()];
    for more in draft.last_list("--addsupport") {
        names.extend(locale(draft, more));
    }
    names.retain(|n| !is_builtin(n));
    names.dedup();
    if draft.is_rpm() {
        langpacks(draft, &names);
    } else if !names.is_empty() {
        // locales-all has them all ready made.
        if !draft.asked_for("locales-all") {
            draft.need("locales", "generates locales");
        }
        draft.act(Action::Locales { names });
    }
    draft.act(Action::SetVariables {
        path: draft.context.conventions.locale_file().to_owned(),
        variables: vec![("LANG".to_owned(), default)],
    });
}

/// RPM distributions have locales ready made, in one package for each language.
fn langpacks(draft: &mut Draft<'_>, names: &[String]) {
    for name in names {
        let language = name.split(['_', '.', '@']).next().unwrap_or(name);
        draft.need(&format!("glibc-langpack-{language}"), "holds the locale");
    }
}

/// Locales that the C library itself has.
fn is_builtin(name: &str) -> bool {
    matches!(name, "C" | "POSIX" | "C.UTF-8")
}

/// The locale's full name; one without a character set gets UTF-8, as the installer does it.
fn locale(draft: &mut Draft<'_>, said: &str) -> Option<String> {
    if matches!(said, "C" | "POSIX") {
        return Some(said.to_owned());
    }
    let (rest, modifier) = split(said, '@');
    let (territory, codeset) = split(rest, '.');
    let word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let well_formed = !territory.is_empty()
        && [territory, codeset.unwrap_or("x"), modifier.unwrap_or("x")]
            .iter()
            .all(|p| !p.is_empty() && word(p));
    if !well_formed {
        let message = format!("{said}: not a locale name");
        draft.error(
            message,
            "locales are written language_TERRITORY.CHARSET, for example de_DE.UTF-8",
        );
        return None;
    }
    let codeset = match codeset {
        None => "UTF-8",
        Some(c) if c.eq_ignore_ascii_case("utf8") || c.eq_ignore_ascii_case("utf-8") => "UTF-8",
        Some(c) => c,
    };
    let modifier = modifier.map_or_else(String::new, |m| format!("@{m}"));
    Some(format!("{territory}.{codeset}{modifier}"))
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(head, tail)| (head, Some(tail)))
}

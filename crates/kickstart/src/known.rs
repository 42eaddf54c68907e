//! Names of time zones, locales and keyboards, from lists of Debian's packages (`known/` says which). They are for
//! advice only: what an image can have, its own packages decide.

use crate::report::{Report, quote};
use crate::{Command, Span, spelling};

const ZONES: &str = include_str!("known/zones.txt");
const LOCALES: &str = include_str!("known/locales.txt");
const KEYMAPS: &str = include_str!("known/keymaps.txt");
const LAYOUTS: &str = include_str!("known/layouts.txt");

/// The first two words of every line.
fn entries(list: &'static str) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    list.lines().filter(|l| !l.starts_with('#')).map(|line| {
        let mut words = line.split(' ');
        (words.next().unwrap_or(""), words.next())
    })
}

fn names(list: &'static str) -> impl Iterator<Item = &'static str> {
    entries(list).map(|(name, _)| name)
}

/// Returns the name of today of a time zone that has an old one, too: `America/New_York` for `US/Eastern`.
pub fn zone_of_today(old: &str) -> Option<&'static str> {
    entries(ZONES).find(|(name, _)| *name == old)?.1
}

/// Warns of names in a command that nobody knows.
pub(crate) fn check(command: &Command, report: &mut Report) {
    let first = command.args.first().map(String::as_str);
    match command.name.as_str() {
        "timezone" => zone(first.unwrap_or(""), command.span, report),
        "lang" => {
            let more = command.options.iter().find(|o| o.name == "--addsupport");
            locale(first.unwrap_or(""), command.span, report);
            for name in command.list("--addsupport") {
                locale(name, more.map_or(command.span, |o| o.span), report);
            }
        }
        "keyboard" => {
            let span = |name: &str| {
                let option = command.options.iter().find(|o| o.name == name);
                option.map_or(command.span, |o| o.span)
            };
            keymap(first.unwrap_or(""), command.span, report);
            let console = command.text("--vckeymap").unwrap_or("");
            keymap(console, span("--vckeymap"), report);
            for name in command.list("--xlayouts") {
                layout(name, span("--xlayouts"), report);
            }
        }
        _ => {}
    }
}

fn zone(name: &str, span: Span, report: &mut Report) {
    let bare = ["posix/", "right/"]
        .iter()
        .find_map(|p| name.strip_prefix(p));
    if !name.is_empty() && !names(ZONES).any(|known| known == bare.unwrap_or(name)) {
        let message = format!("no time zone is called {}", quote(name));
        unknown(
            "unknown-zone",
            span,
            message,
            spelling::nearest(name, names(ZONES)),
            report,
        );
    }
}

fn keymap(name: &str, span: Span, report: &mut Report) {
    // systemd names the keymaps that it makes from layouts of X `layout-variant`.
    let of_x = match name.split_once('-') {
        Some((layout, variant)) => format!("{layout}({variant})"),
        None => name.to_owned(),
    };
    let known = |list, name: &str| names(list).any(|known| known == name);
    if !name.is_empty() && !known(KEYMAPS, name) && !known(LAYOUTS, &of_x) {
        let message = format!("no keymap is called {}", quote(name));
        unknown(
            "unknown-keymap",
            span,
            message,
            spelling::nearest(name, names(KEYMAPS)),
            report,
        );
    }
}

fn layout(name: &str, span: Span, report: &mut Report) {
    let bare: String = name.split_whitespace().collect();
    if !bare.is_empty() && !names(LAYOUTS).any(|known| known == bare) {
        let message = format!("X has no keyboard layout {}", quote(name));
        unknown(
            "unknown-layout",
            span,
            message,
            spelling::nearest(&bare, names(LAYOUTS)),
            report,
        );
    }
}

/// A locale's name without its character set, and that.
fn parts(name: &str) -> (String, Option<&str>) {
    let (rest, modifier) = name.split_once('@').map_or((name, ""), |(r, m)| (r, m));
    let (base, charset) = rest
        .split_once('.')
        .map_or((rest, None), |(b, c)| (b, Some(c)));
    let bare = match modifier {
        "" => base.to_owned(),
        modifier => format!("{base}@{modifier}"),
    };
    (bare, charset)
}

fn locale(name: &str, span: Span, report: &mut Report) {
    if matches!(name, "" | "C" | "POSIX") {
        return;
    }
    let (bare, charset) = parts(name);
    let plain = |set: &str| set.replace('-', "").to_ascii_lowercase();
    let wanted = plain(charset.unwrap_or("UTF-8"));
    let of_this: Vec<&str> = entries(LOCALES)
        .filter(|(known, _)| parts(known).0 == bare)
        .filter_map(|(known, set)| parts(known).1.or(set))
        .collect();
    if of_this.iter().any(|set| plain(set) == wanted) {
        return;
    }
    let message = format!("no locale is called {}", quote(name));
    match of_this.first() {
        None => {
            let near = spelling::nearest(name, names(LOCALES));
            unknown("unknown-locale", span, message, near, report);
        }
        Some(_) => {
            let sets = of_this.join(" and ");
            let help = match charset {
                None => format!(
                    "without a character set it means UTF-8, but it is in {sets} only: {}",
                    spelt(&bare, &of_this)
                ),
                Some(_) => format!("it is in {sets} only: {}", spelt(&bare, &of_this)),
            };
            report.warning("unknown-locale", span, message, help);
        }
    }
}

/// `write de_DE.ISO-8859-15@euro`, and the same language in UTF-8 where there is one.
fn spelt(bare: &str, sets: &[&str]) -> String {
    let (base, modifier) = bare.split_once('@').map_or((bare, ""), |(b, m)| (b, m));
    let set = sets.first().copied().unwrap_or("UTF-8");
    let at = if modifier.is_empty() { "" } else { "@" };
    let full = format!("write {base}.{set}{at}{modifier}");
    match names(LOCALES).find(|known| *known == format!("{base}.UTF-8")) {
        Some(utf8) => format!("{full} or {utf8}"),
        None => full,
    }
}

fn unknown(
    code: &'static str,
    span: Span,
    message: String,
    near: Option<&str>,
    report: &mut Report,
) {
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "Kiln's list is Debian's; what the image's own packages have counts".to_owned(),
    };
    report.warning(code, span, message, help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_lead_to_those_of_today() {
        assert_eq!(zone_of_today("US/Eastern"), Some("America/New_York"));
        assert_eq!(zone_of_today("Europe/Prague"), None);
    }

    #[test]
    fn the_lists_are_whole() {
        for (list, least, one) in [
            (ZONES, 500, "Asia/Ho_Chi_Minh"),
            (LOCALES, 500, "en_US.UTF-8"),
            (KEYMAPS, 250, "de-latin1"),
            (LAYOUTS, 500, "cz(qwerty)"),
        ] {
            assert!(names(list).count() >= least, "{one}");
            assert!(names(list).any(|name| name == one), "{one}");
        }
    }
}

//! Locales, keyboard, time zone, host name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::error::{Fault, Result};
use super::run::words;
use super::{Executor, files};
use crate::regular;
use kiln_plan::configure::XkbLayout;
use kiln_plan::configure::did_you_mean;

const SUPPORTED: &str = "/usr/share/i18n/SUPPORTED";
const LOCALE_GEN: &str = "/etc/locale.gen";
const XKB_RULES: &str = "/usr/share/X11/xkb/rules/base.lst";
const ZONES: &str = "/usr/share/zoneinfo";

impl Executor<'_> {
    /// Asks for locales in `/etc/locale.gen` and has `locale-gen` make them.
    pub(super) fn locales(&mut self, names: &[String]) -> Result {
        let supported = files::read(SUPPORTED)?.ok_or_else(|| {
            Fault::step(format!("{SUPPORTED} is missing"))
                .hint("the package locales brings it; is it excluded?")
        })?;
        let wanted = names
            .iter()
            .map(|n| find_locale(&supported, n))
            .collect::<Result<Vec<_>>>()?;
        // With locales-all every locale is there already, and there is nothing to generate.
        if Path::new("/usr/share/doc/locales-all").exists() {
            return Ok(());
        }
        let old = files::read_or_empty(LOCALE_GEN)?;
        files::write(LOCALE_GEN, &with_locales(&old, &wanted), 0o644)?;
        self.run(&words(["locale-gen"]), None)
    }

    /// Writes the layouts for X and the console, and has the console's cached keymap made anew.
    pub(super) fn keyboard(&mut self, layouts: &[XkbLayout], options: &[String]) -> Result {
        if let Some(rules) = files::read(XKB_RULES)? {
            for layout in layouts {
                check_layout(&rules, layout)?;
            }
        }
        let list =
            |part: fn(&XkbLayout) -> &str| layouts.iter().map(part).collect::<Vec<_>>().join(",");
        // A list of nothing but commas means the same as an empty one.
        let variants = list(|l| &l.variant);
        let variants = if variants.bytes().all(|b| b == b',') {
            String::new()
        } else {
            variants
        };
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let variables = [
            pair("XKBMODEL", "pc105".to_owned()),
            pair("XKBLAYOUT", list(|l| &l.layout)),
            pair("XKBVARIANT", variants),
            pair("XKBOPTIONS", options.join(",")),
            pair("BACKSPACE", "guess".to_owned()),
        ];
        files::set_variables("/etc/default/keyboard", &variables, files::Quotes::Always)?;
        // The boot uses the cached keymap unless the file is newer, which an image's equal times never are.
        if super::run::is_present("setupcon") {
            self.run(&words(["setupcon", "--save-only"]), None)?;
        }
        Ok(())
    }
}

/// The line of SUPPORTED for a locale: `de_DE.UTF-8 UTF-8`, or `sr_RS UTF-8` for `sr_RS.UTF-8`.
fn find_locale(supported: &str, name: &str) -> Result<String> {
    let (base, codeset, modifier) = parts(name);
    let matches = |line: &&str| {
        let mut words = line.split_whitespace();
        let (known, charset) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (known_base, known_codeset, known_modifier) = parts(known);
        let known_codeset = known_codeset.unwrap_or(charset);
        known_base == base
            && known_modifier == modifier
            && codeset.is_none_or(|c| c.eq_ignore_ascii_case(known_codeset))
    };
    if let Some(line) = supported.lines().map(str::trim).find(matches) {
        return Ok(line.to_owned());
    }
    let known = supported
        .lines()
        .filter_map(|l| l.split_whitespace().next());
    // Kiln has added UTF-8 where no character set was said.
    if let Some(full) = in_other_charset(supported, base, modifier) {
        let utf8 = format!("{base}.UTF-8");
        let or = match supported
            .lines()
            .any(|l| l.trim() == format!("{utf8} UTF-8"))
            && utf8 != name
        {
            true => format!(" or {utf8}"),
            false => String::new(),
        };
        return Err(
            Fault::definition(format!("there is no locale {name}")).hint(format!(
                "this one is not in that character set: write {full}{or}"
            )),
        );
    }
    Err(
        Fault::definition(format!("there is no locale {name}")).hint(
            format!(
                "{} {SUPPORTED} in the root lists them all",
                did_you_mean(name, known)
            )
            .trim(),
        ),
    )
}

/// The full name of a locale that exists in other character sets only: `de_DE.ISO-8859-15@euro`.
fn in_other_charset(supported: &str, base: &str, modifier: Option<&str>) -> Option<String> {
    supported.lines().find_map(|line| {
        let (known, charset) = line.trim().split_once(' ')?;
        let (known_base, codeset, known_modifier) = parts(known);
        let at = modifier.map_or_else(String::new, |m| format!("@{m}"));
        (known_base == base && known_modifier == modifier)
            .then(|| format!("{base}.{}{at}", codeset.unwrap_or(charset.trim())))
    })
}

/// `language_TERRITORY`, `.CHARSET`, `@modifier`.
fn parts(name: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, modifier) = name
        .split_once('@')
        .map_or((name, None), |(r, m)| (r, Some(m)));
    let (base, codeset) = rest
        .split_once('.')
        .map_or((rest, None), |(b, c)| (b, Some(c)));
    (base, codeset, modifier)
}

/// `/etc/locale.gen` with the lines taken out of their comments, or added.
fn with_locales(old: &str, wanted: &[String]) -> String {
    let mut missing: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut text = String::new();
    for line in old.lines() {
        let bare = line.trim_start_matches(['#', ' ', '\t']).trim_end();
        let words: Vec<&str> = bare.split_whitespace().collect();
        let bare = words.join(" ");
        let line = if missing.remove(bare.as_str()) {
            bare.as_str()
        } else {
            line
        };
        text.push_str(line);
        text.push('\n');
    }
    for line in missing {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Checks a layout against XKB's list: sections `! layout` (`  cz  Czech`) and `! variant` (`  qwerty  cz: …`).
fn check_layout(rules: &str, wanted: &XkbLayout) -> Result {
    let layouts: Vec<&str> = section(rules, "layout")
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    if !layouts.contains(&wanted.layout.as_str()) {
        return Err(
            Fault::definition(format!("there is no keyboard layout {}", wanted.layout))
                .hint(did_you_mean(&wanted.layout, layouts)),
        );
    }
    let of_layout = |line: &str| {
        let mut words = line.split_whitespace();
        let variant = words.next()?;
        (words.next()? == format!("{}:", wanted.layout)).then_some(variant.to_owned())
    };
    let variants: Vec<String> = section(rules, "variant").filter_map(of_layout).collect();
    if wanted.variant.is_empty() || variants.contains(&wanted.variant) {
        return Ok(());
    }
    let message = format!(
        "the keyboard layout {} has no variant {}",
        wanted.layout, wanted.variant
    );
    let near = did_you_mean(&wanted.variant, variants.iter().map(String::as_str));
    Err(Fault::definition(message)
        .hint(format!("{near} its variants are {}", variants.join(", ")).trim()))
}

fn section<'a>(rules: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let header = move |l: &&str| l.strip_prefix('!').is_some_and(|r| r.trim() == name);
    rules
        .lines()
        .skip_while(move |l| !header(l))
        .skip(1)
        .take_while(|l| !l.starts_with('!'))
}

/// Links `/etc/localtime` and writes `/etc/timezone`.
pub(super) fn timezone(zone: &str) -> Result {
    let path = format!("{ZONES}/{zone}");
    if !is_zone_file(&path) {
        // Since trixie, Debian has the old names in a package of their own.
        if let Some(hint) = old_zone(zone) {
            return Err(Fault::definition(format!("there is no time zone {zone}")).hint(hint));
        }
        let mut zones = Vec::new();
        collect_zones(Path::new(ZONES), "", 0, &mut zones);
        let near = did_you_mean(zone, zones.iter().map(String::as_str));
        let hint = if near.is_empty() {
            format!("{ZONES} in the root has them all")
        } else {
            near
        };
        return Err(Fault::definition(format!("there is no time zone {zone}")).hint(hint));
    }
    files::symlink("/etc/localtime", &path)?;
    files::write("/etc/timezone", &format!("{zone}\n"), 0o644)
}

fn old_zone(zone: &str) -> Option<String> {
    kiln_kickstart::zone_of_today(zone).map(|today| {
        format!("it is an old name: write {today}, or add the package tzdata-legacy to %packages")
    })
}

/// Compiled zones begin with `TZif` (RFC 8536 section 3.1).
fn is_zone_file(path: &str) -> bool {
    regular::read(path).is_ok_and(|bytes| bytes.starts_with(b"TZif"))
}

fn collect_zones(dir: &Path, prefix: &str, depth: u32, zones: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // posix/ and right/ repeat all zones.
        if depth == 0 && matches!(name.as_str(), "posix" | "right") {
            continue;
        }
        let zone = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        };
        if entry.path().is_dir() && depth < 3 {
            collect_zones(&entry.path(), &zone, depth + 1, zones);
        } else {
            zones.push(zone);
        }
    }
}

/// Writes `/etc/hostname`, and the name into `/etc/hosts` as Debian does (127.0.1.1), so that it resolves offline.
pub(super) fn host_name(name: &str) -> Result {
    files::write("/etc/hostname", &format!("{name}\n"), 0o644)?;
    let short = name.split('.').next().unwrap_or(name);
    let names = if short == name {
        name.to_owned()
    } else {
        format!("{name} {short}")
    };
    let old = files::read("/etc/hosts")?.unwrap_or_else(|| HOSTS.to_owned());
    files::write("/etc/hosts", &with_own_address(&old, &names), 0o644)
}

const HOSTS: &str = "127.0.0.1\tlocalhost
::1\t\tlocalhost ip6-localhost ip6-loopback
ff02::1\t\tip6-allnodes
ff02::2\t\tip6-allrouters
";

fn with_own_address(hosts: &str, names: &str) -> String {
    let own = format!("127.0.1.1\t{names}");
    let is_own = |line: &str| line.split_whitespace().next() == Some("127.0.1.1");
    let mut lines: Vec<&str> = hosts.lines().filter(|l| !is_own(l)).collect();
    let after = lines
        .iter()
        .position(|l| l.starts_with("127.0.0.1"))
        .map_or(0, |i| i + 1);
    lines.insert(after, &own);
    lines.iter().map(|l| format!("{l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::{check_layout, find_locale, with_locales, with_own_address};
    use kiln_plan::configure::XkbLayout;

    const SUPPORTED: &str = "de_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\nsr_RS UTF-8\nsr_RS@latin UTF-8\n";

    #[test]
    fn locales_are_found_by_any_spelling() {
        let find = |name| find_locale(SUPPORTED, name).expect("a known locale");
        assert_eq!(find("de_DE.UTF-8"), "de_DE.UTF-8 UTF-8");
        assert_eq!(find("de_DE.ISO-8859-1"), "de_DE ISO-8859-1");
        assert_eq!(find("sr_RS.UTF-8"), "sr_RS UTF-8");
        assert_eq!(find("sr_RS.UTF-8@latin"), "sr_RS@latin UTF-8");
        let fault = find_locale(SUPPORTED, "de_DD.UTF-8").expect_err("no such locale");
        assert!(
            fault.hint.as_deref().unwrap_or("").contains("de_DE.UTF-8"),
            "{fault:?}"
        );
    }

    #[test]
    fn what_was_written_is_not_suggested() {
        let supported = "de_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\nde_DE@euro ISO-8859-15\n";
        let fault = find_locale(supported, "de_DE.UTF-8@euro").expect_err("no such locale");
        let hint = fault.hint.unwrap_or_default();
        assert!(
            hint.contains("write de_DE.ISO-8859-15@euro or de_DE.UTF-8"),
            "{hint}"
        );
    }

    #[test]
    fn an_old_time_zone_names_its_package_and_its_name_of_today() {
        let fault = super::timezone("US/No-such-zone").expect_err("no such zone");
        assert!(fault.message.contains("there is no time zone"), "{fault:?}");
        let hint = super::old_zone("US/Eastern").unwrap_or_default();
        assert!(
            hint.contains("America/New_York") && hint.contains("tzdata-legacy"),
            "{hint}"
        );
        assert_eq!(super::old_zone("Europe/Prague"), None);
    }

    #[test]
    fn locale_gen_keeps_its_comments() {
        let wanted = ["de_DE.UTF-8 UTF-8".to_owned(), "eo UTF-8".to_owned()];
        let text = with_locales(
            "# head\n# de_DE.UTF-8 UTF-8\n# fr_FR.UTF-8 UTF-8\n",
            &wanted,
        );
        assert_eq!(
            text,
            "# head\nde_DE.UTF-8 UTF-8\n# fr_FR.UTF-8 UTF-8\neo UTF-8\n"
        );
    }

    #[test]
    fn hosts_name_the_machine_once() {
        let text = with_own_address(
            "127.0.0.1\tlocalhost\n127.0.1.1\told\n::1\tlocalhost\n",
            "lab.example lab",
        );
        assert_eq!(
            text,
            "127.0.0.1\tlocalhost\n127.0.1.1\tlab.example lab\n::1\tlocalhost\n"
        );
    }

    #[test]
    fn variants_belong_to_their_layout() {
        let rules = "! layout\n  cz  Czech\n  us  English\n\n! variant\n  qwerty  cz: Czech (QWERTY)\n\n! option\n";
        let layout = |l: &str, v: &str| XkbLayout {
            layout: l.to_owned(),
            variant: v.to_owned(),
        };
        assert!(check_layout(rules, &layout("cz", "qwerty")).is_ok());
        assert!(check_layout(rules, &layout("us", "qwerty")).is_err());
        assert!(check_layout(rules, &layout("xx", "")).is_err());
    }
}

//! `keyboard`: layouts of the console and of X.

use super::{Action, XkbLayout, draft::Draft};

pub(super) fn lower(draft: &mut Draft<'_>) {
    let console = draft.command.text("--vckeymap").or(draft
        .command
        .args
        .first()
        .map(String::as_str));
    let keymap = console.unwrap_or("").to_owned();
    let console = console
        .filter(|c| !c.is_empty())
        .and_then(|c| from_console(draft, c));
    let mut layouts = Vec::new();
    let said_any = !draft.command.args.is_empty() || !draft.command.options.is_empty();
    for said in draft.last_list("--xlayouts") {
        match layout(said) {
            Some(layout) => layouts.push(layout),
            None => {
                let message = format!("--xlayouts={said}: not a layout");
                draft.error(message, "layouts are written `cz` or `cz (qwerty)`");
            }
        }
    }
    if let (Some(console), Some(first)) = (&console, layouts.first())
        && console != first
        && !draft.is_rpm()
    {
        let message =
            "--vckeymap differs from the first of --xlayouts; the console takes the layouts of X";
        draft.warn(
            message,
            "put the console's layout first in --xlayouts, or drop --vckeymap",
        );
    }
    if layouts.is_empty() {
        layouts.extend(console);
    }
    let options: Vec<String> = draft
        .last_list("--switch")
        .into_iter()
        .map(str::to_owned)
        .collect();
    for option in options.iter().filter(|o| !is_option(o)) {
        draft.error(
            format!("--switch={option}: not an XKB option"),
            "for example --switch=grp:alt_shift_toggle",
        );
    }
    if layouts.is_empty() {
        // What was said, but is wrong, has its error already.
        if !said_any {
            draft.error(
                "names no layout",
                "write for example `keyboard --xlayouts=us`",
            );
        }
        return;
    }
    // XKB has room for four.
    if layouts.len() > 4 {
        return draft.error("names more than four layouts", "X can hold four at a time");
    }
    if draft.is_rpm() {
        return rpm(draft, keymap, &layouts, &options);
    }
    draft.want("keyboard-configuration", "holds the keyboard's layout");
    draft.want("console-setup", "loads the layout on the console");
    draft.act(Action::Keyboard { layouts, options });
}

/// vconsole.conf(5) for the console, and what localectl(1) writes for X.
fn rpm(draft: &mut Draft<'_>, keymap: String, layouts: &[XkbLayout], options: &[String]) {
    let first = layouts.first();
    let keymap = match first.filter(|_| keymap.is_empty()) {
        // systemd names the keymaps that it makes from XKB `layout-variant`.
        Some(first) if first.variant.is_empty() => first.layout.clone(),
        Some(first) => format!("{}-{}", first.layout, first.variant),
        None => keymap,
    };
    draft.want("kbd", "loads the layout on the console");
    draft.act(Action::SetVariables {
        path: "/etc/vconsole.conf".to_owned(),
        variables: vec![("KEYMAP".to_owned(), keymap)],
    });
    let list =
        |part: fn(&XkbLayout) -> &str| layouts.iter().map(part).collect::<Vec<_>>().join(",");
    let mut text =
        "# Written by Kiln from the kickstart's `keyboard` command.\nSection \"InputClass\"\n\
                    \tIdentifier \"system-keyboard\"\n\tMatchIsKeyboard \"on\"\n"
            .to_owned();
    let pairs = [
        ("XkbLayout", list(|l| &l.layout)),
        ("XkbVariant", list(|l| &l.variant)),
        ("XkbOptions", options.join(",")),
    ];
    for (name, value) in pairs.iter().filter(|(_, v)| v.bytes().any(|b| b != b',')) {
        text.push_str(&format!("\tOption \"{name}\" \"{value}\"\n"));
    }
    text.push_str("EndSection\n");
    draft.write("/etc/X11/xorg.conf.d/00-keyboard.conf", 0o644, text);
}

fn is_option(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_:+-.".contains(&b))
        && text.contains(':')
}

/// `cz (qwerty)` or `cz`.
fn layout(said: &str) -> Option<XkbLayout> {
    let said = said.trim();
    let (layout, variant) = match said.split_once('(') {
        Some((layout, rest)) => (layout.trim(), rest.strip_suffix(')')?.trim()),
        None => (said, ""),
    };
    let word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    let fine = !layout.is_empty() && word(layout) && word(variant);
    fine.then(|| XkbLayout {
        layout: layout.to_owned(),
        variant: variant.to_owned(),
    })
}

/// Debian's console takes XKB layouts, so a console keymap is translated.
fn from_console(draft: &mut Draft<'_>, keymap: &str) -> Option<XkbLayout> {
    let found = CONSOLE
        .iter()
        .find(|(name, ..)| *name == keymap)
        .map(|(_, l, v)| (*l, *v));
    // systemd names keymaps that it makes from XKB `layout-variant`.
    let (layout, variant) = found.unwrap_or_else(|| keymap.split_once('-').unwrap_or((keymap, "")));
    let said = if variant.is_empty() {
        layout.to_owned()
    } else {
        format!("{layout} ({variant})")
    };
    let parsed = self::layout(&said);
    if parsed.is_none() {
        draft.error(
            format!("{keymap}: not the name of a keymap"),
            "for example us, de-nodeadkeys or cz-qwerty",
        );
    }
    parsed
}

/// Console keymaps of the kbd package whose XKB layout has another name.
const CONSOLE: &[(&str, &str, &str)] = &[
    ("be-latin1", "be", ""),
    ("bg_bds-utf8", "bg", ""),
    ("bg_pho-utf8", "bg", "phonetic"),
    ("br-abnt", "br", ""),
    ("br-abnt2", "br", ""),
    ("by", "by", ""),
    ("cf", "ca", ""),
    ("croat", "hr", ""),
    ("cz-lat2", "cz", "qwerty"),
    ("cz-lat2-prog", "cz", "qwerty"),
    ("cz-us-qwertz", "cz", ""),
    ("de-latin1", "de", ""),
    ("de-latin1-nodeadkeys", "de", "nodeadkeys"),
    ("de_CH-latin1", "ch", "de"),
    ("dk-latin1", "dk", ""),
    ("dvorak", "us", "dvorak"),
    ("colemak", "us", "colemak"),
    ("es-cp850", "es", ""),
    ("et", "ee", ""),
    ("et-nodeadkeys", "ee", "nodeadkeys"),
    ("fi-latin1", "fi", ""),
    ("fr-latin1", "fr", ""),
    ("fr-latin9", "fr", "latin9"),
    ("fr-oss", "fr", "oss"),
    ("fr-pc", "fr", ""),
    ("fr_CH", "ch", "fr"),
    ("fr_CH-latin1", "ch", "fr"),
    ("gr-pc", "gr", ""),
    ("hu101", "hu", "qwerty"),
    ("hypermap.m4", "us", ""),
    ("is-latin1", "is", ""),
    ("it2", "it", ""),
    ("jp106", "jp", ""),
    ("la-latin1", "latam", ""),
    ("lv-tilde", "lv", "tilde"),
    ("mk-utf", "mk", ""),
    ("nl2", "nl", ""),
    ("no-latin1", "no", ""),
    ("pl2", "pl", ""),
    ("pt-latin1", "pt", ""),
    ("ro_win", "ro", ""),
    ("ru", "ru", ""),
    ("ruwin_alt-UTF-8", "ru", ""),
    ("sg", "ch", "de"),
    ("sg-latin1", "ch", "de"),
    ("sf-latin1", "ch", "fr"),
    ("sk-qwerty", "sk", "qwerty"),
    ("slovene", "si", ""),
    ("sr-cy", "rs", ""),
    ("sv-latin1", "se", ""),
    ("trf", "tr", "f"),
    ("trf-fgGIod", "tr", "f"),
    ("trq", "tr", ""),
    ("ua-utf", "ua", ""),
    ("uk", "gb", ""),
    ("us-acentos", "us", "intl"),
];

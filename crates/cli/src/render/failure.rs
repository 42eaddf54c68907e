//! A [`Failure`] as people read it.

use std::fmt::Write;

use kiln_engine::{Failure, FailureKind, counted};

use super::style::{Palette, paint};
use super::text::{sanitize, shell_line};

/// The whole message, with a line end after each line.
///
/// Whatever a step printed, or a file name or an URL brought along, is made harmless first.
pub(crate) fn render(failure: &Failure, palette: &Palette) -> String {
    let mut out = String::new();
    headline(&mut out, failure, palette);
    excerpt(&mut out, failure);
    facts(&mut out, failure, palette);
    tail(&mut out, &failure.tail, palette);
    causes(&mut out, "because:", &failure.causes, palette);
    hints(&mut out, failure, palette);
    let (shown, more) = failure.others.split_at(failure.others.len().min(OTHERS));
    causes(&mut out, "also wrong:", shown, palette);
    if !more.is_empty() {
        let more = [counted(more.len(), "further line")];
        causes(&mut out, "also wrong:", &more, palette);
    }
    if let Some(command) = &failure.reopen {
        line(
            &mut out,
            &format!(
                "  {} {}",
                paint(palette.note, "look inside:"),
                sanitize(command)
            ),
        );
    }
    if let Some(log) = &failure.log {
        let path = sanitize(&log.to_string_lossy());
        let text = format!("  {} {path}", paint(palette.note, "whole log:"));
        line(&mut out, &format!("{text} (failure.json beside it)"));
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

fn headline(out: &mut String, failure: &Failure, palette: &Palette) {
    let label = match failure.kind {
        FailureKind::Definition => "error[definition]:",
        FailureKind::Usage => "error[usage]:",
        FailureKind::Environment => "error[environment]:",
        FailureKind::Step => "error[step]:",
        FailureKind::Internal => "error[internal]:",
        FailureKind::Cancelled => "cancelled:",
    };
    let style = if failure.kind == FailureKind::Cancelled {
        palette.warning
    } else {
        palette.error
    };
    let message = clean_lines(&failure.message);
    line(
        out,
        &format!("{} {}", paint(style, label), message.join("\n  ")),
    );
}

/// Several lines of one message, each made harmless by itself.
fn clean_lines(text: &str) -> Vec<String> {
    text.lines().map(sanitize).collect()
}

/// The kickstart line with a caret; its own headline says what ours has said.
fn excerpt(out: &mut String, failure: &Failure) {
    let lines = failure
        .excerpt
        .iter()
        .flat_map(|excerpt| excerpt.lines().skip(1));
    // Advice is among the hints.
    for text in lines.filter(|text| !text.trim_start().starts_with("= help:")) {
        line(out, &format!("  {}", sanitize(text)));
    }
}

fn facts(out: &mut String, failure: &Failure, palette: &Palette) {
    let command = failure.command.as_ref().map(|argv| shell_line(argv));
    let facts = [
        ("layer", &failure.layer),
        ("at", &failure.origin),
        ("package", &failure.package),
        ("command", &command),
        ("status", &failure.status),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            line(
                out,
                &format!(
                    "  {} {}",
                    paint(palette.dim, &format!("{name:<8}")),
                    sanitize(value)
                ),
            );
        }
    }
}

fn tail(out: &mut String, lines: &[String], palette: &Palette) {
    let label = match lines.len() {
        0 => return,
        1 => "the last line it printed:".to_owned(),
        n => format!("the last {n} lines it printed:"),
    };
    line(out, &format!("  {}", paint(palette.dim, &label)));
    for text in lines {
        line(
            out,
            &format!("    {} {}", paint(palette.dim, "|"), sanitize(text)),
        );
    }
}

/// No more of the other mistakes are shown.
const OTHERS: usize = 20;

fn causes(out: &mut String, label: &str, causes: &[String], palette: &Palette) {
    for cause in causes {
        line(
            out,
            &format!(
                "  {} {}",
                paint(palette.dim, label),
                clean_lines(cause).join("\n    ")
            ),
        );
    }
}

fn hints(out: &mut String, failure: &Failure, palette: &Palette) {
    for hint in &failure.hints {
        line(
            out,
            &format!(
                "  {} {}",
                paint(palette.note, "hint:"),
                clean_lines(hint).join("\n    ")
            ),
        );
    }
    if failure.kind == FailureKind::Internal {
        let mut note = String::new();
        let _ = write!(
            note,
            "this is a mistake in Kiln {}, not yours; please report it",
            env!("CARGO_PKG_VERSION")
        );
        line(out, &format!("  {} {note}", paint(palette.note, "hint:")));
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn plain(failure: &Failure) -> String {
        render(failure, &Palette::new(false))
    }

    fn failed_scriptlet() -> Failure {
        Failure {
            layer: Some("desktop".into()),
            origin: Some("desktop.ks:14".into()),
            package: Some("openjdk-17-jre-headless 17.0.9+9-1".into()),
            command: Some(vec!["dpkg".into(), "--configure".into(), "-a".into()]),
            status: Some("exit status 1".into()),
            tail: vec![
                "Setting up openjdk-17-jre-headless:amd64 (17.0.9+9-1) ...".into(),
                "\u{1b}[31mdpkg: error\u{1b}[0m processing package\r".into(),
                String::new(),
                " post-installation script subprocess returned error exit status 1".into(),
            ],
            reopen: Some("kiln shell --last".into()),
            log: Some("/home/u/.local/state/kiln/failed/1/build.log".into()),
            ..Failure::new(FailureKind::Step, "installing 312 packages failed")
        }
        .hint("the package's postinst wants /proc/self/exe; see `kiln doctor`")
    }

    #[test]
    fn a_failed_scriptlet_says_everything() {
        assert_snapshot!(plain(&failed_scriptlet()), @"
        error[step]: installing 312 packages failed
          layer    desktop
          at       desktop.ks:14
          package  openjdk-17-jre-headless 17.0.9+9-1
          command  dpkg --configure -a
          status   exit status 1
          the last 4 lines it printed:
            | Setting up openjdk-17-jre-headless:amd64 (17.0.9+9-1) ...
            | dpkg: error processing package
            |
            |  post-installation script subprocess returned error exit status 1
          hint: the package's postinst wants /proc/self/exe; see `kiln doctor`
          look inside: kiln shell --last
          whole log: /home/u/.local/state/kiln/failed/1/build.log (failure.json beside it)
        ");
    }

    #[test]
    fn an_unknown_package_names_its_line_and_its_neighbours() {
        let failure = Failure {
            layer: Some("contest".into()),
            origin: Some("contest.ks:7".into()),
            ..Failure::new(FailureKind::Definition, "no package is named `gcc-13-c++`")
        }
        .hint("the nearest names are g++-12, gcc-12, g++");
        assert_snapshot!(plain(&failure), @"
        error[definition]: no package is named `gcc-13-c++`
          layer    contest
          at       contest.ks:7
          hint: the nearest names are g++-12, gcc-12, g++
        ");
    }

    #[test]
    fn a_wrong_line_is_shown_with_its_caret() {
        let failure = Failure {
            origin: Some("base.ks:3".into()),
            excerpt: Some("error[unknown-option]: x\n --> base.ks:3:6\n  |\n3 | part / --siez=100\n  |        ^^^^^^\n  = help: x\n".into()),
            ..Failure::new(FailureKind::Definition, "`part` has no option `--siez`")
        }
        .hint("did you mean `--size`?");
        assert_snapshot!(plain(&failure), @r"
        error[definition]: `part` has no option `--siez`
           --> base.ks:3:6
            |
          3 | part / --siez=100
            |        ^^^^^^
          at       base.ks:3
          hint: did you mean `--size`?
        ");
    }

    #[test]
    fn causes_follow_from_the_outside_in() {
        let failure = Failure::new(
            FailureKind::Environment,
            "the download store cannot be written",
        )
        .cause("creating /home/u/.cache/kiln/downloads/tmp-1")
        .cause("No space left on device (os error 28)")
        .hint("`kiln cache gc` frees what no build needs\nor move it with --cache-dir");
        assert_snapshot!(plain(&failure), @"
        error[environment]: the download store cannot be written
          because: creating /home/u/.cache/kiln/downloads/tmp-1
          because: No space left on device (os error 28)
          hint: `kiln cache gc` frees what no build needs
            or move it with --cache-dir
        ");
    }

    #[test]
    fn other_mistakes_are_no_causes() {
        let mut failure = Failure::new(FailureKind::Definition, "`part` has no option `--siez`")
            .hint("did you mean `--size`?");
        failure.others = (1..=22).map(|n| format!("a.ks:{n}: x")).collect();
        let text = plain(&failure);
        assert!(!text.contains("because:"), "{text}");
        assert!(
            text.contains("hint: did you mean `--size`?\n  also wrong: a.ks:1: x\n"),
            "{text}"
        );
        assert!(
            text.ends_with("also wrong: a.ks:20: x\n  also wrong: 2 further lines\n"),
            "{text}"
        );
    }

    #[test]
    fn our_own_mistakes_are_owned() {
        let failure = Failure::new(FailureKind::Internal, "the disk layout overlaps itself");
        insta::with_settings!({filters => vec![(r"Kiln \d+\.\d+\.\d+", "Kiln VERSION")]}, {
            assert_snapshot!(plain(&failure), @"
            error[internal]: the disk layout overlaps itself
              hint: this is a mistake in Kiln VERSION, not yours; please report it
            ");
        });
    }

    #[test]
    fn nothing_untrusted_reaches_the_terminal() {
        let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}x\u{202e}";
        let failure = Failure {
            layer: Some(evil.into()),
            origin: Some(evil.into()),
            package: Some(evil.into()),
            command: Some(vec![evil.into()]),
            status: Some(evil.into()),
            tail: vec![evil.into()],
            causes: vec![evil.into()],
            others: vec![evil.into()],
            hints: vec![evil.into()],
            excerpt: Some(format!("headline\n{evil}\n")),
            reopen: Some(evil.into()),
            ..Failure::new(FailureKind::Step, evil)
        };
        let text = plain(&failure);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(!text.contains('\u{202e}'));
    }

    #[test]
    fn colours_only_wrap_our_own_words() {
        let text = render(&failed_scriptlet(), &Palette::new(true));
        assert!(
            text.starts_with("\u{1b}[1m\u{1b}[31merror[step]:\u{1b}[0m installing"),
            "{text:?}"
        );
        assert!(!text.contains("\u{1b}[31mdpkg"));
    }
}

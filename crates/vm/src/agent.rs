//! The observer inside the guest, and what it says.
//!
//! Shipped images hold no test hook. The kernel argument `systemd.debug_shell=ttyS1` (systemd-debug-generator(8))
//! gives a root shell on the second serial port early in the boot. The observer, a shell script, travels in an ACPI table of
//! its own, which the kernel shows as a file without any module; one line typed into the debug shell starts it there.

use crate::request::Expect;

/// The script that runs in the guest.
pub(crate) const SCRIPT: &str = include_str!("agent.sh");
/// Signature of the ACPI table that carries the observer.
pub(crate) const TABLE: &str = "KILN";
/// Signature of the ACPI table that carries the caller's script.
pub(crate) const SCRIPT_TABLE: &str = "KILS";
/// Starts the observer from the debug shell. 36 bytes of header come before a table's data (ACPI 6.5, section 5.2.6).
pub(crate) const BOOTSTRAP: &[u8] =
    b"tail -c +37 /sys/firmware/acpi/tables/KILN >/run/kiln-agent && exec sh /run/kiln-agent\n";
/// Asks for the failed units.
pub(crate) const COLLECT: &[u8] = b"collect\n";
/// Asks for the logs that tell why.
pub(crate) const DIAGNOSE: &[u8] = b"diagnose\n";
/// Runs the caller's script.
pub(crate) const RUN: &[u8] = b"script\n";

/// What the guest reports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    /// The observer runs.
    Hello { kernel: String, os: String },
    /// What the system is made for: a desktop or a login prompt.
    Goal(Expect),
    /// The state of systemd and of the units that matter.
    State(State),
    /// A user is logged in graphically; `id` is logind's name for the session, where a program of it knows it.
    Session {
        user: String,
        kind: String,
        id: Option<String>,
    },
    /// Windows of type DESKTOP and DOCK; none where they cannot be counted.
    Windows(Option<(u32, u32)>),
    /// A unit has failed.
    Failed {
        unit: String,
        result: String,
        log: String,
    },
    /// All failed units have been named.
    Collected,
    /// The end of a log.
    Log { name: String, text: String },
    /// All logs have been sent.
    Diagnosed,
    /// A line that the caller's script printed.
    Output(String),
    /// The script ended.
    Exit(i32),
}

/// As `systemctl is-system-running` and `systemctl is-active` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) system: String,
    pub(crate) multi_user: String,
    pub(crate) graphical: String,
    pub(crate) getty: String,
    pub(crate) display_manager: String,
}

impl State {
    /// Whether no start-up job is waiting any more.
    pub(crate) fn settled(&self) -> bool {
        matches!(self.system.as_str(), "running" | "degraded" | "maintenance")
    }
}

/// Reads one line of the agent's port: seconds since the guest's kernel started, if told, and the report.
pub(crate) fn parse(line: &str) -> Option<(Option<f64>, Report)> {
    let rest = line.strip_prefix("KILN ")?;
    let (uptime, rest) = rest.split_once(' ')?;
    let (verb, fields) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((uptime.parse().ok(), parse_report(verb, fields)?))
}

fn parse_report(verb: &str, fields: &str) -> Option<Report> {
    let mut words = fields.split(' ');
    // A guest that could not find something out leaves its field empty, and the line may end before it.
    let mut word = || words.next().map_or_else(String::new, str::to_owned);
    Some(match verb {
        "hello" => {
            let (kernel, os) = fields.split_once(' ')?;
            Report::Hello {
                kernel: kernel.to_owned(),
                os: os.to_owned(),
            }
        }
        "goal" => Report::Goal(match fields {
            "desktop" => Expect::Desktop,
            "login" => Expect::Login,
            _ => return None,
        }),
        "state" => Report::State(State {
            system: word(),
            multi_user: word(),
            graphical: word(),
            getty: word(),
            display_manager: word(),
        }),
        "session" => Report::Session {
            user: word(),
            kind: word(),
            id: Some(word()).filter(|id| !id.is_empty()),
        },
        "windows" => Report::Windows(word().parse().ok().zip(word().parse().ok())),
        "failed" => Report::Failed {
            unit: word(),
            result: word(),
            log: base64(&word()),
        },
        "log" => Report::Log {
            name: word(),
            text: base64(&word()),
        },
        "diagnosed" => Report::Diagnosed,
        "collected" => Report::Collected,
        "out" => Report::Output(fields.to_owned()),
        "exit" => Report::Exit(fields.trim().parse().ok()?),
        _ => return None,
    })
}

/// Decodes base64 (RFC 4648, section 4) as text; what is not of its alphabet is skipped.
fn base64(text: &str) -> String {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in text.bytes().filter_map(base64_digit) {
        held = (held << 6 | u32::from(digit)) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Longest report kept, in bytes; longer ones are cut.
const REPORT_LIMIT: usize = 1 << 20;

/// Cuts the port's bytes into lines. Unlike the console's, they are taken as they are: a script's output is among them.
#[derive(Default)]
pub(crate) struct Inbox {
    line: Vec<u8>,
}

impl Inbox {
    /// Takes bytes and returns the lines that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut done = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line);
                done.push(line.trim_end_matches('\r').to_owned());
                self.line.clear();
            } else if self.line.len() < REPORT_LIMIT {
                self.line.push(byte);
            }
        }
        done
    }

    /// The unfinished line.
    pub(crate) fn pending(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }
}

/// Whether the debug shell waits for a command. Shells end their prompt with `#` for root.
pub(crate) fn is_prompt(pending: &str) -> bool {
    pending.trim_end().ends_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        assert_eq!(
            parse("KILN 12.50 hello 6.1.0-50-amd64 Debian GNU/Linux 12 (bookworm)"),
            Some((
                Some(12.5),
                Report::Hello {
                    kernel: "6.1.0-50-amd64".into(),
                    os: "Debian GNU/Linux 12 (bookworm)".into()
                }
            ))
        );
        let Some((_, Report::State(state))) =
            parse("KILN 9 state degraded active inactive active failed ")
        else {
            panic!("no state");
        };
        assert!(state.settled());
        assert_eq!(
            (state.getty.as_str(), state.display_manager.as_str()),
            ("active", "failed")
        );
        assert_eq!(
            parse("KILN 9 goal login"),
            Some((Some(9.0), Report::Goal(Expect::Login)))
        );
        assert_eq!(
            parse("KILN 9 windows 1 2"),
            Some((Some(9.0), Report::Windows(Some((1, 2)))))
        );
        assert_eq!(
            parse("KILN 9 windows unknown unknown"),
            Some((Some(9.0), Report::Windows(None)))
        );
        assert_eq!(
            parse("KILN - out   two  blanks"),
            Some((None, Report::Output("  two  blanks".into())))
        );
        assert_eq!(parse("KILN 3.1 exit 7"), Some((Some(3.1), Report::Exit(7))));
    }

    #[test]
    fn unit_logs_are_decoded() {
        let line = "KILN 9 failed x.service exit-code bGluZSAxCmxpbmUgMgo=";
        let expected = Report::Failed {
            unit: "x.service".into(),
            result: "exit-code".into(),
            log: "line 1\nline 2\n".into(),
        };
        assert_eq!(parse(line), Some((Some(9.0), expected)));
    }

    #[test]
    fn noise_is_no_report() {
        for line in [
            "",
            "KILN",
            "KILN 1",
            "root@kiln:/# ",
            "KILN 1 exit seven",
            "KILN 1 nonsense",
            "KILN 1 goal unknown",
            "KILN 1 hello x",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
        assert_eq!(base64("A"), "");
        assert_eq!(base64("===="), "");
    }

    #[test]
    fn lines_keep_their_blanks_and_are_bounded() {
        let mut inbox = Inbox::default();
        assert!(inbox.feed(b"root@kiln:/# ").is_empty());
        assert!(is_prompt(&inbox.pending()));
        assert_eq!(
            inbox.feed(b"\r\n  a\x1b[0m \n\n"),
            ["root@kiln:/# ", "  a\u{1b}[0m ", ""]
        );
        assert_eq!(
            inbox.feed(&vec![b'x'; 2 * REPORT_LIMIT]),
            Vec::<String>::new()
        );
        assert_eq!(
            inbox.feed(b"\n").first().map(String::len),
            Some(REPORT_LIMIT)
        );
    }

    #[test]
    fn the_bootstrap_names_the_table_and_the_script_is_valid_shell() {
        assert!(String::from_utf8_lossy(BOOTSTRAP).contains(&format!("/tables/{TABLE} ")));
        assert!(SCRIPT.contains(&format!("$tables/{SCRIPT_TABLE}")));
        let status = std::process::Command::new("/bin/sh")
            .args(["-n", "-c", SCRIPT])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

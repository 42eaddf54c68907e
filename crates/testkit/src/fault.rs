//! Faults that a mirror can inject, chosen by path.

use std::time::Duration;

/// What goes wrong with an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// 404.
    NotFound,
    /// This status, with an empty body.
    Status(u16),
    /// The connection is closed without an answer.
    Close,
    /// Headers and this many bytes of the body come, then nothing for the given time, then the connection ends.
    Stall {
        /// Bytes of the body that still come.
        after: u64,
        /// How long nothing comes.
        time: Duration,
    },
    /// Headers promise all, the connection ends after this many bytes of the body.
    Truncate {
        /// Bytes of the body that come.
        after: u64,
    },
    /// The file is shorter than it should be, and the headers say so.
    Short {
        /// Bytes that the file seems to have.
        length: u64,
    },
    /// One byte of the file is another.
    Flip {
        /// Offset in the file.
        offset: u64,
    },
    /// Not faster than this.
    Slow {
        /// Bytes in a second.
        rate: u64,
    },
    /// The answer says nothing of its length: the connection's end is the body's.
    NoLength,
    /// `Range` is ignored: always the whole file.
    NoRange,
    /// Every request is sent on to another URL.
    Redirect(String),
    /// Other content, with status 200 (a hotel's log-in page).
    Replace(Vec<u8>),
}

/// A fault, where it happens and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Path below the mirror, with `*` for any text.
    pub pattern: String,
    /// What happens.
    pub fault: Fault,
    /// How many requests it hits; `None`: all.
    pub times: Option<u32>,
}

impl Rule {
    /// Makes a fault that hits every request for the pattern.
    pub fn always(pattern: &str, fault: Fault) -> Self {
        Rule {
            pattern: pattern.to_owned(),
            fault,
            times: None,
        }
    }

    /// Makes a fault that hits the first `times` requests.
    pub fn times(times: u32, pattern: &str, fault: Fault) -> Self {
        Rule {
            times: Some(times),
            ..Rule::always(pattern, fault)
        }
    }

    /// Reads `PATTERN=FAULT[:ARGUMENT[:ARGUMENT]][@TIMES]`, as the `kiln-mirror` command line has it:
    /// `404`, `status:503`, `close`, `stall:BYTES:SECONDS`, `truncate:BYTES`, `short:BYTES`, `flip:OFFSET`,
    /// `slow:BYTES-PER-SECOND`, `nolength`, `norange`, `redirect:URL`, `replace:TEXT`.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (pattern, rest) = text
            .rsplit_once('=')
            .ok_or_else(|| format!("{text:?} has no ="))?;
        let (fault, times) = match rest.rsplit_once('@') {
            Some((fault, times)) => (
                fault,
                Some(
                    times
                        .parse()
                        .map_err(|_| format!("{times:?} is no number"))?,
                ),
            ),
            None => (rest, None),
        };
        let (name, argument) = fault.split_once(':').unwrap_or((fault, ""));
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("{text:?} is no number in {fault:?}"))
        };
        let fault = match name {
            "404" => Fault::NotFound,
            "status" => Fault::Status(
                argument
                    .parse()
                    .map_err(|_| format!("{argument:?} is no status"))?,
            ),
            "close" => Fault::Close,
            "stall" => {
                let (after, seconds) = argument.split_once(':').unwrap_or((argument, "3600"));
                Fault::Stall {
                    after: number(after)?,
                    time: Duration::from_secs(number(seconds)?),
                }
            }
            "truncate" => Fault::Truncate {
                after: number(argument)?,
            },
            "short" => Fault::Short {
                length: number(argument)?,
            },
            "flip" => Fault::Flip {
                offset: number(argument)?,
            },
            "slow" => Fault::Slow {
                rate: number(argument)?.max(1),
            },
            "nolength" => Fault::NoLength,
            "norange" => Fault::NoRange,
            "redirect" => Fault::Redirect(argument.to_owned()),
            "replace" => Fault::Replace(argument.as_bytes().to_vec()),
            other => return Err(format!("the fault {other:?} is not known")),
        };
        Ok(Rule {
            pattern: pattern.to_owned(),
            fault,
            times,
        })
    }
}

/// Whether a pattern with `*` matches the whole text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        assert_eq!(
            Rule::parse("/dists/*=404"),
            Ok(Rule::always("/dists/*", Fault::NotFound))
        );
        assert_eq!(
            Rule::parse("*.deb=status:500@2"),
            Ok(Rule::times(2, "*.deb", Fault::Status(500)))
        );
        let stall = Fault::Stall {
            after: 10,
            time: Duration::from_secs(3),
        };
        assert_eq!(Rule::parse("*=stall:10:3"), Ok(Rule::always("*", stall)));
        for bad in ["x", "*=what", "*=flip:x", "*=404@x"] {
            assert!(Rule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_match() {
        assert!(matches("*/Packages*", "/dists/x/Packages.xz"));
        assert!(matches("*", ""));
        assert!(!matches("*.deb", "/x.deb.part"));
    }
}

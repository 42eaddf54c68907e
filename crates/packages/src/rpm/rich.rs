//! Rich dependencies: `(a or b)`, `(a if b else c)`, `(a with b >= 2)`.

use super::primary::{Capability, Flag};
use super::version::Evr;

/// Nesting of parentheses.
const MAX_DEPTH: usize = 16;

/// A dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rich {
    One(Capability),
    And(Vec<Rich>),
    Or(Vec<Rich>),
    /// The first, if the second is there; else the third.
    If(Box<Rich>, Box<Rich>, Option<Box<Rich>>),
    /// The first, unless the second is there; then the third.
    Unless(Box<Rich>, Box<Rich>, Option<Box<Rich>>),
    /// One package that is both.
    With(Box<Rich>, Box<Rich>),
    /// A package that is the first, but not the second.
    Without(Box<Rich>, Box<Rich>),
}

impl Rich {
    /// Reads a requirement. An `Err` is the end of a sentence about it.
    pub(super) fn of(capability: &Capability) -> Result<Self, String> {
        if !capability.name.starts_with('(') {
            return Ok(Rich::One(capability.clone()));
        }
        let mut parser = Parser {
            rest: &capability.name,
            depth: 0,
        };
        let rich = parser.group()?;
        match parser.rest.trim_start().is_empty() {
            true => Ok(rich),
            false => Err("has something behind its last parenthesis".into()),
        }
    }

    /// Whether what it asks for depends on what else is there.
    pub(super) fn is_conditional(&self) -> bool {
        match self {
            Rich::One(_) | Rich::With(..) | Rich::Without(..) => false,
            Rich::And(all) | Rich::Or(all) => all.iter().any(Rich::is_conditional),
            Rich::If(..) | Rich::Unless(..) => true,
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// What stands in parentheses, which begin here.
    fn group(&mut self) -> Result<Rich, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("is nested too deeply".into());
        }
        self.rest = self
            .rest
            .trim_start()
            .strip_prefix('(')
            .ok_or("lacks a parenthesis")?;
        let first = self.operand()?;
        let rich = match self.word() {
            "" => first,
            "and" => Rich::And(self.list(first, "and")?),
            "or" => Rich::Or(self.list(first, "or")?),
            operator @ ("if" | "unless" | "with" | "without") => {
                let second = Box::new(self.operand()?);
                let first = Box::new(first);
                match operator {
                    "if" => Rich::If(first, second, self.otherwise()?),
                    "unless" => Rich::Unless(first, second, self.otherwise()?),
                    "with" => Rich::With(first, second),
                    _ => Rich::Without(first, second),
                }
            }
            other => return Err(format!("has the unknown operator {other:.40}")),
        };
        self.rest = self
            .rest
            .trim_start()
            .strip_prefix(')')
            .ok_or("lacks a closing parenthesis")?;
        self.depth -= 1;
        Ok(rich)
    }

    fn otherwise(&mut self) -> Result<Option<Box<Rich>>, String> {
        match self.word() {
            "" => Ok(None),
            "else" => Ok(Some(Box::new(self.operand()?))),
            other => Err(format!("has {other:.40} where only else can be")),
        }
    }

    /// The rest of operands that the same operator joins.
    fn list(&mut self, first: Rich, operator: &str) -> Result<Vec<Rich>, String> {
        let mut all = vec![first, self.operand()?];
        loop {
            match self.word() {
                "" => return Ok(all),
                word if word == operator => all.push(self.operand()?),
                other => return Err(format!("mixes {operator} with {other:.40}")),
            }
        }
    }

    fn operand(&mut self) -> Result<Rich, String> {
        if self.rest.trim_start().starts_with('(') {
            return self.group();
        }
        let name = self.word().to_owned();
        if name.is_empty() {
            return Err("has an operator without something to apply it to".into());
        }
        let before = self.rest;
        let flag = match self.word() {
            "<" => Flag::Less,
            "<=" => Flag::AtMost,
            "=" | "==" => Flag::Equal,
            ">=" => Flag::AtLeast,
            ">" => Flag::Greater,
            _ => {
                self.rest = before;
                return Ok(Rich::One(Capability {
                    name,
                    version: None,
                }));
            }
        };
        let evr = evr(self.word())?;
        Ok(Rich::One(Capability {
            name,
            version: Some((flag, evr)),
        }))
    }

    /// What stands before a space or a parenthesis that was not opened in it; empty at the end of a group.
    fn word(&mut self) -> &'a str {
        let text = self.rest.trim_start();
        let mut open = 0;
        let ends = |c: char| {
            match c {
                '(' => open += 1,
                ')' if open == 0 => return true,
                ')' => open -= 1,
                _ => {}
            }
            c.is_whitespace()
        };
        let end = text.find(ends).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        word
    }
}

fn evr(text: &str) -> Result<Evr, String> {
    let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
    let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
    let epoch = epoch.parse().ok().filter(|_| !version.is_empty());
    let epoch = epoch.ok_or_else(|| format!("has the bad version {text:.40?}"))?;
    Ok(Evr {
        epoch,
        version: version.into(),
        release: release.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Rich, String> {
        Rich::of(&Capability {
            name: text.into(),
            version: None,
        })
    }

    fn one(name: &str) -> Rich {
        Rich::One(Capability {
            name: name.into(),
            version: None,
        })
    }

    #[test]
    fn dependencies_are_read() {
        assert_eq!(parse("bash"), Ok(one("bash")));
        assert_eq!(
            parse("(a or b(x86-64) or c)"),
            Ok(Rich::Or(vec![one("a"), one("b(x86-64)"), one("c")]))
        );
        let iff = Rich::If(
            Box::new(one("libc.so.6()(64bit)")),
            Box::new(one("b")),
            Some(Box::new(one("c"))),
        );
        assert_eq!(parse("(libc.so.6()(64bit) if b else c)"), Ok(iff));
        let evr = Evr {
            epoch: 1,
            version: "2.0".into(),
            release: "3".into(),
        };
        let versioned = Rich::One(Capability {
            name: "b".into(),
            version: Some((Flag::AtLeast, evr)),
        });
        let nested = Rich::With(
            Box::new(one("a")),
            Box::new(Rich::Or(vec![versioned, one("c")])),
        );
        assert_eq!(parse("(a with (b >= 1:2.0-3 or c))"), Ok(nested));
        assert_eq!(parse("(a)"), Ok(one("a")));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let deep = "(".repeat(40);
        for bad in [
            "(",
            "()",
            "(a",
            "(a or)",
            "(a or b and c)",
            "(a xor b)",
            "(a >= )",
            "(a) b",
            "(a if b or c)",
            "(a > x:1)",
            &deep,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

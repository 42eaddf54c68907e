//! The filter of a list: `status="WORKING" AND (tags="a" OR create_time>"2026-01-01T00:00:00Z")`.

use crate::store::Record;
use crate::wire::error::ApiError;
use crate::wire::time;

const DEEPEST: usize = 32;

/// A filter that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Both.
    And(Box<Filter>, Box<Filter>),
    /// One or both.
    Or(Box<Filter>, Box<Filter>),
    /// Not so.
    Not(Box<Filter>),
    /// A field compared with a value.
    Compare(Field, Sign, String),
    /// Everything.
    All,
}

/// A field that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Field {
    Id,
    Status,
    Tags,
    Trigger,
    Created,
    Started,
    Finished,
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Sign {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Reads a filter.
///
/// # Errors
/// It is none, or has a field that builds cannot be looked for by.
pub(super) fn read(text: &str) -> Result<Filter, ApiError> {
    let words = words(text)?;
    if words.is_empty() {
        return Ok(Filter::All);
    }
    let mut reader = Reader {
        words: &words,
        depth: 0,
    };
    let filter = reader.any()?;
    match reader.words.first() {
        None => Ok(filter),
        Some(word) => Err(wrong(format!("{word:?} is not expected"))),
    }
}

fn wrong(what: String) -> ApiError {
    ApiError::invalid(format!("invalid list filter: {what}"))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Open,
    Close,
    Sign(Sign),
    Name(String),
    Text(String),
}

fn words(text: &str) -> Result<Vec<Word>, ApiError> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        words.push(match letter {
            c if c.is_whitespace() => continue,
            '(' => Word::Open,
            ')' => Word::Close,
            '=' => Word::Sign(Sign::Equal),
            '!' if letters.next_if_eq(&'=').is_some() => Word::Sign(Sign::Unequal),
            '<' if letters.next_if_eq(&'=').is_some() => Word::Sign(Sign::LessOrEqual),
            '<' => Word::Sign(Sign::Less),
            '>' if letters.next_if_eq(&'=').is_some() => Word::Sign(Sign::GreaterOrEqual),
            '>' => Word::Sign(Sign::Greater),
            quote @ ('"' | '\'') => {
                let mut value = String::new();
                loop {
                    match letters.next() {
                        Some('\\') => value.extend(letters.next()),
                        Some(c) if c == quote => break,
                        Some(c) => value.push(c),
                        None => return Err(wrong("a quote is not closed".to_owned())),
                    }
                }
                Word::Text(value)
            }
            c if is_bare(c) => {
                let mut name = String::from(c);
                while let Some(c) = letters.next_if(|c| is_bare(*c)) {
                    name.push(c);
                }
                Word::Name(name)
            }
            c => return Err(wrong(format!("{c:?} is not expected"))),
        });
    }
    Ok(words)
}

fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || "_-.:+/".contains(c)
}

struct Reader<'a> {
    words: &'a [Word],
    depth: usize,
}

impl Reader<'_> {
    fn any(&mut self) -> Result<Filter, ApiError> {
        let mut filter = self.all()?;
        while self.takes("OR") {
            filter = Filter::Or(Box::new(filter), Box::new(self.all()?));
        }
        Ok(filter)
    }

    fn all(&mut self) -> Result<Filter, ApiError> {
        let mut filter = self.one()?;
        loop {
            let said = self.takes("AND");
            let ends = matches!(self.words.first(), None | Some(Word::Close))
                || matches!(self.words.first(), Some(Word::Name(name)) if name == "OR");
            if !said && ends {
                return Ok(filter);
            }
            filter = Filter::And(Box::new(filter), Box::new(self.one()?));
        }
    }

    fn one(&mut self) -> Result<Filter, ApiError> {
        if self.takes("NOT") {
            return self.deeper(|this| this.one().map(|filter| Filter::Not(Box::new(filter))));
        }
        match self.words {
            [Word::Open, rest @ ..] => {
                self.words = rest;
                let filter = self.deeper(Self::any)?;
                match self.words {
                    [Word::Close, rest @ ..] => {
                        self.words = rest;
                        Ok(filter)
                    }
                    _ => Err(wrong("a parenthesis is not closed".to_owned())),
                }
            }
            [
                Word::Name(name),
                Word::Sign(sign),
                Word::Name(value) | Word::Text(value),
                rest @ ..,
            ] => {
                self.words = rest;
                compare(name, *sign, value)
            }
            [] => Err(wrong("it ends too early".to_owned())),
            [word, ..] => Err(wrong(format!("{word:?} begins no comparison"))),
        }
    }

    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Filter, ApiError>,
    ) -> Result<Filter, ApiError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(wrong(format!("it is more than {DEEPEST} deep")));
        }
        let filter = read(self)?;
        self.depth -= 1;
        Ok(filter)
    }

    fn takes(&mut self, word: &str) -> bool {
        match self.words {
            [Word::Name(name), rest @ ..] if name == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

fn compare(name: &str, sign: Sign, value: &str) -> Result<Filter, ApiError> {
    let field = match name {
        "id" | "build_id" => Field::Id,
        "status" => Field::Status,
        "tags" => Field::Tags,
        "trigger_id" | "build_trigger_id" | "buildTriggerId" => Field::Trigger,
        "create_time" | "createTime" => Field::Created,
        "start_time" | "startTime" => Field::Started,
        "finish_time" | "finishTime" => Field::Finished,
        _ => return Err(wrong(format!("builds cannot be looked for by {name:?}"))),
    };
    let is_time = matches!(field, Field::Created | Field::Started | Field::Finished);
    if is_time && time::read_stamp(value).is_none() {
        return Err(wrong(format!("{value:?} is no RFC 3339 time")));
    }
    if !is_time && !matches!(sign, Sign::Equal | Sign::Unequal) {
        return Err(wrong(format!("{name} has no order")));
    }
    Ok(Filter::Compare(field, sign, value.to_owned()))
}

impl Filter {
    /// Whether a build fits.
    pub(super) fn fits(&self, record: &Record) -> bool {
        match self {
            Filter::All => true,
            Filter::And(a, b) => a.fits(record) && b.fits(record),
            Filter::Or(a, b) => a.fits(record) || b.fits(record),
            Filter::Not(filter) => !filter.fits(record),
            Filter::Compare(field, sign, value) => {
                let build = &record.build;
                let times = |given: &Option<String>| {
                    let (given, value) = (
                        given.as_deref().and_then(time::read_stamp),
                        time::read_stamp(value),
                    );
                    given
                        .zip(value)
                        .is_some_and(|(given, value)| sign.holds(&given, &value))
                };
                match field {
                    Field::Id => sign.holds(&build.id, value),
                    Field::Status => sign.holds(&build.status.name(), &value.as_str()),
                    Field::Tags => build.tags.contains(value) == (*sign == Sign::Equal),
                    Field::Trigger => {
                        let id = build.build_trigger_id.as_deref().unwrap_or("");
                        sign.holds(&id, &value.as_str())
                    }
                    Field::Created => times(&build.create_time),
                    Field::Started => times(&build.start_time),
                    Field::Finished => times(&build.finish_time),
                }
            }
        }
    }
}

impl Sign {
    fn holds<T: Ord>(self, a: &T, b: &T) -> bool {
        match self {
            Sign::Equal => a == b,
            Sign::Unequal => a != b,
            Sign::Less => a < b,
            Sign::LessOrEqual => a <= b,
            Sign::Greater => a > b,
            Sign::GreaterOrEqual => a >= b,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits(filter: &str) -> Result<bool, String> {
        let build = json!({ "id": "b", "status": "WORKING", "tags": ["t1", "x.y"], "createTime": "2026-11-28T10:00:00Z" });
        let record = Record {
            location: "global".to_owned(),
            created: 0,
            who: String::new(),
            attempt: 0,
            cancelled: false,
            retry_of: None,
            build: serde_json::from_value(build).unwrap(),
            request: json!({}),
            task: serde_json::from_value(json!({ "steps": [], "artifacts": null, "timeout": 1.0, "queue_ttl": 1.0, "cpus": 1, "priority": 0 })).unwrap(),
        };
        read(filter)
            .map(|filter| filter.fits(&record))
            .map_err(|error| error.message)
    }

    #[test]
    fn builds_are_found() {
        for filter in [
            "",
            "status=WORKING",
            r#"(tags="t1" AND create_time>"2026-11-28T09:00:00+00:00") AND (status="WORKING" OR status="QUEUED")"#,
            r#"tags="t1" tags='x.y'"#,
            "NOT status=QUEUED AND id!=c",
            "finish_time<2026-11-28T09:00:00Z OR build_id=b",
        ] {
            assert_eq!(fits(filter), Ok(true), "{filter}");
        }
        for filter in [
            "status=QUEUED",
            "tags=other",
            "create_time<\"2020-01-01T00:00:00Z\"",
            "tags!=t1",
        ] {
            assert_eq!(fits(filter), Ok(false), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let deep = "(".repeat(50_000);
        let not = "NOT ".repeat(50_000);
        for filter in [
            "status",
            "status=",
            "=x",
            "(status=WORKING",
            "status=WORKING)",
            "tags=\"a",
            "color=red",
            "status<WORKING",
            "create_time>noon",
            "a & b",
            "AND",
            &deep,
            &not,
        ] {
            assert!(fits(filter).is_err(), "{filter}");
        }
    }
}

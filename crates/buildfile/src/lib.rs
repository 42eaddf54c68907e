//! Build files: YAML or JSON text to the value that Cloud Build's API takes. What its fields mean is the server's to say.
//!
//! The text may be a stranger's: how long it is, how deep it goes and how often it says the same is limited.

use std::fmt;

use serde_json::Value;

/// Bytes of a build file at most.
pub const LONGEST: usize = 1 << 20;
const MOST_NODES: usize = 100_000;
const DEEPEST: usize = 64;
const MOST_ALIASES: usize = 1000;

/// Why a text is no build file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong, with the file's name.
    pub message: String,
    /// `FILE:LINE:COLUMN`, if it is known.
    pub place: Option<String>,
    /// Why.
    pub cause: Option<String>,
}

impl Error {
    fn new(message: String) -> Self {
        Error {
            message,
            place: None,
            cause: None,
        }
    }

    fn at(self, place: String) -> Self {
        Error {
            place: Some(place),
            ..self
        }
    }

    fn cause(self, cause: impl ToString) -> Self {
        Error {
            cause: Some(cause.to_string()),
            ..self
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Reads a build file. `name` is for messages.
///
/// # Errors
/// It is neither YAML nor JSON, no mapping, or larger than any real one: with line and column.
pub fn read(text: &str, name: &str) -> Result<Value, Error> {
    if text.len() > LONGEST {
        let message = format!("{name} has more than {LONGEST} bytes, which no build file has");
        return Err(Error::new(message).at(format!("{name}:1:1")));
    }
    let value = if name.ends_with(".json") {
        json(text, name)?
    } else {
        yaml(text, name)?
    };
    if !value.is_object() {
        let what = match value {
            Value::Null => "is empty",
            _ => "is no mapping of names to values",
        };
        return Err(
            Error::new(format!("{name} {what}: a build file has `steps:`"))
                .at(format!("{name}:1:1")),
        );
    }
    Ok(value)
}

fn json(text: &str, name: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("{name}:{}:{}", error.line(), error.column());
        Error::new(format!("{name} is no JSON"))
            .at(place)
            .cause(error)
    })
}

fn yaml(text: &str, name: &str) -> Result<Value, Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MOST_NODES,
            max_events: 4 * MOST_NODES,
            max_depth: DEEPEST,
            max_aliases: MOST_ALIASES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 4 * MOST_NODES,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let failure = Error::new(format!("{name} cannot be read as YAML"));
        let why = error.without_snippet();
        match error.location() {
            Some(at) => failure
                .at(format!("{name}:{}:{}", at.line(), at.column()))
                .cause(why),
            None => failure.cause(why),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "# a comment\nsteps:\n- &a\n  name: kiln\n  args: [build, 'x.ks']\n  timeout: 5s\n- *a\noptions: {env: [A=1]}\n";
        let step = json!({ "name": "kiln", "args": ["build", "x.ks"], "timeout": "5s" });
        let expected = json!({ "steps": [step, step], "options": { "env": ["A=1"] } });
        assert_eq!(read(yaml, "c.yaml"), Ok(expected.clone()));
        assert_eq!(read(&expected.to_string(), "c.json"), Ok(expected.clone()));
        assert_eq!(read(&expected.to_string(), "c.yaml"), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, name, place) in [
            ("steps:\n- name: [kiln\n", "c.yaml", "c.yaml:"),
            ("steps: 1\nsteps: 2\n", "c.yaml", "c.yaml:2:1"),
            ("a: *nothing\n", "c.yaml", "c.yaml:1:4"),
            ("", "c.yaml", "c.yaml:1:1"),
            ("- a\n", "c.yaml", "c.yaml:1:1"),
            ("{\n  \"steps\": [}", "c.json", "c.json:2:13"),
        ] {
            let error = read(text, name).unwrap_err();
            let found = error.place.clone().unwrap();
            assert!(found.starts_with(place), "{text:?}: {error:?}");
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let line = format!("*a{}, ", n - 1).repeat(9);
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", line.trim_end_matches(", ")));
        }
        let deep = format!("steps: {}{}", "[".repeat(100_000), "]".repeat(100_000));
        let nested: String = (0..5000)
            .map(|n| format!("{}a:\n", " ".repeat(n.min(200))))
            .collect();
        let wide = "- x\n".repeat(200_000);
        let cycle = "a: &a [*a]\n".to_owned();
        let long = "x".repeat(LONGEST + 1);
        for text in [
            bomb,
            deep,
            nested,
            wide,
            cycle,
            long,
            "\0\u{1}: \u{7f}".to_owned(),
        ] {
            let began = std::time::Instant::now();
            let result = read(&text, "c.yaml");
            assert!(result.is_err(), "{}", &text[..40.min(text.len())]);
            assert!(began.elapsed().as_secs() < 10);
        }
    }
}

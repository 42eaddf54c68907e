//! Build files: YAML or JSON text to the value that the server is sent. What its fields mean is the server's to say.

use serde_json::Value;

use crate::{Error, Kind};

/// Bytes of a build file at most.
pub const LONGEST: usize = 1 << 20;
const MOST_NODES: usize = 100_000;
const DEEPEST: usize = 64;
const MOST_ALIASES: usize = 1000;

/// Reads a build file. `name` is for messages.
///
/// # Errors
/// It is neither YAML nor JSON, no mapping, or larger than any real one: with line and column.
pub fn read(text: &str, name: &str) -> Result<Value, Error> {
    if text.len() > LONGEST {
        let message = format!("{name} has more than {LONGEST} bytes, which no build file has");
        return Err(Error::new(Kind::Input, message).at(format!("{name}:1:1")));
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
        return Err(Error::new(
            Kind::Input,
            format!("{name} {what}: a build file has `steps:`"),
        )
        .at(format!("{name}:1:1")));
    }
    Ok(value)
}

fn json(text: &str, name: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("{name}:{}:{}", error.line(), error.column());
        Error::new(Kind::Input, format!("{name} is no JSON"))
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
        let failure = Error::new(Kind::Input, format!("{name} cannot be read as YAML"));
        let why = error.without_snippet();
        match error.location() {
            Some(at) => failure
                .at(format!("{name}:{}:{}", at.line(), at.column()))
                .cause(why),
            None => failure.cause(why),
        }
    })
}

/// Puts substitutions and tags of a command line into a build; those of the file of the same name give way.
pub fn amend(build: &mut Value, substitutions: &[(String, String)], tags: &[String]) {
    if !substitutions.is_empty() {
        let known = &mut build["substitutions"];
        if !known.is_object() {
            *known = Value::Object(serde_json::Map::new());
        }
        for (name, value) in substitutions {
            known[name] = Value::from(value.as_str());
        }
    }
    if !tags.is_empty() {
        let known = &mut build["tags"];
        let mut all = match known.take() {
            Value::Array(all) => all,
            _ => Vec::new(),
        };
        for tag in tags {
            if !all.iter().any(|known| known == tag) {
                all.push(Value::from(tag.as_str()));
            }
        }
        *known = Value::from(all);
    }
}

/// Reads `_A=1,_B=2`. As with gcloud, `^:^_A=1,2:_B=3` puts another separator between them.
///
/// # Errors
/// One has no `=`.
pub fn substitutions(text: &str) -> Result<Vec<(String, String)>, Error> {
    let (separator, text) = match text.strip_prefix('^').and_then(|rest| rest.split_once('^')) {
        Some((separator, rest)) if !separator.is_empty() => (separator, rest),
        _ => (",", text),
    };
    let pairs = text.split(separator).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Error::new(
                Kind::Usage,
                format!("the substitution {pair:?} is not NAME=VALUE"),
            )
            .hint("a value with a comma in it: --substitutions '^:^_A=1,2:_B=3'")),
        })
        .collect()
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
            assert_eq!(error.kind, Kind::Input);
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

    #[test]
    fn substitutions_are_read_as_gcloud_reads_them() {
        let pairs = |text| {
            substitutions(text).map(|pairs| {
                let texts = pairs.iter().map(|(name, value)| format!("{name}:{value}"));
                texts.collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(pairs("_A=1,_B=x=y").unwrap(), "_A:1 _B:x=y");
        assert_eq!(pairs("^;^_A=1,2;_B=").unwrap(), "_A:1,2 _B:");
        assert!(pairs("_A").is_err());
        let mut build = json!({ "substitutions": { "_A": "0", "_C": "c" }, "tags": ["t"] });
        let given = [("_A".to_owned(), "1".to_owned())];
        amend(&mut build, &given, &["t".to_owned(), "u".to_owned()]);
        let expected = json!({ "substitutions": { "_A": "1", "_C": "c" }, "tags": ["t", "u"] });
        assert_eq!(build, expected);
    }
}

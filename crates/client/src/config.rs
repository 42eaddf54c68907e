//! The build that the server is sent: a build file, and what the command line says beside it.

pub use kiln_buildfile::LONGEST;
use serde_json::Value;

use crate::{Error, Kind};

/// Reads a build file. `name` is for messages.
///
/// # Errors
/// It is neither YAML nor JSON, no mapping, or larger than any real one: with line and column.
pub fn read(text: &str, name: &str) -> Result<Value, Error> {
    kiln_buildfile::read(text, name).map_err(|wrong| Error {
        place: wrong.place,
        cause: wrong.cause,
        ..Error::new(Kind::Input, wrong.message)
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
    fn what_is_wrong_with_a_file_is_handed_on() {
        let error = read("steps: 1\nsteps: 2\n", "c.yaml").unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert_eq!(error.place.as_deref(), Some("c.yaml:2:1"));
        assert!(error.cause.is_some());
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

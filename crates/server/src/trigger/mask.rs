//! Update masks: `build.steps,webhook_config.secret` names what a request changes.

use serde_json::{Map, Value};

use crate::wire::error::ApiError;
use crate::wire::read::snake;
use crate::wire::schema::{Kind, Message};
use crate::wire::trigger::TRIGGER;

/// Puts what the mask names of one trigger into another. What the first one lacks is removed.
///
/// # Errors
/// A path that is no field of a trigger.
pub(super) fn merge(
    mask: &str,
    from: &Map<String, Value>,
    into: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    for path in mask
        .split(',')
        .map(str::trim)
        .filter(|path| !path.is_empty())
    {
        let words: Vec<&str> = path.split('.').collect();
        let names = names(&TRIGGER, &words).ok_or_else(|| {
            ApiError::invalid(format!(
                "invalid update mask: {path:?} is no field of a trigger"
            ))
        })?;
        put(&names, Some(from), into);
    }
    Ok(())
}

/// The fields on a path, in camel case. It ends at lists and maps, which change as a whole.
fn names(message: &Message, words: &[&str]) -> Option<Vec<&'static str>> {
    let (first, rest) = words.split_first()?;
    let field = message
        .fields
        .iter()
        .find(|field| field.name == *first || snake(field.name) == *first)?;
    let mut all = vec![field.name];
    match field.kind {
        Kind::Message(inner) if !rest.is_empty() => all.extend(names(inner, rest)?),
        Kind::Map(_) | Kind::List(_) | Kind::Opaque => {}
        _ if !rest.is_empty() => return None,
        _ => {}
    }
    Some(all)
}

fn put(names: &[&str], from: Option<&Map<String, Value>>, into: &mut Map<String, Value>) {
    let Some((first, rest)) = names.split_first() else {
        return;
    };
    let given = from.and_then(|from| from.get(*first));
    if rest.is_empty() {
        match given {
            Some(value) => drop(into.insert((*first).to_owned(), value.clone())),
            None => drop(into.remove(*first)),
        }
        return;
    }
    let inner = into
        .entry(*first)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = inner {
        put(rest, given.and_then(Value::as_object), inner);
        if inner.is_empty() {
            into.remove(*first);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mask: &str, from: Value, into: Value) -> Result<Value, String> {
        let mut into = into.as_object().unwrap().clone();
        merge(mask, from.as_object().unwrap(), &mut into).map_err(|error| error.message)?;
        Ok(Value::Object(into))
    }

    #[test]
    fn named_fields_change_and_others_stay() {
        let old = json!({
            "description": "a", "tags": ["x"], "substitutions": { "_A": "1", "_B": "2" },
            "build": { "steps": [1], "timeout": "5s" }, "webhookConfig": { "secret": "s" },
        });
        let new = json!({ "description": "b", "substitutions": { "_C": "3" }, "build": { "steps": [2] } });
        assert_eq!(
            merged(
                "description, build.steps,substitutions.additional_properties,webhook_config.secret",
                new.clone(),
                old.clone()
            )
            .unwrap(),
            json!({
                "description": "b", "tags": ["x"], "substitutions": { "_C": "3" },
                "build": { "steps": [2], "timeout": "5s" },
            })
        );
        assert_eq!(
            merged("build,tags", new.clone(), old.clone()).unwrap()["build"],
            json!({ "steps": [2] })
        );
        assert_eq!(
            merged("build.options.machineType", json!({}), old.clone()).unwrap(),
            old
        );
        for mask in ["nothing", "build.nothing", "description.x", ".", "build."] {
            assert!(merged(mask, new.clone(), old.clone()).is_err(), "{mask}");
        }
    }
}

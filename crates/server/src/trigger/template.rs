//! From a trigger to a build as a client would send it.

use serde_json::{Map, Value, json};

use super::binding;
use super::repository::Found;
use crate::store::Trigger;
use crate::wire::error::ApiError;

/// Substitutions of a trigger, and of its build if that is in it, with those of a run in place of those of the same name.
pub(super) fn of_run(trigger: &Trigger, run: &Map<String, Value>) -> Map<String, Value> {
    let mut values = substitutions(base(trigger, None), &trigger.value);
    add(&mut values, run);
    values
}

/// The same for a webhook, whose message they take values from.
///
/// # Errors
/// The message has not what they take.
pub(super) fn of_webhook(
    trigger: &Trigger,
    message: &Value,
) -> Result<Map<String, Value>, ApiError> {
    let values = substitutions(base(trigger, None), &trigger.value);
    bound(values, message)
}

/// The build of a run by hand.
pub(super) fn for_run(trigger: &Trigger, found: Option<&Found>, run: &Map<String, Value>) -> Value {
    let mut values = substitutions(base(trigger, found), &trigger.value);
    let text = |name: &str| run.get(name).and_then(Value::as_str);
    let mut put = |names: &[&str], value: &str| {
        for name in names {
            values.insert((*name).to_owned(), Value::from(value));
        }
    };
    match found {
        Some(found) => {
            for (name, value) in &found.values {
                put(&[*name], value);
            }
        }
        None => {
            if let Some(branch) = text("branchName") {
                put(&["BRANCH_NAME", "REF_NAME"], branch);
            }
            if let Some(tag) = text("tagName") {
                put(&["TAG_NAME", "REF_NAME"], tag);
            }
            if let Some(sha) = text("commitSha") {
                put(&["COMMIT_SHA", "REVISION_ID"], sha);
                let short: String = sha.chars().take(7).collect();
                put(&["SHORT_SHA"], &short);
            }
        }
    }
    if let Some(name) = text("repoName") {
        put(&["REPO_NAME"], name);
    }
    add(&mut values, run);
    build(trigger, found, values)
}

/// The build of a webhook, whose message the substitutions take values from.
///
/// # Errors
/// The message has not what they take.
pub(super) fn for_webhook(
    trigger: &Trigger,
    found: Option<&Found>,
    message: &Value,
) -> Result<Value, ApiError> {
    let values = substitutions(base(trigger, found), &trigger.value);
    let mut values = bound(values, message)?;
    for (name, value) in found.into_iter().flat_map(|found| &found.values) {
        values.insert((*name).to_owned(), Value::from(value.as_str()));
    }
    Ok(build(trigger, found, values))
}

/// Refuses names that are not a user's own.
///
/// # Errors
/// There is one.
pub(super) fn check_substitutions(value: &Map<String, Value>) -> Result<(), ApiError> {
    let mut names = own(value).into_iter().flat_map(Map::keys);
    match names.find(|name| !name.starts_with('_')) {
        None => Ok(()),
        Some(name) => Err(ApiError::invalid(format!(
            "invalid trigger.substitutions: {name:?} does not begin with _"
        ))),
    }
}

/// The build as the trigger has it, or its file in the repository.
fn base<'a>(trigger: &'a Trigger, found: Option<&'a Found>) -> Option<&'a Map<String, Value>> {
    match found.and_then(|found| found.build.as_ref()) {
        Some((build, _)) => Some(build),
        None => trigger.value.get("build").and_then(Value::as_object),
    }
}

fn own(value: &Map<String, Value>) -> Option<&Map<String, Value>> {
    value.get("substitutions").and_then(Value::as_object)
}

/// The build's own substitutions, and those of the trigger before them.
fn substitutions(
    build: Option<&Map<String, Value>>,
    trigger: &Map<String, Value>,
) -> Map<String, Value> {
    let mut all = Map::new();
    if let Some(build) = build {
        add(&mut all, build);
    }
    add(&mut all, trigger);
    all
}

/// Adds the substitutions that a build, a trigger or a run has; they go before those of the same name.
fn add(all: &mut Map<String, Value>, of: &Map<String, Value>) {
    if let Some(own) = own(of) {
        all.extend(own.clone());
    }
}

fn bound(mut values: Map<String, Value>, message: &Value) -> Result<Map<String, Value>, ApiError> {
    for (_, value) in &mut values {
        if let Value::String(text) = value {
            *text = binding::bind(text, message)?;
        }
    }
    Ok(values)
}

/// A trigger's builds always have dynamic and loose substitutions, as on Cloud Build.
fn build(trigger: &Trigger, found: Option<&Found>, mut values: Map<String, Value>) -> Value {
    values.insert("TRIGGER_NAME".to_owned(), Value::from(trigger.name.clone()));
    let mut build = base(trigger, found).map_or_else(Map::new, Map::clone);
    build.insert("substitutions".to_owned(), Value::Object(values));
    if let Some(found) = found {
        build.insert("source".to_owned(), found.source.clone());
    }
    if let Some(account) = trigger.value.get("serviceAccount") {
        build
            .entry("serviceAccount")
            .or_insert_with(|| account.clone());
    }
    let mut tags = match build.remove("tags") {
        Some(Value::Array(tags)) => tags,
        _ => Vec::new(),
    };
    tags.push(Value::from(format!("trigger-{}", trigger.id)));
    build.insert("tags".to_owned(), Value::Array(tags));
    let options = build.entry("options").or_insert_with(|| json!({}));
    options["dynamicSubstitutions"] = Value::Bool(true);
    options["substitutionOption"] = Value::from("ALLOW_LOOSE");
    Value::Object(build)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(value: Value) -> Trigger {
        Trigger {
            id: "i".to_owned(),
            project: "p".to_owned(),
            location: "global".to_owned(),
            name: "n".to_owned(),
            created: 1,
            value: value.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn substitutions_come_from_build_trigger_and_run() {
        let trigger = trigger(json!({
            "build": { "steps": [], "tags": ["t"], "substitutions": { "_A": "build", "_B": "build" } },
            "substitutions": { "_B": "trigger", "_C": "$(body.c)" },
        }));
        let source = json!({ "branchName": "main", "commitSha": "0123456789", "substitutions": { "_C": "run" } });
        let build = for_run(&trigger, None, source.as_object().unwrap());
        assert_eq!(
            build["substitutions"],
            json!({
                "_A": "build", "_B": "trigger", "_C": "run", "TRIGGER_NAME": "n",
                "BRANCH_NAME": "main", "REF_NAME": "main",
                "COMMIT_SHA": "0123456789", "REVISION_ID": "0123456789", "SHORT_SHA": "0123456",
            })
        );
        assert_eq!(build["tags"], json!(["t", "trigger-i"]));
        assert_eq!(
            build["options"],
            json!({ "dynamicSubstitutions": true, "substitutionOption": "ALLOW_LOOSE" })
        );
        let build = for_webhook(&trigger, None, &json!({ "c": "hook" })).unwrap();
        assert_eq!(build["substitutions"]["_C"], "hook");
        assert!(for_webhook(&trigger, None, &Value::Null).is_err());
    }

    #[test]
    fn a_commit_brings_its_source_and_its_file() {
        let trigger = trigger(json!({ "substitutions": { "_B": "trigger" } }));
        let file = json!({ "steps": [1], "tags": ["t"], "substitutions": { "_A": "$(body.a)", "_B": "file" } });
        let found = Found {
            source: json!({ "gitSource": { "url": "u" } }),
            values: vec![("BRANCH_NAME", "main".to_owned())],
            build: Some((file.as_object().unwrap().clone(), "f".to_owned())),
        };
        let run = json!({ "branchName": "other", "substitutions": { "_A": "run" } });
        let run = run.as_object().unwrap();
        let build = for_run(&trigger, Some(&found), run);
        let expected =
            json!({ "_A": "run", "_B": "trigger", "BRANCH_NAME": "main", "TRIGGER_NAME": "n" });
        assert_eq!(build["substitutions"], expected);
        assert_eq!(build["source"]["gitSource"]["url"], "u");
        assert_eq!(
            (&build["steps"], &build["tags"]),
            (&json!([1]), &json!(["t", "trigger-i"]))
        );
        assert_eq!(
            Value::Object(of_run(&trigger, run)),
            json!({ "_A": "run", "_B": "trigger" })
        );
        let build = for_webhook(&trigger, Some(&found), &json!({ "a": "hook" })).unwrap();
        assert_eq!(build["substitutions"]["_A"], "hook");
        assert_eq!(build["substitutions"]["BRANCH_NAME"], "main");
    }
}

//! From a trigger to a build as a client would send it.

use serde_json::{Map, Value, json};

use super::binding;
use crate::store::Trigger;
use crate::wire::error::ApiError;

/// The build of a run by hand.
pub(super) fn for_run(trigger: &Trigger, source: &Map<String, Value>) -> Value {
    let mut values = substitutions(&trigger.value);
    let text = |name: &str| source.get(name).and_then(Value::as_str);
    let mut put = |names: &[&str], value: &str| {
        for name in names {
            values.insert((*name).to_owned(), Value::from(value));
        }
    };
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
    if let Some(name) = text("repoName") {
        put(&["REPO_NAME"], name);
    }
    if let Some(Value::Object(own)) = source.get("substitutions") {
        values.extend(own.clone());
    }
    build(trigger, values)
}

/// The build of a webhook, whose message the substitutions take values from.
///
/// # Errors
/// The message has not what they take.
pub(super) fn for_webhook(trigger: &Trigger, message: &Value) -> Result<Value, ApiError> {
    let mut values = substitutions(&trigger.value);
    for (_, value) in &mut values {
        if let Value::String(text) = value {
            *text = binding::bind(text, message)?;
        }
    }
    Ok(build(trigger, values))
}

/// Refuses names that are not a user's own.
///
/// # Errors
/// There is one.
pub(super) fn check_substitutions(value: &Map<String, Value>) -> Result<(), ApiError> {
    let Some(Value::Object(own)) = value.get("substitutions") else {
        return Ok(());
    };
    match own.keys().find(|name| !name.starts_with('_')) {
        None => Ok(()),
        Some(name) => Err(ApiError::invalid(format!(
            "invalid trigger.substitutions: {name:?} does not begin with _"
        ))),
    }
}

/// The build's own substitutions, and those of the trigger before them.
fn substitutions(value: &Map<String, Value>) -> Map<String, Value> {
    let of = |value: Option<&Value>| match value.and_then(|value| value.get("substitutions")) {
        Some(Value::Object(own)) => own.clone(),
        _ => Map::new(),
    };
    let mut all = of(value.get("build"));
    if let Some(Value::Object(own)) = value.get("substitutions") {
        all.extend(own.clone());
    }
    all
}

/// A trigger's builds always have dynamic and loose substitutions, as on Cloud Build.
fn build(trigger: &Trigger, mut values: Map<String, Value>) -> Value {
    values.insert("TRIGGER_NAME".to_owned(), Value::from(trigger.name.clone()));
    let mut build = match trigger.value.get("build") {
        Some(Value::Object(build)) => build.clone(),
        _ => Map::new(),
    };
    build.insert("substitutions".to_owned(), Value::Object(values));
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
        let build = for_run(&trigger, source.as_object().unwrap());
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
        let build = for_webhook(&trigger, &json!({ "c": "hook" })).unwrap();
        assert_eq!(build["substitutions"]["_C"], "hook");
        assert!(for_webhook(&trigger, &Value::Null).is_err());
    }
}

//! What a build may say of secrets: each is there, has a variable of its own, and is used.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::error::ApiError;
use crate::wire::model::{Build, Step};

/// Secrets of a build at most, as on Cloud Build.
const MOST: usize = 100;

/// Checks the secrets of a build. Returns the versions by the names of their variables.
///
/// `kiln` are the images that are Kiln itself, whose steps have no environment of their own; `find` says why there is no such version.
///
/// # Errors
/// What is wrong, as a client is told.
pub(crate) fn check(
    build: &Build,
    kiln: &[String],
    find: &dyn Fn(&str) -> Result<(), String>,
) -> Result<BTreeMap<String, String>, ApiError> {
    let defined = defined(build, find)?;
    let everywhere = build.options.iter().flat_map(|options| &options.secret_env);
    let everywhere: Vec<&String> = everywhere.collect();
    let mut used = BTreeSet::new();
    for (at, step) in build.steps.iter().enumerate() {
        if kiln.contains(&step.name) {
            if !step.secret_env.is_empty() {
                return Err(ApiError::invalid(format!(
                    "invalid build.steps[{at}].secretEnv: a step of kiln hands no environment to the scripts of a kickstart; a step with another image has secrets"
                )));
            }
            continue;
        }
        for name in everywhere.iter().copied().chain(&step.secret_env) {
            if !defined.contains_key(name) {
                return Err(undefined(at, name));
            }
            if sets(step, name) || shared_env(build, name) {
                return Err(ApiError::invalid(format!(
                    "invalid build: build step {at}: {name:?} is in both env and secretEnv"
                )));
            }
            used.insert(name);
        }
    }
    if let Some(name) = everywhere.iter().find(|name| !defined.contains_key(**name)) {
        return Err(ApiError::invalid(format!(
            "invalid build: options: secretEnv {name:?} is used without being defined"
        )));
    }
    if let Some(name) = defined.keys().find(|name| !used.contains(name)) {
        return Err(ApiError::invalid(format!(
            "invalid build: secretEnv {name:?} is defined without being used by a step in a container"
        )));
    }
    Ok(defined)
}

fn defined(
    build: &Build,
    find: &dyn Fn(&str) -> Result<(), String>,
) -> Result<BTreeMap<String, String>, ApiError> {
    let mut defined = BTreeMap::new();
    let given = build
        .available_secrets
        .iter()
        .flat_map(|available| &available.secret_manager);
    for (at, secret) in given.enumerate() {
        let place = format!("build.availableSecrets.secretManager[{at}]");
        if at >= MOST {
            return Err(ApiError::invalid(format!(
                "invalid {place}: {MOST} secrets are the maximum"
            )));
        }
        let name = &secret.env;
        if !is_variable(name) {
            return Err(ApiError::invalid(format!(
                "invalid {place}.env: {name:?} is no name of a variable"
            )));
        }
        find(&secret.version_name)
            .map_err(|why| ApiError::invalid(format!("invalid {place}.versionName: {why}")))?;
        let version = secret.version_name.clone();
        if defined.insert(name.clone(), version).is_some() {
            return Err(ApiError::invalid(format!(
                "invalid {place}.env: secretEnv {name:?} is defined more than once"
            )));
        }
    }
    Ok(defined)
}

fn undefined(at: usize, name: &str) -> ApiError {
    ApiError::invalid(format!(
        "invalid build: build step {at}: secretEnv {name:?} is used without being defined"
    ))
}

fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && name.len() <= 256
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(fits)
}

fn sets(step: &Step, name: &str) -> bool {
    step.env
        .iter()
        .any(|entry| entry.split('=').next() == Some(name))
}

fn shared_env(build: &Build, name: &str) -> bool {
    let env = build.options.iter().flat_map(|options| &options.env);
    env.into_iter()
        .any(|entry| entry.split('=').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(build: Value) -> Result<BTreeMap<String, String>, String> {
        let build: Build = serde_json::from_value(build).unwrap();
        let find = |version: &str| match version {
            "v" | "w" => Ok(()),
            other => Err(format!("Secret [{other}] not found")),
        };
        check(&build, &["kiln".to_owned()], &find).map_err(|error| error.message)
    }

    fn available(secrets: &[(&str, &str)]) -> Value {
        let list = secrets
            .iter()
            .map(|(env, version)| json!({ "env": env, "versionName": version }));
        json!({ "secretManager": list.collect::<Vec<_>>() })
    }

    #[test]
    fn each_secret_is_there_and_used() {
        let build = json!({
            "availableSecrets": available(&[("A", "v"), ("B", "w")]),
            "steps": [{ "name": "sh", "secretEnv": ["A"] }, { "name": "kiln" }],
            "options": { "secretEnv": ["B"] },
        });
        assert_eq!(checked(build).unwrap().len(), 2);
        assert!(
            checked(json!({ "steps": [{ "name": "kiln" }] }))
                .unwrap()
                .is_empty()
        );
    }

    fn sh(names: &[&str]) -> Value {
        json!([{ "name": "sh", "secretEnv": names }])
    }

    #[test]
    fn what_is_used_and_not_defined_or_defined_and_not_used_is_refused() {
        for (secrets, steps, options, said) in [
            (
                &[][..],
                sh(&["A"]),
                json!({}),
                "build step 0: secretEnv \"A\" is used without being defined",
            ),
            (
                &[],
                json!([{ "name": "kiln" }]),
                json!({ "secretEnv": ["A"] }),
                "is used without being defined",
            ),
            (
                &[("A", "v")],
                sh(&[]),
                json!({}),
                "secretEnv \"A\" is defined without being used",
            ),
            (
                &[("A", "v")],
                json!([{ "name": "kiln" }]),
                json!({ "secretEnv": ["A"] }),
                "without being used",
            ),
            (
                &[("A", "v")],
                json!([{ "name": "kiln", "secretEnv": ["A"] }]),
                json!({}),
                "hands no environment",
            ),
        ] {
            refused(secrets, &steps, &options, said);
        }
    }

    fn refused(secrets: &[(&str, &str)], steps: &Value, options: &Value, said: &str) {
        let build =
            json!({ "availableSecrets": available(secrets), "steps": steps, "options": options });
        let error = checked(build).unwrap_err();
        assert!(error.contains(said), "{error}");
    }

    #[test]
    fn what_no_step_can_have_is_refused() {
        for (secrets, steps, options, said) in [
            (
                &[("A", "v"), ("A", "w")][..],
                sh(&["A"]),
                json!({}),
                "is defined more than once",
            ),
            (
                &[("A", "x")],
                sh(&["A"]),
                json!({}),
                "secretManager[0].versionName: Secret [x] not found",
            ),
            (
                &[("A=B", "v")],
                sh(&["A=B"]),
                json!({}),
                "is no name of a variable",
            ),
            (
                &[("A", "v")],
                json!([{ "name": "sh", "secretEnv": ["A"], "env": ["A=1"] }]),
                json!({}),
                "both env and secretEnv",
            ),
            (
                &[("A", "v")],
                sh(&["A"]),
                json!({ "env": ["A=1"] }),
                "both env and secretEnv",
            ),
        ] {
            refused(secrets, &steps, &options, said);
        }
        let many: Vec<(String, String)> = (0..101)
            .map(|n| (format!("A{n}"), "v".to_owned()))
            .collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let error =
            checked(json!({ "availableSecrets": available(&many), "steps": sh(&[]) })).unwrap_err();
        assert!(error.contains("100 secrets are the maximum"), "{error}");
    }
}

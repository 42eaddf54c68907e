//! Triggers: a build that is kept, and who may start it how often and with what.
//!
//! A webhook's secret is a token of the server, which `webhookConfig.secret` names; only the token's hash is kept, and the role
//! `webhook` allows nothing else.

mod binding;
mod mask;
mod repository;
mod template;

use serde_json::{Map, Value, json};

use crate::access::{self, Caller};
use crate::server::Server;
use crate::store::{Record, Trigger};
use crate::submit::{self, Order};
use crate::wire::error::{ApiError, Code};
use crate::wire::read::read;
use crate::wire::time;
use crate::wire::trigger::{RUN, TRIGGER};
use repository::{Asked, Found};

const LONGEST_NAME: usize = 64;

/// Makes a trigger of what a client sent.
///
/// # Errors
/// What is wrong with it, or that there is one of that name.
pub(crate) fn create(
    server: &Server,
    project: &str,
    location: &str,
    body: Value,
) -> Result<Trigger, ApiError> {
    submit::check_name("project", project)?;
    submit::check_name("location", location)?;
    let value = read(&TRIGGER, "trigger", body)?.value;
    let id = submit::new_id()?;
    let mut trigger = Trigger {
        name: name(&value).unwrap_or_else(|| format!("trigger-{}", &id[..8])),
        id,
        project: project.to_owned(),
        location: location.to_owned(),
        created: time::now(),
        value,
    };
    settle(&mut trigger)?;
    match server
        .store
        .add_trigger(&trigger)
        .map_err(ApiError::internal)?
    {
        true => Ok(trigger),
        false => Err(taken(&trigger.name)),
    }
}

/// Changes a trigger: the fields of the mask, or all of them.
///
/// # Errors
/// What is wrong with it, or that somebody else has changed it meanwhile.
pub(crate) fn change(
    server: &Server,
    old: &Trigger,
    mask: Option<&str>,
    body: Value,
) -> Result<Trigger, ApiError> {
    let mut given = read(&TRIGGER, "trigger", body)?.value;
    let mut new = old.clone();
    match mask {
        Some(mask) => mask::merge(mask, &given, &mut new.value)?,
        None => {
            given
                .entry("name")
                .or_insert_with(|| Value::from(old.name.clone()));
            new.value = given;
        }
    }
    new.name = name(&new.value).unwrap_or_else(|| old.name.clone());
    settle(&mut new)?;
    let changed = server
        .store
        .change_trigger(old, &new)
        .map_err(ApiError::internal)?;
    if changed {
        return Ok(new);
    }
    let namesake = server
        .store
        .trigger(&new.project, Some(&new.location), &new.name)
        .map_err(ApiError::internal)?;
    Err(match namesake {
        Some(other) if other.id != new.id => taken(&new.name),
        _ => ApiError::new(
            Code::FailedPrecondition,
            "the trigger was changed by another request: look at it, and try again",
        ),
    })
}

fn name(value: &Map<String, Value>) -> Option<String> {
    value.get("name").and_then(Value::as_str).map(str::to_owned)
}

fn taken(name: &str) -> ApiError {
    ApiError::new(
        Code::AlreadyExists,
        format!("trigger with name {name:?} already exists"),
    )
}

/// Checks what a table cannot say, and writes the name down.
fn settle(trigger: &mut Trigger) -> Result<(), ApiError> {
    let wrong = |what: String| Err(ApiError::invalid(format!("invalid trigger{what}")));
    let name = &trigger.name;
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    if bytes.len() > LONGEST_NAME
        || !ends(bytes.first())
        || !ends(bytes.last())
        || !bytes.iter().all(fits)
    {
        return wrong(format!(
            ".name: {name:?} has to be of at most {LONGEST_NAME} letters, digits and dashes, and no dash at either end"
        ));
    }
    let steps = trigger
        .value
        .get("build")
        .and_then(|build| build.get("steps"));
    if !repository::has_file(&trigger.value)
        && steps.and_then(Value::as_array).is_none_or(Vec::is_empty)
    {
        return wrong(
            ".build: there are no steps, and neither filename nor gitFileSource says which file has them".to_owned(),
        );
    }
    repository::check(&trigger.value)?;
    let has_hook = trigger.value.contains_key("webhookConfig");
    match trigger.value.get("eventType").and_then(Value::as_str) {
        Some("REPO" | "PUBSUB") => {
            return wrong(".eventType: triggers are run by hand or by a webhook".to_owned());
        }
        Some("WEBHOOK") if !has_hook => {
            return wrong(
                ".webhookConfig: there is none, and the event type is WEBHOOK".to_owned(),
            );
        }
        Some("MANUAL") if has_hook => {
            return wrong(".webhookConfig: there is one, and the event type is MANUAL".to_owned());
        }
        _ => {}
    }
    if has_hook && token_name(trigger).is_none() {
        return wrong(
            ".webhookConfig.secret: it has to be projects/PROJECT/secrets/NAME/versions/VERSION, where NAME is that of a token: kiln token create NAME --role webhook".to_owned(),
        );
    }
    template::check_substitutions(&trigger.value)?;
    let name = Value::from(trigger.name.clone());
    trigger.value.insert("name".to_owned(), name);
    Ok(())
}

/// The name of the token that a webhook has to bring.
fn token_name(trigger: &Trigger) -> Option<&str> {
    let secret = trigger
        .value
        .get("webhookConfig")?
        .get("secret")?
        .as_str()?;
    let parts: Vec<&str> = secret.split('/').collect();
    match parts.as_slice() {
        ["projects", _, "secrets", name] | ["projects", _, "secrets", name, "versions", _]
            if !name.is_empty() =>
        {
            Some(name)
        }
        _ => None,
    }
}

/// A trigger as clients see it.
///
/// # Errors
/// The database cannot be read.
pub(crate) fn shown(server: &Server, trigger: &Trigger) -> Result<Value, ApiError> {
    let mut value = trigger.value.clone();
    let mut put = |name: &str, text: String| value.insert(name.to_owned(), Value::from(text));
    put("id", trigger.id.clone());
    put("createTime", time::stamp(trigger.created));
    put(
        "resourceName",
        format!(
            "projects/{}/locations/{}/triggers/{}",
            trigger.project, trigger.location, trigger.id
        ),
    );
    if let Some(token) = token_name(trigger) {
        let found = server
            .store
            .token_named(token)
            .map_err(ApiError::internal)?;
        let state = if found.is_some() {
            "OK"
        } else {
            "SECRET_DELETED"
        };
        value["webhookConfig"]["state"] = Value::from(state);
    }
    Ok(Value::Object(value))
}

/// A build of a trigger that somebody runs; `body` is what the request is told, in a form without a region the source alone.
///
/// # Errors
/// What is wrong with the request, or with the trigger's build.
pub(crate) fn run(
    server: &Server,
    trigger: &Trigger,
    who: &str,
    body: Value,
    source_alone: bool,
) -> Result<Record, ApiError> {
    let body = match source_alone {
        true => json!({ "source": body }),
        false => body,
    };
    let request = read(&RUN, "request", body)?.value;
    let none = Map::new();
    let source = request.get("source").and_then(Value::as_object);
    let source = source.unwrap_or(&none);
    let text = |name: &str| source.get(name).and_then(Value::as_str);
    let asked = Asked {
        branch: text("branchName"),
        tag: text("tagName"),
        commit: text("commitSha"),
        dir: text("dir"),
    };
    let own = template::of_run(trigger, source);
    let found = repository::find(server, trigger, &own, asked)?;
    let build = template::for_run(trigger, found.as_ref(), source);
    start(server, trigger, who, build, found.as_ref())
}

/// Who sends a webhook, if the secret is right.
///
/// # Errors
/// It is not, or there is no such trigger; nobody is told which.
pub(crate) fn sender(
    server: &Server,
    project: &str,
    location: Option<&str>,
    which: &str,
    secret: &str,
) -> Result<(Trigger, Caller), ApiError> {
    let refused = || {
        ApiError::new(
            Code::PermissionDenied,
            "there is no trigger of this name that the secret opens",
        )
    };
    let found = server
        .store
        .trigger(project, location, which)
        .map_err(ApiError::internal)?;
    let trigger = found.ok_or_else(refused)?;
    let token = token_name(&trigger).ok_or_else(refused)?;
    let caller = access::secret(&server.store, token, secret).map_err(ApiError::internal)?;
    Ok((trigger.clone(), caller.ok_or_else(refused)?))
}

/// A build of a trigger that a webhook runs.
///
/// # Errors
/// The trigger is disabled, the message lacks what the substitutions take from it, the repository has not what they ask for, or
/// the build is wrong.
pub(crate) fn receive(
    server: &Server,
    trigger: &Trigger,
    sender: &Caller,
    message: &[u8],
) -> Result<Record, ApiError> {
    if trigger.value.get("disabled") == Some(&Value::Bool(true)) {
        return Err(ApiError::new(
            Code::FailedPrecondition,
            format!("the trigger {:?} is disabled", trigger.name),
        ));
    }
    let message = match message.trim_ascii() {
        b"" => Value::Null,
        text => serde_json::from_slice(text)
            .map_err(|error| ApiError::invalid(format!("the message is no JSON: {error}")))?,
    };
    let own = template::of_webhook(trigger, &message)?;
    let found = repository::find(server, trigger, &own, Asked::default())?;
    let build = template::for_webhook(trigger, found.as_ref(), &message)?;
    start(server, trigger, &sender.name, build, found.as_ref())
}

fn start(
    server: &Server,
    trigger: &Trigger,
    who: &str,
    build: Value,
    found: Option<&Found>,
) -> Result<Record, ApiError> {
    let order = Order {
        who,
        project: &trigger.project,
        location: &trigger.location,
        retry_of: None,
        trigger: Some(&trigger.id),
    };
    let checked = submit::check(server, order, build);
    match found.and_then(|found| found.build.as_ref()) {
        Some((_, place)) => checked.map_err(|error| repository::of_file(place, error)),
        None => checked,
    }
}

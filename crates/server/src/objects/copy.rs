//! Objects that are made of others, and objects of which more is said.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::condition::Conditions;
use super::error::{ApiError, Result};
use super::name::{BucketName, ObjectName};
use super::request::Request;
use super::resource::{Attributes, Object};
use super::route::Query;
use super::store::{Making, Objects, Opened};

/// Objects that one may be composed of, at most; Storage's own limit.
const SOURCES_MAX: usize = 32;

type Place = (BucketName, ObjectName);

/// Copies an object. What the request says of the new one takes the place of what was said of the old.
pub(super) async fn copy(
    objects: &Objects,
    query: &Query,
    from: &Place,
    to: &Place,
    described: Value,
) -> Result<Object> {
    query.refuse(&[
        "destinationKmsKeyName",
        "destinationPredefinedAcl",
        "rewriteToken",
    ])?;
    let opened = objects
        .open_object(&from.0, &from.1, query.number("sourceGeneration")?)
        .await?;
    Conditions::of_query(query, true)?.check(Some(&opened.object))?;
    let attributes = match &described {
        Value::Object(all) if !all.is_empty() => Attributes::of_json(described)?,
        _ => opened.object.attributes.clone(),
    };
    let request = Request {
        attributes,
        conditions: Conditions::of_query(query, false)?,
        ..Request::default()
    };
    objects.bucket(&to.0).await?;
    let mut making = objects.stage(opened.object.size).await?;
    append(objects, &mut making, opened).await?;
    objects.commit_staged(&to.0, &to.1, making, &request).await
}

/// The answer to `copyTo`, or to `rewriteTo`, which is always done at once.
pub(super) fn answer(object: &Object, rewrite: bool, base: &str) -> Value {
    let resource = object.json(base);
    if !rewrite {
        return resource;
    }
    let size = object.size.to_string();
    json!({
        "kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": true, "resource": resource,
    })
}

/// Makes an object of others of the same bucket, one after the other.
pub(super) async fn compose(
    objects: &Objects,
    query: &Query,
    bucket: &BucketName,
    name: &ObjectName,
    wanted: &Value,
) -> Result<Object> {
    query.refuse(&["kmsKeyName", "destinationPredefinedAcl"])?;
    if wanted["deleteSourceObjects"] == true {
        return Err(ApiError::not_built(
            "'deleteSourceObjects'; delete them afterwards",
        ));
    }
    let sources = wanted["sourceObjects"].as_array();
    let sources = sources
        .filter(|sources| (1..=SOURCES_MAX).contains(&sources.len()))
        .ok_or_else(|| {
            ApiError::invalid(format!(
                "an object is composed of 1 to {SOURCES_MAX} sourceObjects"
            ))
        })?;
    let mut parts = Vec::new();
    for source in sources {
        parts.push(component(objects, bucket, source).await?);
    }
    // All of them may be the same one: what comes out is known, and refused, before anything is copied.
    let sizes = parts.iter().map(|part| part.object.size);
    let mut making = objects.stage(sizes.fold(0, u64::saturating_add)).await?;
    for part in parts {
        append(objects, &mut making, part).await?;
    }
    let attributes = match &wanted["destination"] {
        Value::Null => Attributes::default(),
        described => Attributes::of_json(described.clone())?,
    };
    let request = Request {
        attributes,
        conditions: Conditions::of_query(query, false)?,
        ..Request::default()
    };
    objects.commit_staged(bucket, name, making, &request).await
}

async fn component(objects: &Objects, bucket: &BucketName, source: &Value) -> Result<Opened> {
    let name = source["name"].as_str();
    let name = name.ok_or_else(|| ApiError::invalid("each of sourceObjects has a name"))?;
    let generation = number(&source["generation"], "generation")?;
    let opened = objects
        .open_object(bucket, &ObjectName::new(name)?, generation)
        .await?;
    let wanted = &source["objectPreconditions"]["ifGenerationMatch"];
    let conditions = Conditions {
        generation: number(wanted, "ifGenerationMatch")?,
        ..Conditions::default()
    };
    conditions.check(Some(&opened.object))?;
    Ok(opened)
}

/// A number of 64 bits, which JSON has as a text, or as a number.
fn number(value: &Value, name: &str) -> Result<Option<i64>> {
    let parsed = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    parsed
        .map(Some)
        .ok_or_else(|| ApiError::invalid(format!("{name} is a number of 64 bits")))
}

async fn append(objects: &Objects, making: &mut Making, opened: Opened) -> Result<()> {
    let size = opened.object.size;
    let mut content = opened.read(0, size).boxed();
    while let Some(bytes) = content.next().await {
        objects.write(making, bytes?).await?;
    }
    Ok(())
}

/// What is said of an object after a patch, or after an update, which says all of it anew.
pub(super) fn changed(old: &Attributes, wanted: Value, is_patch: bool) -> Result<Attributes> {
    match wanted {
        Value::Object(changes) if is_patch => old.patched(&changes),
        Value::Object(_) => Attributes::of_json(wanted),
        _ => Err(ApiError::invalid("the changes are a JSON object")),
    }
}

//! The interface as an OpenAPI document. Messages come from the tables that requests are read with, so that they cannot differ.

use serde_json::{Map, Value, json};

use crate::wire::schema::{Enum, Handling, Kind, Message};
use crate::wire::{table, trigger};

/// One thing that can be asked for.
struct Operation {
    method: &'static str,
    /// Below each of [`BASES`].
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    role: &'static str,
    query: &'static [&'static str],
    body: Option<&'static str>,
    answer: &'static str,
}

/// Cloud Build's two forms of an address.
const BASES: [(&str, &str); 2] = [
    ("/v1/projects/{projectId}", ""),
    ("/v1/projects/{projectId}/locations/{location}", "Regional"),
];

const PAGE: &[&str] = &["pageSize", "pageToken"];

const fn operation(
    (method, path): (&'static str, &'static str),
    (id, summary): (&'static str, &'static str),
    role: &'static str,
    query: &'static [&'static str],
    (body, answer): (Option<&'static str>, &'static str),
) -> Operation {
    Operation {
        method,
        path,
        id,
        summary,
        role,
        query,
        body,
        answer,
    }
}

static OPERATIONS: &[Operation] = &[
    operation(
        ("post", "/builds"),
        ("createBuild", "Queues a build."),
        "submit",
        &[],
        (Some("Build"), "Operation"),
    ),
    operation(
        ("get", "/builds"),
        ("listBuilds", "Lists builds, the newest first."),
        "view",
        &["filter", "pageSize", "pageToken"],
        (None, "Builds"),
    ),
    operation(
        ("get", "/builds/{id}"),
        ("getBuild", "Shows a build."),
        "view",
        &[],
        (None, "Build"),
    ),
    operation(
        ("post", "/builds/{id}:cancel"),
        ("cancelBuild", "Stops a build."),
        "submit",
        &[],
        (None, "Build"),
    ),
    operation(
        ("post", "/builds/{id}:retry"),
        ("retryBuild", "Queues a build like another one."),
        "submit",
        &[],
        (None, "Operation"),
    ),
    operation(
        ("post", "/builds/{id}:pin"),
        (
            "pinBuild",
            "Keeps a build from being removed for its age or size.",
        ),
        "submit",
        &[],
        (None, "Pinned"),
    ),
    operation(
        ("post", "/builds/{id}:unpin"),
        ("unpinBuild", "Lets a build be removed again."),
        "submit",
        &[],
        (None, "Pinned"),
    ),
    operation(
        ("get", "/builds/{id}:pinned"),
        ("isBuildPinned", "Says whether a build is pinned."),
        "view",
        &[],
        (None, "Pinned"),
    ),
    operation(
        ("post", "/triggers"),
        ("createTrigger", "Keeps a trigger."),
        "submit",
        &[],
        (Some("BuildTrigger"), "BuildTrigger"),
    ),
    operation(
        ("get", "/triggers"),
        ("listTriggers", "Lists triggers."),
        "view",
        PAGE,
        (None, "Triggers"),
    ),
    operation(
        ("get", "/triggers/{id}"),
        ("getTrigger", "Shows a trigger."),
        "view",
        &[],
        (None, "BuildTrigger"),
    ),
    operation(
        ("patch", "/triggers/{id}"),
        ("updateTrigger", "Changes a trigger."),
        "submit",
        &["updateMask"],
        (Some("BuildTrigger"), "BuildTrigger"),
    ),
    operation(
        ("delete", "/triggers/{id}"),
        ("deleteTrigger", "Removes a trigger; its builds stay."),
        "submit",
        &[],
        (None, "Empty"),
    ),
    operation(
        ("post", "/triggers/{id}:run"),
        ("runTrigger", "Queues a build of a trigger."),
        "submit",
        &[],
        (Some("RunBuildTriggerRequest"), "Operation"),
    ),
    operation(
        ("post", "/triggers/{id}:webhook"),
        (
            "hookTrigger",
            "Queues a build of a trigger for whoever knows its secret.",
        ),
        "",
        &["key", "secret"],
        (Some("Empty"), "Empty"),
    ),
];

/// The document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for (base, suffix) in BASES {
        for operation in OPERATIONS {
            let path = format!("{base}{}", operation.path);
            let entry = paths.entry(path.clone()).or_insert_with(|| json!({}));
            entry[operation.method] = described(operation, &path, suffix);
        }
    }
    let audit = operation(
        ("get", "/kiln/v1/audit"),
        ("audit", "Lists who did what, the newest first."),
        "admin",
        &["limit", "before"],
        (None, "Entries"),
    );
    paths.insert(
        audit.path.to_owned(),
        json!({ "get": described(&audit, audit.path, "") }),
    );
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Kiln's build server",
            "description": "Cloud Build's API v1 on one's own machine. Buckets are served by Cloud Storage's JSON API, which is not in this document.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "see the source" },
        },
        "paths": paths,
        "security": [{ "token": [] }],
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn described(operation: &Operation, path: &str, suffix: &str) -> Value {
    let named = path.split(['{', '}']).skip(1).step_by(2);
    let text = json!({ "type": "string" });
    let mut parameters: Vec<Value> = named
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text }))
        .collect();
    parameters.extend(
        operation
            .query
            .iter()
            .map(|name| json!({ "name": name, "in": "query", "schema": text })),
    );
    let content = |name: &str| json!({ "application/json": { "schema": reference(name) } });
    let mut value = json!({
        "operationId": format!("{}{suffix}", operation.id),
        "summary": operation.summary,
        "description": format!("Needs a token with the role {}.", operation.role),
        "parameters": parameters,
        "responses": {
            "200": { "description": "Done.", "content": content(operation.answer) },
            "default": { "description": "Why not.", "content": content("Error") },
        },
    });
    if let Some(body) = operation.body {
        value["requestBody"] = json!({ "content": content(body) });
    }
    if operation.role.is_empty() {
        value["description"] = Value::from("Needs the trigger's own secret.");
        value["security"] = json!([]);
    }
    value
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    for message in table::MESSAGES.iter().chain(trigger::MESSAGES) {
        schemas.insert(message.name.to_owned(), of_message(message));
    }
    let text = json!({ "type": "string" });
    let list = |name: &str, of: &str| json!({ "type": "object", "properties": { name: { "type": "array", "items": reference(of) }, "nextPageToken": text } });
    let further = [
        ("Empty", json!({ "type": "object" })),
        ("Builds", list("builds", "Build")),
        ("Triggers", list("triggers", "BuildTrigger")),
        (
            "Operation",
            json!({ "type": "object", "properties": {
                "name": text, "done": { "type": "boolean" },
                "metadata": { "type": "object", "properties": { "build": reference("Build") } },
                "response": reference("Build"),
                "error": { "type": "object", "properties": { "code": { "type": "integer" }, "message": text } },
            } }),
        ),
        (
            "Pinned",
            json!({ "type": "object", "properties": { "id": text, "pinned": { "type": "boolean" } } }),
        ),
        (
            "Error",
            json!({ "type": "object", "properties": { "error": { "type": "object", "properties": {
                "code": { "type": "integer" }, "message": text, "status": text,
            } } } }),
        ),
        (
            "Entries",
            json!({ "type": "object", "properties": { "entries": { "type": "array", "items": { "type": "object", "properties": {
                "number": { "type": "integer" }, "time": text, "who": text, "address": text, "what": text, "build": text,
            } } } } }),
        ),
    ];
    schemas.extend(further.map(|(name, schema)| (name.to_owned(), schema)));
    Value::Object(schemas)
}

fn of_message(message: &Message) -> Value {
    let fields = message.fields.iter().map(|field| {
        let (why, read_only) = match field.handling {
            Handling::Done(why) => (why.to_owned(), false),
            Handling::Output(why) => (why.to_owned(), true),
            Handling::Ignored(why) => (format!("Ignored, with a warning: {why}"), false),
            Handling::Refused(why) => (format!("Refused: {why}"), false),
        };
        let mut schema = of_kind(field.kind);
        // Beside a reference nothing else counts.
        if schema.get("$ref").is_some() {
            schema = json!({ "allOf": [schema] });
        }
        if !why.is_empty() {
            schema["description"] = Value::from(why);
        }
        if read_only {
            schema["readOnly"] = Value::from(true);
        }
        (field.name.to_owned(), schema)
    });
    json!({ "type": "object", "properties": fields.collect::<Map<_, _>>() })
}

fn of_kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Int64 => {
            json!({ "oneOf": [{ "type": "string" }, { "type": "integer", "format": "int64" }] })
        }
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Duration => json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,9})?s$" }),
        Kind::Timestamp => json!({ "type": "string", "format": "date-time" }),
        Kind::Bytes => json!({ "type": "string", "format": "byte" }),
        Kind::Enum(names) => of_enum(names),
        Kind::Message(message) => reference(message.name),
        Kind::List(item) => json!({ "type": "array", "items": of_kind(*item) }),
        Kind::Map(item) => json!({ "type": "object", "additionalProperties": of_kind(*item) }),
        Kind::Opaque => json!({ "type": "object" }),
    }
}

fn of_enum(names: &Enum) -> Value {
    let words: Vec<&str> = names.values.iter().map(|(name, _)| *name).collect();
    let numbers: Vec<i64> = names.values.iter().map(|(_, number)| *number).collect();
    json!({ "oneOf": [
        { "type": "string", "enum": words },
        { "type": "integer", "enum": numbers },
    ] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_is_referred_to_is_there() {
        let document = document();
        let text = document.to_string();
        let references = text.split("#/components/schemas/").skip(1);
        for name in references.filter_map(|rest| rest.split('"').next()) {
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}"
            );
        }
    }
}

//! Reads a message as the table has it: unknown fields are refused, enums become names, names become camel case, what the
//! server does not do is refused or becomes a warning.

use serde_json::{Map, Number, Value};

use super::error::ApiError;
use super::schema::{Handling, Kind, Message};
use super::time;

/// A message that was read.
#[derive(Debug)]
pub struct Reading {
    /// With fields of the table only, in their plain form.
    pub value: Map<String, Value>,
    /// Fields without effect, and why: `options.pool: there are no pools`.
    pub ignored: Vec<String>,
}

/// Reads a message that came as JSON. `root` is what errors call it: `build`.
///
/// # Errors
/// Unknown fields, wrong types and fields that are refused, in the words of Google's APIs where they have some.
pub fn read(message: &Message, root: &str, value: Value) -> Result<Reading, ApiError> {
    let mut reader = Reader {
        ignored: Vec::new(),
    };
    let Value::Object(fields) = value else {
        return Err(payload(format!(
            "Root element must be a message, not {}.",
            shape(&value)
        )));
    };
    let value = reader.message(message, root, fields)?;
    Ok(Reading {
        value,
        ignored: reader.ignored,
    })
}

struct Reader {
    ignored: Vec<String>,
}

impl Reader {
    fn message(
        &mut self,
        message: &Message,
        path: &str,
        fields: Map<String, Value>,
    ) -> Result<Map<String, Value>, ApiError> {
        let mut read = Map::new();
        for (given, value) in fields {
            let known = message
                .fields
                .iter()
                .find(|field| field.name == given || snake(field.name) == given);
            let Some(field) = known else {
                return Err(payload(format!(
                    "Unknown name \"{given}\" at '{path}': Cannot find field."
                )));
            };
            let place = format!("{path}.{}", field.name);
            if is_empty(&value) {
                continue;
            }
            match field.handling {
                Handling::Output(_) => continue,
                Handling::Refused(why) => {
                    return Err(ApiError::invalid(format!("invalid {place}: {why}")));
                }
                Handling::Ignored(why) => {
                    self.ignored.push(format!("{place} has no effect: {why}"))
                }
                Handling::Done(_) => {}
            }
            let value = self.value(field.kind, &place, value)?;
            if read.insert(field.name.to_owned(), value).is_some() {
                return Err(payload(format!("{place} is there twice.")));
            }
        }
        Ok(read)
    }

    fn value(&mut self, kind: Kind, path: &str, value: Value) -> Result<Value, ApiError> {
        match (kind, value) {
            (Kind::Message(message), Value::Object(fields)) => {
                self.message(message, path, fields).map(Value::Object)
            }
            (Kind::List(kind), Value::Array(items)) => {
                let items = items.into_iter().enumerate();
                let read =
                    items.map(|(at, item)| self.value(*kind, &format!("{path}[{at}]"), item));
                read.collect::<Result<_, _>>().map(Value::Array)
            }
            (Kind::Map(kind), Value::Object(fields)) => {
                let read = fields.into_iter().map(|(name, value)| {
                    let place = format!("{path}[{name}]");
                    Ok((name, self.value(*kind, &place, value)?))
                });
                read.collect::<Result<_, _>>().map(Value::Object)
            }
            (Kind::Opaque, value) => Ok(value),
            (kind, value) => {
                let shown = short(&value);
                scalar(kind, value).ok_or_else(|| {
                    payload(format!(
                        "Invalid value at '{path}' ({}), {shown}",
                        kind_name(kind)
                    ))
                })
            }
        }
    }
}

/// A scalar in its plain form; nothing where it is of another kind.
fn scalar(kind: Kind, value: Value) -> Option<Value> {
    match (kind, value) {
        (Kind::Text, Value::String(text)) => Some(Value::String(text)),
        (Kind::Bool, Value::Bool(yes)) => Some(Value::Bool(yes)),
        (Kind::Bool, Value::String(text)) => text.parse().ok().map(Value::Bool),
        (Kind::Int32, value) => {
            let number = i32::try_from(whole(&value)?).ok()?;
            Some(Value::Number(Number::from(number)))
        }
        (Kind::Int64, value) => Some(Value::String(whole(&value)?.to_string())),
        (Kind::Duration, Value::String(text)) => {
            time::read_duration(&text).map(|read| Value::String(time::duration(read)))
        }
        (Kind::Timestamp, Value::String(text)) => {
            time::read_stamp(&text).map(|read| Value::String(time::stamp(read)))
        }
        (Kind::Bytes, Value::String(text)) => Some(Value::String(text)),
        (Kind::Enum(names), Value::String(name)) => {
            names.number(&name).map(|_| Value::String(name))
        }
        (Kind::Enum(names), value) => names
            .named(whole(&value)?)
            .map(|name| Value::String(name.to_owned())),
        _ => None,
    }
}

/// A whole number, as such or as text.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let number = number.as_f64()?;
            // A client without integers writes 3.0.
            (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Turns the enums of a message into their numbers, for clients that ask for them.
pub fn with_numbers(kind: Kind, value: &mut Value) {
    match (kind, value) {
        (Kind::Message(message), Value::Object(fields)) => {
            for field in message.fields {
                if let Some(value) = fields.get_mut(field.name) {
                    with_numbers(field.kind, value);
                }
            }
        }
        (Kind::List(kind), Value::Array(items)) => {
            items.iter_mut().for_each(|item| with_numbers(*kind, item));
        }
        (Kind::Map(kind), Value::Object(fields)) => {
            fields
                .values_mut()
                .for_each(|value| with_numbers(*kind, value));
        }
        (Kind::Enum(names), value) => {
            if let Some(number) = value.as_str().and_then(|name| names.number(name)) {
                *value = Value::from(number);
            }
        }
        _ => {}
    }
}

/// Whether a value says nothing: protocol buffers know no difference between empty and absent.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn payload(what: String) -> ApiError {
    ApiError::invalid(format!("Invalid JSON payload received. {what}"))
}

fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Text => "TYPE_STRING".to_owned(),
        Kind::Int32 => "TYPE_INT32".to_owned(),
        Kind::Int64 => "TYPE_INT64".to_owned(),
        Kind::Bool => "TYPE_BOOL".to_owned(),
        Kind::Bytes => "TYPE_BYTES".to_owned(),
        Kind::Duration => "type.googleapis.com/google.protobuf.Duration".to_owned(),
        Kind::Timestamp => "type.googleapis.com/google.protobuf.Timestamp".to_owned(),
        Kind::Enum(names) => format!(
            "type.googleapis.com/google.devtools.cloudbuild.v1.{}",
            names.name
        ),
        Kind::Message(message) => format!(
            "type.googleapis.com/google.devtools.cloudbuild.v1.{}",
            message.name
        ),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) | Kind::Opaque => "a map".to_owned(),
    }
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value for a message: as JSON, and not too much of it.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// `storageSource` as `storage_source`.
pub(crate) fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::table::BUILD;

    fn refused(value: Value) -> String {
        read(&BUILD, "build", value).unwrap_err().message
    }

    #[test]
    fn names_numbers_and_both_spellings_are_read() {
        let value = json!({
            "steps": [{ "name": "kiln", "wait_for": ["-"], "allowExitCodes": [1, "2"] }],
            "options": { "substitution_option": 1, "logging": "GCS_ONLY", "diskSizeGb": 100 },
            "status": 2, "timeout": "3.50s", "tags": [],
        });
        let read = read(&BUILD, "build", value).unwrap();
        let expected = json!({
            "steps": [{ "name": "kiln", "waitFor": ["-"], "allowExitCodes": [1, 2] }],
            "options": { "substitutionOption": "ALLOW_LOOSE", "logging": "GCS_ONLY", "diskSizeGb": "100" },
            "timeout": "3.5s",
        });
        assert_eq!(Value::Object(read.value), expected);
        assert_eq!(
            read.ignored,
            ["build.options.diskSizeGb has no effect: a build has the server's disk"]
        );
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place() {
        assert_eq!(
            refused(json!({ "steps": [{ "nme": "x" }] })),
            "Invalid JSON payload received. Unknown name \"nme\" at 'build.steps[0]': Cannot find field."
        );
        assert_eq!(
            refused(json!({ "timeout": 600 })),
            "Invalid JSON payload received. Invalid value at 'build.timeout' \
             (type.googleapis.com/google.protobuf.Duration), 600"
        );
        assert_eq!(
            refused(json!({ "gitConfig": { "x": 1 } })),
            "invalid build.gitConfig: sources come from a bucket, or from gitSource"
        );
        assert!(refused(json!([])).contains("not a list"));
        assert!(refused(json!({ "waitFor": 1, "wait_for": 1 })).contains("waitFor"));
        assert!(refused(json!({ "logsBucket": "a", "logs_bucket": "b" })).contains("twice"));
        assert!(refused(json!({ "steps": {"a": 1} })).contains("'build.steps' (a list)"));
    }

    #[test]
    fn numbers_are_written_for_who_asks() {
        let mut value =
            json!({ "status": "SUCCESS", "steps": [{ "status": "QUEUED", "name": "QUEUED" }] });
        with_numbers(Kind::Message(&BUILD), &mut value);
        assert_eq!(
            value,
            json!({ "status": 3, "steps": [{ "status": 1, "name": "QUEUED" }] })
        );
    }
}

//! Builds and operations as clients get them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::server::Server;
use crate::store::Record;
use crate::wire::error::ApiError;
use crate::wire::model::Status;
use crate::wire::read::with_numbers;
use crate::wire::schema::Kind;
use crate::wire::table::BUILD;

const TYPES: &str = "type.googleapis.com/google.devtools.cloudbuild.v1";

/// Shows builds to one client.
pub(super) struct Show<'a> {
    /// The server.
    pub(super) server: &'a Server,
    /// Whether enums are numbers.
    pub(super) numbers: bool,
}

impl Show<'_> {
    /// A build.
    pub(super) fn build(&self, record: &Record) -> Result<Value, ApiError> {
        let mut build = record.build.clone();
        if build.status == Status::Queued {
            build.status_detail = self.server.waits().get(&build.id).cloned();
        }
        let mut value = serde_json::to_value(build).map_err(ApiError::internal)?;
        if self.numbers {
            with_numbers(Kind::Message(&BUILD), &mut value);
        }
        Ok(value)
    }

    fn typed(&self, record: &Record) -> Result<Map<String, Value>, ApiError> {
        let mut typed = Map::new();
        typed.insert("@type".to_owned(), Value::from(format!("{TYPES}.Build")));
        if let Value::Object(fields) = self.build(record)? {
            typed.extend(fields);
        }
        Ok(typed)
    }

    /// A build's operation.
    pub(super) fn operation(&self, record: &Record) -> Result<Value, ApiError> {
        let build = &record.build;
        let mut operation = json!({
            "name": format!("operations/build/{}/{}", build.project_id, STANDARD.encode(&build.id)),
            "metadata": {
                "@type": format!("{TYPES}.BuildOperationMetadata"),
                "build": self.build(record)?,
            },
        });
        if build.status.is_final() {
            operation["done"] = Value::from(true);
            if build.status == Status::Success {
                operation["response"] = Value::Object(self.typed(record)?);
            } else {
                let code = if build.status == Status::Cancelled {
                    1
                } else {
                    2
                };
                let status = build.status.name();
                let message = match &build.status_detail {
                    Some(detail) => format!("Build failed; check build logs for details: {detail}"),
                    None => format!("Build failed; check build logs for details: {status}"),
                };
                operation["error"] = json!({ "code": code, "message": message });
            }
        }
        Ok(operation)
    }
}

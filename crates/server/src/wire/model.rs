//! Builds as values. What [`crate::wire::read`] let through fits them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The state of a build or step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)] // The names say it, and Cloud Build's documentation.
pub enum Status {
    #[default]
    StatusUnknown,
    Queued,
    Working,
    Success,
    Failure,
    InternalError,
    Timeout,
    Cancelled,
    Expired,
}

impl Status {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        !matches!(
            self,
            Status::StatusUnknown | Status::Queued | Status::Working
        )
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Status::StatusUnknown => "STATUS_UNKNOWN",
            Status::Queued => "QUEUED",
            Status::Working => "WORKING",
            Status::Success => "SUCCESS",
            Status::Failure => "FAILURE",
            Status::InternalError => "INTERNAL_ERROR",
            Status::Timeout => "TIMEOUT",
            Status::Cancelled => "CANCELLED",
            Status::Expired => "EXPIRED",
        }
    }
}

/// From when to when, RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeSpan {
    /// The beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// The end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
}

/// A build. Fields are Cloud Build's; `docs/cloud-build.md` says what each does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Build {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project_id: String,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs_bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub substitutions: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub timing: BTreeMap<String, TimeSpan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_trigger_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_secrets: Option<AvailableSecrets>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_info: Option<FailureInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_provenance: Option<SourceProvenance>,
}

/// Values that steps may have in their environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct AvailableSecrets {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_manager: Vec<SecretManagerSecret>,
}

/// A version of a secret, and the variable that holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SecretManagerSecret {
    pub version_name: String,
    pub env: String,
}

/// Where the source is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Source {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_source: Option<StorageSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_source: Option<GitSource>,
}

/// A repository, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct GitSource {
    pub url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
}

/// What the source was, to the last byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SourceProvenance {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_git_source: Option<GitSource>,
}

/// An object with a gzipped tar archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct StorageSource {
    pub bucket: String,
    pub object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Step {
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wait_for: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<TimeSpan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_timing: Option<TimeSpan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_failure: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_exit_codes: Vec<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automap_substitutions: Option<bool>,
}

/// A directory that steps of a build share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Volume {
    pub name: String,
    pub path: String,
}

/// What is kept of a build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Artifacts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<ArtifactObjects>,
}

/// Files that become objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ArtifactObjects {
    pub location: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<TimeSpan>,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Results {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub build_step_images: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub build_step_outputs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_manifest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_artifacts: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<BuiltImage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_timing: Option<TimeSpan>,
}

/// An image that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct BuiltImage {
    pub name: String,
    pub digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_timing: Option<TimeSpan>,
}

/// What the whole build is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub substitution_option: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_substitutions: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automap_substitutions: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_type: Option<String>,
    /// Options without effect; they are shown as they came.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

/// Something that the user should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Warning {
    pub text: String,
    pub priority: String,
}

/// Why a build failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct FailureInfo {
    #[serde(rename = "type")]
    pub kind: String,
    pub detail: String,
}

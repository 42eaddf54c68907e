//! What an executor is handed, and what comes back: plain values in files that whoever runs a build can write.
//!
//! An attempt has a directory of its own. In it stand
//! - `request.json`: the [`Request`];
//! - `source.tgz`: the source, if the build has one;
//! - `log.txt`: the log. It only grows, and what is behind its last line end is not there yet;
//! - `events.jsonl`: one [`Event`] a line, the same way;
//! - `workspace/`: what steps see as `/workspace`;
//! - `engine/`: what its container engine has, while steps need one;
//! - `kept/`: what the attempt used and made besides its artifacts: lock files, manifests, and Kiln's own record of a failure;
//! - `times`: when lines were written: pairs of little-endian 64-bit numbers, a place in the log and the milliseconds since 1970
//!   at which what stands behind it was written; what has no pair of its own came within a tenth of a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::git::GitTask;
use crate::secrets::Secrets;
use crate::wire::model::{Status, Volume};

/// An attempt at a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The build's id.
    pub build: String,
    /// Counted from 1. What an attempt reports under another number is of the past.
    pub attempt: u32,
    /// What runs.
    pub steps: Vec<StepRequest>,
    /// `gs://BUCKET/OBJECT`, for the log; the bytes are in `source.tgz`.
    pub source: Option<String>,
    /// A source that the attempt fetches itself.
    #[serde(default)]
    pub git: Option<GitTask>,
    /// The file with credentials for it.
    #[serde(default)]
    pub git_credentials: Option<PathBuf>,
    /// Seconds after which everything is stopped.
    pub timeout: f64,
    /// Files that are to be kept.
    pub artifacts: Option<ArtifactsRequest>,
    /// Threads for a step; the queue has set them aside.
    pub threads: u32,
    /// Bytes of memory that all containers have together; `None`: what fits the machine.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Images that are kept for all builds when the steps are done.
    #[serde(default)]
    pub push: Vec<String>,
    /// Kiln's cache of downloads and layers.
    pub cache: PathBuf,
    /// Whether steps fetch from other machines only.
    pub from_elsewhere: bool,
    /// Images for containers, which all builds share.
    #[serde(default)]
    pub images: PathBuf,
    /// Variables of [`StepRequest::secret_env`], and the versions of secrets that they hold.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Where these are.
    #[serde(default)]
    pub secrets_of: Secrets,
    /// The engine that runs containers; `None`: one of the build's own.
    #[serde(default)]
    pub engine: Option<Elsewhere>,
    /// An attempt whose lock files are used where the source has none.
    pub locks_of: Option<PathBuf>,
}

/// A container engine that the server's administrator runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Its socket.
    pub socket: PathBuf,
    /// Whether steps get that socket.
    pub is_given: bool,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRequest {
    /// The image, as written.
    pub image: String,
    /// The step's id, as written.
    pub id: Option<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Variables that hold secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
    /// Working directory, relative to the workspace.
    pub dir: PathBuf,
    /// Seconds after which the step is stopped.
    pub timeout: Option<f64>,
    /// Whether the build goes on after any failure.
    pub allow_failure: bool,
    /// Exit codes after which the build goes on.
    pub allow_exit_codes: Vec<i32>,
    /// Steps that come before.
    pub after: Vec<usize>,
    /// How it runs in a container; `None`: its image is Kiln itself.
    #[serde(default)]
    pub container: Option<Container>,
}

/// What only a step in a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The program, if it is not the image's.
    pub entrypoint: Option<String>,
    /// A program's text, which runs instead.
    pub script: Option<String>,
    /// Directories that steps of a build share.
    pub volumes: Vec<Volume>,
}

/// Files that become objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactsRequest {
    /// `gs://BUCKET/PREFIX`.
    pub location: String,
    /// Patterns, relative to the workspace.
    pub paths: Vec<String>,
}

/// A file that an attempt made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Relative to the workspace.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
    /// Base64, as Cloud Build's manifest has it.
    pub md5: String,
    /// CRC32C; agents of an older Kiln do not tell it.
    #[serde(default)]
    pub crc32c: Option<u32>,
}

/// An image that is kept for all builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedImage {
    /// Its name.
    pub name: String,
    /// The digest of its configuration.
    pub digest: String,
    /// When that began.
    pub began: i64,
    /// When it was done.
    pub ended: i64,
}

/// Something that happened, and when (nanoseconds since 1970).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: i64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// The source is unpacked; since when that went on.
    Fetched {
        /// When it began.
        began: i64,
        /// The commit of a source from git.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
    },
    /// The first step may begin.
    StepsBegan,
    /// A step began.
    StepBegan {
        /// Which.
        step: usize,
    },
    /// A step ended.
    StepEnded {
        /// Which.
        step: usize,
        /// How.
        status: Status,
        /// Its exit code, if it ended by itself.
        exit_code: Option<i32>,
    },
    /// The image of a step is there.
    Image {
        /// Which step.
        step: usize,
        /// `sha256:…`.
        image: String,
        /// When it began to be pulled, if it was.
        pulled: Option<i64>,
    },
    /// A step has said something to programs.
    Output {
        /// Which.
        step: usize,
        /// In Base64.
        output: String,
    },
    /// The last step has ended.
    StepsEnded,
    /// Images are kept.
    Pushed {
        /// In the order in which the build names them.
        images: Vec<PushedImage>,
    },
    /// The files that are to be kept, all of them complete.
    Artifacts {
        /// In the order of their paths.
        files: Vec<Artifact>,
    },
    /// The attempt is over; nothing follows.
    Ended {
        /// How.
        status: Status,
        /// For people.
        detail: Option<String>,
        /// Cloud Build's word for the kind of failure.
        failure: Option<String>,
    },
}

/// Bytes of a picture that is kept and shown.
pub(crate) const LARGEST_PICTURE: u64 = 8 << 20;

/// In `kept/`: why steps failed, each in a directory with its number.
pub const FAILURES: &str = ".failures";

/// The files of an attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The directory.
    pub dir: PathBuf,
}

impl Attempt {
    /// Attempt `number` of a build below the directory of all builds.
    pub fn new(builds: &Path, build: &str, number: u32) -> Self {
        Attempt {
            dir: builds.join(build).join(format!("attempt-{number}")),
        }
    }

    /// The request.
    pub fn request(&self) -> PathBuf {
        self.dir.join("request.json")
    }

    /// The source.
    pub fn source(&self) -> PathBuf {
        self.dir.join("source.tgz")
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log.txt")
    }

    /// When the log's lines were written.
    pub fn times(&self) -> PathBuf {
        self.dir.join("times")
    }

    /// The events.
    pub fn events(&self) -> PathBuf {
        self.dir.join("events.jsonl")
    }

    /// What steps see as `/workspace`.
    pub fn workspace(&self) -> PathBuf {
        self.dir.join("workspace")
    }

    /// The attempts at the same build before this one, whose number is given.
    pub fn earlier(&self, number: u32) -> impl Iterator<Item = Attempt> {
        (1..number).map(|number| Attempt {
            dir: self.dir.with_file_name(format!("attempt-{number}")),
        })
    }

    /// What a container engine of the attempt has.
    pub fn engine(&self) -> PathBuf {
        self.dir.join("engine")
    }

    /// Lock files and manifests.
    pub fn kept(&self) -> PathBuf {
        self.dir.join("kept")
    }
}

/// The last lines of a log whose build has gone well, or has failed for a reason. `gcloud` draws the line below them.
pub fn closing(failure: Option<&str>) -> String {
    match failure {
        None => "DONE\n".to_owned(),
        Some(why) => format!("ERROR\nERROR: {why}\n"),
    }
}

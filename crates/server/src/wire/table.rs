//! Cloud Build's messages, field by field, and what the server does with each. `docs/cloud-build.md` is made of this table.

use super::schema::Handling::{Done, Ignored, Output, Refused};
use super::schema::Kind::{
    Bool, Bytes, Duration, Enum as E, Int32, Int64, List, Map, Message as M, Opaque, Text,
    Timestamp,
};
use super::schema::{Enum, Field, Handling, Kind, Message};

pub(super) const fn field(name: &'static str, kind: Kind, handling: Handling) -> Field {
    Field {
        name,
        kind,
        handling,
    }
}

const TEXTS: Kind = List(&Text);
const IMAGES: &str = "images belong in the build's own list `images`";
const KEPT_IMAGES: &str = "kept on the server for all builds, under `gcr.io/$PROJECT_ID/…` or `…-docker.pkg.dev/$PROJECT_ID/…`; nothing goes to a registry";
const KMS: &str = "there is no KMS: `kiln secret create` keeps secrets, and availableSecrets.secretManager names them";
const HANDED: &str = "names of availableSecrets; not of a step of kiln";
const GIT: &str = "sources come from a bucket, or from gitSource";
const ARTIFACTS: &str = "artifacts go to buckets only";

/// The states of a build.
pub static STATUS: Enum = Enum {
    name: "Status",
    values: &[
        ("STATUS_UNKNOWN", 0),
        ("QUEUED", 1),
        ("WORKING", 2),
        ("SUCCESS", 3),
        ("FAILURE", 4),
        ("INTERNAL_ERROR", 5),
        ("TIMEOUT", 6),
        ("CANCELLED", 7),
        ("EXPIRED", 9),
        ("PENDING", 10),
    ],
};

static LOGGING: Enum = Enum {
    name: "LoggingMode",
    values: &[
        ("LOGGING_UNSPECIFIED", 0),
        ("LEGACY", 1),
        ("GCS_ONLY", 2),
        ("STACKDRIVER_ONLY", 3),
        ("NONE", 4),
        ("CLOUD_LOGGING_ONLY", 5),
    ],
};

static SUBSTITUTION_OPTION: Enum = Enum {
    name: "SubstitutionOption",
    values: &[("MUST_MATCH", 0), ("ALLOW_LOOSE", 1)],
};

static LOG_STREAMING: Enum = Enum {
    name: "LogStreamingOption",
    values: &[("STREAM_DEFAULT", 0), ("STREAM_ON", 1), ("STREAM_OFF", 2)],
};

static VERIFY: Enum = Enum {
    name: "VerifyOption",
    values: &[("NOT_VERIFIED", 0), ("VERIFIED", 1)],
};

static MACHINE_TYPE: Enum = Enum {
    name: "MachineType",
    values: &[
        ("UNSPECIFIED", 0),
        ("N1_HIGHCPU_8", 1),
        ("N1_HIGHCPU_32", 2),
        ("E2_HIGHCPU_8", 5),
        ("E2_HIGHCPU_32", 6),
        ("E2_MEDIUM", 7),
    ],
};

static HASH_TYPE: Enum = Enum {
    name: "HashType",
    values: &[
        ("NONE", 0),
        ("SHA256", 1),
        ("MD5", 2),
        ("GO_MODULE_H1", 3),
        ("SHA512", 4),
    ],
};

static LOGS_BUCKET_BEHAVIOR: Enum = Enum {
    name: "DefaultLogsBucketBehavior",
    values: &[
        ("DEFAULT_LOGS_BUCKET_BEHAVIOR_UNSPECIFIED", 0),
        ("REGIONAL_USER_OWNED_BUCKET", 1),
        ("LEGACY_BUCKET", 2),
    ],
};

static FAILURE_TYPE: Enum = Enum {
    name: "FailureType",
    values: &[
        ("FAILURE_TYPE_UNSPECIFIED", 0),
        ("PUSH_FAILED", 1),
        ("PUSH_IMAGE_NOT_FOUND", 2),
        ("PUSH_NOT_AUTHORIZED", 3),
        ("LOGGING_FAILURE", 4),
        ("USER_BUILD_STEP", 5),
        ("FETCH_SOURCE_FAILED", 6),
    ],
};

static PRIORITY: Enum = Enum {
    name: "Priority",
    values: &[
        ("PRIORITY_UNSPECIFIED", 0),
        ("INFO", 1),
        ("WARNING", 2),
        ("ALERT", 3),
    ],
};

static TIME_SPAN: Message = Message {
    name: "TimeSpan",
    fields: &[
        field("endTime", Timestamp, Output("")),
        field("startTime", Timestamp, Output("")),
    ],
};

static STORAGE_SOURCE: Message = Message {
    name: "StorageSource",
    fields: &[
        field("bucket", Text, Done("")),
        field("generation", Int64, Done("")),
        field("object", Text, Done("a gzipped tar archive")),
        field("sourceFetcher", Opaque, Ignored("there is one fetcher")),
    ],
};

static GIT_SOURCE: Message = Message {
    name: "GitSource",
    fields: &[
        field(
            "dir",
            Text,
            Done(
                "where steps run whose own directory is not absolute; all of the commit is in /workspace",
            ),
        ),
        field(
            "revision",
            Text,
            Done(
                "a branch, a tag, another reference, or a commit in forty digits; the default branch if there is none",
            ),
        ),
        field(
            "url",
            Text,
            Done(
                "http or https, without a password; the server's file of credentials is for private ones",
            ),
        ),
    ],
};

static SOURCE_PROVENANCE: Message = Message {
    name: "SourceProvenance",
    fields: &[field(
        "resolvedGitSource",
        M(&GIT_SOURCE),
        Output("its revision is the commit"),
    )],
};

static SOURCE: Message = Message {
    name: "Source",
    fields: &[
        field("connectedRepository", Opaque, Refused(GIT)),
        field("developerConnectConfig", Opaque, Refused(GIT)),
        field("gitSource", M(&GIT_SOURCE), Done("")),
        field("repoSource", Opaque, Refused(GIT)),
        field("storageSource", M(&STORAGE_SOURCE), Done("")),
        field("storageSourceManifest", Opaque, Refused(GIT)),
    ],
};

static VOLUME: Message = Message {
    name: "Volume",
    fields: &[
        field("name", Text, Done("")),
        field("path", Text, Done("not below /workspace or /builder")),
    ],
};

static STEP: Message = Message {
    name: "BuildStep",
    fields: &[
        field("allowExitCodes", List(&Int32), Done("")),
        field("allowFailure", Bool, Done("")),
        field("args", TEXTS, Done("")),
        field("automapSubstitutions", Bool, Done("")),
        field("dir", Text, Done("below /workspace")),
        field(
            "entrypoint",
            Text,
            Done("the image kiln has one program, kiln"),
        ),
        field(
            "env",
            TEXTS,
            Done("of a step of kiln, only SOURCE_DATE_EPOCH has an effect"),
        ),
        field("exitCode", Int32, Output("")),
        field("id", Text, Done("")),
        field(
            "name",
            Text,
            Done("kiln, or any image where the server has a container engine"),
        ),
        field(
            "pullTiming",
            M(&TIME_SPAN),
            Output("there if the image was pulled"),
        ),
        field("results", Opaque, Refused("steps have no results")),
        field(
            "script",
            Text,
            Done("begins with #!, or is for /bin/sh; not of a step of kiln"),
        ),
        field("secretEnv", TEXTS, Done(HANDED)),
        field("status", E(&STATUS), Output("")),
        field("timeout", Duration, Done("")),
        field("timing", M(&TIME_SPAN), Output("")),
        field("volumes", List(&M(&VOLUME)), Done("not of a step of kiln")),
        field("waitFor", TEXTS, Done("")),
    ],
};

static OBJECTS: Message = Message {
    name: "ArtifactObjects",
    fields: &[
        field("location", Text, Done("")),
        field("paths", TEXTS, Done("relative to /workspace")),
        field("timing", M(&TIME_SPAN), Output("")),
    ],
};

static ARTIFACTS_MESSAGE: Message = Message {
    name: "Artifacts",
    fields: &[
        field("genericArtifacts", Opaque, Refused(ARTIFACTS)),
        field("goModules", Opaque, Refused(ARTIFACTS)),
        field("images", TEXTS, Refused(IMAGES)),
        field("mavenArtifacts", Opaque, Refused(ARTIFACTS)),
        field("npmPackages", Opaque, Refused(ARTIFACTS)),
        field("objects", M(&OBJECTS), Done("")),
        field("pythonPackages", Opaque, Refused(ARTIFACTS)),
    ],
};

static OPTIONS: Message = Message {
    name: "BuildOptions",
    fields: &[
        field("automapSubstitutions", Bool, Done("")),
        field(
            "defaultLogsBucketBehavior",
            E(&LOGS_BUCKET_BEHAVIOR),
            Ignored("logs go to logsBucket, or to the project's own bucket"),
        ),
        field(
            "diskSizeGb",
            Int64,
            Ignored("a build has the server's disk"),
        ),
        field("dynamicSubstitutions", Bool, Done("")),
        field("enableStructuredLogging", Bool, Ignored("logs are text")),
        field("env", TEXTS, Done("")),
        field(
            "logStreamingOption",
            E(&LOG_STREAMING),
            Ignored("logs can always be followed"),
        ),
        field(
            "logging",
            E(&LOGGING),
            Done(
                "every mode writes the log to the bucket; the clients look for it there unless it is NONE or CLOUD_LOGGING_ONLY",
            ),
        ),
        field(
            "machineType",
            E(&MACHINE_TYPE),
            Done("how many processors the queue sets aside, at most those of the machine"),
        ),
        field("pool", Opaque, Ignored("there are no pools")),
        field("pubsubTopic", Text, Ignored("there is no Pub/Sub")),
        field(
            "requestedVerifyOption",
            E(&VERIFY),
            Ignored("there is no attestation"),
        ),
        field("secretEnv", TEXTS, Done("for all steps but those of kiln")),
        field(
            "sourceProvenanceHash",
            List(&E(&HASH_TYPE)),
            Ignored("there is no provenance"),
        ),
        field("substitutionOption", E(&SUBSTITUTION_OPTION), Done("")),
        field("volumes", List(&M(&VOLUME)), Done("")),
        field("workerPool", Text, Ignored("there are no pools")),
    ],
};

static SECRET: Message = Message {
    name: "SecretManagerSecret",
    fields: &[
        field("env", Text, Done("")),
        field(
            "versionName",
            Text,
            Done(
                "projects/PROJECT/secrets/NAME/versions/VERSION: a number, or latest; a server has secrets for all its projects",
            ),
        ),
    ],
};

static SECRETS: Message = Message {
    name: "Secrets",
    fields: &[
        field("inline", Opaque, Refused(KMS)),
        field("secretManager", List(&M(&SECRET)), Done("")),
    ],
};

static WARNING: Message = Message {
    name: "Warning",
    fields: &[
        field("priority", E(&PRIORITY), Output("")),
        field("text", Text, Output("")),
    ],
};

static FAILURE_INFO: Message = Message {
    name: "FailureInfo",
    fields: &[
        field("detail", Text, Output("")),
        field("type", E(&FAILURE_TYPE), Output("")),
    ],
};

static BUILT_IMAGE: Message = Message {
    name: "BuiltImage",
    fields: &[
        field("digest", Text, Output("of the image's configuration")),
        field("name", Text, Output("")),
        field("pushTiming", M(&TIME_SPAN), Output("")),
    ],
};

static RESULTS: Message = Message {
    name: "Results",
    fields: &[
        field("artifactManifest", Text, Output("")),
        field("artifactTiming", M(&TIME_SPAN), Output("")),
        field(
            "buildStepImages",
            TEXTS,
            Output("the digest of each step's image; an empty text for kiln"),
        ),
        field(
            "buildStepOutputs",
            List(&Bytes),
            Output(
                "the first 50 KiB of each step's $BUILDER_OUTPUT/output, if any step wrote one; empty for kiln",
            ),
        ),
        field("images", List(&M(&BUILT_IMAGE)), Output("")),
        field("numArtifacts", Int64, Output("")),
    ],
};

/// The message of a build.
pub static BUILD: Message = Message {
    name: "Build",
    fields: &[
        field(
            "approval",
            Opaque,
            Output("never there: nothing has to be approved"),
        ),
        field("artifacts", M(&ARTIFACTS_MESSAGE), Done("")),
        field("availableSecrets", M(&SECRETS), Done("")),
        field(
            "buildTriggerId",
            Text,
            Output("of builds that a trigger started"),
        ),
        field("createTime", Timestamp, Output("")),
        field("dependencies", Opaque, Refused(GIT)),
        field("failureInfo", M(&FAILURE_INFO), Output("")),
        field("finishTime", Timestamp, Output("")),
        field("gitConfig", Opaque, Refused(GIT)),
        field("id", Text, Output("")),
        field("images", TEXTS, Done(KEPT_IMAGES)),
        field("logUrl", Text, Output("")),
        field("logsBucket", Text, Done("")),
        field("name", Text, Output("")),
        field("options", M(&OPTIONS), Done("")),
        field("projectId", Text, Output("taken from the address")),
        field("queueTtl", Duration, Done("")),
        field("results", M(&RESULTS), Output("")),
        field("secrets", Opaque, Refused(KMS)),
        field("serviceAccount", Text, Ignored("builds have no account")),
        field("source", M(&SOURCE), Done("")),
        field(
            "sourceProvenance",
            M(&SOURCE_PROVENANCE),
            Output("of sources from git, when they are there"),
        ),
        field("startTime", Timestamp, Output("")),
        field("status", E(&STATUS), Output("")),
        field("statusDetail", Text, Output("also why a build waits")),
        field("steps", List(&M(&STEP)), Done("")),
        field("substitutions", Map(&Text), Done("")),
        field("tags", TEXTS, Done("")),
        field("timeout", Duration, Done("")),
        field("timing", Map(&M(&TIME_SPAN)), Output("")),
        field("warnings", List(&M(&WARNING)), Output("")),
    ],
};

/// All messages, in the order in which the documentation has them.
pub static MESSAGES: &[&Message] = &[
    &BUILD,
    &STEP,
    &OPTIONS,
    &ARTIFACTS_MESSAGE,
    &OBJECTS,
    &SOURCE,
    &STORAGE_SOURCE,
    &GIT_SOURCE,
    &SOURCE_PROVENANCE,
    &SECRETS,
    &SECRET,
    &RESULTS,
    &BUILT_IMAGE,
    &FAILURE_INFO,
    &WARNING,
    &TIME_SPAN,
    &VOLUME,
];

//! The messages of triggers, field by field, as [`super::table`] has those of builds.

use super::schema::Handling::{Done, Output, Refused};
use super::schema::Kind::{Bool, Enum as E, List, Map, Message as M, Opaque, Text, Timestamp};
use super::schema::{Enum, Message};
use super::table::{BUILD, field};

const CONNECTIONS: &str = "repositories are not connected; uri says where one is";
const CHANGES: &str = "nobody tells which files have changed";
const EVENTS: &str = "triggers are run by hand or by a webhook";

static EVENT_TYPE: Enum = Enum {
    name: "EventType",
    values: &[
        ("EVENT_TYPE_UNSPECIFIED", 0),
        ("REPO", 1),
        ("WEBHOOK", 2),
        ("PUBSUB", 3),
        ("MANUAL", 4),
    ],
};

static REPO_TYPE: Enum = Enum {
    name: "RepoType",
    values: &[
        ("UNKNOWN", 0),
        ("CLOUD_SOURCE_REPOSITORIES", 1),
        ("GITHUB", 2),
        ("BITBUCKET_SERVER", 3),
        ("GITLAB", 4),
        ("BITBUCKET_CLOUD", 5),
    ],
};

const ANY_TYPE: &str = "is not looked at: every repository is reached over HTTP";
const URI: &str = "http or https, without a password, as in a build's gitSource";

static GIT_REPO_SOURCE: Message = Message {
    name: "GitRepoSource",
    fields: &[
        field("bitbucketServerConfig", Text, Refused(CONNECTIONS)),
        field("githubEnterpriseConfig", Text, Refused(CONNECTIONS)),
        field(
            "ref",
            Text,
            Done(
                "refs/heads/NAME, refs/tags/NAME or another; may have substitutions of the trigger, and be a commit in forty digits then",
            ),
        ),
        field("repoType", E(&REPO_TYPE), Done(ANY_TYPE)),
        field("repository", Text, Refused(CONNECTIONS)),
        field("uri", Text, Done(URI)),
    ],
};

static GIT_FILE_SOURCE: Message = Message {
    name: "GitFileSource",
    fields: &[
        field("bitbucketServerConfig", Text, Refused(CONNECTIONS)),
        field("githubEnterpriseConfig", Text, Refused(CONNECTIONS)),
        field(
            "path",
            Text,
            Done("a file of 1 MiB at most; links are not followed"),
        ),
        field("repoType", E(&REPO_TYPE), Done(ANY_TYPE)),
        field("repository", Text, Refused(CONNECTIONS)),
        field(
            "revision",
            Text,
            Done(
                "a branch, a tag, another reference or a commit in forty digits; where there is none, or that of sourceToBuild, the commit that is built; of another uri the default branch",
            ),
        ),
        field("uri", Text, Done("that of sourceToBuild if there is none")),
    ],
};

static WEBHOOK_STATE: Enum = Enum {
    name: "WebhookState",
    values: &[("STATE_UNSPECIFIED", 0), ("OK", 1), ("SECRET_DELETED", 2)],
};

static WEBHOOK_CONFIG: Message = Message {
    name: "WebhookConfig",
    fields: &[
        field(
            "secret",
            Text,
            Done("projects/PROJECT/secrets/NAME/versions/N: the token NAME is the secret"),
        ),
        field(
            "state",
            E(&WEBHOOK_STATE),
            Output("SECRET_DELETED where there is no such token"),
        ),
    ],
};

/// The message of a trigger.
pub static TRIGGER: Message = Message {
    name: "BuildTrigger",
    fields: &[
        field(
            "approvalConfig",
            Opaque,
            Refused("nothing has to be approved"),
        ),
        field(
            "autodetect",
            Bool,
            Refused("filename or gitFileSource says which build file it is"),
        ),
        field("bitbucketServerTriggerConfig", Opaque, Refused(EVENTS)),
        field("build", M(&BUILD), Done("checked as a whole when it runs")),
        field("createTime", Timestamp, Output("")),
        field("cron", Opaque, Refused(EVENTS)),
        field("description", Text, Done("")),
        field("developerConnectEventConfig", Opaque, Refused(EVENTS)),
        field(
            "disabled",
            Bool,
            Done("webhooks are refused; it still runs by hand"),
        ),
        field(
            "eventType",
            E(&EVENT_TYPE),
            Done("MANUAL, or WEBHOOK with a webhookConfig"),
        ),
        field(
            "filename",
            Text,
            Done("the build file in the repository of sourceToBuild"),
        ),
        field("filter", Text, Refused("there is no CEL")),
        field(
            "gitFileSource",
            M(&GIT_FILE_SOURCE),
            Done("beside a sourceToBuild"),
        ),
        field("github", Opaque, Refused(EVENTS)),
        field("gitlabEnterpriseEventsConfig", Opaque, Refused(EVENTS)),
        field("id", Text, Output("")),
        field("ignoredFiles", List(&Text), Refused(CHANGES)),
        field(
            "includeBuildLogs",
            Opaque,
            Refused("nobody at GitHub is told"),
        ),
        field("includedFiles", List(&Text), Refused(CHANGES)),
        field(
            "name",
            Text,
            Done("made of the id if it is not said; may be changed"),
        ),
        field("pubsubConfig", Opaque, Refused(EVENTS)),
        field("repositoryEventConfig", Opaque, Refused(EVENTS)),
        field("resourceName", Text, Output("")),
        field(
            "serviceAccount",
            Text,
            Done("builds have no account: each gets a warning that says so"),
        ),
        field(
            "sourceToBuild",
            M(&GIT_REPO_SOURCE),
            Done("each run looks its ref up"),
        ),
        field(
            "substitutions",
            Map(&Text),
            Done("names of your own; values take $(body…) of a webhook"),
        ),
        field(
            "tags",
            List(&Text),
            Done("of the trigger, not of its builds"),
        ),
        field("triggerTemplate", Opaque, Refused(EVENTS)),
        field("webhookConfig", M(&WEBHOOK_CONFIG), Done("")),
    ],
};

/// What a run is told.
static REPO_SOURCE: Message = Message {
    name: "RepoSource",
    fields: &[
        field(
            "branchName",
            Text,
            Done("in place of the ref of sourceToBuild; fills in $BRANCH_NAME and $REF_NAME"),
        ),
        field(
            "commitSha",
            Text,
            Done(
                "in place of the ref of sourceToBuild, forty digits then; fills in $COMMIT_SHA, $REVISION_ID and $SHORT_SHA",
            ),
        ),
        field(
            "dir",
            Text,
            Done("of triggers with a sourceToBuild: where steps run"),
        ),
        field("invertRegex", Bool, Refused("names are no patterns")),
        field("projectId", Text, Output("taken from the address")),
        field("repoName", Text, Done("fills in $REPO_NAME")),
        field(
            "substitutions",
            Map(&Text),
            Done("in place of those of the trigger"),
        ),
        field(
            "tagName",
            Text,
            Done("in place of the ref of sourceToBuild; fills in $TAG_NAME and $REF_NAME"),
        ),
    ],
};

/// The body of a request that runs a trigger.
pub static RUN: Message = Message {
    name: "RunBuildTriggerRequest",
    fields: &[
        field("projectId", Text, Output("taken from the address")),
        field(
            "source",
            M(&REPO_SOURCE),
            Done("a form without a region has it alone as its body"),
        ),
        field("triggerId", Text, Output("taken from the address")),
    ],
};

/// All messages, in the order in which the documentation has them.
pub static MESSAGES: &[&Message] = &[
    &TRIGGER,
    &GIT_REPO_SOURCE,
    &GIT_FILE_SOURCE,
    &WEBHOOK_CONFIG,
    &RUN,
    &REPO_SOURCE,
];

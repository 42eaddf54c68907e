//! The messages of triggers, field by field, as [`super::table`] has those of builds.

use super::schema::Handling::{Done, Output, Refused};
use super::schema::Kind::{Bool, Enum as E, List, Map, Message as M, Opaque, Text, Timestamp};
use super::schema::{Enum, Message};
use super::table::{BUILD, field};

const GIT: &str = "there are no repositories; the build in the trigger says where its source is";
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
        field("autodetect", Bool, Refused(GIT)),
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
        field("filename", Text, Refused(GIT)),
        field("filter", Text, Refused("there is no CEL")),
        field("gitFileSource", Opaque, Refused(GIT)),
        field("github", Opaque, Refused(EVENTS)),
        field("gitlabEnterpriseEventsConfig", Opaque, Refused(EVENTS)),
        field("id", Text, Output("")),
        field("ignoredFiles", List(&Text), Refused(GIT)),
        field(
            "includeBuildLogs",
            Opaque,
            Refused("nobody at GitHub is told"),
        ),
        field("includedFiles", List(&Text), Refused(GIT)),
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
        field("sourceToBuild", Opaque, Refused(GIT)),
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
            Done("fills in $BRANCH_NAME and $REF_NAME"),
        ),
        field(
            "commitSha",
            Text,
            Done("fills in $COMMIT_SHA, $REVISION_ID and $SHORT_SHA"),
        ),
        field("dir", Text, Refused(GIT)),
        field("invertRegex", Bool, Refused(GIT)),
        field("projectId", Text, Output("taken from the address")),
        field("repoName", Text, Done("fills in $REPO_NAME")),
        field(
            "substitutions",
            Map(&Text),
            Done("in place of those of the trigger"),
        ),
        field("tagName", Text, Done("fills in $TAG_NAME and $REF_NAME")),
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
pub static MESSAGES: &[&Message] = &[&TRIGGER, &WEBHOOK_CONFIG, &RUN, &REPO_SOURCE];

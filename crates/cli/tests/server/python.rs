//! Google's Python client of Cloud Build, as it comes from PyPI; `cargo xtask prerequisites` installs it.

use std::path::PathBuf;
use std::process::Command;

use crate::git::lab;
use crate::harness::{Server, silent};
use crate::repositories::{FILE, pushed};

/// What both halves of the test begin with.
const CLIENT: &str = r#"
import sys
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.devtools import cloudbuild_v1 as cb
from google.protobuf.duration_pb2 import Duration

P = "demo-proj"
PARENT = "projects/demo-proj/locations/global"
Status = cb.Build.Status
client = cb.CloudBuildClient(transport="rest", credentials=AnonymousCredentials(), client_options=ClientOptions(api_endpoint=sys.argv[1]))
source = cb.Source(storage_source=cb.StorageSource(bucket="demo-proj_cloudbuild", object_="source/s.tgz"))

def build(*args, **more):
    return cb.Build(source=source, steps=[cb.BuildStep(name="kiln", args=args)], **more)

def fails(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise SystemExit("no " + kind.__name__)
"#;

const BUILDS: &str = r#"
option = cb.BuildOptions(
    substitution_option=cb.BuildOptions.SubstitutionOption.ALLOW_LOOSE,
    logging=cb.BuildOptions.LoggingMode.GCS_ONLY,
    machine_type=cb.BuildOptions.MachineType.E2_MEDIUM,
)
asked = build("check", "$_NAME.ks", substitutions={"_NAME": "good"}, tags=["py"], timeout=Duration(seconds=60), options=option)
operation = client.create_build(project_id=P, build=asked)
done = operation.result(timeout=60)
assert done.status == Status.SUCCESS and done.id == operation.metadata.build.id, done
assert done.steps[0].status == Status.SUCCESS and done.steps[0].exit_code == 0, done
assert done.options.machine_type == cb.BuildOptions.MachineType.E2_MEDIUM, done
assert done.timeout.total_seconds() == 60 and done.create_time <= done.start_time < done.finish_time, done
assert client.get_build(project_id=P, id=done.id) == done
assert client.get_build(request={"name": PARENT + "/builds/" + done.id}) == done

failed = client.create_build(request={"parent": PARENT, "build": build("check", "missing.ks")})
said = fails(exceptions.Unknown, lambda: failed.result(timeout=60))
assert "build step 0" in said, said
bad = client.get_build(project_id=P, id=failed.metadata.build.id)
assert bad.status == Status.FAILURE and bad.failure_info.type_ == cb.Build.FailureInfo.FailureType.USER_BUILD_STEP, bad
again = client.retry_build(project_id=P, id=bad.id)
fails(exceptions.Unknown, lambda: again.result(timeout=60))
assert again.metadata.build.id != bad.id

hangs = client.create_build(project_id=P, build=build("build", "hang.ks"))
stopped = client.cancel_build(project_id=P, id=hangs.metadata.build.id)
assert stopped.status == Status.CANCELLED, stopped
fails(exceptions.Cancelled, lambda: hangs.result(timeout=60))
fails(exceptions.BadRequest, lambda: client.cancel_build(project_id=P, id=done.id))

pages = client.list_builds(request={"project_id": P, "page_size": 1})
assert [len(page.builds) for page in pages.pages] == [1, 1, 1, 1]
found = client.list_builds(request={"project_id": P, "filter": 'tags="py" AND status="SUCCESS"'})
assert [one.id for one in found] == [done.id]
found = client.list_builds(request={"parent": PARENT, "filter": 'status="FAILURE"'})
assert [one.id for one in found] == [again.metadata.build.id, bad.id]
fails(exceptions.NotFound, lambda: client.get_build(project_id=P, id="none"))
lost = cb.Build(steps=[cb.BuildStep(name="kiln", args=["check", "x.ks"], wait_for=["y"])])
said = fails(exceptions.BadRequest, lambda: client.create_build(project_id=P, build=lost))
assert "\"y\"" in said, said
print("done")
"#;

const TRIGGERS: &str = r#"
wanted = cb.BuildTrigger(name="nightly", description="a", build=build("check", "${_NAME}.ks"), substitutions={"_NAME": "missing"})
made = client.create_build_trigger(project_id=P, trigger=wanted)
assert made.id and made.name == "nightly" and made.create_time, made
assert client.get_build_trigger(project_id=P, trigger_id="nightly") == made
fails(exceptions.Conflict, lambda: client.create_build_trigger(project_id=P, trigger=wanted))
other = client.create_build_trigger(request={"parent": PARENT, "trigger": cb.BuildTrigger(name="other", build=build("check", "x.ks"))})
assert [one.name for one in client.list_build_triggers(request={"project_id": P, "page_size": 1})] == ["other", "nightly"]
made.description = "b"
assert client.update_build_trigger(project_id=P, trigger_id=made.id, trigger=made).description == "b"
operation = client.run_build_trigger(project_id=P, trigger_id=made.id, source=cb.RepoSource(branch_name="main", substitutions={"_NAME": "good"}))
done = operation.result(timeout=60)
assert done.status == Status.SUCCESS and done.build_trigger_id == made.id, done
assert done.substitutions["BRANCH_NAME"] == "main", done
client.delete_build_trigger(project_id=P, trigger_id="other")
client.delete_build_trigger(request={"name": PARENT + "/triggers/" + made.id, "project_id": P, "trigger_id": made.id})
assert list(client.list_build_triggers(project_id=P)) == []
fails(exceptions.NotFound, lambda: client.get_build_trigger(project_id=P, trigger_id=made.id))
print("done")
"#;

const REPOSITORIES: &str = r#"
url, commit = sys.argv[2:]
kind = cb.GitFileSource.RepoType.GITHUB
place = cb.GitRepoSource(uri=url, ref="refs/heads/main", repo_type=kind)
file = cb.GitFileSource(path="ci/cloudbuild.yaml", uri=url, revision="refs/heads/main", repo_type=kind)
wanted = cb.BuildTrigger(name="nightly", source_to_build=place, git_file_source=file)
made = client.create_build_trigger(project_id=P, trigger=wanted)
assert made.source_to_build == place and made.git_file_source == file, made
for asked in [cb.RepoSource(), cb.RepoSource(branch_name="main"), cb.RepoSource(commit_sha=commit)]:
    done = client.run_build_trigger(project_id=P, trigger_id=made.id, source=asked).result(timeout=60)
    assert done.status == Status.SUCCESS and done.source.git_source.url == url, done
    assert done.source.git_source.revision == done.source_provenance.resolved_git_source.revision == commit, done
    assert done.substitutions["SHORT_SHA"] == commit[:7] and done.substitutions["REPO_FULL_NAME"] == "team/lab", done
    assert done.substitutions["TRIGGER_BUILD_CONFIG_PATH"] == "ci/cloudbuild.yaml", done
said = fails(exceptions.BadRequest, lambda: client.run_build_trigger(project_id=P, trigger_id=made.id, source=cb.RepoSource(tag_name="gone")))
assert "refs/tags/gone" in said, said
made.source_to_build.ref = "refs/heads/gone"
client.update_build_trigger(project_id=P, trigger_id=made.id, trigger=made)
said = fails(exceptions.BadRequest, lambda: client.run_build_trigger(project_id=P, trigger_id=made.id))
assert "refs/heads/gone" in said, said
print("done")
"#;

/// The Python of the tools that the test command installs.
pub(crate) fn python() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let own = target.parent().unwrap().join("tools/python/bin/python3");
    if own.is_file() { own } else { "python3".into() }
}

fn run(script: &str, arguments: &[&str]) {
    let server = Server::open();
    let (_listener, kickstart) = silent();
    let good = "lang C.UTF-8\nrootpw x\n%packages\n%end\n";
    server.source(&[("good.ks", good), ("hang.ks", &kickstart)]);
    let url = format!("http://{}", server.address);
    let output = Command::new(python())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", server.directory.path())
        .args(["-c", &format!("{CLIENT}{script}"), &url])
        .args(arguments)
        .output()
        .expect("python3 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !error.contains("No module named 'google"),
        "google-cloud-build is missing; run `cargo xtask prerequisites`"
    );
    assert!(output.status.success(), "{error}");
    assert_eq!(output.stdout, b"done\n", "{error}");
}

#[test]
fn the_python_client_builds() {
    run(BUILDS, &[]);
}

#[test]
fn the_python_client_keeps_triggers() {
    run(TRIGGERS, &[]);
}

#[test]
fn the_python_client_runs_triggers_of_repositories() {
    let (_dir, repositories, tree) = lab();
    let commit = pushed(&tree, "main", FILE);
    run(REPOSITORIES, &[&repositories.url("team/lab.git"), &commit]);
}

//! A build from the page: a kickstart is planned first, and built when somebody has seen the plan.

use std::sync::Arc;

use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::parts::{frame, proof};
use super::session::Visitor;
use super::{Page, Query, to};
use crate::objects::{self, Attributes, BucketName, ObjectName, Owner};
use crate::server::Server;
use crate::store::{Record, Role};
use crate::submit::{self, Order};
use crate::wire::error::{ApiError, Code};
use crate::wire::model::Status;

/// The project of builds that come from the page and from `kiln submit`.
const PROJECT: &str = "kiln-local";
/// Marks a build that only plans, among its tags.
const PLAN: &str = "kiln-plan";
/// Bytes of an upload.
pub(super) const LARGEST_UPLOAD: usize = 32 << 20;
/// Bytes of a kickstart.
const LONGEST: usize = 512 << 10;

/// The form.
pub(super) fn page(visitor: &Visitor) -> Result<Markup, ApiError> {
    visitor.caller.needs(Role::Submit)?;
    let body = html! {
        form.sheet.wide-sheet method="post" action="/submit" {
            h1 { "Submit a kickstart" }
            (proof(visitor))
            p { "What will be done is shown first; nothing is built before you have seen it." }
            label for="name" { "Name" }
            input #name name="name" required pattern="[A-Za-z0-9._\\-]{1,60}" placeholder="lab" autocomplete="off";
            label for="distribution" { "Distribution and release, if the kickstart does not say" }
            input #distribution name="distribution" autocomplete="off";
            label for="text" { "Kickstart" }
            textarea #text.drop name="text" required rows="16" spellcheck="false" {}
            p.quiet { "With script, a file can be dropped here." }
            button.main { "Show what will be done" }
        }
        (files(visitor))
    };
    Ok(frame("Submit", Some(visitor), &body))
}

/// The form for a kickstart with the files beside it.
fn files(visitor: &Visitor) -> Markup {
    html! {
        form.sheet.wide-sheet method="post" action="/submit/files" enctype="multipart/form-data" aria-labelledby="files" {
            h2 #files { "Or a directory, or an archive of one" }
            (proof(visitor))
            label for="archive" { "Archive (.tar.gz)" }
            input #archive type="file" name="archive" accept=".tar.gz,.tgz,.gz,.ks";
            label for="directory" { "Directory" }
            input #directory type="file" name="directory" webkitdirectory multiple;
            label for="kickstart" { "The kickstart in it, if there are several" }
            input #kickstart name="kickstart" placeholder="lab.ks" autocomplete="off";
            label for="release" { "Distribution and release, if the kickstart does not say" }
            input #release name="distribution" autocomplete="off";
            p.quiet {
                "At most " (LARGEST_UPLOAD >> 20) " MB. What is larger, or has a cloudbuild.yaml, goes with "
                code { "kiln submit DIRECTORY" } " or " code { "gcloud builds submit" } "."
            }
            button { "Send and show what will be done" }
        }
    }
}

/// Takes a kickstart and queues its plan.
pub(super) fn take(page: &Page, visitor: &Visitor, form: &Query) -> Result<Response, ApiError> {
    visitor.caller.needs(Role::Submit)?;
    let name = form.get("name").trim().trim_end_matches(".ks");
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 60 || name.starts_with(['-', '.']) || !name.bytes().all(fits)
    {
        return Err(ApiError::invalid(
            "a name has 1 to 60 letters, digits, dots, - and _, and begins with none of the last three",
        ));
    }
    let text = form.get("text").replace("\r\n", "\n");
    if text.trim().is_empty() || text.len() > LONGEST {
        return Err(ApiError::invalid(
            "a kickstart has at least a line and at most 512 kB",
        ));
    }
    let file = format!("{name}.ks");
    let archive = pack(&file, &text).map_err(ApiError::internal)?;
    plan(
        page,
        visitor,
        archive,
        &file,
        form.get("distribution").trim(),
    )
}

/// Keeps a source and queues the plan of one of its kickstarts.
pub(super) fn plan(
    page: &Page,
    visitor: &Visitor,
    archive: Vec<u8>,
    file: &str,
    distribution: &str,
) -> Result<Response, ApiError> {
    let source = keep(&page.server, &visitor.caller.name, archive)?;
    let args = args("plan", file, distribution);
    let request = json!({
        "source": source, "tags": [PLAN],
        "steps": [{ "name": "kiln", "id": "plan", "args": args }],
    });
    queue(&page.server, visitor, request)
}

fn args(command: &str, file: &str, distribution: &str) -> Vec<String> {
    let mut args = vec![command.to_owned(), file.to_owned()];
    if !distribution.is_empty() {
        args.push(format!("--distribution={distribution}"));
    }
    args
}

fn queue(server: &Arc<Server>, visitor: &Visitor, request: Value) -> Result<Response, ApiError> {
    let order = Order {
        who: &visitor.caller.name,
        project: PROJECT,
        location: "global",
        retry_of: None,
        trigger: None,
    };
    let record = submit::check(server, order, request)?;
    submit::queue(server, &record, &visitor.caller, "create")?;
    Ok(to(&format!("/builds/{}", record.build.id)))
}

/// Puts a file into an archive.
fn pack(file: &str, text: &str) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut head = tar::Header::new_gnu();
    head.set_size(text.len() as u64);
    head.set_mode(0o644);
    archive.append_data(&mut head, file, text.as_bytes())?;
    archive.into_inner()?.finish()
}

/// Puts an archive into the project's bucket.
fn keep(server: &Server, who: &str, packed: Vec<u8>) -> Result<Value, ApiError> {
    let bucket = format!("{PROJECT}_cloudbuild");
    let object = format!("source/page-{}.tgz", submit::new_id()?);
    let name = BucketName::new(&bucket).map_err(ApiError::internal)?;
    let place = ObjectName::new(&object).map_err(ApiError::internal)?;
    // Forms are handled beside the sockets' threads, where one may wait for them.
    let objects = server.objects.of(Owner::of(who));
    let kept: objects::Result<_> = tokio::runtime::Handle::current().block_on(async {
        if objects.bucket(&name).await.is_err() {
            objects.create_bucket(&name, PROJECT).await?;
        }
        let kind = Attributes::of_type("application/gzip");
        objects.put_bytes(&name, &place, packed, kind).await
    });
    kept.map_err(|error| match error.status().as_u16() {
        403 => ApiError::new(Code::PermissionDenied, error.to_string()),
        507 => ApiError::new(Code::ResourceExhausted, error.to_string()),
        _ => ApiError::internal(error),
    })?;
    Ok(json!({ "storageSource": { "bucket": bucket, "object": object } }))
}

/// Whether a build only showed what would be done.
fn is_plan(record: &Record) -> bool {
    record.build.tags.iter().any(|tag| tag == PLAN) && record.build.source.is_some()
}

/// On the page of a plan that went well: the form that builds it.
pub(super) fn go_on(record: &Record, visitor: &Visitor) -> Markup {
    let is_ready = is_plan(record) && record.build.status == Status::Success;
    html! {
        @if is_ready && visitor.may(Role::Submit) {
            form.now method="post" action={ "/builds/" (record.build.id) "/build" } {
                (proof(visitor))
                p { "This is what will be done; the log below shows all of it. Nothing is built yet." }
                button.main { "Build it" }
            }
        }
    }
}

/// Builds what a plan has shown.
pub(super) fn build(page: &Page, visitor: &Visitor, record: &Record) -> Result<Response, ApiError> {
    visitor.caller.needs(Role::Submit)?;
    let words = record.task.steps.first().map(|step| step.args.as_slice());
    let (Some([plan, rest @ ..]), true) = (words, is_plan(record)) else {
        return Err(ApiError::invalid(
            "the build is no plan that the page has made",
        ));
    };
    if plan != "plan" {
        return Err(ApiError::invalid(
            "the build is no plan that the page has made",
        ));
    }
    let mut args = vec!["build".to_owned()];
    args.extend(rest.iter().cloned());
    let request = json!({
        "source": record.request["source"],
        "steps": [{ "name": "kiln", "id": "build", "args": args }],
        "artifacts": { "objects": {
            "location": format!("gs://{PROJECT}_cloudbuild/images/$BUILD_ID"),
            "paths": ["output/*"],
        } },
    });
    queue(&page.server, visitor, request)
}

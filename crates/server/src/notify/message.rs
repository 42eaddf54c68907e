//! What is said of a build.

use serde_json::{Value, json};

use crate::store::{Delivery, Record};
use crate::wire::model::Status;
use crate::wire::time;

/// A new status of a build, for whoever is told.
pub(super) struct Message<'a> {
    /// The delivery's id.
    pub(super) id: &'a str,
    /// The status that is told of; the build may have another one by now.
    pub(super) status: &'a str,
    /// The build.
    pub(super) record: &'a Record,
    /// The build's page.
    pub(super) page: String,
}

impl<'a> Message<'a> {
    pub(super) fn new(url: &str, record: &'a Record, delivery: &'a Delivery) -> Self {
        Message {
            id: &delivery.id,
            status: &delivery.status,
            record,
            page: format!("{url}/builds/{}", record.build.id),
        }
    }

    /// Whether all is well, nothing is known yet, or something went wrong.
    pub(super) fn verdict(&self) -> Verdict {
        match self.status {
            "SUCCESS" => Verdict::Good,
            "QUEUED" | "WORKING" => Verdict::Open,
            _ => Verdict::Bad,
        }
    }

    /// One line.
    pub(super) fn title(&self) -> String {
        let what = match self.status {
            "SUCCESS" => "succeeded",
            "WORKING" => "began",
            "QUEUED" => "waits again",
            "FAILURE" => "failed",
            "TIMEOUT" => "took too long",
            "CANCELLED" => "was cancelled",
            "EXPIRED" => "waited too long",
            _ => "could not be carried out",
        };
        let build = &self.record.build;
        let id = build.id.get(..8).unwrap_or(&build.id);
        let tags = match build.tags.is_empty() {
            true => String::new(),
            false => format!(" ({})", build.tags.join(", ")),
        };
        format!("Build {id}{tags} {what}")
    }

    /// A few lines.
    pub(super) fn text(&self) -> String {
        let build = &self.record.build;
        let mut text = format!("{}.\n", self.title());
        // What is known of another status is no news of this one.
        if build.status.name() == self.status {
            if let Some(detail) = &build.status_detail {
                text.push_str(&format!("{detail}\n"));
            }
            if let Some(seconds) =
                seconds(build.start_time.as_deref(), build.finish_time.as_deref())
            {
                text.push_str(&format!(
                    "It took {} min {} s.\n",
                    seconds / 60,
                    seconds % 60
                ));
            }
        }
        text.push_str(&format!("{}\n", self.page));
        text
    }

    /// Everything, for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id,
            "status": self.status,
            "page": self.page,
            "build": self.record.build,
        })
    }

    /// Whether the build still has the status that is told of.
    pub(super) fn is_news(&self) -> bool {
        let now = self.record.build.status;
        now.name() == self.status || now == Status::Working
    }
}

/// What a status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    Good,
    Bad,
}

fn seconds(began: Option<&str>, ended: Option<&str>) -> Option<i64> {
    let (began, ended) = (time::read_stamp(began?)?, time::read_stamp(ended?)?);
    Some((ended - began) / 1_000_000_000)
}

//! The source of an attempt, from a git repository.

use std::io;

use kiln_git::{Credentials, Error, Remote};

use super::step::Stop;
use super::{Ending, Work};
use crate::executor::request::What;
use crate::git::{self, GitTask, Pin};
use crate::wire::model::Status;
use crate::wire::time;

/// Writes a commit's files into the workspace; returns an end only if that is one.
pub(super) fn fetch(
    work: &Work<'_>,
    task: &GitTask,
    credentials: kiln_git::Result<Credentials>,
) -> io::Result<Option<Ending>> {
    let began = time::now();
    let url = &task.url;
    work.log
        .line(&format!("\nFETCHSOURCE\nFetching git repository: {url}"))?;
    let stop = || work.stop().is_some();
    let fetched = credentials.and_then(|credentials| {
        let options = git::options(credentials, work.request.from_elsewhere, &stop);
        let remote = Remote::open(url, &options)?;
        let pin = match &task.pin {
            Some(pin) => pin.clone(),
            None => Pin::from(remote.resolve(&task.revision)?),
        };
        let snapshot = remote.fetch(&pin.commit, &work.attempt.dir, None)?;
        let left_out = snapshot.check_out(&work.attempt.workspace())?;
        Ok((snapshot.commit(), pin.reference, left_out))
    });
    match fetched {
        Ok((commit, reference, left_out)) => {
            let name = reference.as_deref().unwrap_or("the commit asked for");
            work.log.line(&format!("{name} is at {commit}"))?;
            for sentence in left_out {
                work.log.line(&format!("WARNING: {sentence}"))?;
            }
            let commit = Some(commit);
            work.events.write(What::Fetched { began, commit })?;
            Ok(None)
        }
        Err(Error::Stopped) => Ok(Some(Ending::new(match work.stop() {
            Some(Stop::TimedOut) => Status::Timeout,
            _ => Status::Cancelled,
        }))),
        Err(error) => {
            let detail = format!("fetching the source: {error}");
            Ok(Some(Ending::failed("FETCH_SOURCE_FAILED", detail)))
        }
    }
}

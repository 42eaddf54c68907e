//! Waiting for the store of the buckets' contents: a build does not fail because it was away for a while.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::ending::append;
use crate::objects::{ApiError, Result};
use crate::server::Server;

/// The first pause between two tries; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// How often is looked whether the build was cancelled.
const LOOK: Duration = Duration::from_millis(500);
/// Tries at a content that comes back as another.
const READS: u32 = 3;

/// What a build waits for.
pub(super) struct Waiting<'a> {
    pub(super) server: &'a Server,
    /// The build.
    pub(super) id: &'a str,
    /// Where its followers are told, unless it is the log itself that waits.
    pub(super) log: Option<PathBuf>,
    /// How long.
    pub(super) most: Duration,
}

impl Waiting<'_> {
    /// Tries something until the store is not in its way, the time is over or the build is cancelled.
    ///
    /// # Errors
    /// What the last try said.
    pub(super) async fn until<T, F: Future<Output = Result<T>>>(
        &self,
        what: &str,
        mut work: impl FnMut() -> F,
    ) -> Result<T> {
        let (began, mut pause, mut reads, mut told) = (Instant::now(), PAUSE, 0, false);
        loop {
            let error = match work().await {
                Ok(done) => {
                    if told {
                        self.say(None);
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            reads += u32::from(error.is_damaged());
            let is_passing = error.is_away() || error.is_damaged();
            if !is_passing || reads >= READS {
                return Err(error);
            }
            if !told {
                told = true;
                self.tell(what, &error);
            }
            // While the store is known to be away nothing is staged and hashed in vain.
            let mut since = Instant::now();
            while since.elapsed() < pause || self.is_away() {
                if began.elapsed() >= self.most || self.is_cancelled() {
                    return Err(error);
                }
                tokio::time::sleep(LOOK.min(pause)).await;
                if self.is_away() {
                    since = Instant::now();
                }
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    fn is_away(&self) -> bool {
        self.server
            .objects
            .trouble()
            .is_some_and(|trouble| trouble.is_away())
    }

    /// Whether somebody wants the build to stop.
    pub(super) fn is_cancelled(&self) -> bool {
        let now = self.server.store.get(self.id);
        now.ok().flatten().is_some_and(|record| record.cancelled)
    }

    /// Tells who follows the build and who looks at it.
    fn tell(&self, what: &str, error: &ApiError) {
        let line = format!("WAITING: {what} until the buckets can be used: {error}");
        if let Some(log) = &self.log {
            // A log that cannot be written is the next step's trouble.
            drop(append(log, &format!("{line}\n")));
        }
        self.say(Some(line));
    }

    fn say(&self, detail: Option<String>) {
        let changed = self.server.store.change(self.id, |record| {
            if record.build.status.is_final() {
                return false;
            }
            record.build.status_detail.clone_from(&detail);
            true
        });
        // Trouble with the database shows in /readyz.
        drop(changed);
    }
}

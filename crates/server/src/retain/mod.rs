//! How long ended builds stay: by age, by size, and for good if they are pinned.
//!
//! What goes with a build: its directory with all attempts, its log, the artifacts that it put into its bucket, and the source that
//! its client uploaded for it. What somebody has replaced since, and what other builds use, stays.

mod engines;
mod leaves;

use std::sync::Arc;
use std::time::Duration;

use crate::server::{Keep, Server};
use crate::store::{Ended, Error, Record};
use crate::wire::time;
pub(crate) use engines::clean;
use leaves::Leaves;
use leaves::remove_dir;

/// How often is looked.
const LOOK: Duration = Duration::from_secs(60);
/// A build that has just ended stays, whatever its size: its client asks for its log and artifacts.
const FRESH: i64 = 60 * 60 * 1_000_000_000;

/// Removes builds until the task is dropped.
pub(crate) async fn work(server: Arc<Server>) {
    // Trouble with the database shows in /readyz; the next pass tries again.
    let mut found = false;
    loop {
        found = found || engines::find(&server).is_ok();
        drop(engines::pass(&server).await);
        drop(pass(&server, time::now()).await);
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes builds off the list that have to go, and removes what is left of these and of earlier ones.
async fn pass(server: &Arc<Server>, now: i64) -> Result<(), Error> {
    let keep = server.settings.keep;
    if keep != Keep::default() {
        for (ended, why) in chosen(measured(server).await?, keep, now) {
            let Some(record) = server.store.get(&ended.id)? else {
                continue;
            };
            if is_running(server, &record)? {
                continue;
            }
            let leaves = serde_json::to_string(&Leaves::of(&record))?;
            server.store.condemn(&ended.id, &leaves, &why)?;
        }
    }
    for condemned in server.store.condemned()? {
        let leaves: Leaves = serde_json::from_str(&condemned.leaves)?;
        match leaves.remove(server, &condemned.id).await {
            Ok(()) => server.store.removed(&condemned.id, None)?,
            Err(trouble) => {
                if condemned.trouble.as_ref() != Some(&trouble) {
                    let what = format!("cannot remove all of it: {trouble}");
                    server
                        .store
                        .audit(now, "server", &what, Some(&condemned.id))?;
                }
                server.store.removed(&condemned.id, Some(&trouble))?;
            }
        }
    }
    Ok(())
}

/// All builds that have ended, each with its size.
async fn measured(server: &Arc<Server>) -> Result<Vec<Ended>, Error> {
    let mut all = server.store.ended()?;
    for ended in &mut all {
        if ended.bytes.is_none()
            && let Some(record) = server.store.get(&ended.id)?
            && !is_running(server, &record)?
            // What cannot be read now is measured by a later pass.
            && let Ok(bytes) = Leaves::of(&record).measure(server, &ended.id).await
        {
            server.store.measured(&ended.id, bytes)?;
            ended.bytes = Some(bytes);
        }
    }
    Ok(all)
}

/// Whether a process of the build may still write.
fn is_running(server: &Server, record: &Record) -> Result<bool, Error> {
    for number in 1..=record.attempt {
        let attempt = server.attempt(&record.build.id, number);
        if server.executor.is_alive(&attempt)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The builds that have to go, and why. `all` begins with the oldest.
fn chosen(all: Vec<Ended>, keep: Keep, now: i64) -> Vec<(Ended, String)> {
    let mut held: u64 = all.iter().filter_map(|ended| ended.bytes).sum();
    let mut chosen = Vec::new();
    for ended in all {
        let age = u64::try_from(now - ended.finished).unwrap_or(0);
        let age = Duration::from_nanos(age);
        let bytes = ended.bytes.unwrap_or(0);
        let why = match keep {
            _ if ended.pinned => continue,
            Keep {
                age: Some(most), ..
            } if age > most => {
                format!("ended {} ago", days(age))
            }
            Keep {
                bytes: Some(most), ..
            } if held > most && now - ended.finished > FRESH => {
                format!("builds hold {held} bytes, {most} may stay")
            }
            _ => continue,
        };
        held = held.saturating_sub(bytes);
        chosen.push((ended, why));
    }
    chosen
}

fn days(age: Duration) -> String {
    format!("{:.1} days", age.as_secs_f64() / 86400.0)
}

#[cfg(test)]
mod tests;

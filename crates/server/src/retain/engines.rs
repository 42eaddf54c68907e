//! What the container engines of attempts leave that were killed: containers, and with them the secrets of their environment.
//!
//! It is removed when an attempt ends. What cannot be removed then, because a process of the engine has not ended yet or the server
//! did, is removed later.

use std::path::PathBuf;
use std::time::Duration;

use super::{is_running, remove_dir};
use crate::executor::request::Attempt;
use crate::server::Server;
use crate::store::Error;
use crate::wire::time;

/// How often it is tried at once: mounts and processes of an engine end a moment after the agent.
const TRIES: u32 = 10;
/// How long is waited between two of these.
const PAUSE: Duration = Duration::from_millis(200);

/// Removes what the engine of an attempt that has ended has left, now or later.
pub(crate) async fn clean(server: &Server, attempt: &Attempt, build: &str) {
    for _ in 0..TRIES {
        if remove(attempt.engine()).await.is_ok() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    server.left.note(attempt, build);
}

async fn remove(engine: PathBuf) -> Result<(), String> {
    let removed = tokio::task::spawn_blocking(move || match engine.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => remove_dir(&engine),
    });
    removed.await.map_err(|error| error.to_string())?
}

/// Finds what servers left that ended before they could remove it.
pub(super) fn find(server: &Server) -> Result<(), Error> {
    for ended in server.store.ended()? {
        let Some(record) = server.store.get(&ended.id)? else {
            continue;
        };
        let attempts = (1..=record.attempt).map(|number| server.attempt(&ended.id, number));
        let left: Vec<_> = attempts
            .filter(|attempt| attempt.engine().exists())
            .collect();
        if !left.is_empty() && !is_running(server, &record)? {
            left.iter()
                .for_each(|attempt| server.left.note(attempt, &ended.id));
        }
    }
    Ok(())
}

/// Tries again to remove what is left.
pub(super) async fn pass(server: &Server) -> Result<(), Error> {
    let left = server.left.all().clone();
    for (engine, leftover) in left {
        let Err(why) = remove(engine.clone()).await else {
            server.left.all().remove(&engine);
            continue;
        };
        if leftover.trouble.as_ref() != Some(&why) {
            let what = format!(
                "cannot remove the containers of a build, and secrets of their environment: {}: {why}",
                engine.display()
            );
            let now = time::now();
            server
                .store
                .audit(now, "server", &what, Some(&leftover.build))?;
        }
        if let Some(known) = server.left.all().get_mut(&engine) {
            known.trouble = Some(why);
        }
    }
    Ok(())
}

//! Tells others how builds go: web hooks, ntfy, statuses of commits, mail.
//!
//! Every new status of a build is noted in the transaction that changes it. From there it goes to the targets that want it,
//! each with a thread of its own, so that one that hangs keeps no other. What fails is tried again, also by the next server.
//! Only the administrator names targets (`notify.toml` in the data directory); a build can ask for one by a tag.

mod commit;
mod config;
mod mail;
mod message;
mod ntfy;
mod post;
mod webhook;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub use config::{Error, Target, read};

use crate::server::Server;
use crate::store::{self, Delivery, Notice, Record};
use crate::wire::time;
use message::Message;

/// How often notices are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// The wait before the second try, in seconds; doubled for every further one.
const FIRST_WAIT: u64 = 5;
/// Longest wait between two tries, in seconds.
const LONGEST_WAIT: u64 = 3600;
/// Tries of one delivery: somewhat more than a day.
const MOST_TRIES: u32 = 34;

/// Why something was not delivered.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// It may pass.
    #[error("{0}")]
    Passing(String),
    /// It will be the same next time.
    #[error("{0}")]
    Lasting(String),
}

/// How one kind of target is told.
trait Tell: Send + Sync {
    fn tell(&self, message: &Message<'_>) -> Result<(), Trouble>;
}

/// Starts the threads. They end with the process; what they were about is done again by the next one.
pub(crate) fn start(server: &Arc<Server>, targets: Vec<Target>) -> std::io::Result<()> {
    let targets = Arc::new(targets);
    for at in 0..targets.len() {
        let (server, targets) = (Arc::clone(server), Arc::clone(&targets));
        let name = format!("notify-{at}");
        let work = move || {
            if let Some(target) = targets.get(at) {
                attend(&server, target);
            }
        };
        thread::Builder::new().name(name).spawn(work)?;
    }
    let server = Arc::clone(server);
    let work = move || {
        loop {
            // Trouble with the database shows in /readyz; the next look tries again.
            drop(distribute(&server, &targets));
            thread::sleep(LOOK);
        }
    };
    thread::Builder::new()
        .name("notify".to_owned())
        .spawn(work)?;
    Ok(())
}

/// Makes deliveries of all notices.
fn distribute(server: &Server, targets: &[Target]) -> Result<(), store::Error> {
    loop {
        let notices = server.store.notices()?;
        if notices.is_empty() {
            return Ok(());
        }
        for notice in notices {
            let record = server.store.get(&notice.build)?;
            let deliveries =
                record.map_or_else(Vec::new, |record| addressed(targets, &record, &notice));
            server.store.address(&notice, &deliveries, time::now())?;
        }
    }
}

fn addressed(targets: &[Target], record: &Record, notice: &Notice) -> Vec<Delivery> {
    let wanted = targets
        .iter()
        .filter(|target| target.wants(&notice.status, &record.build.tags));
    let delivery = |target: &Target| Delivery {
        id: format!("{}-{}-{}", notice.build, notice.number, target.name),
        target: target.name.clone(),
        build: notice.build.clone(),
        status: notice.status.clone(),
        tries: 0,
    };
    wanted.map(delivery).collect()
}

/// Tells one target all that is due, for ever.
fn attend(server: &Server, target: &Target) {
    loop {
        match server.store.due(&target.name, time::now()) {
            Ok(Some(delivery)) => {
                // As above.
                drop(deliver(server, target, &delivery));
            }
            _ => thread::sleep(LOOK),
        }
    }
}

fn deliver(server: &Server, target: &Target, delivery: &Delivery) -> Result<(), store::Error> {
    let told = match server.store.get(&delivery.build)? {
        None => Err(Trouble::Lasting("the build is gone".to_owned())),
        Some(record) => {
            let message = Message::new(&server.url, &record, delivery);
            target.tell(&message)
        }
    };
    let now = time::now();
    let Err(trouble) = told else {
        return server.store.tried(delivery, None, now, None);
    };
    let passing = matches!(trouble, Trouble::Passing(_)) && delivery.tries + 1 < MOST_TRIES;
    let again = passing.then(|| now + wait(delivery.tries).as_nanos() as i64);
    let text = trouble.to_string();
    server.store.tried(delivery, again, now, Some(&text))?;
    if again.is_none() {
        let what = format!("could not tell {}: {text}", target.name);
        server
            .store
            .audit(now, "server", &what, Some(&delivery.build))?;
    }
    Ok(())
}

fn wait(tries: u32) -> Duration {
    let seconds = FIRST_WAIT.saturating_mul(1 << tries.min(16));
    Duration::from_secs(seconds.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_go_on_for_more_than_a_day() {
        assert_eq!(wait(0), Duration::from_secs(5));
        assert_eq!(wait(3), Duration::from_secs(40));
        let all: Duration = (0..MOST_TRIES - 1).map(wait).sum();
        assert!(all > Duration::from_secs(24 * 3600), "{all:?}");
    }
}

//! Kills while a server removes old builds, and while it changes a database of the first version.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Chore;
use super::check::nothing_left;
use crate::Result;
use crate::peer::{afresh, trouble};
use crate::served::Server;

/// Kills of each kind at most.
const KILLS: usize = 20;
/// Builds in a database of the first version: changing it takes a moment.
const MANY: usize = 20_000;
/// A database that the first server wrote.
const FIRST: &str = include_str!("first.sql");

/// All builds become old and are removed, by servers that are killed.
pub(super) fn removal(chore: &Chore) -> Result<()> {
    nothing_left(chore)?;
    let data = chore.data();
    let before = chore.ask("age", &data, &[])?;
    let (mut amid, mut kills) = (0, 0);
    let mut seen = before.clone();
    let options = ["--keep-for", "1"];
    for _ in 0..KILLS {
        let server = Server::over(&chore.kiln, &data, &chore.cache(), &options)?;
        // Later and later, so that some come before the first removal, some between two.
        thread::sleep(chore.dice.moment(0, 12 + 8 * kills));
        server.kill()?;
        kills += 1;
        seen = chore.ask("count", &data, &[])?;
        amid += usize::from(seen["condemned"] != 0);
        if seen["builds"] == 0 && seen["condemned"] == 0 {
            break;
        }
    }
    let server = Server::over(&chore.kiln, &data, &chore.cache(), &options)?;
    let since = Instant::now();
    while seen["builds"] != 0 || seen["condemned"] != 0 {
        if since.elapsed() > Duration::from_secs(120) {
            return Err(format!("builds are not removed: {seen}"));
        }
        thread::sleep(Duration::from_millis(200));
        seen = chore.ask("count", &data, &[])?;
    }
    drop(server);
    let dirs = fs::read_dir(data.join("builds")).map_err(trouble("reading", &data))?;
    let dirs = dirs.count();
    if dirs != 0 {
        return Err(format!("{dirs} directories of removed builds are left"));
    }
    println!(
        "removal of {} builds: {kills} kills, {amid} of them amid a removal; all are gone",
        before["builds"]
    );
    nothing_left(chore)
}

/// A database of the first version is changed by servers that are killed; one that ends it has lost nothing.
pub(super) fn first_version(chore: &Chore) -> Result<()> {
    let data = chore.work.join("old");
    afresh(&data)?;
    fs::remove_dir(&data).map_err(trouble("removing", &data))?;
    let dump = chore.work.join("first.sql");
    fs::write(&dump, FIRST).map_err(trouble("writing", &dump))?;
    let many = MANY.to_string();
    let made = chore.ask("old", &data, &[&dump.display().to_string(), &many])?;
    let (mut kills, mut amid, mut longest) = (0, 0, 1_u64);
    let begun = Instant::now();
    loop {
        let mut server = std::process::Command::new(&chore.kiln)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--open-to-this-machine",
                "--data",
            ])
            .arg(&data)
            .stderr(std::process::Stdio::null())
            .spawn()
            .map_err(|error| format!("a server: {error}"))?;
        // A little later each time, so that every moment comes.
        thread::sleep(Duration::from_millis(longest));
        longest += 1 + longest / 6;
        let killed = server.kill().and_then(|()| server.wait());
        killed.map_err(|error| format!("killing the server: {error}"))?;
        kills += 1;
        let now = chore.ask("count", &data, &[])?;
        let copy = chore.ask("kept", &data, &["kiln.db.v1"])?;
        is_whole(&copy, &made)?;
        if now["version"] == 1 {
            let staged = data.join("kiln.db.copy").exists();
            amid += usize::from(staged || copy["there"] == true);
        } else {
            break;
        }
        if begun.elapsed() > Duration::from_secs(600) {
            return Err("the database is not changed".to_owned());
        }
    }
    let server = Server::over(&chore.kiln, &data, &chore.cache(), &[])?;
    let path = "/v1/projects/demo/builds?pageSize=1";
    let list = server.client()?.json("GET", path, &Value::Null)?;
    if list["builds"][0]["status"].is_null() {
        return Err(format!(
            "a build of the first server cannot be shown: {list}"
        ));
    }
    drop(server);
    let now = chore.ask("count", &data, &[])?;
    let copy = chore.ask("kept", &data, &["kiln.db.v1"])?;
    is_whole(&copy, &made)?;
    if now["builds"] != made["builds"] || copy["there"] != true {
        return Err(format!(
            "made {made}, changed into {now}, with the copy {copy}"
        ));
    }
    println!(
        "database of the first version with {} builds, now of version {}: {kills} kills, {amid} of them amid; nothing is lost, the copy is whole",
        now["builds"], now["version"]
    );
    afresh(&data)
}

/// A copy is not there, or all of it is.
fn is_whole(copy: &Value, made: &Value) -> Result<()> {
    let whole = copy["said"][0] == "ok" && copy["version"] == 1 && copy["builds"] == made["builds"];
    match copy["there"] == false || whole {
        true => Ok(()),
        false => Err(format!(
            "the copy of the old database is torn: {copy}, made {made}"
        )),
    }
}

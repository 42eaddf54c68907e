//! The batch: builds of every kind, and what is killed while they run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Chore;
use super::follow::{Shown, follow};
use crate::peer::{Options, afresh, definition, trouble};
use crate::served::{Client, PROJECT, Server, builds, create, upload};
use crate::{Result, process};

/// Builds of whole images among the sources.
pub(super) const IMAGES: usize = 4;
/// Lines of each step of a loud build.
pub(super) const LINES: usize = 30_000;
/// How long a batch may take.
const LONGEST: Duration = Duration::from_secs(3600);

/// How a build is to end, and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Loud,
    Small,
    Failing,
    Late,
    Cancelled,
}

impl Kind {
    fn of(number: usize) -> Kind {
        match number % 10 {
            0 | 5 => Kind::Image,
            1 | 6 | 8 => Kind::Loud,
            2 | 7 => Kind::Small,
            3 => Kind::Failing,
            4 => Kind::Late,
            _ => Kind::Cancelled,
        }
    }

    pub(super) fn status(self) -> &'static str {
        match self {
            Kind::Image | Kind::Loud | Kind::Small => "SUCCESS",
            Kind::Failing => "FAILURE",
            Kind::Late => "TIMEOUT",
            Kind::Cancelled => "CANCELLED",
        }
    }

    fn request(self, number: usize, source: &Value) -> Value {
        let step = |words: &[&str]| json!({ "name": "kiln", "args": words });
        let image = format!("image-{}.ks", number % IMAGES);
        let debian = ["--distribution", "debian:bookworm"];
        let (steps, paths) = match self {
            Kind::Image => {
                let words = [
                    "build", "--locked", "--format", "raw", &image, debian[0], debian[1],
                ];
                (
                    vec![step(&words)],
                    vec!["output/disk.raw", "output/manifest.json"],
                )
            }
            Kind::Loud => (vec![step(&["flatten", "loud.ks"]); 3], vec!["loud.ks"]),
            Kind::Small => (vec![step(&["check", "good.ks"])], vec!["good.ks"]),
            Kind::Failing => (vec![step(&["check", "none.ks"])], vec![]),
            Kind::Late | Kind::Cancelled => (
                vec![step(&["build", "hang.ks", debian[0], debian[1]])],
                vec![],
            ),
        };
        let mut build = json!({ "source": source, "steps": steps });
        if !paths.is_empty() {
            let location = format!("gs://{PROJECT}_out/{number}");
            build["artifacts"] = json!({ "objects": { "location": location, "paths": paths } });
        }
        build["timeout"] = json!(if self == Kind::Late { "6s" } else { "3000s" });
        build
    }
}

/// A build of the batch.
pub(super) struct Build {
    pub(super) id: String,
    pub(super) number: usize,
    pub(super) kind: Kind,
    /// What somebody who looked on has seen of its log.
    pub(super) shown: Vec<u8>,
    /// The build as the server tells it in the end.
    pub(super) end: Value,
    /// How often a process of it was killed.
    pub(super) agents: usize,
}

/// A batch that has ended, and how.
pub(super) struct Batch {
    pub(super) builds: Vec<Build>,
    pub(super) servers: usize,
    pub(super) agents: usize,
    pub(super) server: Server,
}

/// Makes what the builds are made of: some images that differ in a script, a long file, a good one, one that waits for ever.
pub(super) fn sources(chore: &Chore, original: &Path, options: &Options) -> Result<()> {
    let dir = chore.source();
    afresh(&dir)?;
    let text = fs::read_to_string(original).map_err(trouble("reading", original))?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(trouble("writing", &path))
    };
    let warm = chore.work.join("warm");
    for number in 0..IMAGES {
        let name = format!("image-{number}.ks");
        write(
            &name,
            &format!("{text}\n%post\necho {number} > /etc/motd\n%end\n"),
        )?;
        // The lock file appears beside it; the packages are those of the first.
        let (given, work) = match number {
            0 => (options.warm.clone(), chore.work.clone()),
            _ => (Some(warm.clone()), chore.work.join("again")),
        };
        let options = Options {
            warm: given,
            ..Options::default()
        };
        options.warm_cache(&chore.kiln, &dir.join(&name), &work)?;
    }
    chore.fresh_cache(&warm)?;
    let mut loud = "lang C.UTF-8\nrootpw x\n%packages\n%end\n%post\n".to_owned();
    for line in 0..LINES {
        let _ = writeln!(loud, "echo line {line:08} of a log that somebody reads");
    }
    write("loud.ks", &(loud + "%end\n"))?;
    write("good.ks", "lang C.UTF-8\nrootpw x\n%packages\n%end\n")?;
    definition::lock_of(&dir.join("image-0.ks")).map(drop)
}

/// A batch that runs, and those who look on.
struct Run<'a> {
    chore: &'a Chore,
    source: Value,
    place: Mutex<SocketAddr>,
    over: AtomicBool,
    shown: Shown,
}

/// Sends the batch, and kills until the number is reached and all builds have ended.
pub(super) fn run(chore: &Chore) -> Result<Batch> {
    afresh(&chore.data())?;
    let (_silent, hang) = hang()?;
    let path = chore.source().join("hang.ks");
    fs::write(&path, hang).map_err(trouble("writing", &path))?;
    let server = start(chore)?;
    let mut client = server.client()?;
    let source = upload(&mut client, &chore.source())?;
    let bucket = json!({ "name": format!("{PROJECT}_out") });
    let make = format!("/storage/v1/b?project={PROJECT}");
    client.json("POST", &make, &bucket)?;
    let run = Run {
        chore,
        source,
        place: Mutex::new(server.address),
        over: AtomicBool::new(false),
        shown: Mutex::default(),
    };
    let result = thread::scope(|scope| {
        let result = run.kills(scope, server);
        run.over.store(true, Ordering::SeqCst);
        result
    });
    let mut batch = result?;
    let mut shown = run
        .shown
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    for build in &mut batch.builds {
        build.shown = shown.remove(&build.id).unwrap_or_default();
    }
    Ok(batch)
}

/// A kickstart file whose repository takes connections and never answers.
fn hang() -> Result<(TcpListener, String)> {
    let trouble = |error| format!("a port that nobody answers at: {error}");
    let silent = TcpListener::bind("127.0.0.1:0").map_err(trouble)?;
    let address = silent.local_addr().map_err(trouble)?;
    let text = format!(
        "url --url=http://{address}/dists/bookworm\nlang C.UTF-8\nrootpw x\npart / --size=500\n%packages\n%end\n"
    );
    Ok((silent, text))
}

impl Run<'_> {
    /// Sends as many builds as were asked for; somebody looks on at each.
    fn add<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        client: &mut Client,
        batch: &mut Vec<Build>,
    ) -> Result<()> {
        for number in batch.len()..batch.len() + self.chore.builds {
            let kind = Kind::of(number);
            let id = create(client, &kind.request(number, &self.source))?;
            let followed = id.clone();
            let (place, over, shown) = (&self.place, &self.over, &self.shown);
            scope.spawn(move || follow(&followed, place, over, shown));
            batch.push(Build {
                id,
                number,
                kind,
                shown: Vec::new(),
                end: Value::Null,
                agents: 0,
            });
        }
        Ok(())
    }

    fn kills<'s>(&'s self, scope: &'s Scope<'s, '_>, mut server: Server) -> Result<Batch> {
        let (chore, mut builds) = (self.chore, Vec::new());
        self.add(scope, &mut server.client()?, &mut builds)?;
        let (mut servers, mut agents) = (0, 0);
        let begun = Instant::now();
        while servers < chore.kills {
            thread::sleep(chore.dice.moment(20, 2500));
            // A process of a build before the server, just before it, or just after it.
            if servers % 5 == 4 {
                agents += kill_one(chore, &mut builds)?;
                thread::sleep(chore.dice.moment(0, 300));
            }
            if servers % 5 == 2 {
                agents += kill_one(chore, &mut builds)?;
            }
            server.kill()?;
            servers += 1;
            if servers % 7 == 0 {
                agents += kill_one(chore, &mut builds)?;
            }
            server = start(chore)?;
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = server.address;
            let mut client = server.client()?;
            cancel(&mut client, &builds, servers)?;
            if left(&mut client, &mut builds)? == 0 && servers < chore.kills {
                println!("  all ended after {servers} kills: another batch");
                self.add(scope, &mut client, &mut builds)?;
            }
        }
        let mut client = server.client()?;
        cancel(&mut client, &builds, usize::MAX)?;
        while left(&mut client, &mut builds)? > 0 {
            if begun.elapsed() > LONGEST {
                return Err("builds have not ended".to_owned());
            }
            thread::sleep(Duration::from_millis(100));
        }
        // Whoever looks on reads the rest.
        thread::sleep(Duration::from_secs(2));
        Ok(Batch {
            builds,
            servers,
            agents,
            server,
        })
    }
}

/// Sends the wish to cancel those that are to be, when a third of all kills is over.
fn cancel(client: &mut Client, batch: &[Build], kills: usize) -> Result<()> {
    for build in batch {
        let is_due = build.kind == Kind::Cancelled && build.end.is_null();
        if is_due && kills > build.number % 10 {
            // One that has been cancelled already says so with 400.
            client.request("POST", &builds(&format!("/{}:cancel", build.id)), "", b"{}")?;
        }
    }
    Ok(())
}

/// How many builds have not ended.
fn left(client: &mut Client, batch: &mut [Build]) -> Result<usize> {
    let mut left = 0;
    for build in batch.iter_mut().filter(|build| build.end.is_null()) {
        let now = client.json("GET", &builds(&format!("/{}", build.id)), &Value::Null)?;
        match now["status"].as_str() {
            Some("QUEUED" | "WORKING") => left += 1,
            _ => build.end = now,
        }
    }
    Ok(left)
}

/// Kills the process of some build that runs; with it end its steps. Returns how many that were.
fn kill_one(chore: &Chore, batch: &mut [Build]) -> Result<usize> {
    let agents = agents(chore)?;
    let at = chore.dice.below(agents.len() as u64);
    let Some((id, pid)) = agents.into_iter().nth(usize::try_from(at).unwrap_or(0)) else {
        return Ok(0);
    };
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // It may have ended just now.
        let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        if killed.is_ok()
            && let Some(build) = batch.iter_mut().find(|build| build.id == id)
        {
            build.agents += 1;
            return Ok(1);
        }
    }
    Ok(0)
}

/// The processes of attempts, by build.
fn agents(chore: &Chore) -> Result<BTreeMap<String, i32>> {
    let all = chore.data().join("builds");
    let mut found = BTreeMap::new();
    for (pid, words) in process::running()? {
        if words.get(1).is_none_or(|word| word != "run-attempt") {
            continue;
        }
        let id = words
            .get(2)
            .and_then(|dir| Path::new(dir).strip_prefix(&all).ok());
        if let Some(id) = id.and_then(|rest| rest.iter().next()) {
            found.insert(id.to_string_lossy().into_owned(), pid);
        }
    }
    Ok(found)
}

fn start(chore: &Chore) -> Result<Server> {
    let options = [
        "--cpus",
        "4",
        "--memory",
        "8192",
        "--downloads-from-this-machine",
    ];
    Server::over(&chore.kiln, &chore.data(), &chore.cache(), &options)
}

//! What the layer store promises, whoever is killed, runs beside it or writes on its disk. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kiln_plan::{Hasher, Id};
use kiln_rootfs::{Layer, Store};
use kiln_sandbox::Sandbox;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;

type Outcome = Result<(), Failed>;
type Case = fn(&Path) -> Outcome;

const CASES: &[(&str, Case)] = &[
    ("a_kill_at_any_instant_leaves_whole_layers", kill),
    ("a_full_disk_leaves_no_layer", full_disk),
    ("a_layer_in_use_is_not_collected", in_use),
    ("layers_that_are_looked_at_are_held_and_not_used", looked_at),
    ("a_damaged_layer_in_use_is_found_by_nobody", damaged_in_use),
    ("who_comes_second_takes_the_first_ones_layer", twice),
    ("a_flipped_bit_in_a_note_is_a_miss", flipped),
    ("makers_and_collectors_at_once", at_once),
    (
        "a_store_is_closed_to_other_users_and_nothing_else_is",
        closed,
    ),
    ("new_layers_are_put_where_there_is_room", spread),
];

fn main() -> ExitCode {
    kiln_sandbox::entry(&[]);
    let args: Vec<String> = std::env::args().collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [_, "--victim", dir, round] => victim(Path::new(dir), round),
        [_, "--full", dir] => run_in_small_space(Path::new(dir)),
        _ => {
            let trials = CASES.iter().map(|(name, case)| trial(name, *case));
            libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
        }
    }
}

fn trial(name: &str, case: Case) -> Trial {
    Trial::test(name, move || {
        if !rustix::process::geteuid().is_root() {
            return Err("this test needs root".into());
        }
        let dir = tempfile::tempdir()?;
        case(dir.path())
    })
}

fn open(dir: &Path) -> Result<Store, Failed> {
    let sandbox = Sandbox::detect().map_err(|error| error.to_string())?;
    Ok(Store::open(dir, Arc::new(sandbox))?)
}

fn id(name: &str) -> Id {
    Hasher::new("test").text("name", name).finish()
}

/// A layer whose files say which one they belong to.
fn make(store: &Store, name: &str) -> Result<Layer, Failed> {
    let staging = store.stage()?;
    for file in 0..FILES {
        fs::write(staging.fs().join(format!("f{file}")), name.repeat(500))?;
    }
    staging.attach("note", name.as_bytes())?;
    Ok(staging.commit(id(name), name, json!({ "name": name }))?)
}

const FILES: usize = 8;

/// Fails unless a layer that is found has all that it was made with.
fn check(layer: &Layer) -> Outcome {
    let name = layer.info.title.as_str();
    if layer.info.id != id(name) || fs::read_dir(&layer.fs)?.count() != FILES {
        return Err(format!("{name} has another id or other files").into());
    }
    for file in 0..FILES {
        if fs::read_to_string(layer.fs.join(format!("f{file}")))? != name.repeat(500) {
            return Err(format!("{name}: f{file} is not whole").into());
        }
    }
    let note = layer.attachment("note").ok_or("no place for the note")?;
    if fs::read_to_string(note)? != name {
        return Err(format!("{name}: the note is not whole").into());
    }
    Ok(())
}

/// Layers with a note of their own, those used last first.
fn looked_at(dir: &Path) -> Outcome {
    let store = open(dir)?;
    for name in ["old", "new", "plain"] {
        let staging = store.stage()?;
        if name != "plain" {
            staging.append("mark", b"one ")?;
            staging.append("mark", name.as_bytes())?;
        }
        drop(staging.commit(id(name), name, json!({}))?);
    }
    let place = |name: &str| dir.join("layers").join(id(name).to_string());
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    fs::File::open(place("old"))?.set_modified(long_ago)?;
    let found = store.with_attachment("mark", 9);
    let titles: Vec<&str> = found.iter().map(|l| l.info.title.as_str()).collect();
    let note = found[1].attachment("mark").ok_or("no place for the note")?;
    let newest = store.with_attachment("mark", 1);
    if titles != ["new", "old"] || newest.len() != 1 || fs::read(note)? != b"one old" {
        return Err(format!("{titles:?}, and {} of one", newest.len()).into());
    }
    if fs::metadata(place("old"))?.modified()? != long_ago {
        return Err("to be looked at was taken for a use".into());
    }
    if store.collect(id("old"))? {
        return Err("what is looked at was collected".into());
    }
    collected(&store, "plain")?;
    drop(found);
    collected(&store, "old")
}

/// As chattr(1) would have it, where the file system can.
fn spread(dir: &Path) -> Outcome {
    let other = dir.join("other");
    fs::create_dir(&other)?;
    open(&dir.join("cache"))?;
    let can = Command::new("chattr").arg("+T").arg(&other).status()?;
    let flags = |place: &Path| -> Result<String, Failed> {
        let listed = Command::new("lsattr").arg("-d").arg(place).output()?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let flags = text.split_whitespace().next();
        Ok(flags.map_or_else(String::new, str::to_owned))
    };
    let [staging, other] = [dir.join("cache/staging"), other].map(|place| flags(&place));
    let (staging, other) = (staging?, other?);
    match staging == other && (!can.success() || staging.contains('T')) {
        true => Ok(()),
        false => Err(format!("{staging} and {other}").into()),
    }
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Collects a layer that nobody uses. A process that another case starts has this process's locks, too, until it runs its program: a
/// single attempt may meet it.
fn collected(store: &Store, name: &str) -> Outcome {
    until("collection of an unused layer", || {
        store.collect(id(name)).is_ok_and(|collected| collected)
    })
}

fn until(what: &str, mut done: impl FnMut() -> bool) -> Outcome {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > Duration::from_secs(60) {
            return Err(format!("no {what}").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Makes layers, and removes every second one, until it is killed.
fn victim(dir: &Path, round: &str) -> ExitCode {
    let Ok(store) = open(dir) else {
        return ExitCode::FAILURE;
    };
    for number in 0.. {
        let name = format!("{round}.{number}");
        let Ok(layer) = make(&store, &name) else {
            return ExitCode::FAILURE;
        };
        drop(layer);
        if number % 2 == 1 && store.collect(id(&name)).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn kill(dir: &Path) -> Outcome {
    open(dir)?;
    let (mut layers, mut orphans) = (0, 0);
    for round in 0..100u64 {
        let before = names(dir.join("layers")).len();
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--victim")
            .arg(dir)
            .arg(round.to_string())
            .stdout(Stdio::null())
            .spawn()?;
        // Around a commit, and while a layer is made or removed.
        let began = match round % 2 {
            0 => until("layer", || names(dir.join("layers")).len() > before),
            _ => until("layer in the making", || {
                !names(dir.join("staging")).is_empty()
            }),
        };
        std::thread::sleep(Duration::from_micros(round * 37 % 400 * 10));
        child.kill()?;
        child.wait()?;
        began?;
        // The sandbox's own child, which removes trees, dies with its parent, but not in the same instant.
        orphans += names(dir.join("staging")).len();
        let store = open(dir)?;
        until("end of what it left", || {
            store.reclaim().is_ok() && names(dir.join("staging")).is_empty()
        })?;
        let found = store.layers()?;
        layers = found.len();
        found.iter().try_for_each(check)?;
        if layers != names(dir.join("layers")).len() {
            return Err(format!("round {round}: a directory that is no layer").into());
        }
    }
    if layers < 20 || orphans < 20 {
        return Err(format!("{layers} layers and {orphans} orphans: the kills missed").into());
    }
    Ok(())
}

/// The case itself is in a process of its own, whose mount of a small tmpfs nobody else sees.
fn full_disk(dir: &Path) -> Outcome {
    let script = r#"mount -t tmpfs -o size=2m,mode=755 tmpfs "$1" && exec "$0" --full "$1""#;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe()?)
        .arg(dir)
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stdout).into_owned().into()),
    }
}

#[allow(
    clippy::print_stdout,
    reason = "a case in a process of its own reports there"
)]
fn run_in_small_space(dir: &Path) -> ExitCode {
    match in_small_space(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            println!("{}", failed.message().unwrap_or("failed"));
            ExitCode::FAILURE
        }
    }
}

fn in_small_space(dir: &Path) -> Outcome {
    let store = open(dir)?;
    let filler = dir.join("filler");
    let mut refused = 0;
    // Less and less is left: space ends in the files, in a note, in `layer.json`, and at last not at all.
    for left in (0..160).step_by(4) {
        // The rest of the 2 MiB minus what the store has already.
        let free = rustix::fs::statvfs(dir)?.f_bfree * 4096;
        fs::write(
            &filler,
            vec![1; usize::try_from(free.saturating_sub(left * 1024))?],
        )?;
        let made = make(&store, "layer");
        fs::remove_file(&filler)?;
        match made {
            Ok(layer) => {
                check(&layer)?;
                drop(layer);
                store.collect(id("layer"))?;
            }
            Err(_) => {
                refused += 1;
                if !store.layers()?.is_empty() || store.layer(id("layer")).is_some() {
                    return Err(format!("{left} KiB: half a layer is found").into());
                }
            }
        }
        let left_over = names(dir.join("staging"));
        if !left_over.is_empty() {
            return Err(format!("{left} KiB: left in staging: {left_over:?}").into());
        }
    }
    check(&make(&store, "layer")?)?;
    match refused {
        5..40 => Ok(()),
        _ => Err(format!("{refused} of 40 were refused").into()),
    }
}

fn in_use(dir: &Path) -> Outcome {
    let (builder, collector) = (open(dir)?, open(dir)?);
    let made = make(&builder, "layer")?;
    let found = builder.layer(id("layer")).ok_or("not found")?;
    drop(made);
    if collector.collect(id("layer"))? {
        return Err("a layer in use was collected".into());
    }
    check(&found)?;
    drop(found);
    collected(&collector, "layer")?;
    if builder.layer(id("layer")).is_some() {
        return Err("a layer that was collected is found".into());
    }
    match names(dir.join("staging")).is_empty() {
        true => Ok(()),
        false => Err("the collection left something".into()),
    }
}

fn damaged_in_use(dir: &Path) -> Outcome {
    let (builder, other) = (open(dir)?, open(dir)?);
    let used = make(&builder, "layer")?;
    other.remove(id("layer"))?;
    if builder.layer(id("layer")).is_some() {
        return Err("a damaged layer is found".into());
    }
    // It can be made again beside the old one, and commands that come and go leave the old one alone.
    let again = make(&builder, "layer")?;
    open(dir)?;
    let kept = names(dir.join("staging"));
    if kept.len() != 2 {
        return Err(format!("in staging: {kept:?}").into());
    }
    drop(used);
    until("end of what nobody uses", || {
        open(dir).is_ok() && names(dir.join("staging")).is_empty()
    })?;
    check(&again)
}

fn twice(dir: &Path) -> Outcome {
    let store = open(dir)?;
    let first = make(&store, "layer")?;
    let second = make(&store, "layer")?;
    check(&first)?;
    check(&second)?;
    match first.fs == second.fs && names(dir.join("staging")).is_empty() {
        true => Ok(()),
        false => Err("two layers of one id".into()),
    }
}

fn flipped(dir: &Path) -> Outcome {
    for durable in [false, true] {
        let store = open(dir)?;
        let layer = make(&store, "layer")?;
        let note = layer.attachment("layer.json").ok_or("no note")?;
        if durable {
            fs::write(note.with_file_name("durable"), "")?;
        }
        let text = fs::read(&note)?;
        drop(layer);
        // In the id, where its digits begin; any change there is another id or none.
        let at = text.iter().position(|b| *b == b':').ok_or("no field")? + 4;
        let mut bytes = text.clone();
        bytes[at] ^= 1;
        fs::write(&note, &bytes)?;
        if store.layer(id("layer")).is_some() {
            return Err("a layer with another id in its note is found".into());
        }
        // The step runs again and its layer takes the place of the damaged one.
        check(&make(&store, "layer")?)?;
        fs::write(&note, &text[..text.len() / 2])?;
        drop(store);
        let store = open(dir)?;
        if !names(dir.join("layers")).is_empty() {
            return Err("a layer without a note stays for ever".into());
        }
        check(&make(&store, "layer")?)?;
        store.collect(id("layer"))?;
    }
    Ok(())
}

fn at_once(dir: &Path) -> Outcome {
    let makers = std::sync::atomic::AtomicUsize::new(3);
    let made: Result<Vec<()>, Failed> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let result = make_many(dir);
                    makers.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                    result
                })
            })
            .collect();
        let mut taken = 0;
        while makers.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            let store = open(dir)?;
            for layer in store.layers()? {
                taken += usize::from(store.collect(layer.info.id)?);
            }
        }
        let results = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a maker panicked".into()))
        });
        let results: Result<Vec<()>, Failed> = results.collect();
        match taken {
            0 => Err("nothing was ever collected".into()),
            _ => results,
        }
    });
    made?;
    open(dir)?;
    match names(dir.join("staging")).is_empty() {
        true => Ok(()),
        false => Err("something is left".into()),
    }
}

/// The same few layers again and again, as several builds of one definition do.
fn make_many(dir: &Path) -> Outcome {
    let store = open(dir)?;
    for round in 0..60 {
        let name = format!("layer {}", round % 4);
        let layer = match store.layer(id(&name)) {
            Some(layer) => layer,
            None => make(&store, &name)?,
        };
        check(&layer)?;
    }
    Ok(())
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).map_or(0, |found| found.permissions().mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Whatever rights the directory had: its owner alone enters a store, and what is no store is not touched.
fn closed(dir: &Path) -> Outcome {
    let cache = dir.join("above/cache");
    assert!(open(&cache)?.notices().is_empty());
    for part in ["", "layers", "staging", "failed", "../../above"] {
        assert_eq!(mode(&cache.join(part)), 0o700, "{part}");
    }
    let made = open(&cache)?.stage()?.commit(
        Hasher::new("test").text("x", "y").finish(),
        "a layer",
        json!(null),
    )?;
    assert_eq!(mode(made.fs.parent().unwrap_or(&cache)), 0o700);
    assert_eq!(
        mode(&made.fs),
        0o755,
        "this is the root directory of an image"
    );
    drop(made);
    // What an earlier version left, and worse.
    for (before, words) in [
        (0o755, "read or run"),
        (0o711, "read or run"),
        (0o2775, "write"),
        (0o777, "write"),
    ] {
        set_mode(&cache, before)?;
        set_mode(&cache.join("layers"), 0o777)?;
        let store = open(&cache)?;
        let [notice] = store.notices() else {
            return Err(format!("{before:o}: {:?}", store.notices()).into());
        };
        assert!(
            notice.message.contains(&format!("{before:04o}")),
            "{notice:?}"
        );
        assert!(notice.hint.contains(words), "{notice:?}");
        assert_eq!(mode(&cache) & 0o777, 0o700);
        assert_eq!(mode(&cache.join("layers")), 0o700);
        assert!(open(&cache)?.notices().is_empty(), "it is said once");
    }
    // An empty one was made for it.
    fs::create_dir(dir.join("empty"))?;
    assert!(open(&dir.join("empty"))?.notices().is_empty());
    assert_eq!(mode(&dir.join("empty")), 0o700);
    // One in which images were tested by an earlier version, but nothing was built.
    fs::create_dir_all(dir.join("tested/vm"))?;
    set_mode(&dir.join("tested"), 0o755)?;
    assert_eq!(open(&dir.join("tested"))?.notices().len(), 1);
    assert_eq!(mode(&dir.join("tested")), 0o700);
    // These are needed open, or are not ours.
    for (name, mode_of, owner, words) in [
        ("tmp", 0o1777, 0, "made for everybody"),
        ("etc", 0o755, 0, "holds other things"),
        ("theirs", 0o700, 4711, "belongs to user 4711"),
    ] {
        let other = dir.join(name);
        fs::create_dir_all(other.join("something"))?;
        set_mode(&other, mode_of)?;
        std::os::unix::fs::chown(&other, Some(owner), None)?;
        let error = open(&other).err().map_or_else(String::new, |error| {
            error.message().unwrap_or_default().to_owned()
        });
        assert!(error.contains(words), "{name}: {error}");
        assert_eq!(mode(&other), mode_of, "{name}");
        assert_eq!(fs::read_dir(&other)?.count(), 1, "{name}");
    }
    // Who may rename above it could put another one there.
    set_mode(dir, 0o777)?;
    let store = open(&cache)?;
    assert!(
        store
            .notices()
            .iter()
            .any(|n| n.message.contains("everybody")),
        "{:?}",
        store.notices()
    );
    set_mode(dir, 0o1777)?;
    assert!(open(&cache)?.notices().is_empty());
    Ok(())
}

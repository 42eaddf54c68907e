//! `cargo xtask second-machine [RELEASE…]`: machines that have a shared cache and nothing else, for every release and layout: one takes the
//! image whole, two do it at once, and one takes layers and blocks. All have to get the first machine's artifacts, bit for bit.
//!
//! The definition has a `/home` with files of all sorts, which e2fsck judges: it is made by a program of the root, from the layers' files as they lie
//! on that machine's disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::breadth::{RELEASES, release_binary};
use crate::peer::disk::{SECTOR, partitions};
use crate::peer::{afresh, tool, trouble};
use crate::{Result, process, workspace};

const LAYOUTS: [&str; 2] = ["gpt", "mbr"];
const KICKSTART: &str = r#"lang C.UTF-8
rootpw --plaintext kiln
user --name=anna
bootloader --timeout=1
part / --size=2000
part /home --size=200

%packages --nocore --exclude-weakdeps
acl
%end

%post --erroronfail
cd /home/anna
mkdir -p deep/er 'with space'
seq 1 100000 > deep/long
truncate -s 5M deep/hole
ln deep/long 'with space/hard'
ln -s ../deep deep/er/soft
mkfifo deep/pipe
for number in $(seq 1 200); do echo $number > deep/er/$number; done
touch -d 2001-02-03T04:05:06Z deep/old
setfacl -m u:33:r deep/old
chown -R anna: .
%end
"#;

/// Runs it for these releases, or for all.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let unknown = words.iter().find(|word| !RELEASES.contains(word));
    if let Some(word) = unknown {
        return Err(format!(
            "{word} is none of the releases {}",
            RELEASES.join(", ")
        ));
    }
    let kiln = release_binary()?;
    let work = workspace::target_directory()?.join("second-machine");
    for release in RELEASES
        .iter()
        .filter(|r| words.is_empty() || words.contains(r))
    {
        for layout in LAYOUTS {
            println!("== {release}, {layout}");
            let case = Case {
                kiln: &kiln,
                work: &work,
                place: work.join(format!("{release}-{layout}")),
            };
            case.prepare(release, layout)?;
            case.attempt()?;
            fs::remove_dir_all(&case.place).map_err(trouble("removing", &case.place))?;
        }
    }
    Ok(())
}

struct Case<'a> {
    kiln: &'a Path,
    work: &'a Path,
    place: PathBuf,
}

impl Case<'_> {
    fn prepare(&self, release: &str, layout: &str) -> Result<()> {
        afresh(&self.place)?;
        let definition = self.place.join("definition");
        afresh(&definition)?;
        let project = format!(
            "name = \"second\"\ndistribution = \"debian:{release}\"\nlayers = [\"second.ks\"]\n[disk]\nlayout = \"{layout}\"\n"
        );
        for (name, text) in [("second.ks", KICKSTART), ("kiln.toml", &project)] {
            let file = definition.join(name);
            fs::write(&file, text).map_err(trouble("writing", &file))?;
        }
        let mut lock = self.kiln("first");
        process::run(lock.arg("lock").arg(definition))
    }

    /// A command on a machine. The first one keeps its cache for the other layouts and for the next time.
    fn kiln(&self, machine: &str) -> Command {
        let cache = match machine {
            "first" => self.work.join("cache"),
            _ => self.place.join(format!("{machine}-cache")),
        };
        let mut command = Command::new(self.kiln);
        command.arg("--cache-dir").arg(cache);
        command.arg("--state-dir").arg(self.place.join("state"));
        command
    }

    fn build(&self, machine: &str) -> Command {
        let mut command = self.kiln(machine);
        let share = format!("file://{}", self.place.join("share").display());
        command.args(["build", "--locked", "--format", "raw", "--format", "tar.gz"]);
        command.args(["--shared-cache", &share, "-o"]);
        command
            .arg(self.place.join(machine))
            .arg(self.place.join("definition"));
        command
    }

    /// The home partition is the last one; e2fsck says whether it is sound.
    fn judge_home(&self) -> Result<()> {
        let image = self.place.join("first/disk.raw");
        let home = partitions(&image)?
            .pop()
            .ok_or("the disk has no partition")?;
        let place = format!("{}?offset={}", image.display(), home.start * SECTOR);
        process::run(tool("e2fsck").args(["-fn", &place]))
    }

    fn attempt(&self) -> Result<()> {
        process::run(&mut self.build("first"))?;
        self.judge_home()?;
        self.second("whole", true)?;
        std::thread::scope(|scope| {
            let at_once =
                ["one", "other"].map(|machine| scope.spawn(move || self.second(machine, true)));
            at_once.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a machine panicked".to_owned()))
            })
        })?;
        let images = self.place.join("share/kiln1/images");
        fs::remove_dir_all(&images).map_err(trouble("removing", &images))?;
        self.second("layers", false)
    }

    /// Builds on another machine and compares its artifacts with the first one's.
    fn second(&self, machine: &str, whole: bool) -> Result<()> {
        process::output(&mut self.build(machine))?;
        let log = self.place.join(machine).join("build.log");
        let said = fs::read_to_string(&log).map_err(trouble("reading", &log))?;
        if said.contains("fetching the image") != whole || said.contains("warning") {
            return Err(format!("{machine} did not take what it should:\n{said}"));
        }
        for name in ["disk.raw", "disk.tar.gz", "packages.txt"] {
            let files = ["first", machine].map(|machine| self.place.join(machine).join(name));
            process::run(Command::new("cmp").args(&files))?;
        }
        println!("{machine}: the same artifacts");
        // Its blocks and layers are not needed any more.
        let _ = fs::remove_dir_all(self.place.join(machine));
        let _ = fs::remove_dir_all(self.place.join(format!("{machine}-cache")));
        Ok(())
    }
}

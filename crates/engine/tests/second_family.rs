//! A build knows no distribution: a family that only its caller knows goes the whole way, from a kickstart file to a boot menu. Needs
//! root; the image is judged by unsquashfs, mtools and sfdisk.

mod toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};

use kiln_engine::{BuildRequest, Cancel, Event, Failure, Families, Input, Reach};
use kiln_packages::Digest;
use kiln_plan::{Added, Distribution};
use libtest_mimic::{Arguments, Failed, Trial};
use toy::{BUILT, BUSYBOX, PROGRAM, Toy};

type Outcome = Result<(), Failed>;

/// What is done for every image.
const IMAGE: [&str; 4] = [
    "compressing the root",
    "assembling the disk",
    "hashing disk.raw",
    "hashing the artifacts",
];

fn main() -> ExitCode {
    let functions = [kiln_rootfs::FUNCTIONS, kiln_engine::FUNCTIONS].concat();
    kiln_sandbox::entry(&functions);
    let trial = |name: &str, case: fn(&Path) -> Outcome| {
        Trial::test(name, move || {
            if !rustix::process::geteuid().is_root() {
                return Err("this test needs root".into());
            }
            case(tempfile::tempdir()?.path())
        })
    };
    let trials = vec![
        trial("a_family_of_the_callers_makes_an_image", image),
        trial("a_family_that_nobody_brought_is_told", absent),
        trial("builds_of_one_process_make_what_each_makes_alone", at_once),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Three builds of one process, at the same time and over one cache; two of them are of one definition. Each makes what it makes alone.
fn at_once(dir: &Path) -> Outcome {
    let place = |name: &str| -> Result<PathBuf, Failed> {
        let place = dir.join(name);
        fs::create_dir(&place)?;
        Ok(place)
    };
    let (one, two) = (Project::new(&place("one")?)?, Project::new(&place("two")?)?);
    let build = |project: &Project, output: &str, cache: &str| {
        let request = BuildRequest {
            // Two definitions of one name, neither of which is in the working directory of the process.
            files: kiln_engine::Files::of_disk(&project.dir),
            definition: PathBuf::from("kiln.toml"),
            output: dir.join(output),
            cache: dir.join(cache),
            ..project.toys()
        };
        project
            .build(&request)
            .map_err(|failed| format!("{output}: {failed:?}"))
    };
    let together = std::thread::scope(|scope| {
        let builds = [(&one, "a"), (&one, "b"), (&two, "c")];
        let builds =
            builds.map(|(project, output)| scope.spawn(move || build(project, output, "shared")));
        builds.map(|build| {
            build
                .join()
                .unwrap_or_else(|_| Err("a build panicked".to_owned()))
        })
    });
    together.into_iter().collect::<Result<Vec<_>, String>>()?;
    build(&one, "alone", "own")?;
    build(&two, "alone too", "own")?;
    let disk = |output: &str| fs::read(dir.join(output).join("disk.raw"));
    for (output, alone) in [("a", "alone"), ("b", "alone"), ("c", "alone too")] {
        if disk(output)? != disk(alone)? {
            return Err(format!("{output} is not what is made alone").into());
        }
    }
    Ok(())
}

/// A project, and a repository that it is built from.
struct Project {
    dir: PathBuf,
}

impl Project {
    fn new(dir: &Path) -> Result<Self, Failed> {
        let repository = dir.join("repository");
        fs::create_dir_all(&repository)?;
        let mut index = String::new();
        for (name, depends, files) in packages()? {
            let file = format!("{name}.tar");
            let tar = archive(&files)?;
            index += &format!(
                "{name} 1 {file} {} {} {depends}\n",
                tar.len(),
                Digest::of(&tar)
            );
            fs::write(repository.join(file), tar)?;
        }
        fs::write(repository.join("index"), &index)?;
        fs::write(
            dir.join("index.sha256"),
            Digest::of(index.as_bytes()).to_string(),
        )?;
        let toml = format!(
            "name = \"toybox\"\ndistribution = \"toy:1\"\nlayers = [\"base.ks\", \"more.ks\"]\n\
             [[repository]]\nurl = \"file://{}\"\nsuite = \"toys\"\ncomponents = []\nsigned-by = \"index.sha256\"\n",
            repository.display()
        );
        fs::write(dir.join("kiln.toml"), toml)?;
        fs::write(
            dir.join("base.ks"),
            "bootloader --append=quiet\n%packages\n%end\n",
        )?;
        let more = "%packages\neditor\n%end\n%post --erroronfail\ntest \"$TOY\" = yes\n\
                    grep -q ^file: /etc/toy/repositories\ncat /etc/editor > /etc/seen\n%end\n";
        fs::write(dir.join("more.ks"), more)?;
        Ok(Project {
            dir: dir.to_owned(),
        })
    }

    fn request(&self, families: Families) -> BuildRequest {
        let added = |package: &str| Added {
            package: package.to_owned(),
            why: "every toy has it".to_owned(),
        };
        let distribution = Distribution {
            name: toy::NAME.to_owned(),
            conventions: kiln_plan::Conventions::Debian,
            architecture: "any".to_owned(),
            packages: vec![added("base"), added("kernel")],
        };
        BuildRequest {
            files: kiln_engine::Files::of_disk(Path::new("")),
            definition: self.dir.join("kiln.toml"),
            input: Input {
                further: vec![distribution],
                formats: Some(vec!["raw".to_owned()]),
                ..Input::default()
            },
            output: self.dir.join("output"),
            cache: self.dir.join("cache"),
            state: None,
            offline: true,
            network: Reach::default(),
            locked: false,
            proxies: Default::default(),
            from_elsewhere: false,
            epoch: None,
            threads: 2,
            vendor: None,
            allow_unsigned_lock: false,
            shared: None,
            plain_unpacking: false,
            families,
        }
    }

    fn toys(&self) -> BuildRequest {
        self.request(Families::new(vec![Arc::new(Toy)]))
    }

    /// Builds; returns the titles of the steps that were done.
    fn build(&self, request: &BuildRequest) -> Result<Vec<String>, Failed> {
        let done = Mutex::new(Vec::new());
        let sink = |event: Event| {
            if let (Event::StepStarted { title, .. }, Ok(mut done)) = (event, done.lock()) {
                done.push(title);
            }
        };
        kiln_engine::build(request, &sink, &Cancel::new()?)
            .map_err(|failure| format!("{failure:#?}"))?;
        Ok(done.into_inner()?)
    }
}

/// What a package has: paths with contents, and links with targets.
type Files = Vec<(String, Content)>;

enum Content {
    Bytes(Vec<u8>),
    Program(Vec<u8>),
    Link(&'static str),
}

fn packages() -> Result<Vec<(&'static str, &'static str, Files)>, Failed> {
    let text = |path: &str, text: &str| (path.to_owned(), Content::Bytes(text.as_bytes().to_vec()));
    let base = vec![
        (
            "bin/busybox".to_owned(),
            Content::Program(fs::read(BUSYBOX)?),
        ),
        ("bin/sh".to_owned(), Content::Link("busybox")),
        ("bin/cat".to_owned(), Content::Link("busybox")),
        ("bin/grep".to_owned(), Content::Link("busybox")),
        (
            "bin/toy".to_owned(),
            Content::Program(PROGRAM.as_bytes().to_vec()),
        ),
        text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ];
    let mut loaders = vec![
        text("boot/shim.efi", "the shim"),
        text("boot/grub.efi", "the grub"),
    ];
    for entry in fs::read_dir("/usr/lib/grub/i386-pc")? {
        let path = entry?.path();
        let name = path
            .file_name()
            .ok_or("a name")?
            .to_string_lossy()
            .into_owned();
        loaders.push((
            format!("boot/i386-pc/{name}"),
            Content::Bytes(fs::read(path)?),
        ));
    }
    let kernel = vec![
        text("boot/kernel", "the kernel"),
        text("boot/initrd-of-the-toy", "left out"),
        text("lib/modules/wheel", "a module"),
    ];
    let editor = vec![text("lib/toy/editor.sh", "cat /etc/words > /etc/editor\n")];
    Ok(vec![
        ("base", "", base),
        ("loaders", "", loaders),
        ("kernel", "base", kernel),
        ("words", "", vec![text("etc/words", "once upon a time\n")]),
        ("editor", "words", editor),
    ])
}

fn archive(files: &Files) -> Result<Vec<u8>, Failed> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(BUILT);
        let (mode, bytes): (u32, &[u8]) = match content {
            Content::Bytes(bytes) => (0o644, bytes),
            Content::Program(bytes) => (0o755, bytes),
            Content::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                tar.append_link(&mut header, path, target)?;
                continue;
            }
        };
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes)?;
    }
    Ok(tar.into_inner()?)
}

fn image(dir: &Path) -> Outcome {
    let project = Project::new(dir)?;
    let options = kiln_engine::LockOptions::default();
    let locked = kiln_engine::lock(&project.toys(), &options, &|_| {}, &Cancel::new()?)
        .map_err(|failure: Failure| format!("{failure:#?}"))?;
    let (path, lock) = (locked.path, locked.lock);
    let text = lock.text();
    for line in [
        "\nlayer more\npackage editor version=1 ",
        " reason=auto ",
        " channel=toys url=file://",
    ] {
        contains(&text, line)?;
    }
    fs::write(path, text)?;
    let locked = BuildRequest {
        locked: true,
        ..project.toys()
    };
    project.build(&locked)?;
    judge(dir)?;
    let listed = fs::read_to_string(dir.join("output/packages.txt"))?;
    contains(&listed, "editor\t1\tany\nkernel\t1\tany\nwords\t1\tany\n")?;
    // Everything is found again by another image.
    let other = BuildRequest {
        output: dir.join("other"),
        ..locked
    };
    let done = project.build(&other)?;
    if done.iter().any(|title| !IMAGE.contains(&title.as_str())) {
        return Err(format!("steps were done again: {done:?}").into());
    }
    let same = fs::read(dir.join("output/disk.raw"))? == fs::read(dir.join("other/disk.raw"))?;
    if same {
        Ok(())
    } else {
        Err("the second image is another one".into())
    }
}

/// What others see in the image.
fn judge(dir: &Path) -> Outcome {
    let disk = dir.join("output/disk.raw");
    let table = tool("sfdisk", &["--json", &disk.display().to_string()])?;
    let table: serde_json::Value = serde_json::from_str(&table)?;
    let partitions = table["partitiontable"]["partitions"]
        .as_array()
        .ok_or("no partitions")?;
    let part = |name: &str| -> Result<(u64, u64, String), Failed> {
        let found = partitions
            .iter()
            .find(|p| p["name"] == name)
            .ok_or(name.to_owned())?;
        let number = |key: &str| found[key].as_u64().ok_or(key.to_owned());
        let uuid = found["uuid"].as_str().unwrap_or_default().to_lowercase();
        Ok((number("start")?, number("size")?, uuid))
    };
    let (start, size, uuid) = part("Kiln root")?;
    let root = dir.join("root.squashfs");
    let all = fs::read(&disk)?;
    let bytes = |at: u64| usize::try_from(at * 512).unwrap_or(usize::MAX);
    fs::write(
        &root,
        all.get(bytes(start)..bytes(start + size))
            .ok_or("a short disk")?,
    )?;
    let tree = dir.join("tree");
    let words = [
        "-q",
        "-n",
        "-d",
        &tree.display().to_string(),
        &root.display().to_string(),
    ];
    tool("unsquashfs", &words)?;
    for (path, content) in [
        ("etc/seen", "once upon a time\n"),
        ("boot/kernel", "the kernel"),
        ("etc/hostname", "localhost\n"),
    ] {
        let found = fs::read_to_string(tree.join(path))?;
        if found != content {
            return Err(format!("{path} is {found:?}").into());
        }
    }
    if tree.join("boot/initrd-of-the-toy").exists() {
        return Err("what the family leaves out is in the image".into());
    }
    let (esp, ..) = part("EFI system")?;
    let esp = format!("{}@@{}", disk.display(), esp * 512);
    let file = |path: &str| tool("mtype", &["-i", &esp, path]);
    let menu = file("::boot/grub/grub.cfg")?;
    contains(
        &menu,
        &format!("linux '/toy/kernel' 'toy.root={uuid}' 'quiet'"),
    )?;
    contains(
        &menu,
        &format!("linux '/toy/kernel' 'toy.root={uuid}' 'toy.copy' 'quiet'"),
    )?;
    contains(&menu, "initrd '/toy/initrd'")?;
    contains(&file("::toy/kernel")?, "the kernel")?;
    contains(&file("::toy/initrd")?, "a module")?;
    contains(&file("::EFI/BOOT/BOOTX64.EFI")?, "the shim")?;
    contains(&file("::EFI/toy/grub.cfg")?, "search")
}

fn absent(dir: &Path) -> Outcome {
    let project = Project::new(dir)?;
    match project.build(&project.request(Families::default())) {
        Ok(_) => Err("it was built".into()),
        Err(failed) => contains(
            failed.message().unwrap_or_default(),
            "toy:1 can be planned, but not built",
        ),
    }
}

fn contains(text: &str, part: &str) -> Outcome {
    match text.contains(part) {
        true => Ok(()),
        false => Err(format!("{part:?} is not in {text}").into()),
    }
}

fn tool(name: &str, words: &[&str]) -> Result<String, Failed> {
    let out = Command::new(name).args(words).output()?;
    if !out.status.success() {
        return Err(format!("{name} {words:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

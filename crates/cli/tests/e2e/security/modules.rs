//! What was compiled of Python modules in one layer and is used in the next.

use std::fs;
use std::path::PathBuf;

use kiln_testkit::package::Entry;
use kiln_testkit::{Key, Mirror, Package, Repository};

use crate::harness::{Turn, cache, digest};

/// Tries to put something else in the place of what will be compiled, of what was, and of the compiler.
const ATTACK: &str = r#"#!/bin/sh
for answer in /run/kiln/apart/py3compile/python3-six*; do
    [ ! -e "$answer" ] || echo "seen: an answer"
    if echo evil > "$answer"; then echo "managed: $answer"; fi
    if rm "$answer"; then echo "managed: rm $answer"; fi
done 2> /dev/null
for made in /usr/lib/python3/dist-packages/__pycache__/six.*; do
    [ ! -e "$made" ] || echo evil > "$made"
done
if [ "$1" = configure ]; then
    echo 'print("evil")' >> /usr/lib/python3.11/py_compile.py
    echo '#!/bin/true' > /usr/bin/py3compile
fi
exit 0
"#;

/// Modules that every Python imports which looks for them where packages have theirs: each spoils what is compiled.
const PLANTED: [&str; 2] = ["usercustomize", "sitecustomize"];
const SPOIL: &str = "import glob\n\
    for path in glob.glob('/usr/lib/python3/dist-packages/*.py'):\n\
    \x20   if path.endswith('six.py'):\n\
    \x20       open(path, 'a').write('# evil\\n')\n";

/// A definition of two layers, the second with packages from two repositories.
struct Project {
    turn: Turn,
    _mirror: Mirror,
}

impl Project {
    fn new() -> Project {
        let turn = Turn::warm();
        for directory in ["project", "repository"] {
            fs::create_dir(turn.path(directory)).expect("a directory");
        }
        let key = Key::generate("mallory");
        fs::write(turn.path("project/key.asc"), key.public_armored()).expect("a key");
        let script = ATTACK.replace("exit 0", "py3compile -p evil\nexit 0");
        let mut evil = Package::new("evil", "1")
            .script("preinst", ATTACK)
            .script("postinst", &script);
        for directory in ["./usr/lib/python3", "./usr/lib/python3/dist-packages"] {
            evil = evil.entry(Entry::directory(directory));
        }
        for module in PLANTED {
            let path = format!("./usr/lib/python3/dist-packages/{module}.py");
            evil = evil.entry(Entry::file(&path, SPOIL));
        }
        Repository::new("evil", [evil]).write(&turn.path("repository"), &key);
        let mirror = Mirror::of(turn.path("repository"));
        turn.minimal_with("");
        fs::rename(turn.path("minimal.ks"), turn.path("project/minimal.ks")).expect("the example");
        turn.write(
            "project/kiln.toml",
            &format!(
                "name = \"modules\"\ndistribution = \"debian:bookworm\"\nlayers = [\"minimal.ks\", \"more.ks\"]\n\
                 [[repository]]\nurl = {:?}\nsuite = \"evil\"\ncomponents = [\"main\"]\nsigned-by = \"key.asc\"\n",
                mirror.url()
            ),
        );
        Project {
            turn,
            _mirror: mirror,
        }
    }

    /// Builds with these packages and returns what the build has said.
    fn build(&self, packages: &str, output: &str) -> String {
        let kickstart = format!("%packages --exclude-weakdeps\n{packages}\n%end\n");
        self.turn.write("project/more.ks", &kickstart);
        let words = ["build", "project", "-o", output, "--format", "raw"];
        self.turn.kiln(&words).assert(0);
        fs::read_to_string(self.turn.path(output).join("build.log")).expect("a log")
    }
}

/// The layers of the definition's second kickstart file, and those above.
fn own_layers() -> Vec<PathBuf> {
    let layers = fs::read_dir(cache().join("layers")).expect("layers");
    let layers = layers.map(|layer| layer.expect("a layer").path());
    let own = |layer: &PathBuf| {
        let inputs = fs::read_to_string(layer.join("inputs.json"));
        inputs.is_ok_and(|text| text.contains("modules/more") || text.contains("modules//finish"))
    };
    layers.filter(own).collect()
}

#[test]
fn what_was_compiled_is_the_same_whoever_was_there_meanwhile() {
    const TAKEN: &str = "what was compiled of Python modules is taken over (2 times)";
    let project = Project::new();
    let first = project.build("python3-six\npython3-wcwidth\nevil", "first");
    assert!(first.contains("seen: an answer"), "{first}");
    assert!(
        !first.contains("managed: ") && !first.contains(TAKEN),
        "{first}"
    );
    let taken = project.build("python3-six\npython3-wcwidth", "taken");
    assert!(taken.contains(TAKEN), "{taken}");
    let noted = own_layers()
        .into_iter()
        .filter(|layer| layer.join("compiled").exists());
    assert_eq!(noted.count(), 2);
    for layer in own_layers() {
        fs::remove_dir_all(layer).expect("a layer that is gone");
    }
    let afresh = project.build("python3-six\npython3-wcwidth", "afresh");
    assert!(
        !afresh.contains(TAKEN),
        "nothing is there to be taken\n{afresh}"
    );
    let made = |output: &str| digest(&project.turn.path(output).join("disk.raw"));
    assert_eq!(made("taken"), made("afresh"));
}

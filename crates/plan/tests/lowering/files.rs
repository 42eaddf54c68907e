//! `[[files]]` and `files/LAYER/`.

use kiln_plan::{Files, Found, Hasher, Lowered, What, lower_text};

use super::{bookworm, errors};

/// A project's directory in memory.
struct Project(Vec<(&'static str, bool, What)>);

impl Files for Project {
    fn read(&self, path: &str, _from: &str) -> Result<(String, Vec<u8>), String> {
        Ok((path.to_owned(), b"rootpw --lock\n".to_vec()))
    }

    fn tree(&self, path: &str) -> Result<Option<Vec<Found>>, String> {
        let below = |there: &str| there == path || there.starts_with(&format!("{path}/"));
        let found: Vec<Found> = self
            .0
            .iter()
            .filter(|(there, ..)| below(there))
            .map(|(there, executable, what)| Found {
                path: (*there).to_owned(),
                executable: *executable,
                what: what.clone(),
            })
            .collect();
        Ok((!found.is_empty()).then_some(found))
    }
}

fn content(text: &str) -> What {
    What::File {
        size: text.len() as u64,
        sha256: Hasher::new("t").text("t", text).finish(),
    }
}

fn project(files: &[(&'static str, bool, What)], toml: &str) -> Lowered {
    let text = format!("layers = [\"base.ks\", \"top.ks\"]\n{toml}");
    lower_text("kiln.toml", &text, &bookworm(), &Project(files.to_vec()))
}

#[test]
fn files_of_a_project_go_to_their_layers() {
    let files = [
        ("files", true, What::Directory),
        ("files/base", true, What::Directory),
        ("files/base/etc", true, What::Directory),
        ("files/base/etc/motd", false, content("hello")),
        ("files/base/usr", true, What::Directory),
        ("files/base/usr/run", true, content("#!")),
        ("files/bsae", true, What::Directory),
        ("skel", true, What::Directory),
        ("skel/.rc", false, content("rc")),
        ("ide.tar", false, content("tar")),
    ];
    let toml = "[[files]]\nfrom = \"skel\"\nto = \"/etc/skel/\"\nmode = \"0640\"\nowner = \"7:users\"\n\
                [[files]]\nfrom = \"ide.tar\"\nlayer = \"base\"\n";
    let lowered = project(&files, toml);
    assert_eq!(errors(&lowered), Vec::<String>::new());
    let warned: Vec<&str> = lowered
        .problems
        .iter()
        .map(|p| p.message.as_str())
        .collect();
    assert!(
        warned
            .iter()
            .any(|w| w.contains("files/bsae belongs to no layer")),
        "{warned:?}"
    );
    let plan = lowered.plan.expect("a plan");
    let lines = |layer: usize| -> Vec<String> {
        let files = plan.layers[layer].files.iter();
        files
            .map(|f| {
                format!(
                    "{} {} {:o} {}:{}",
                    f.from,
                    f.to.as_deref().unwrap_or("-"),
                    f.mode,
                    f.owner.0,
                    f.owner.1
                )
            })
            .collect()
    };
    assert_eq!(
        lines(0),
        [
            "files/base/etc /etc 755 root:root",
            "files/base/etc/motd /etc/motd 644 root:root",
            "files/base/usr /usr 755 root:root",
            "files/base/usr/run /usr/run 755 root:root",
            "ide.tar - 644 root:root",
        ]
    );
    assert_eq!(
        lines(1),
        [
            "skel /etc/skel 750 7:users",
            "skel/.rc /etc/skel/.rc 640 7:users"
        ]
    );
    let changed = [("files/base/etc/motd", false, content("other"))];
    let other = project(&changed, "").plan.expect("a plan");
    let same = project(&[("files/base/etc/motd", false, content("hello"))], "")
        .plan
        .expect("a plan");
    assert_ne!(other.id(), same.id());
    assert_eq!(
        other.request_id(),
        same.request_id(),
        "no package depends on them"
    );
}

#[test]
fn files_that_cannot_be_are_refused() {
    let files = [("a", false, content("a"))];
    for (toml, why) in [
        ("from = \"b\"", "no such file"),
        ("from = \"a\"\nto = \"etc/a\"", "no absolute path"),
        ("from = \"a\"\nto = \"/etc/../a\"", "no absolute path"),
        (
            "from = \"a\"\nto = \"/tmp/a\"",
            "an image has nothing of its own there",
        ),
        (
            "from = \"a\"\nto = \"/run/\"",
            "an image has nothing of its own there",
        ),
        ("from = \"a\"\nmode = \"888\"", "is not octal"),
        (
            "from = \"a\"\nowner = \"x:y:z\"",
            "neither USER nor USER:GROUP",
        ),
        ("from = \"a\"\nlayer = \"tpo\"", "no layer `tpo`"),
    ] {
        let lowered = project(&files, &format!("[[files]]\n{toml}\n"));
        let said = errors(&lowered);
        assert!(said.len() == 1 && said[0].contains(why), "{toml}: {said:?}");
    }
}

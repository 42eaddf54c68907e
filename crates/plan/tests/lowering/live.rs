//! Live kickstarts of RPM distributions: the examples, and those that `cargo xtask rpm-kickstarts` builds.

use std::fs;
use std::path::Path;

use kiln_plan::configure::Level;
use kiln_plan::{Definition, Files, Input, PartitionTable, Plan, lower, lower_text};

use super::{Examples, errors, of, root};

/// What `cargo xtask rpm-kickstarts` makes of its files.
struct Served;

impl Files for Served {
    fn read(&self, path: &str, _from: &str) -> Result<(String, Vec<u8>), String> {
        if path == "key.asc" {
            return Ok((path.to_owned(), b"a key".to_vec()));
        }
        let path = Path::new(path).file_name().expect("a name");
        let place = root().join("xtask/sets/rpm").join(path);
        let text = fs::read_to_string(&place).map_err(|e| format!("{}: {e}", place.display()))?;
        let text = text.replace("@URL@", "http://127.0.0.1:1");
        Ok((path.display().to_string(), text.into_bytes()))
    }
}

#[test]
fn the_lab_on_centos_8_has_its_old_disk() {
    let name = "examples/centos8-lab/kiln.toml";
    let text = fs::read_to_string(root().join(name)).expect("the example");
    let lowered = lower_text(name, &text, &Input::default(), &Examples);
    assert_eq!(errors(&lowered), Vec::<String>::new());
    let warned = |what: &str| lowered.problems.iter().any(|p| p.message.contains(what));
    assert!(warned("vault.centos.org"), "{:?}", lowered.problems);
    let plan = lowered.plan.expect("a plan");
    assert_eq!(plan.target.release, "8");
    assert_eq!(plan.disk.table, PartitionTable::Mbr);
    assert!(plan.disk.home().is_some_and(|home| home.grow));
}

#[test]
fn the_live_example_of_fedora_has_a_complete_plan() {
    let definition = Definition {
        layers: vec!["fedora-live.ks".to_owned()],
        ..Definition::default()
    };
    let input = Input {
        distribution: Some("fedora:44".to_owned()),
        ..Input::default()
    };
    let lowered = lower("examples/fedora-live.ks", &definition, &input, &Examples);
    assert_eq!(errors(&lowered), Vec::<String>::new());
    let plan = lowered.plan.expect("a plan");
    let needs = plan.layers[0].needs();
    let needs: Vec<&str> = needs.iter().map(|n| n.package.as_str()).collect();
    for package in ["firewalld", "selinux-policy-targeted", "glibc-langpack-en"] {
        assert!(needs.contains(&package), "{needs:?}");
    }
}

fn served(name: &str) -> Plan {
    let toml = root().join("xtask/sets/rpm/kiln.toml");
    let text = fs::read_to_string(toml).expect("the definition");
    let lowered = lower_text(
        "kiln.toml",
        &text.replace("NAME", name),
        &Input::default(),
        &Served,
    );
    assert_eq!(errors(&lowered), Vec::<String>::new(), "{name}");
    lowered.plan.expect("a plan")
}

#[test]
fn the_kickstarts_in_the_manner_of_published_ones_have_plans() {
    for name in [
        "base",
        "workstation",
        "kde",
        "xfce",
        "cinnamon",
        "mate",
        "i3",
        "alma-live",
        "rocky-live",
    ] {
        let plan = served(name);
        assert!(!plan.rpm_repositories.is_empty(), "{name}");
        assert!(
            plan.boot.append.contains(&"quiet".to_owned()),
            "{name}: {:?}",
            plan.boot
        );
    }
}

/// What published kickstarts of other kinds of images say: each is an error of its own line with what to do.
#[test]
fn what_is_no_image_of_packages_is_refused_with_a_hint() {
    for (line, says) in [
        (
            "liveimg --url=file:///run/install/squashfs.img",
            "images are made from packages",
        ),
        (
            "ostreecontainer --url=quay.io/fedora/fedora-bootc:44",
            "images are made from packages",
        ),
        (
            "logvol / --vgname=fedora --name=root --size=1",
            "read-only root",
        ),
    ] {
        let text: &'static str = format!("{line}\n").leak();
        let input = Input {
            distribution: Some("fedora:44".to_owned()),
            ..Input::default()
        };
        let plan = of(&[("a.ks", text)], &input).plan.expect("a plan");
        let mut notices = plan.layers[0].notices.iter();
        let refused = notices.find(|notice| notice.level == Level::Error);
        let refused = refused.unwrap_or_else(|| panic!("{line}"));
        assert!(refused.message.contains(says), "{refused:?}");
        assert_eq!(refused.origin, "a.ks:1");
        assert!(refused.hint.is_some(), "{refused:?}");
    }
}

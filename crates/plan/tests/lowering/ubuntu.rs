//! What Ubuntu's images have otherwise than Debian's.

use std::fs;

use kiln_plan::{Input, lower_text};

use super::{Examples, Memory, errors, root};

#[test]
fn ubuntu_has_kernel_firmware_and_components_of_its_own() {
    let of = |name: &str, text: &'static str| {
        let input = Input {
            distribution: Some(name.to_owned()).filter(|name| !name.is_empty()),
            ..Input::default()
        };
        let toml = "layers = [\"a.ks\"]\n";
        lower_text("kiln.toml", toml, &input, &Memory([("a.ks", text)].into()))
    };
    let simple = "rootpw --lock\npart /home --size=100 --grow\n";
    let names = |name: &str| -> Vec<String> {
        let lowered = of(name, simple);
        let plan = lowered
            .plan
            .unwrap_or_else(|| panic!("{:?}", lowered.problems));
        plan.system
            .packages
            .into_iter()
            .map(|p| p.package)
            .collect()
    };
    let noble = names("ubuntu:noble");
    for package in [
        "linux-image-generic",
        "initramfs-tools",
        "live-boot",
        "busybox-static",
        "usr-is-merged",
        "linux-firmware",
        "fdisk",
    ] {
        assert!(
            noble.iter().any(|name| name == package),
            "{package}: {noble:?}"
        );
    }
    assert!(!names("ubuntu:jammy").contains(&"usr-is-merged".to_owned()));
    let bookworm = names("debian:bookworm");
    for package in [
        "linux-image-amd64",
        "busybox",
        "usr-is-merged",
        "firmware-linux-free",
    ] {
        assert!(bookworm.iter().any(|name| name == package), "{bookworm:?}");
    }
    let url = "rootpw --lock\nurl --url=http://mirror.example/ubuntu/dists/noble\n";
    let plan = of("", url).plan.expect("a plan");
    assert_eq!(plan.target.distribution, "ubuntu");
    let components = &plan.repositories[0].components;
    assert_eq!(
        components,
        &["main", "restricted", "universe", "multiverse"]
    );
    let old = of("ubuntu:lunar", simple);
    assert!(
        errors(&old)[0].contains("old-releases.ubuntu.com"),
        "{old:?}"
    );
}

#[test]
fn the_lab_on_ubuntu_has_a_complete_plan() {
    let name = "examples/ubuntu-lab/kiln.toml";
    let text = fs::read_to_string(root().join(name)).expect("the example");
    let lowered = lower_text(name, &text, &Input::default(), &Examples);
    assert_eq!(errors(&lowered), Vec::<String>::new());
    let plan = lowered.plan.expect("a plan");
    assert_eq!(plan.target.release, "noble");
    assert_eq!(plan.layers.len(), 2);
    assert!(plan.disk.home().is_some_and(|home| home.grow));
}

//! RPM repositories: `[[repository]]`, `url` and `repo`.

use kiln_plan::{Input, Plan, RpmRepository, RpmSource};

use super::{errors, of};

fn lowered(toml: &'static str, kickstart: &'static str) -> kiln_plan::Lowered {
    let files = [
        ("kiln.toml", toml),
        ("a.ks", kickstart),
        ("keys/lab.asc", "a key"),
    ];
    let input = Input {
        distribution: Some("centos:9".to_owned()),
        ..Input::default()
    };
    of(&files, &input)
}

fn plan(toml: &'static str, kickstart: &'static str) -> Plan {
    let lowered = lowered(toml, kickstart);
    let said = errors(&lowered);
    lowered.plan.unwrap_or_else(|| panic!("{said:?}"))
}

fn repository(name: &str, source: RpmSource, origin: &str) -> RpmRepository {
    RpmRepository {
        name: name.to_owned(),
        source,
        cost: None,
        exclude: Vec::new(),
        include: Vec::new(),
        install: false,
        keys: None,
        proxy: None,
        signed_metadata: None,
        origin: origin.to_owned(),
    }
}

fn base(url: &str) -> RpmSource {
    RpmSource::Base(vec![url.to_owned()])
}

#[test]
fn rpm_repositories_are_named_in_kiln_toml_and_in_kickstart_files() {
    let toml = "layers = [\"a.ks\"]\n\
        [[repository]]\nname = \"lab\"\nbaseurl = [\"http://a.example/\", \"http://b.example/\"]\nkey = \"keys/lab.asc\"\ncost = 500\n\
        exclude = [\"kernel*\"]\nproxy = \"http://me:secret@proxy.example:3128\"\nrepo-gpgcheck = true\n\
        [[repository]]\nname = \"epel\"\nkey = \"keys/lab.asc\"\ninclude = [\"a\", \"b-*\"]\n";
    let kickstart = "url --mirrorlist=http://m.example/?r=$releasever --noverifyssl\n\
        repo --name=epel --metalink=http://e.example --cost=7 --excludepkgs=x,y* --install --proxy=http://other.example\n\
        %packages\n%end\n";
    let keys = Some(("keys/lab.asc".to_owned(), b"a key".to_vec()));
    let lab = RpmRepository {
        cost: Some(500),
        exclude: vec!["kernel*".to_owned()],
        keys: keys.clone(),
        proxy: Some("http://me:secret@proxy.example:3128".to_owned()),
        signed_metadata: Some(true),
        ..repository(
            "lab",
            RpmSource::Base(vec!["http://a.example/".into(), "http://b.example/".into()]),
            "kiln.toml",
        )
    };
    let url = repository(
        "url",
        RpmSource::MirrorList("http://m.example/?r=$releasever".into()),
        "a.ks:1",
    );
    // What the kickstart file says counts; what it cannot say comes from kiln.toml.
    let epel = RpmRepository {
        cost: Some(7),
        exclude: vec!["x".to_owned(), "y*".to_owned()],
        include: vec!["a".to_owned(), "b-*".to_owned()],
        install: true,
        keys,
        proxy: Some("http://other.example".to_owned()),
        ..repository(
            "epel",
            RpmSource::MetaLink("http://e.example".into()),
            "a.ks:2",
        )
    };
    let plan = plan(toml, kickstart);
    assert_eq!(plan.rpm_repositories, [lab, url, epel]);
    assert!(!plan.default_repositories);
    let shown = serde_json::to_string(&plan).expect("JSON");
    assert!(
        shown.contains("http://«secret»@proxy.example:3128") && !shown.contains("me:secret"),
        "{shown}"
    );
}

#[test]
fn a_repository_named_again_or_known_to_the_installer() {
    let kickstart = "repo --name=updates\nrepo --name=x --baseurl=http://one.example\nrepo --name=x --baseurl=http://two.example\n%packages\n%end\n";
    let plan = plan("layers = [\"a.ks\"]\n", kickstart);
    let expected = [
        repository("updates", RpmSource::Known, "a.ks:1"),
        repository("x", base("http://two.example"), "a.ks:3"),
    ];
    assert_eq!(plan.rpm_repositories, expected);
    assert!(plan.default_repositories);
}

#[test]
fn how_files_come_is_not_asked_for_but_who_signs_them_is() {
    let id = |more: &'static str| plan(more, "%packages\n%end\n").request_id();
    let plain =
        "layers = [\"a.ks\"]\n[[repository]]\nname = \"lab\"\nbaseurl = \"http://a.example\"\n";
    let through = "layers = [\"a.ks\"]\n[[repository]]\nname = \"lab\"\nbaseurl = \"http://a.example\"\nproxy = \"p.example\"\n";
    let signed = "layers = [\"a.ks\"]\n[[repository]]\nname = \"lab\"\nbaseurl = \"http://a.example\"\nkey = \"keys/lab.asc\"\n";
    assert_eq!(id(plain), id(through));
    assert_ne!(id(plain), id(signed));
}

#[test]
fn mistakes_in_repositories_are_named() {
    let said = |toml: &'static str, kickstart: &'static str| errors(&lowered(toml, kickstart));
    let empty = "%packages\n%end\n";
    for (toml, expected) in [
        (
            "layers = [\"a.ks\"]\n[[repository]]\nname = \"x\"\nurl = \"http://x.example\"\n",
            "kiln.toml:2: `url` is for a repository in Debian's format and `name` for one of RPM packages: [[repository]] is one of them",
        ),
        (
            "layers = [\"a.ks\"]\n[[repository]]\nurl = \"http://x.example\"\n",
            "kiln.toml:2: missing field `suite`",
        ),
        (
            "layers = [\"a.ks\"]\n[[repository]]\nbaseurl = \"http://x.example\"\n",
            "kiln.toml:2: missing field `name`",
        ),
        (
            "layers = [\"a.ks\"]\n[[repository]]\nname = \"x\"\nbaseurl = \"http://x.example\"\nmetalink = \"http://x.example\"\n",
            "kiln.toml:2: the repository x has more than one of baseurl, mirrorlist and metalink",
        ),
        (
            "layers = [\"a.ks\"]\n[[repository]]\nname = \"a b\"\nbaseurl = \"http://x.example\"\n",
            "kiln.toml:2: name = \"a b\": a repository's name has letters, digits and - _ . : only",
        ),
        (
            "layers = [\"a.ks\"]\n[[repository]]\nname = \"x\"\nbaseurl = \"http://x.example\"\nkey = \"gone.asc\"\n",
            "kiln.toml: the key file `gone.asc` of repository x cannot be read: gone.asc: no such file",
        ),
        (
            "layers = [\"a.ks\"]\n[[repository]]\nname = \"x\"\nkey = \"keys/lab.asc\"\n",
            "kiln.toml: [[repository]] x does not say where it is, and no kickstart file has a repository of this name",
        ),
        (
            "layers = [\"a.ks\"]\n[[repository]]\nurl = \"http://x.example\"\nsuite = \"stable\"\n",
            "kiln.toml: [[repository]] http://x.example is a Debian repository",
        ),
        (
            "layers = [\"a.ks\"]\n[[repository]]\nname = \"x\"\nbasurl = \"http://x.example\"\n",
            "unknown field `basurl`",
        ),
    ] {
        let said = said(toml, empty);
        assert!(
            said.len() == 1 && said[0].contains(expected),
            "{toml}: {said:?}"
        );
    }
    let nowhere = said("layers = [\"a.ks\"]\n", "repo --name=x\n%packages\n%end\n");
    assert_eq!(
        nowhere,
        ["a.ks:1: `repo --name=x` does not say where it is"]
    );
}

#[test]
fn what_a_release_needs_and_whether_it_has_ended_is_said() {
    let said = |release: &str| {
        let input = Input {
            distribution: Some(release.to_owned()),
            ..Input::default()
        };
        let lowered = of(&[("a.ks", "%packages\n%end\n")], &input);
        let all = lowered
            .problems
            .iter()
            .map(|p| p.message.clone())
            .collect::<Vec<_>>();
        (
            lowered.plan.expect("a plan").target.processor_level(),
            all.join("\n"),
        )
    };
    for (release, level) in [
        ("centos:10", 3),
        ("rocky:9.4", 2),
        ("almalinux:8", 1),
        ("fedora:45", 1),
        ("debian:trixie", 1),
    ] {
        assert_eq!(said(release), (level, String::new()), "{release}");
    }
    for release in ["centos:8", "fedora:42"] {
        let (_, said) = said(release);
        let expected = format!(
            "{release} gets no updates any more, not even for security; its packages are in the archive, https://"
        );
        assert!(said.starts_with(&expected), "{said}");
    }
    let input = Input {
        distribution: Some("debian:buster".to_owned()),
        ..Input::default()
    };
    let lowered = of(&[("a.ks", "%packages\n%end\n")], &input);
    let hint = &lowered.problems[0].hints[0];
    assert!(
        hint.contains("suite = \"buster\"") && hint.contains("check-valid-until = false"),
        "{hint}"
    );
}

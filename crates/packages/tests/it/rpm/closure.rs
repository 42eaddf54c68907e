//! What the target's own package manager needs.

use kiln_packages::rpm::{Package, closure};
use kiln_packages::{Error, ErrorKind};
use kiln_testkit::rpm::Rpm;

/// The packages as createrepo_c describes them.
fn described(packages: &[Rpm]) -> Vec<Package> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    kiln_testkit::rpm::build(packages, directory.path());
    kiln_testkit::rpm::createrepo(directory.path(), &[]);
    read(directory.path())
}

/// The packages of an unsigned repository in a directory.
fn read(directory: &std::path::Path) -> Vec<Package> {
    let repository = kiln_packages::rpm::Repository {
        name: "local".into(),
        source: kiln_packages::rpm::Source::Base(vec![format!("file://{}", directory.display())]),
        variables: Vec::new(),
        keys: ("none".into(), Vec::new()),
        proof: kiln_packages::rpm::Proof::Packages,
        cost: kiln_packages::rpm::Repository::COST,
        filter: kiln_packages::rpm::Filter::default(),
        proxy: None,
        origin: String::new(),
    };
    let cache = directory.join("metadata");
    let now = std::time::SystemTime::now();
    let metadata =
        kiln_packages::rpm::refresh(&crate::support::fetcher(), &[repository], &cache, now);
    metadata.expect("good metadata").repositories[0]
        .packages()
        .expect("packages")
}

fn names(packages: &[Package], roots: &[&str]) -> Result<Vec<String>, Error> {
    let found = closure(packages, "x86_64", roots, &|_| "lab.ks:2")?;
    let mut names: Vec<String> = found
        .into_iter()
        .map(|at| format!("{} {}", packages[at].name, packages[at].evr))
        .collect();
    names.sort();
    Ok(names)
}

#[test]
fn names_versions_paths_and_rich_dependencies_are_followed() {
    let mut packages = super::packages();
    packages.push(Rpm::new("shell", "4.0").tag("Provides: only-in-old"));
    packages.push(Rpm::new("extra", "1"));
    packages.push(
        Rpm::new("absent", "1")
            .tag("Requires: (shell with /bin/sh), config(absent)\nProvides: config(absent) = 1"),
    );
    let all = described(&packages);
    // The suggested one of two that would do; `extra` is not asked for without `absent`, and with it is.
    let expected = [
        "libc 2.34-1",
        "resolver 4.14-1",
        "shell 1:5.1-1",
        "small-langpack 2.34-1",
    ];
    assert_eq!(names(&all, &["resolver"]).expect("a closure"), expected);
    let both = names(&all, &["resolver", "absent"]).expect("a closure");
    assert!(
        both.contains(&"extra 1-1".to_owned()) && both.contains(&"absent 1-1".to_owned()),
        "{both:?}"
    );
    // By what it provides, and by a path before /usr was merged.
    assert_eq!(names(&all, &["/bin/shell"]).expect("a closure").len(), 3);
    let error = names(&all, &["resolvr"]).expect_err("no such package");
    assert_eq!(
        (error.kind(), error.hints()),
        (
            ErrorKind::UnknownPackage,
            &["The nearest names are resolver.".to_owned()][..]
        )
    );
    assert!(
        names(&all, &["only-in-old"]).is_err(),
        "an old version is not looked at"
    );
}

#[test]
fn what_nothing_provides_is_named_with_the_way_to_it() {
    let all = described(&[
        Rpm::new("top", "1").tag("Requires: middle"),
        Rpm::new("middle", "2").tag("Requires: (bottom >= 2 or other)"),
        Rpm::new("bottom", "1"),
    ]);
    let error = names(&all, &["top"]).expect_err("bottom is too old");
    assert_eq!(error.kind(), ErrorKind::Unsatisfiable);
    let said = "nothing provides (bottom >= 2 or other), which middle-2-1.noarch needs, needed by top-1-1.noarch";
    assert_eq!(error.to_string(), said);
    assert_eq!(error.origin(), Some("lab.ks:2"));
}

#[test]
fn versions_are_ordered_as_rpm_orders_them() {
    let versions = [
        "1.0",
        "1.0.0",
        "1.0~rc1",
        "1.0^git1",
        "1.0^",
        "1.0~",
        "1.0a",
        "1.0.a",
        "1.a",
        "1.10",
        "1.9",
        "1.09",
        "2",
        "1_0",
        "a",
        "0",
        "1.0~rc1^x",
        "1.0+x",
        "1.0x1",
        "18446744073709551617",
        "x",
    ];
    let script: String = versions
        .iter()
        .flat_map(|a| {
            versions
                .iter()
                .map(move |b| format!("print(rpm.vercmp('{a}', '{b}')..' ') "))
        })
        .collect();
    let theirs = crate::support::good("rpm", &["--eval", &format!("%{{lua:{script}}}")]);
    let ours: Vec<String> = versions
        .iter()
        .flat_map(|a| {
            versions
                .iter()
                .map(|b| (kiln_packages::rpm::version::compare(a, b) as i32).to_string())
        })
        .collect();
    assert_eq!(theirs.split_whitespace().collect::<Vec<_>>(), ours);
}

/// As many packages as a distribution has, each needing some of those before it and described as createrepo_c does it.
fn large(count: usize) -> String {
    let mut text = format!("<metadata xmlns:rpm='rpm' packages='{count}'>\n");
    for n in 0..count {
        let entry = |n: usize| {
            format!(
                "<rpm:entry name='lib{n}.so.1()(64bit)' flags='GE' epoch='0' ver='1.{}'/>",
                n % 7
            )
        };
        let needs: String = (1..=12)
            .map(|step| n / 2 / step)
            .filter(|&other| other != n)
            .map(entry)
            .collect();
        let files: String = (0..6)
            .map(|f| format!("<file>/usr/bin/p{n}-{f}</file>"))
            .collect();
        text.push_str(&format!(
            "<package type='rpm'><name>p{n}</name><arch>x86_64</arch><version epoch='0' ver='1.0' rel='1.el9'/>\
             <checksum type='sha256' pkgid='YES'>{}</checksum><summary>{n}</summary><description>{}</description>\
             <time file='1' build='1'/><size package='9' installed='9' archive='9'/><location href='Packages/p{n}.rpm'/>\
             <format><rpm:license>MIT</rpm:license><rpm:provides><rpm:entry name='p{n}' flags='EQ' epoch='0' ver='1.0' rel='1.el9'/>\
             <rpm:entry name='lib{n}.so.1()(64bit)' flags='EQ' epoch='0' ver='1.9'/></rpm:provides>\
             <rpm:requires>{needs}</rpm:requires>{files}</format></package>\n",
            kiln_packages::Digest::of(&n.to_le_bytes()),
            "Words about the package. ".repeat(12),
        ));
    }
    text + "</metadata>\n"
}

#[test]
fn a_repository_of_20_000_packages_is_read_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("repodata");
    std::fs::create_dir(&data).expect("a directory");
    let primary = large(20_000);
    std::fs::write(data.join("primary.xml"), &primary).expect("primary");
    let repomd = format!(
        "<repomd><data type='primary'><checksum type='sha256'>{}</checksum><location href='repodata/primary.xml'/>\
         <timestamp>1</timestamp><size>{}</size></data></repomd>",
        kiln_packages::Digest::of(primary.as_bytes()),
        primary.len()
    );
    std::fs::write(data.join("repomd.xml"), repomd).expect("repomd.xml");
    drop(primary);
    let all = read(directory.path());
    assert_eq!(all.len(), 20_000);
    // Its halves, and thirds of these, and so on down to the first.
    let found = closure(&all, "x86_64", &["p19999"], &|_| "").expect("a closure");
    assert!(
        found.contains(&0) && found.contains(&9_999) && found.len() > 100,
        "{}",
        found.len()
    );
}

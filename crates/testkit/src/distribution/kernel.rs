//! The kernel, in packages as RPM distributions have it: `kernel` needs `kernel-core` and `kernel-modules`.

use std::fs;
use std::path::Path;

use super::deb::{Entries, Entry};
use super::names::is_core_module;
use super::spec::{Spec, Version, file_lines};

/// Builds the three packages of a `linux-image-RELEASE` that is unpacked in `work/content`.
pub(super) fn build(name: &str, version: &Version, mut entries: Entries, work: &Path, into: &Path) {
    let content = work.join("content");
    let release = name.trim_start_matches("linux-image-");
    let home = format!("usr/lib/modules/{release}");
    for (what, mode) in [("vmlinuz", 0o755), ("config", 0o644), ("System.map", 0o644)] {
        let from = format!("boot/{what}-{release}");
        if entries.remove(&from).is_some() {
            let to = format!("{home}/{what}");
            fs::rename(content.join(from), content.join(&to)).expect("a file of the kernel's");
            entries.insert(to, Entry::of(mode, false));
        }
    }
    let kernel = format!("{home}/kernel/");
    let is_core = |path: &String| {
        let module = path
            .strip_prefix(&kernel)
            .filter(|_| !entries[path].is_directory);
        module.is_none_or(is_core_module)
    };
    let (core, modules): (Vec<&String>, Vec<&String>) =
        entries.keys().partition(|path| is_core(path));
    for (list, paths) in [("core", core), ("modules", modules)] {
        let lines = file_lines(&entries, paths.into_iter(), |_| false);
        fs::write(work.join(list), lines).expect("a list of files");
    }
    fs::create_dir_all(content.join("boot")).expect("a directory");
    fs::write(content.join(format!("boot/initramfs-{release}.img")), "").expect("a file");
    let short = Version {
        epoch: None,
        version: release.replace('-', "_"),
        release: version.release.clone(),
    };
    let full = short.full();
    let spec = Spec {
        name: "kernel".to_owned(),
        version: short,
        summary: "The Linux kernel".to_owned(),
        is_noarch: false,
        tags: vec![
            format!("Provides: {name}"),
            format!("Requires: kernel-core = {full}"),
            format!("Requires: kernel-modules = {full}"),
        ],
        sections: sections(release, &full, work),
    };
    spec.build(&content, work, into);
}

fn sections(release: &str, full: &str, work: &Path) -> String {
    let work = work.display();
    format!(
        "%package core\nSummary: The kernel's image, and modules for disks and consoles\nProvides: kernel-core-uname-r = {full}\n\
         Provides: installonlypkg(kernel)\nRequires: systemd kmod coreutils kernel-install-plugins\nRecommends: dracut\n\
         %description core\nThe kernel.\n\
         %package modules\nSummary: Further kernel modules\nRequires: kernel-core = {full}\n%description modules\nModules.\n\
         %files\n%files core -f {work}/core\n%ghost /boot/initramfs-{release}.img\n%files modules -f {work}/modules\n\
         %posttrans core\n/usr/bin/kernel-install add {release} /usr/lib/modules/{release}/vmlinuz || exit $?\n\
         %preun core\n/usr/bin/kernel-install remove {release} || :\n\
         %post modules\n/usr/sbin/depmod -a {release}\n"
    )
}

//! Debian, and what has its format, behind the seam.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_packages::debian::{outside, refresh};
use kiln_packages::{DownloadStore, Lock, LockedPackage};
use kiln_plan::{Id, Plan, Target};

use super::daemons;
use super::deb::{Deb, built, debs, newest, read_debs};
use super::finish::{RAM_MEDIUM, finish};
use super::indices::Indices;
use super::initramfs::initramfs;
use super::installer::Apt;
use super::repositories::{self, repositories};
use super::sources::write_sources;
use crate::error::{Error, ErrorKind, Result};
use crate::family::{Boot, Facts, Family, Installer, Job, Medium, Metadata, World};
use crate::finish::{Finish, Finished, Sources};
use crate::initramfs::Initramfs;
use crate::run::Place;
use crate::trace::SharedTrace;

/// Distributions with apt, dpkg, initramfs-tools and live-boot. What differs between them is where their packages come from and
/// where they have their boot loaders.
#[derive(Clone, Copy, Debug)]
pub struct Debian {
    distribution: &'static str,
    boot: &'static Boot,
}

impl Debian {
    /// All that Kiln has.
    pub const ALL: [Debian; 2] = [
        Debian {
            distribution: "debian",
            boot: &BOOT,
        },
        Debian {
            distribution: "ubuntu",
            boot: &UBUNTU_BOOT,
        },
    ];
}

/// Debian's signed boot loaders.
const BOOT: Boot = Boot {
    shim: "usr/lib/shim/shimx64.efi.signed",
    grub: "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    mok_manager: "usr/lib/shim/mmx64.efi.signed",
    efi_prefix: "/EFI/debian",
    bios_modules: "usr/lib/grub/i386-pc",
    kernel: "/live/vmlinuz",
    initrd: "/live/initrd.img",
    root_file: "/live/filesystem.squashfs",
    excluded: &["/boot/initrd.img-*"],
};

/// Ubuntu's: the shim's usual name is a link that a script of its package makes, and the key manager is in the same package.
const UBUNTU_BOOT: Boot = Boot {
    shim: "usr/lib/shim/shimx64.efi.signed.latest",
    mok_manager: "usr/lib/shim/mmx64.efi",
    efi_prefix: "/EFI/ubuntu",
    ..BOOT
};

impl Family for Debian {
    fn has(&self, target: &Target) -> bool {
        target.distribution == self.distribution
    }

    /// Nothing: what the engine counts began as the count of this family's code, and ids that were made stay.
    fn code(&self) -> &'static str {
        "a"
    }

    fn world(&self, plan: &Plan, source: &Metadata<'_>) -> Result<Box<dyn World>> {
        let all = repositories(plan)?;
        let metadata = refresh(source.fetcher, &all, source.directory, source.now)?;
        let indices = Indices::outlined(metadata, &plan.target.architecture, source.directory)?;
        Ok(Box::new(indices))
    }

    fn kept_world(
        &self,
        plan: &Plan,
        directory: &Path,
        now: SystemTime,
    ) -> Result<(Box<dyn World>, Vec<String>)> {
        let all = repositories(plan)?;
        let architecture = &plan.target.architecture;
        let (indices, unfit) = Indices::kept(&all, directory, now, architecture);
        Ok((Box::new(indices), unfit))
    }

    fn repositories(&self, plan: &Plan) -> Result<Vec<(String, String)>> {
        let all = repositories(plan)?.into_iter();
        Ok(all.map(|r| (r.uri, r.suite)).collect())
    }

    fn repositories_id(&self, plan: &Plan) -> Result<Id> {
        Ok(repositories::id(&repositories(plan)?))
    }

    fn outside(&self, plan: &Plan, package: &LockedPackage) -> Result<Option<String>> {
        Ok(outside(&repositories(plan)?, package))
    }

    fn facts(
        &self,
        _: &Plan,
        packages: &[&LockedPackage],
        downloads: &DownloadStore,
        threads: usize,
    ) -> Result<Facts> {
        let debs = read_debs(packages, &|p| downloads.path(&p.sha256), threads)?;
        let text = serde_json::to_vec(&debs).map_err(|e| {
            Error::new(ErrorKind::Internal, "what packages say cannot be noted")
                .cause(e.to_string())
        })?;
        Ok(Facts::new(newest(&debs), text))
    }

    fn recalled(&self, text: Vec<u8>, packages: usize) -> Option<Facts> {
        let debs: Vec<Deb> = serde_json::from_slice(&text).ok()?;
        (debs.len() == packages).then(|| Facts::new(newest(&debs), text))
    }

    fn built(&self, _: &Plan, package: &LockedPackage, downloads: &DownloadStore) -> Result<i64> {
        built(&downloads.path(&package.sha256))
    }

    fn installer(&self, job: Job) -> Result<Box<dyn Installer>> {
        Ok(Box::new(Apt::new(job)?))
    }

    fn sources(&self, plan: &Plan, lock: &Lock) -> Sources {
        repositories::sources(plan, lock)
    }

    fn reads_sources(&self, installed: &[Facts]) -> bool {
        let apt = |facts: &Facts| debs(facts).is_ok_and(|d| d.iter().any(|d| d.name == "apt"));
        installed.iter().any(apt)
    }

    fn write_sources(&self, place: &Place<'_>, sources: &Sources) -> Result<()> {
        write_sources(place, sources)
    }

    fn script_environment(&self) -> &'static [(&'static str, &'static str)] {
        &[("DEBIAN_FRONTEND", "noninteractive")]
    }

    fn without_daemons(
        &self,
        place: &Place<'_>,
        scripts: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        daemons::without_daemons(place, scripts)
    }

    fn finish(
        &self,
        place: &Place<'_>,
        orders: &Finish,
        packages: Vec<PathBuf>,
    ) -> Result<Finished> {
        finish(place, orders, packages)
    }

    fn generator_code(&self) -> &'static str {
        "2"
    }

    fn initramfs(
        &self,
        place: &Place<'_>,
        level: Option<u32>,
        trace: &SharedTrace,
    ) -> Result<Initramfs> {
        initramfs(place, level, trace)
    }

    fn boot(&self, _: &Target) -> &'static Boot {
        self.boot
    }

    /// live-boot's. What copies a partition to memory is a script of Kiln's: live-boot's own `toram` copies files.
    fn arguments(&self, medium: &Medium) -> Vec<String> {
        let uuid = &medium.partition;
        let stick = format!("/dev/disk/by-partuuid/{uuid}");
        let (media, more) = match (medium.in_memory, medium.is_file) {
            (false, _) => (stick, None),
            (true, true) => (stick, Some("toram=filesystem.squashfs".to_owned())),
            (true, false) => (RAM_MEDIUM.to_owned(), Some(format!("kiln.toram={uuid}"))),
        };
        let mut arguments = vec![
            "boot=live".to_owned(),
            format!("live-media={media}"),
            "noeject".to_owned(),
        ];
        arguments.extend(more);
        arguments
    }
}

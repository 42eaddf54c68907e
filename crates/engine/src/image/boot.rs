//! The boot partition, the boot menu, and what the firmware of a PC starts.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_image::disk::DiskLayout;
use kiln_image::fat::{FatSpec, FatTree, Source};
use kiln_image::grub::{self, BIOS_MODULES, CoreSpec, EfiFiles, Entry, Menu};
use kiln_plan::{Plan, Role};
use kiln_rootfs::Family;
use kiln_rootfs::family::{self, Medium};

use super::layout::Parts;
use crate::values::BootFiles;
use crate::{Failure, FailureKind};

/// The boot loaders of a tools root.
pub(crate) struct Loaders<'a> {
    pub(crate) facts: &'a family::Boot,
    /// The tools root.
    pub(crate) tools: &'a Path,
    read: Mutex<BTreeSet<String>>,
}

/// What a BIOS starts.
pub(crate) struct Bios {
    /// The boot sector's code.
    boot: Vec<u8>,
    /// What it loads.
    core: Vec<u8>,
}

impl Bios {
    /// Writes both.
    pub(crate) fn write(&self, disk: &File, layout: &DiskLayout) -> Result<(), Failure> {
        let place = grub::core_extent(layout)?;
        Ok(grub::write_bios_boot(disk, place, &self.boot, &self.core)?)
    }
}

impl<'a> Loaders<'a> {
    /// Those of the tools root at `tools`.
    pub(crate) fn new(facts: &'a family::Boot, tools: &'a Path) -> Self {
        Loaders {
            facts,
            tools,
            read: Mutex::default(),
        }
    }

    /// What was read there so far.
    pub(crate) fn read_paths(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the boot partition holds, but for a root.
    pub(crate) fn tree(
        &self,
        files: BootFiles,
        menu: &Menu,
        fat: &FatSpec,
    ) -> Result<FatTree, Failure> {
        let mut tree = FatTree::new();
        tree.add_file(self.facts.kernel, Source::whole(files.kernel)?)?;
        tree.add_file(self.facts.initrd, Source::whole(files.initrd)?)?;
        tree.add_file("/boot/grub/grub.cfg", menu.render()?.into_bytes())?;
        let mok_manager = self.read(self.facts.mok_manager).ok();
        let efi = EfiFiles {
            shim: Some(self.needed(self.facts.shim)?.into()),
            grub: self.needed(self.facts.grub)?.into(),
            mok_manager: mok_manager.map(Source::from),
            prefix: self.facts.efi_prefix.to_owned(),
        };
        efi.add_to(&mut tree, &fat.uuid())?;
        Ok(tree)
    }

    /// Makes what a BIOS starts, which depends on no length.
    pub(crate) fn bios(&self, parts: &Parts<'_>, fat: &FatSpec) -> Result<Bios, Failure> {
        let directory = self.facts.bios_modules;
        let core = grub::build_core(&CoreSpec {
            read: &|name| self.read(&format!("{directory}/{name}")),
            modules: BIOS_MODULES,
            prefix: &grub::prefix(parts.table(), parts.number(Role::Boot)?),
            config: &grub::early_config(&fat.uuid()),
        })?;
        let boot = self.needed(&format!("{directory}/boot.img"))?;
        Ok(Bios { boot, core })
    }

    fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        self.read_paths().insert(path.to_owned());
        read_inside(self.tools, path)
    }

    fn needed(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.read(path).map_err(|e| {
            Failure::new(
                FailureKind::Step,
                format!("the boot loader file /{path} is not in the distribution's packages"),
            )
            .cause(e.to_string())
        })
    }
}

/// The menu: start, start from RAM, safe graphics.
pub(crate) fn menu(plan: &Plan, family: &dyn Family, stick: &Medium) -> Menu {
    let (boot, facts) = (&plan.boot, family.boot(&plan.target));
    let entry = |id: &str, note: &str, medium: &Medium, more: &[&str]| {
        let mut arguments = family.arguments(medium);
        arguments.extend(more.iter().map(|&m| m.to_owned()));
        arguments.extend(boot.append.iter().cloned());
        Entry {
            id: id.to_owned(),
            title: format!("{}{note}", boot.title),
            kernel: facts.kernel.to_owned(),
            initrd: vec![facts.initrd.to_owned()],
            arguments,
            frame_buffer: true,
        }
    };
    let memory = Medium {
        in_memory: true,
        ..stick.clone()
    };
    let copied = " (copy to memory, the stick can be removed)";
    Menu {
        entries: vec![
            entry("start", "", stick, &[]),
            entry("ram", copied, &memory, &[]),
            entry("safe", " (safe graphics)", stick, &["nomodeset"]),
        ],
        default: boot.default.id().to_owned(),
        timeout: Some(boot.timeout),
        serial: None,
        firmware_arguments: true,
    }
}

/// Reads a file of a layer; links are resolved inside it.
fn read_inside(root: &Path, path: &str) -> std::io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let dir = File::open(root)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat2(
        &dir,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! The boot partition, the boot menu, and what the firmware of a PC starts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

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
    /// What was read there.
    pub(crate) read: RefCell<BTreeSet<String>>,
}

impl Loaders<'_> {
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

    /// Writes what a BIOS starts.
    pub(crate) fn write_bios(
        &self,
        disk: &File,
        parts: &Parts<'_>,
        layout: &DiskLayout,
        fat: &FatSpec,
    ) -> Result<(), Failure> {
        let directory = self.facts.bios_modules;
        let core = grub::build_core(&CoreSpec {
            read: &|name| self.read(&format!("{directory}/{name}")),
            modules: BIOS_MODULES,
            prefix: &grub::prefix(layout.table(), parts.place(layout, Role::Boot)?.number),
            config: &grub::early_config(&fat.uuid()),
        })?;
        let boot = self.needed(&format!("{directory}/boot.img"))?;
        grub::write_bios_boot(disk, grub::core_extent(layout)?, &boot, &core)?;
        Ok(())
    }

    fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        self.read.borrow_mut().insert(path.to_owned());
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

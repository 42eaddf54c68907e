//! From the finished root to `disk.raw` and `disk.tar.gz`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use kiln_image::disk::{
    Attributes, Bytes, DiskLayout, Extent, Guid, LayoutBuilder, PartitionSpec, PartitionType,
    Rounding, Table, copy_into,
};
use kiln_image::fat::{FatImage, FatSpec, FatTree, Source};
use kiln_image::grub::{self, BIOS_MODULES, CoreSpec, EfiFiles, Entry, Menu};
use kiln_image::targz::TarGz;
use kiln_plan::{Format, Home, Id};
use kiln_rootfs::family::{Boot, Medium};
use kiln_rootfs::{Extras, Place, Reporter};
use kiln_sandbox::CancelToken;

use crate::ids::{home_uuid, image_id, uuid_text};
use crate::image::ahead::Recorder;
use crate::image::squash::{self, Sources, Written};
use crate::initramfs::ahead::Ahead;
use crate::initramfs::generate::{Generator, Terms};
use crate::initramfs::step::initramfs;
use crate::io::{descriptor, write_failure};
use crate::means::Session;
use crate::means::output::Output;
use crate::values::{BootFiles, Lost, Made, Resolved, Squashed, Stack};
use crate::{Failure, FailureKind, Unit};

pub(crate) const RAW: &str = "disk.raw";
pub(crate) const TAR_GZ: &str = "disk.tar.gz";

/// Room for kernel, initramfs and boot loaders, with some for a later kernel beside the first. The partition lies before
/// the root, whose writing begins before the initramfs is known; a larger one moves the root (see `esp_size`).
const ESP: Bytes = Bytes::mib(256);
/// Free space that the boot partition has at least.
const ESP_FREE: Bytes = Bytes::mib(16);
/// GRUB's core image needs about 150 KiB.
const BIOS_BOOT: Bytes = Bytes::mib(1);
/// The boot partition is the table's second.
const PREFIX: &str = "(,gpt2)/boot/grub";

/// What people should know of attributes that the image lacks.
fn about_lost(lost: &[Lost]) -> Option<(String, String)> {
    const SHOWN: usize = 5;
    let mut paths: Vec<&str> = lost.iter().map(|one| one.path.as_str()).collect();
    paths.dedup();
    let more = match paths.len().checked_sub(SHOWN + 1) {
        Some(more) => format!(" and {} more (manifest.json has all)", more + 1),
        None => String::new(),
    };
    let acl = lost
        .iter()
        .all(|one| one.attribute.starts_with("system.posix_acl_"));
    let what = if acl {
        "access control lists"
    } else {
        "attributes"
    };
    let shown = paths
        .iter()
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let message = format!("SquashFS cannot hold the {what} of {shown}{more}: the image lacks them");
    let hint = "use groups and modes, or set them at boot (tmpfiles.d has lines of type `a`)";
    (!paths.is_empty()).then(|| (message, hint.to_owned()))
}

/// Makes the image.
pub(crate) fn image(
    session: &Session<'_>,
    resolved: &Resolved,
    root: &Stack,
    output: &Output,
    ahead: &Ahead,
    recorder: &Recorder,
) -> Result<Made, Failure> {
    session.image(resolved, root, output, ahead, recorder)
}

impl Session<'_> {
    fn image(
        &self,
        resolved: &Resolved,
        root: &Stack,
        output: &Output,
        ahead: &Ahead,
        recorder: &Recorder,
    ) -> Result<Made, Failure> {
        let disk = output.create(RAW)?;
        let ids = Ids::new(resolved);
        let offset = before_root(&ids, ESP)?.next_start();
        let boot = BootFiles {
            kernel: output.create("vmlinuz")?,
            initrd: output.create("initrd")?,
        };
        // The two do not depend on each other: one needs a core for half a minute, the other takes what is left.
        // When one fails, the other ends at once.
        let race = self.cancel.child()?;
        let terms = Terms::new(&*self.family, &resolved.plan.compression, root.epoch);
        let generator = Generator::of(self);
        let (squashed, version) = std::thread::scope(|scope| {
            let version = scope.spawn(|| {
                ending(
                    &race,
                    initramfs(&generator, root, &boot, terms, ahead, &race),
                )
            });
            let squashed = ending(
                &race,
                self.squashfs(resolved, root, &disk, offset, recorder, &race),
            );
            let version = version.join().unwrap_or_else(|_| {
                Err(Failure::new(
                    FailureKind::Internal,
                    "the initramfs step panicked",
                ))
            });
            (squashed, version)
        });
        let (squashed, version) = both(squashed, version)?;
        if let Some(shared) = &self.shared {
            shared.amend(&root.layers);
        }
        self.cancel.check()?;
        let home = resolved
            .plan
            .disk
            .home
            .as_ref()
            .map(|home| self.home(resolved, root, home, output))
            .transpose()?;
        let job = Assembly {
            session: self,
            resolved,
            ids: &ids,
            output,
            squashed: &squashed,
            offset,
            read: RefCell::default(),
        };
        job.assemble(&disk, boot, home.as_ref())?;
        if resolved.plan.formats.contains(&Format::TarGz) {
            self.tar_gz(&disk, output, self.epoch(resolved))?;
        }
        Ok(Made {
            kernel: version,
            squashed,
        })
    }

    /// The image's clock.
    pub(crate) fn epoch(&self, resolved: &Resolved) -> i64 {
        resolved.epoch(self.request.epoch)
    }

    fn squashfs(
        &self,
        resolved: &Resolved,
        root: &Stack,
        disk: &File,
        offset: Bytes,
        recorder: &Recorder,
        cancel: &CancelToken,
    ) -> Result<Squashed, Failure> {
        self.steps
            .step("compressing the root", None, Unit::Bytes, |step| {
                let layers = kiln_sandbox::Root::Layers {
                    lower: root.lower(),
                };
                let epoch = self.epoch(resolved);
                let place = Place {
                    sandbox: &self.sandbox,
                    root: layers,
                    epoch,
                    reporter: step,
                    cancel,
                    seen: None,
                };
                let sources = Sources {
                    prepared: recorder.finish(),
                    store: &self.store,
                    layers: &root.layers,
                    shared: self.shared.as_ref().map(|shared| (shared, self.steps)),
                };
                let written = squash::write(
                    &place,
                    &sources,
                    disk,
                    offset.0,
                    &resolved.plan.compression,
                    self.request.threads,
                )?;
                let (squashed, new, peak) = match written {
                    Written::Done(squashed, new, peak) => (squashed, new, peak),
                    Written::Evicted(failure) => {
                        self.guard.set_evicted();
                        return Err(*failure);
                    }
                };
                let mut squashed = squashed;
                // The partition has its own copy, with all attributes.
                let in_home = resolved.plan.disk.home.is_some();
                squashed
                    .lost
                    .retain(|one| !(in_home && one.path.starts_with("/home/")));
                if let Some((message, hint)) = about_lost(&squashed.lost) {
                    step.warn(message, None, Some(hint));
                }
                step.peak_memory(peak);
                step.summarise(format!(
                    "{} files, {} MB in {} MB, {new} new blocks",
                    squashed.inodes,
                    squashed.content_bytes / 1_000_000,
                    squashed.bytes / 1_000_000
                ));
                Ok(squashed)
            })
    }

    /// The `/home` file system, made by the root's own mke2fs.
    fn home(
        &self,
        resolved: &Resolved,
        root: &Stack,
        home: &Home,
        output: &Output,
    ) -> Result<File, Failure> {
        self.steps.step("making /home", None, Unit::Bytes, |step| {
            let staging = self.store.stage()?;
            let place = Place::over(
                &self.sandbox,
                root.lower(),
                &staging,
                root.epoch,
                step,
                &self.cancel.run,
            );
            let uuid = uuid_text(home_uuid(&resolved.plan));
            let options = format!(
                "root_owner=0:0,hash_seed={uuid},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
            );
            let blocks = (home.size / 4096).to_string();
            let path = "/var/tmp/kiln-home.img";
            let argv = [
                "mke2fs",
                "-q",
                "-F",
                "-t",
                "ext4",
                "-b",
                "4096",
                "-m",
                "0",
                "-L",
                &home.label,
                "-U",
                &uuid,
                "-E",
                &options,
                "-d",
                "/home",
                path,
                &blocks,
            ];
            let env = vec![(
                "E2FSPROGS_FAKE_TIME".to_owned(),
                self.epoch(resolved).to_string(),
            )];
            let size = resolved.plan.compression.block_size;
            self.guard.watched(root, &place, size, |place| {
                let extras = Extras {
                    env,
                    ..Extras::default()
                };
                let made = place.exec(&argv, extras);
                Ok(made.map_err(|error| error.at(home.origin.clone()))?)
            })?;
            let made = output.create("home.img")?;
            made.set_len(home.size)
                .map_err(|e| write_failure(Path::new("home.img"), &e))?;
            let extras = Extras {
                fds: vec![descriptor(&made)?],
                ..Extras::default()
            };
            place.call(
                kiln_rootfs::EXPORT_SPARSE,
                serde_json::json!([path]),
                extras,
                &mut |_| {},
            )?;
            step.summarise(format!("{} MiB, ext4", home.size >> 20));
            Ok(made)
        })
    }

    fn tar_gz(&self, disk: &File, output: &Output, epoch: i64) -> Result<(), Failure> {
        self.steps
            .step("packing disk.tar.gz", None, Unit::Bytes, |step| {
                let mut target = output.create(TAR_GZ)?;
                let total = disk.metadata().map_or(0, |m| m.len());
                let mut done = 0;
                let mut progress = |bytes: u64| {
                    done += bytes;
                    step.progress(done, Some(total), None);
                    self.image_check()
                };
                let options = TarGz::new(u64::try_from(epoch).unwrap_or(0), self.request.threads);
                let summary = options.write(disk, &mut target, &mut progress)?;
                step.summarise(format!("{} MB", summary.size.0 / 1_000_000));
                Ok(())
            })
    }

    fn image_check(&self) -> kiln_image::Result<()> {
        if self.cancel.is_cancelled() {
            Err(kiln_image::Error::cancelled())
        } else {
            Ok(())
        }
    }
}

/// Cancels the sibling of what failed.
fn ending<T>(race: &CancelToken, result: Result<T, Failure>) -> Result<T, Failure> {
    result.inspect_err(|_| race.cancel())
}

/// Both results, or the failure that was not just the other's end.
fn both<A, B>(a: Result<A, Failure>, b: Result<B, Failure>) -> Result<(A, B), Failure> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) if a.kind == FailureKind::Cancelled => Err(b),
        (Err(a), _) => Err(a),
        (_, Err(b)) => Err(b),
    }
}

/// Everything that names the disk and its partitions, derived from what the image is made of.
struct Ids {
    disk: Guid,
    bios: Guid,
    esp: Guid,
    root: Guid,
    home: Guid,
    volume: u32,
}

impl Ids {
    fn new(resolved: &Resolved) -> Self {
        let id: Id = image_id(resolved);
        let guid = |purpose: &str| Guid::from_text_order(id.uuid(purpose));
        let volume = id.uuid("volume");
        Ids {
            disk: guid("disk"),
            bios: guid("bios-boot"),
            esp: guid("esp"),
            root: guid("root"),
            home: guid("home"),
            volume: u32::from_be_bytes([volume[0], volume[1], volume[2], volume[3]]),
        }
    }
}

/// The partitions before the root.
fn before_root(ids: &Ids, esp: Bytes) -> Result<LayoutBuilder, Failure> {
    let mut builder = LayoutBuilder::new(Table::Gpt { disk: ids.disk });
    builder.add(
        PartitionSpec::new("BIOS boot", PartitionType::BIOS_BOOT, ids.bios),
        BIOS_BOOT,
    )?;
    builder.add(
        PartitionSpec::new("EFI system", PartitionType::EFI_SYSTEM, ids.esp),
        esp,
    )?;
    Ok(builder)
}

struct Assembly<'a> {
    session: &'a Session<'a>,
    resolved: &'a Resolved,
    ids: &'a Ids,
    output: &'a Output,
    squashed: &'a Squashed,
    /// Where the root was written.
    offset: Bytes,
    /// What was read in the tools root.
    read: RefCell<BTreeSet<String>>,
}

impl Assembly<'_> {
    fn assemble(&self, disk: &File, boot: BootFiles, home: Option<&File>) -> Result<(), Failure> {
        self.session
            .steps
            .step("assembling the disk", None, Unit::Bytes, |step| {
                let fat = FatSpec {
                    volume_id: self.ids.volume,
                    label: "KILN".to_owned(),
                    time: self.session.epoch(self.resolved),
                };
                let tree = self.boot_tree(boot, &fat)?;
                let size = esp_size(&tree)?;
                let mut builder = before_root(self.ids, size)?;
                let root_at = builder.next_start();
                if root_at != self.offset {
                    self.move_root(disk, root_at)?;
                }
                let root = PartitionSpec::new("Kiln root", PartitionType::LINUX, self.ids.root)
                    .with(Attributes::READ_ONLY.with(Attributes::NO_AUTO));
                builder.add(root, Bytes(self.squashed.bytes))?;
                let home_at = self.home_partition(&mut builder)?;
                let layout = builder.finish(self.rounding())?;
                disk.set_len(layout.total().0)
                    .map_err(|e| write_failure(Path::new(RAW), &e))?;
                layout.write(disk)?;
                self.write_boot(disk, &layout, &tree, &fat, size)?;
                let tools = &self.resolved.tools;
                self.session.guard.check_tools(tools, &self.read.borrow())?;
                if let (Some(file), Some(extent), Some(home)) =
                    (home, home_at, &self.resolved.plan.disk.home)
                {
                    copy_into(
                        "/home",
                        file,
                        Bytes(home.size),
                        disk,
                        extent.offset(),
                        &mut |_| self.session.image_check(),
                    )?;
                }
                step.summarise(format!(
                    "{} MB in {} partitions",
                    layout.total().0 / 1_000_000,
                    layout.partitions().len()
                ));
                Ok(())
            })
    }

    /// Google Compute Engine imports disks of whole GiB only; a stick need not be written with that much nothing.
    fn rounding(&self) -> Rounding {
        if self.resolved.plan.formats.contains(&Format::TarGz) {
            Rounding::CLOUD
        } else {
            Rounding::TIGHT
        }
    }

    fn home_partition(&self, builder: &mut LayoutBuilder) -> Result<Option<Extent>, Failure> {
        let Some(home) = &self.resolved.plan.disk.home else {
            return Ok(None);
        };
        let spec = PartitionSpec::new(home.label.clone(), PartitionType::LINUX_HOME, self.ids.home)
            .with(Attributes::NO_AUTO);
        Ok(Some(builder.add(spec, Bytes(home.size))?))
    }

    /// The boot partition turned out larger than was kept free: the root goes to its right place.
    fn move_root(&self, disk: &File, to: Bytes) -> Result<(), Failure> {
        let spare = self.output.create("root.img")?;
        let len = Bytes(self.squashed.bytes);
        let fail = |e: std::io::Error| write_failure(Path::new(RAW), &e);
        let mut check = |_| self.session.image_check();
        let tail = {
            // Only the root is in the file so far.
            let mut from = disk.try_clone().map_err(fail)?;
            use std::io::{Seek, SeekFrom};
            from.seek(SeekFrom::Start(self.offset.0)).map_err(fail)?;
            from.take(len.0)
        };
        let mut tail = tail;
        std::io::copy(&mut tail, &mut &spare).map_err(fail)?;
        disk.set_len(0).map_err(fail)?;
        copy_into("the root", &spare, len, disk, to, &mut check)?;
        Ok(())
    }

    fn boot_tree(&self, boot: BootFiles, fat: &FatSpec) -> Result<FatTree, Failure> {
        let mut tree = FatTree::new();
        let facts = self.facts();
        tree.add_file(facts.kernel, Source::whole(boot.kernel)?)?;
        tree.add_file(facts.initrd, Source::whole(boot.initrd)?)?;
        tree.add_file("/boot/grub/grub.cfg", self.menu().render()?.into_bytes())?;
        let blob = |path: &str| -> Result<Source, Failure> { Ok(Source::from(self.tool(path)?)) };
        let efi = EfiFiles {
            shim: Some(blob(facts.shim)?),
            grub: blob(facts.grub)?,
            mok_manager: self.tool(facts.mok_manager).ok().map(Source::from),
            prefix: facts.efi_prefix.to_owned(),
        };
        efi.add_to(&mut tree, &fat.uuid())?;
        Ok(tree)
    }

    fn write_boot(
        &self,
        disk: &File,
        layout: &DiskLayout,
        tree: &FatTree,
        fat: &FatSpec,
        size: Bytes,
    ) -> Result<(), Failure> {
        let esp = layout.partitions()[1].extent;
        FatImage::new(tree, fat, size)?
            .write(disk, esp.offset(), &mut |_| self.session.image_check())?;
        let early = grub::early_config(&fat.uuid());
        let modules = self.facts().bios_modules;
        let read = |name: &str| self.read_tool(&format!("{modules}/{name}"));
        let core = grub::build_core(&CoreSpec {
            read: &read,
            modules: BIOS_MODULES,
            prefix: PREFIX,
            config: &early,
        })?;
        let boot = self.tool(&format!("{modules}/boot.img"))?;
        grub::write_bios_boot(disk, grub::core_extent(layout)?, &boot, &core)?;
        Ok(())
    }

    /// The menu: start, start from RAM, safe graphics.
    fn menu(&self) -> Menu {
        let boot = &self.resolved.plan.boot;
        let uuid = self.ids.root.to_string();
        let family = &self.session.family;
        let arguments = |medium: &Medium, more: &[&str]| {
            let mut arguments = family.arguments(medium);
            arguments.extend(more.iter().map(|&m| m.to_owned()));
            arguments.extend(boot.append.iter().cloned());
            arguments
        };
        let facts = self.facts();
        let entry = |id: &str, title: String, arguments: Vec<String>| Entry {
            id: id.to_owned(),
            title,
            kernel: facts.kernel.to_owned(),
            initrd: vec![facts.initrd.to_owned()],
            arguments,
            frame_buffer: true,
        };
        let (stick, memory) = (Medium::Partition(uuid.clone()), Medium::Memory(uuid));
        Menu {
            entries: vec![
                entry("start", boot.title.clone(), arguments(&stick, &[])),
                entry(
                    "ram",
                    format!("{} (copy to memory, the stick can be removed)", boot.title),
                    arguments(&memory, &[]),
                ),
                entry(
                    "safe",
                    format!("{} (safe graphics)", boot.title),
                    arguments(&stick, &["nomodeset"]),
                ),
            ],
            default: boot.default.id().to_owned(),
            timeout: Some(boot.timeout),
            serial: None,
            firmware_arguments: true,
        }
    }

    fn facts(&self) -> &'static Boot {
        self.session.family.boot()
    }

    fn read_tool(&self, path: &str) -> std::io::Result<Vec<u8>> {
        self.read.borrow_mut().insert(path.to_owned());
        fs_read(self.tools(), path)
    }

    fn tools(&self) -> &Path {
        // The tools root is one layer, unpacked from verified packages.
        self.resolved
            .tools
            .layers
            .first()
            .map_or(Path::new("/nonexistent"), |l| l.fs.as_path())
    }

    fn tool(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.read_tool(path).map_err(|e| {
            Failure::new(
                FailureKind::Step,
                format!("the boot loader file /{path} is not in the distribution's packages"),
            )
            .cause(e.to_string())
        })
    }
}

/// Reads a file of a layer; links are resolved inside it.
fn fs_read(root: &Path, path: &str) -> std::io::Result<Vec<u8>> {
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

fn esp_size(tree: &FatTree) -> Result<Bytes, Failure> {
    Ok(FatImage::size_for(tree, ESP_FREE)?.max(ESP))
}

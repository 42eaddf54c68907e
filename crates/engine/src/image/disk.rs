//! From the finished root to `disk.raw` and `disk.tar.gz`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::ScopedJoinHandle;

use kiln_image::disk::{Bytes, Rounding, copy_into};
use kiln_image::fat::{FatImage, FatSpec, FatTree};
use kiln_image::targz::TarGz;
use kiln_plan::{Format, Partition, Role, Size};
use kiln_rootfs::{Place, Reporter};
use kiln_sandbox::CancelToken;

use super::boot::{self, Bios, Loaders};
use super::home;
use super::layout::{self, Parts};
use super::offer::offer;
use crate::cancel::stopped;
use crate::ids::image_id;
use crate::image::ahead::Recorder;
use crate::image::follow::{Closing, Follow};
use crate::image::squash::{self, Locate, Sources, Written};
use crate::initramfs::ahead::Ahead;
use crate::initramfs::generate::{Generator, Terms};
use crate::initramfs::step::initramfs;
use crate::io::write_failure;
use crate::means::Session;
use crate::means::digest::DigestedFile;
use crate::means::output::{Output, RAW, TAR_GZ, unreadable};
use crate::values::{BootFiles, Lost, Made, Resolved, Squashed, Stack};
use crate::{Failure, FailureKind, Unit, counted};

/// Says which attributes the image lacks.
pub(super) fn say_lost(step: &dyn Reporter, squashed: &Squashed) {
    if let Some((message, hint)) = about_lost(&squashed.lost) {
        step.warn(message, None, Some(hint));
    }
}

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
    let disk = output.create(RAW)?;
    let formats = &resolved.plan.formats;
    let parts = Parts::new(&resolved.plan.disk, image_id(resolved));
    let follow = &Follow::default();
    let job = Assembly {
        session,
        resolved,
        root,
        parts: &parts,
        output,
        offset: parts.root_expected()?,
        follow,
    };
    let to_digest = formats.contains(&Format::Raw);
    let to_digest = to_digest.then(|| output.reopen(RAW)).transpose()?;
    // The two do not depend on each other: one needs a core for half a minute, the other takes what is left.
    // When one fails, the other ends at once.
    let race = session.cancel.child()?;
    std::thread::scope(|scope| {
        // On every way out, lest the digest wait for what will not come.
        let _closing = Closing(follow);
        // Now, and not when the build begins: by then its memory would have gone to whatever else.
        scope.spawn(|| output.uncache());
        let digest = to_digest.map(|file| scope.spawn(move || follow.digest(&file)));
        let surrounded = scope.spawn(|| ending(&race, job.surround(&disk, ahead, &race)));
        let squashed = squashfs(
            session,
            resolved,
            root,
            (&disk, job.offset),
            recorder,
            (follow, &race),
        );
        let squashed = ending(&race, squashed);
        match &squashed {
            Ok((squashed, _)) => follow.complete(squashed.bytes),
            Err(_) => follow.close(),
        }
        let kernel = joined(surrounded, "assembling the disk");
        let ((squashed, locate), kernel) = both(squashed, kernel)?;
        // Beside the rest of the digest; else the rename of the disk would take as long as writing it.
        scope.spawn(|| kiln_sandbox::begin_writing(disk.as_fd()));
        session.cancel.check()?;
        let mut digests = HashMap::new();
        if formats.contains(&Format::TarGz) {
            let epoch = resolved.epoch(session.request.epoch);
            digests.insert(TAR_GZ, tar_gz(session, &disk, output, epoch)?);
        }
        if let Some(digest) = digest {
            digests.insert(RAW, digested(session, output, digest)?);
        }
        let made = Made {
            kernel,
            squashed,
            digests,
        };
        offer(session, resolved, root, (&disk, follow), &made, locate)?;
        Ok(made)
    })
}

type Digest<'s> = ScopedJoinHandle<'s, std::io::Result<Option<String>>>;

/// Waits for the digest of the disk, all of which is there.
fn digested(session: &Session<'_>, output: &Output, digest: Digest<'_>) -> Result<String, Failure> {
    let title = "hashing disk.raw";
    session.steps.step(title, None, Unit::Bytes, |_| {
        let digest = digest.join().map_err(|_| panicked(title))?;
        let digest = digest.map_err(|e| unreadable(&output.path(RAW), &e))?;
        let message = "the digest of the disk ended before the disk was there";
        digest.ok_or_else(|| Failure::new(FailureKind::Internal, message))
    })
}

pub(super) fn panicked(title: &str) -> Failure {
    Failure::new(FailureKind::Internal, format!("{title}: it panicked"))
}

fn squashfs(
    session: &Session<'_>,
    resolved: &Resolved,
    root: &Stack,
    (disk, offset): (&File, Bytes),
    recorder: &Recorder,
    (follow, cancel): (&Follow, &CancelToken),
) -> Result<(Squashed, Option<Locate>), Failure> {
    session
        .steps
        .step("compressing the root", None, Unit::Bytes, |step| {
            let layers = kiln_sandbox::Root::Layers {
                lower: root.lower(),
            };
            let epoch = resolved.epoch(session.request.epoch);
            let place = Place {
                sandbox: &session.sandbox,
                root: layers,
                epoch,
                reporter: step,
                cancel,
                tracer: None,
            };
            let sources = Sources {
                prepared: recorder.finish(),
                excluded: session.family.boot(&resolved.plan.target).excluded,
                store: &session.store,
                layers: &root.layers,
                shared: session
                    .shared
                    .as_ref()
                    .map(|shared| (shared, session.steps)),
            };
            let written = squash::write(
                &place,
                &sources,
                (disk, offset.0),
                &resolved.plan.compression,
                session.request.threads,
                follow,
            )?;
            let mut done = match written {
                Written::Done(done) => *done,
                Written::Evicted(failure) => {
                    session.guard.set_evicted();
                    return Err(*failure);
                }
            };
            let squashed = &mut done.squashed;
            layout::check_root(&resolved.plan.disk, squashed.bytes)?;
            // The partition has its own copy, with all attributes.
            let in_home = resolved.plan.disk.home().is_some();
            squashed
                .lost
                .retain(|one| !(in_home && one.path.starts_with("/home/")));
            say_lost(step, squashed);
            step.peak_memory(done.peak);
            step.summarise(format!(
                "{}, {} MB in {} MB, {}",
                counted(squashed.inodes as usize, "file"),
                squashed.content_bytes / 1_000_000,
                squashed.bytes / 1_000_000,
                counted(done.new as usize, "new block")
            ));
            Ok((done.squashed, done.locate))
        })
}

/// Packs the disk; returns the SHA-256 of `disk.tar.gz`.
pub(super) fn tar_gz(
    session: &Session<'_>,
    disk: &File,
    output: &Output,
    epoch: i64,
) -> Result<String, Failure> {
    session
        .steps
        .step("packing disk.tar.gz", None, Unit::Bytes, |step| {
            let target = output.create(TAR_GZ)?;
            let mut target = DigestedFile::new(&target);
            let total = disk.metadata().map_or(0, |m| m.len());
            let mut done = 0;
            let mut progress = |bytes: u64| {
                done += bytes;
                step.progress(done, Some(total), None);
                check(session)
            };
            let options = TarGz::new(u64::try_from(epoch).unwrap_or(0), session.request.threads);
            let summary = options.write(disk, &mut target, &mut progress)?;
            step.summarise(format!("{} MB", summary.size.0 / 1_000_000));
            Ok(target.finish())
        })
}

fn check(session: &Session<'_>) -> kiln_image::Result<()> {
    if session.cancel.is_cancelled() {
        Err(kiln_image::Error::cancelled())
    } else {
        Ok(())
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

struct Assembly<'a> {
    session: &'a Session<'a>,
    resolved: &'a Resolved,
    root: &'a Stack,
    parts: &'a Parts<'a>,
    output: &'a Output,
    /// Where the root is written.
    offset: Bytes,
    /// How far it is.
    follow: &'a Follow,
}

/// What comes around the SquashFS.
struct Around<'a> {
    loaders: Loaders<'a>,
    bios: Bios,
    home: Option<File>,
}

fn joined<T>(work: ScopedJoinHandle<'_, Result<T, Failure>>, title: &str) -> Result<T, Failure> {
    work.join().unwrap_or_else(|_| Err(panicked(title)))
}

impl Assembly<'_> {
    /// Puts everything but the SquashFS into its place, as soon as there are an initramfs and the length of the SquashFS; returns the kernel's
    /// version.
    fn surround(&self, disk: &File, ahead: &Ahead, race: &CancelToken) -> Result<String, Failure> {
        let (session, resolved, output) = (self.session, self.resolved, self.output);
        let plan = &resolved.plan;
        let boot = BootFiles {
            kernel: output.create("vmlinuz")?,
            initrd: output.create("initrd")?,
        };
        let loaders = Loaders::new(session.family.boot(&plan.target), self.tools());
        let terms = Terms::new(&*session.family, &plan.compression, self.root.epoch);
        let generator = Generator::of(session);
        // None of these needs another, and the digest waits for them all.
        let made = std::thread::scope(|scope| {
            let bios = scope.spawn(|| loaders.bios(self.parts, &self.fat()));
            let home = plan.disk.home().map(|home| {
                let make = || home::file_system(session, resolved, self.root, home, output);
                scope.spawn(move || ending(race, make()))
            });
            let version = initramfs(&generator, self.root, &boot, terms, ahead, race);
            let version = ending(race, version);
            let home = home.map(|home| joined(home, "making /home")).transpose();
            let (version, home) = both(version, home)?;
            let bios = joined(bios, "assembling the disk")?;
            Ok::<_, Failure>((version, home, bios))
        });
        let (version, home, bios) = made?;
        // The length is not known before all of the root has been looked at.
        let length = self.follow.length().ok_or_else(stopped)?;
        session.cancel.check()?;
        layout::check_root(&plan.disk, length)?;
        let around = Around {
            loaders,
            bios,
            home,
        };
        self.assemble(disk, boot, &around, Bytes(length))?;
        Ok(version)
    }

    fn assemble(
        &self,
        disk: &File,
        files: BootFiles,
        around: &Around<'_>,
        length: Bytes,
    ) -> Result<(), Failure> {
        let steps = self.session.steps;
        steps.step("assembling the disk", None, Unit::Bytes, |step| {
            let plan = &self.resolved.plan;
            let family = &*self.session.family;
            let fat = self.fat();
            let menu = boot::menu(plan, family, &self.parts.medium()?);
            let mut tree = around.loaders.tree(files, &menu, &fat)?;
            if plan.disk.has_root_file() {
                tree.add_file_ahead(family.boot(&plan.target).root_file, length.0)?;
            }
            let size = |partition: &Partition| self.size(partition, &tree, length);
            let layout = self.parts.layout(size, self.rounding())?;
            let root_at = self.parts.root(&layout)?;
            if root_at != self.offset {
                if !self.follow.is_complete() {
                    return Err(stopped());
                }
                self.move_root(disk, root_at, length)?;
            }
            disk.set_len(layout.total().0)
                .map_err(|e| write_failure(Path::new(RAW), &e))?;
            layout.write(disk)?;
            let boot = self.parts.place(&layout, Role::Boot)?.extent;
            let mut check = |_| check(self.session);
            FatImage::new(&tree, &fat, boot.len())?.write(disk, boot.offset(), &mut check)?;
            around.bios.write(disk, &layout)?;
            let guard = &self.session.guard;
            guard.check_tools(&self.resolved.tools, &around.loaders.read_paths())?;
            if let (Some(file), Some(home)) = (&around.home, plan.disk.home()) {
                let at = self.parts.place(&layout, Role::Home)?.extent.offset();
                let len = Bytes(home.size.least());
                copy_into("/home", file, len, disk, at, &mut check)?;
            }
            self.follow.surround(root_at.0);
            step.summarise(format!(
                "{} MB in {} partitions",
                layout.total().0 / 1_000_000,
                layout.partitions().len()
            ));
            Ok(())
        })
    }

    /// How the boot partition is called.
    fn fat(&self) -> FatSpec {
        FatSpec {
            volume_id: self.parts.volume(),
            label: "KILN".to_owned(),
            time: self.resolved.epoch(self.session.request.epoch),
        }
    }

    /// The size of a partition, for what it holds.
    fn size(&self, partition: &Partition, tree: &FatTree, root: Bytes) -> Result<Bytes, Failure> {
        let (least, free) = match partition.size {
            Size::Fixed(size) => return Ok(Bytes(size)),
            Size::Content { least, free } => (least, free),
        };
        let content = match partition.role {
            Role::Boot => FatImage::size_for(tree, Bytes(free))?,
            Role::Root => Bytes(root.0 + free),
            Role::BiosBoot | Role::Home => Bytes(free),
        };
        Ok(content.max(Bytes(least)))
    }

    /// Google Compute Engine imports disks of whole GiB only; a stick need not be written with that much nothing.
    fn rounding(&self) -> Rounding {
        if self.resolved.plan.formats.contains(&Format::TarGz) {
            Rounding::CLOUD
        } else {
            Rounding::TIGHT
        }
    }

    /// The boot partition turned out larger than was kept free: the root goes to its right place.
    fn move_root(&self, disk: &File, to: Bytes, len: Bytes) -> Result<(), Failure> {
        let spare = self.output.create("root.img")?;
        let fail = |e: std::io::Error| write_failure(Path::new(RAW), &e);
        let mut check = |_| check(self.session);
        // Only the root is in the file so far.
        let mut from = disk.try_clone().map_err(fail)?;
        from.seek(SeekFrom::Start(self.offset.0)).map_err(fail)?;
        std::io::copy(&mut from.take(len.0), &mut &spare).map_err(fail)?;
        disk.set_len(0).map_err(fail)?;
        copy_into("the root", &spare, len, disk, to, &mut check)?;
        Ok(())
    }

    fn tools(&self) -> &Path {
        // The tools root is one layer, unpacked from verified packages.
        self.resolved
            .tools
            .layers
            .first()
            .map_or(Path::new("/nonexistent"), |l| l.fs.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When one half fails the other is ended: what it says of that is not the reason.
    #[test]
    fn of_two_halves_the_one_that_was_not_ended_says_why() {
        let failed = |kind| Err::<(), _>(Failure::new(kind, format!("{kind:?}")));
        let (stopped, step) = (FailureKind::Cancelled, FailureKind::Step);
        for (squashfs, initramfs, why) in [
            (failed(step), failed(stopped), step),
            (failed(stopped), failed(step), step),
            (Ok(()), failed(step), step),
            (failed(stopped), Ok(()), stopped),
            (failed(stopped), failed(stopped), stopped),
        ] {
            assert_eq!(both(squashfs, initramfs).expect_err("failed").kind, why);
        }
        assert!(both(Ok(()), Ok(())).is_ok());
    }

    #[test]
    fn attributes_that_are_lost_are_told_by_name() {
        let lost = |paths: &[&str], attribute: &str| {
            let one = |path: &&str| Lost {
                path: (*path).to_owned(),
                attribute: attribute.to_owned(),
            };
            about_lost(&paths.iter().map(one).collect::<Vec<_>>())
        };
        assert!(lost(&[], "user.x").is_none());
        let (message, _) = lost(&["/a", "/a", "/b"], "system.posix_acl_access").expect("two");
        assert!(
            message.contains("access control lists of /a, /b:"),
            "{message}"
        );
        let many = ["/1", "/2", "/3", "/4", "/5", "/6", "/7"];
        let (message, _) = lost(&many, "user.x").expect("seven");
        assert!(message.contains("/5 and 2 more"), "{message}");
    }
}

//! The `/home` file system.

use std::fs::File;
use std::path::Path;

use kiln_image::ext4::settle_times;
use kiln_plan::Partition;
use kiln_rootfs::{Copied, ExportSparse, Extras, Place};

use crate::ids::home_uuid;
use crate::io::{descriptor, write_failure};
use crate::means::Session;
use crate::means::output::Output;
use crate::values::{Resolved, Stack};
use crate::{Failure, Unit};

/// Where it is made inside the root.
const INSIDE: &str = "/var/tmp/kiln-home.img";

/// The `/home` file system, made by the root's own mke2fs. It has no times of the machine that builds.
pub(super) fn file_system(
    session: &Session<'_>,
    resolved: &Resolved,
    root: &Stack,
    home: &Partition,
    output: &Output,
) -> Result<File, Failure> {
    session
        .steps
        .step("making /home", None, Unit::Bytes, |step| {
            let staging = session.store.stage()?;
            let place = Place::over(
                &session.sandbox,
                root.lower(),
                &staging,
                root.epoch,
                step,
                &session.cancel.run,
            );
            let uuid = home_uuid(&resolved.plan).to_string();
            let epoch = resolved.epoch(session.request.epoch);
            let options = format!(
                "root_owner=0:0,hash_seed={uuid},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
            );
            let size = home.size.least();
            let blocks = (size / 4096).to_string();
            let argv = mke2fs(&home.label, &uuid, &options, &blocks);
            let env = vec![("E2FSPROGS_FAKE_TIME".to_owned(), epoch.to_string())];
            let block_size = resolved.plan.compression.block_size;
            session.guard.watched(root, &place, block_size, |place| {
                let extras = Extras {
                    env,
                    ..Extras::default()
                };
                let made = place.exec(&argv, extras);
                Ok(made.map_err(|error| match &home.origin {
                    Some(origin) => error.at(origin.clone()),
                    None => error,
                })?)
            })?;
            let made = output.create("home.img")?;
            made.set_len(size)
                .map_err(|e| write_failure(Path::new("home.img"), &e))?;
            let export = ExportSparse {
                path: INSIDE.to_owned(),
            };
            let to = descriptor(&made)?.into();
            place.call(&export, Copied { to }, Extras::default())?;
            settle_times(&made, epoch)?;
            step.summarise(format!("{} MiB, ext4", size >> 20));
            Ok(made)
        })
}

/// Without a block size it would take 1 KiB for a small file system.
fn mke2fs<'a>(label: &'a str, uuid: &'a str, options: &'a str, blocks: &'a str) -> Vec<&'a str> {
    let fixed = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"];
    let own = ["-L", label, "-U", uuid, "-E", options];
    let what = ["-d", "/home", INSIDE, blocks];
    fixed.into_iter().chain(own).chain(what).collect()
}

//! Installing the packages of a build, which are unpacked ahead where that is possible.

use kiln_packages::LockedPackage;
use kiln_sandbox::Stream;

use super::deb::{Deb, bootstrap_split, debs, pool_item};
use super::install::{Unpacker, filters, install, mark_auto};
use super::native::Pool;
use super::pools::{Ahead, Pools};
use super::unpack::{clear_filtered, extract, unpack};
use crate::error::Result;
use crate::family::{Facts, Install, InstallOptions, Installer, Job, Slice};
use crate::run::Place;

/// dpkg, with Kiln's own unpacking before it.
pub(super) struct Apt {
    job: Job,
    /// Packages unpacked ahead; without them dpkg unpacks.
    pools: Option<Pools>,
}

impl Apt {
    pub(super) fn new(mut job: Job) -> Result<Self> {
        let slices = std::mem::take(&mut job.slices);
        let pools = match slices.is_empty() || job.plain {
            true => None,
            false => {
                let item = |p: &LockedPackage| pool_item(p, job.downloads.path(&p.sha256));
                let ahead = |slice: Slice| Ahead {
                    layer: slice.layer,
                    items: slice.packages.iter().map(item).collect(),
                    filters: filters(&slice.options),
                };
                let all = slices.into_iter().map(ahead).collect();
                let (downloads, threads) = (job.downloads.root().to_owned(), job.threads);
                Some(Pools::new(
                    &job.store,
                    downloads,
                    threads,
                    &job.cancel,
                    all,
                )?)
            }
        };
        Ok(Apt { job, pools })
    }

    /// The essential packages, which have to be there before any of their scripts can run.
    fn essential(
        &self,
        place: &Place<'_>,
        debs: &[Deb],
        options: &InstallOptions,
        unpacker: Unpacker,
    ) -> Result<()> {
        let downloads = self.job.downloads.root();
        let (architecture, threads) = (&self.job.architecture, self.job.threads);
        match unpacker {
            Unpacker::Pool => extract(place, debs, architecture)?,
            Unpacker::Dpkg => {
                unpack(place, downloads, debs, architecture, threads)?;
                clear_filtered(place, options)?;
            }
        }
        let bootstrap = InstallOptions {
            bootstrap: true,
            ..options.clone()
        };
        install(place, downloads, debs, &[], &bootstrap, unpacker)
    }

    fn pool(&self, work: &Install<'_>) -> Result<Option<Pool>> {
        match &self.pools {
            Some(pools) => pools.take(work.layer, work.place.reporter),
            None => Ok(None),
        }
    }

    /// Has a layer's next pool in its root while packages are installed.
    fn with_pool(
        &self,
        work: &Install<'_>,
        install: impl FnOnce(Unpacker) -> Result<()>,
    ) -> Result<()> {
        let Some(pool) = self.pool(work)? else {
            return install(Unpacker::Dpkg);
        };
        let line = match pool.taken() {
            0 => None,
            1 => Some("1 package comes from an earlier layer".to_owned()),
            more => Some(format!("{more} packages come from earlier layers")),
        };
        if let Some(line) = line {
            work.place.reporter.line(Stream::Stdout, &line);
        }
        pool.note(work.staging)?;
        pool.attach(work.staging)?;
        let result = install(Unpacker::Pool);
        let detached = pool.detach(work.staging);
        result?;
        detached
    }
}

impl Installer for Apt {
    fn tools(&self, place: &Place<'_>, packages: &Facts) -> Result<()> {
        let downloads = self.job.downloads.root();
        let (architecture, threads) = (&self.job.architecture, self.job.threads);
        unpack(place, downloads, &debs(packages)?, architecture, threads)
    }

    fn bootstrap(&self, work: &Install<'_>) -> Result<()> {
        let Install {
            place,
            layer,
            options,
            ..
        } = work;
        let all = debs(work.packages)?;
        let (first, rest) = bootstrap_split(&all);
        if let Some(pools) = &self.pools {
            // Their scripts can run while the others, which are much larger, are unpacked.
            pools.first(layer, &first.iter().map(Deb::key).collect());
        }
        self.with_pool(work, |unpacker| {
            self.essential(place, &first, options, unpacker)
        })?;
        self.with_pool(work, |unpacker| {
            let downloads = self.job.downloads.root();
            install(place, downloads, &rest, &first, options, unpacker)
        })?;
        mark_auto(place, &all)
    }

    fn install(&self, work: &Install<'_>, installed: &[Facts]) -> Result<()> {
        let new = debs(work.packages)?;
        let mut all = Vec::new();
        for facts in installed {
            all.extend(debs(facts)?);
        }
        self.with_pool(work, |unpacker| {
            let downloads = self.job.downloads.root();
            install(work.place, downloads, &new, &all, work.options, unpacker)
        })?;
        all.extend(new);
        mark_auto(work.place, &all)
    }
}

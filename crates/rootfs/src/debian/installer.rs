//! Installing the packages of a build, which are unpacked ahead where that is possible.

use kiln_packages::LockedPackage;
use kiln_sandbox::Stream;

use super::apart::{self, Apart};
use super::deb::{Deb, bootstrap_split, debs, pool_item};
use super::install::{By, Unpacker, filters, install, mark_auto};
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
        by: By<'_>,
    ) -> Result<()> {
        let downloads = self.job.downloads.root();
        let (architecture, threads) = (&self.job.architecture, self.job.threads);
        match by.unpacker {
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
        install(place, downloads, debs, &[], &bootstrap, by)
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
        (new, installed): (&[Deb], &[Deb]),
        install: impl FnOnce(By<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(pool) = self.pool(work)? else {
            return install(By {
                unpacker: Unpacker::Dpkg,
                compiled: &[],
            });
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
        let layer = apart::Layer {
            pool: &pool,
            new,
            installed,
            filters: &filters(work.options),
            epoch: work.place.epoch,
        };
        let apart = Apart::begin(&self.job, &layer)?;
        if let Some(known) = apart.as_ref().map(Apart::recalled).filter(|&n| n > 0) {
            let line = format!("what was compiled of Python modules is taken over ({known} times)");
            work.place.reporter.line(Stream::Stdout, &line);
        }
        pool.attach(work.staging)?;
        let compiled = apart.as_ref().map_or_else(Vec::new, Apart::mounts);
        let result = install(By {
            unpacker: Unpacker::Pool,
            compiled: &compiled,
        });
        let detached = pool.detach(work.staging);
        result?;
        detached?;
        apart.map_or(Ok(()), |apart| apart.end(work.staging))
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
        self.with_pool(work, (&first, &[]), |by| {
            self.essential(place, &first, options, by)
        })?;
        self.with_pool(work, (&rest, &first), |by| {
            let downloads = self.job.downloads.root();
            install(place, downloads, &rest, &first, options, by)
        })?;
        mark_auto(place, &all)
    }

    fn install(&self, work: &Install<'_>, installed: &[Facts]) -> Result<()> {
        let new = debs(work.packages)?;
        let mut all = Vec::new();
        for facts in installed {
            all.extend(debs(facts)?);
        }
        self.with_pool(work, (&new, &all), |by| {
            let downloads = self.job.downloads.root();
            install(work.place, downloads, &new, &all, work.options, by)
        })?;
        all.extend(new);
        mark_auto(work.place, &all)
    }
}

//! RPM distributions behind the seam.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_packages::rpm::{know_mirrors, refresh};
use kiln_packages::{DownloadStore, Lock, LockedPackage};
use kiln_plan::{Conventions, Id, Plan, Target};

use super::boot::{arguments, boot};
use super::facts::{self, facts, items, proven};
use super::finish::{finish, sources, write_sources};
use super::generator::initramfs;
use super::installer::Tools;
use super::repositories::{self, REPOSITORY, repositories};
use super::world::Repositories;
use crate::error::Result;
use crate::family::{Boot, Facts, Family, Installer, Job, Medium, Metadata, World};
use crate::finish::{Finish, Finished, Sources};
use crate::initramfs::Initramfs;
use crate::run::Place;
use crate::trace::SharedTrace;

/// Fedora, Enterprise Linux and what is made from them: dnf, rpm and dracut.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rpm;

impl Family for Rpm {
    fn has(&self, target: &Target) -> bool {
        target.conventions() == Some(Conventions::Rpm)
    }

    fn code(&self) -> &'static str {
        "rpm.4"
    }

    fn lock_facts(&self) -> &'static [&'static str] {
        &[REPOSITORY]
    }

    fn world(&self, plan: &Plan, source: &Metadata<'_>) -> Result<Box<dyn World>> {
        let all = repositories(plan)?;
        let mut metadata = refresh(source.fetcher, &all, source.directory, source.now)?;
        metadata.warnings.extend(repositories::warning(plan, &all));
        let mut world = Repositories::read(metadata, plan)?;
        world.look_for_paths(plan, source)?;
        Ok(Box::new(world))
    }

    fn kept_world(
        &self,
        plan: &Plan,
        directory: &Path,
        now: SystemTime,
    ) -> Result<(Box<dyn World>, Vec<String>)> {
        let all = repositories(plan)?;
        let (world, unfit) = Repositories::kept(&all, plan, directory, now);
        Ok((Box::new(world), unfit))
    }

    fn repositories(&self, plan: &Plan) -> Result<Vec<(String, String)>> {
        let all = repositories(plan)?;
        let named = |r: kiln_packages::rpm::Repository| Ok((repositories::place(&r)?, r.name));
        all.into_iter().map(named).collect()
    }

    fn repositories_id(&self, plan: &Plan) -> Result<Id> {
        repositories::id(&repositories(plan)?)
    }

    fn outside(&self, plan: &Plan, package: &LockedPackage) -> Result<Option<String>> {
        repositories::outside(&repositories(plan)?, package)
    }

    fn know_mirrors(&self, plan: &Plan, source: &Metadata<'_>) -> Result<()> {
        let all = repositories(plan)?;
        Ok(know_mirrors(source.fetcher, &all, source.directory)?)
    }

    fn brought(&self, plan: &Plan, package: &LockedPackage) -> Option<String> {
        let all = repositories(plan).ok()?;
        let origin = repositories::of(&all, package).ok()?.origin.clone();
        (!origin.is_empty()).then_some(origin)
    }

    fn facts(
        &self,
        plan: &Plan,
        packages: &[&LockedPackage],
        downloads: &DownloadStore,
        threads: usize,
    ) -> Result<Facts> {
        facts(&facts::read(
            packages,
            downloads,
            &repositories(plan)?,
            threads,
        )?)
    }

    fn recalled(&self, text: Vec<u8>, packages: usize) -> Option<Facts> {
        facts::recalled(text, packages)
    }

    fn built(
        &self,
        plan: &Plan,
        package: &LockedPackage,
        downloads: &DownloadStore,
    ) -> Result<i64> {
        Ok(proven(package, downloads, &repositories(plan)?)?.built())
    }

    fn installer(&self, job: Job) -> Result<Box<dyn Installer>> {
        Ok(Box::new(Tools(job)))
    }

    fn sources(&self, plan: &Plan, _: &Lock) -> Sources {
        sources(plan)
    }

    fn reads_sources(&self, installed: &[Facts]) -> bool {
        let has = |facts: &Facts| {
            items(facts).is_ok_and(|all| {
                all.items
                    .iter()
                    .any(|item| ["dnf", "dnf5", "microdnf", "yum"].contains(&item.name.as_str()))
            })
        };
        installed.iter().any(has)
    }

    fn write_sources(&self, place: &Place<'_>, sources: &Sources) -> Result<()> {
        write_sources(place, sources)
    }

    /// Scriptlets start daemons by systemctl alone, which does nothing where no system runs.
    fn without_daemons(
        &self,
        _: &Place<'_>,
        scripts: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        scripts()
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
        "rpm.2"
    }

    fn initramfs(
        &self,
        place: &Place<'_>,
        level: Option<u32>,
        trace: &SharedTrace,
    ) -> Result<Initramfs> {
        initramfs(place, level, trace)
    }

    fn boot(&self, target: &Target) -> &'static Boot {
        boot(target)
    }

    fn arguments(&self, medium: &Medium) -> Vec<String> {
        arguments(medium)
    }
}

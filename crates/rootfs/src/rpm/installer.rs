//! Installing the packages of a build.

use super::facts::items;
use super::install::{PLUGINS, Rpm, skeleton};
use super::tools::unpack_tools;
use crate::error::Result;
use crate::family::{Facts, Install, Installer, Job};
use crate::run::Place;

/// The tools root's rpm.
pub(super) struct Tools(pub(super) Job);

impl Tools {
    fn rpm<'a>(&'a self, place: &'a Place<'a>) -> Rpm<'a> {
        Rpm {
            place,
            tools: &self.0.tools,
            target: &self.0.target,
        }
    }
}

impl Installer for Tools {
    fn tools(&self, place: &Place<'_>, packages: &Facts) -> Result<()> {
        unpack_tools(place, &items(packages)?)
    }

    fn bootstrap(&self, work: &Install<'_>) -> Result<()> {
        skeleton(work.place, &[PLUGINS])?;
        let all = items(work.packages)?;
        self.rpm(work.place).install(&all.items, work.options)
    }

    fn install(&self, work: &Install<'_>, _: &[Facts]) -> Result<()> {
        let all = items(work.packages)?;
        self.rpm(work.place).install(&all.items, work.options)
    }
}

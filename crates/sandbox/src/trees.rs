//! Directories whose owners are ids of the sandbox.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::remove::remove_all;
use crate::run::Sandbox;
use crate::wire::Job;

impl Sandbox {
    /// Removes directory trees (or files), whatever ids of the sandbox own them. Paths that do not exist are passed over.
    pub fn remove_trees(&self, paths: &[PathBuf]) -> Result<()> {
        let there: Vec<PathBuf> = paths
            .iter()
            .filter(|path| fs::symlink_metadata(path).is_ok())
            .cloned()
            .collect();
        if there.is_empty() {
            return Ok(());
        }
        let absolute: Vec<PathBuf> = there
            .iter()
            .map(|path| std::path::absolute(path).doing_at("looking for", path))
            .collect::<Result<_>>()?;
        if self.ids().is_direct() {
            remove_all(&absolute)
        } else {
            self.execute_job(Job::RemoveTrees(absolute))
        }
    }

    /// Makes a directory that the namespace's root owns, and missing parents that the caller owns.
    pub fn create_owned_dir(&self, path: &Path, mode: u32) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).doing_at("making", parent)?;
        }
        fs::create_dir(path).doing_at("making", path)?;
        let owner = (self.ids().host_uid(0), self.ids().host_gid(0));
        std::os::unix::fs::lchown(path, owner.0, owner.1)
            .doing_at("changing the owner of", path)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .doing_at("changing the mode of", path)
    }
}

//! Which of several kernels boots, as far as it is the same in all families.

use std::fs;
use std::io;
use std::path::Path;

use kiln_sandbox::Error;

use crate::calls::io_error;
use crate::finish::Kernels;

/// The version of the kernel that boots, in a root that has several.
pub(crate) const CHOICE: &str = "/usr/lib/kiln/kernel";

/// Notes in the root which of the kernels `found` boots, if there are several: that of the package `said`, which `of_package` finds, or
/// the last one, which has the highest version.
pub(crate) fn choose(
    root: &Path,
    found: Vec<String>,
    said: Option<&str>,
    of_package: impl FnOnce(&str, &[String]) -> Result<String, Error>,
) -> Result<Kernels, Error> {
    let Some(newest) = found.last().filter(|_| found.len() > 1) else {
        return Ok(Kernels {
            found,
            ..Kernels::default()
        });
    };
    let boots = match said {
        None => newest.clone(),
        Some(package) => of_package(package, &found)?,
    };
    let path = root.join(CHOICE.trim_start_matches('/'));
    let write = || -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(&path, format!("{boots}\n"))
    };
    write().map_err(|e| io_error(format!("writing {CHOICE}"), &e))?;
    Ok(Kernels {
        boots: Some(boots),
        said: said.is_some(),
        found,
    })
}

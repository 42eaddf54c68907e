//! The generated distribution, served on the loopback interface, and definitions that are built from it.

use std::fs;
use std::path::{Path, PathBuf};

use super::distribution;
use crate::mirror::Mirror;
use crate::peer::{afresh, trouble};
use crate::{Result, process, workspace};

/// The release that it is built as: definitions, and dnf, are told.
pub(crate) const RELEASE: &str = "9";

/// The distribution as long as somebody builds from it.
pub(crate) struct Served {
    /// The repository's directory: `repodata`, `Packages`, keys.
    pub(crate) made: PathBuf,
    url: String,
    _mirror: Mirror,
}

impl Served {
    /// Makes the set with a desktop below `work`, and serves it.
    pub(crate) fn new(work: &Path) -> Result<Served> {
        let made = work.join("distribution");
        fs::create_dir_all(work).map_err(trouble("making", work))?;
        distribution::make("desktop", &made)?;
        let mut build = workspace::cargo();
        build.args(["build", "--quiet", "--locked", "--workspace"]);
        process::run(build.args(["--bin", "kiln-mirror"]))?;
        let program = workspace::target_directory()?.join("debug/kiln-mirror");
        let (mirror, url) = Mirror::serve(&program, &made)?;
        Ok(Served {
            made,
            url,
            _mirror: mirror,
        })
    }

    /// Whose signature the packages have.
    pub(crate) fn key(&self) -> PathBuf {
        self.made.join("RPM-GPG-KEY-kindling")
    }

    /// Writes a definition of one kickstart file, whose `--url=URL` becomes the server's address.
    pub(crate) fn define(&self, kickstart: &Path, place: &Path) -> Result<()> {
        afresh(place)?;
        let write = |name: &str, text: String| {
            let file = place.join(name);
            fs::write(&file, text).map_err(trouble("writing", &file))
        };
        let text = fs::read_to_string(kickstart).map_err(trouble("reading", kickstart))?;
        let text = text.replace("--url=URL", &format!("--url={}", self.url));
        write(LAYER, text)?;
        let key = self.key();
        fs::copy(&key, place.join("key.asc")).map_err(trouble("copying", &key))?;
        let project = format!(
            "name = \"rpm\"\ndistribution = \"centos:{RELEASE}\"\nlayers = [\"{LAYER}\"]\n\
             [[repository]]\nname = \"url\"\nkey = \"key.asc\"\n"
        );
        write("kiln.toml", project)
    }
}

/// The kickstart file of a definition.
pub(crate) const LAYER: &str = "lab.ks";

//! The places of a root where runs mount something. They have to be there before the first run that does: what a run makes for its
//! mounts goes away with it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_sandbox::{Call, Error, Say, Silence};
use serde::{Deserialize, Serialize};

use crate::calls::io_error;

/// Owners and modes are what distributions' lowest packages give them.
const PLACES: [(&str, u32); 5] = [
    ("dev", 0o755),
    ("proc", 0o755),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
];

/// Makes them in a root.
pub(crate) fn make(root: &Path) -> io::Result<()> {
    PLACES.iter().try_for_each(|(name, mode)| {
        let path = root.join(name);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))
    })
}

/// Makes them in an empty root.
#[derive(Serialize, Deserialize)]
pub(crate) struct MountPoints {
    /// Further directories, below the root, where a family mounts something that packages' own directories are around.
    pub(crate) more: Vec<String>,
}

impl Call for MountPoints {
    const NAME: &'static str = "rootfs.mount-points";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<(), Error> {
        let all = || {
            make(Path::new("/"))?;
            let more = self.more.iter().map(|path| Path::new("/").join(path));
            more.into_iter().try_for_each(std::fs::create_dir_all)
        };
        all().map_err(|e| io_error("making the mount points of a root", &e))
    }
}

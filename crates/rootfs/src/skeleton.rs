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
pub(crate) struct MountPoints {}

impl Call for MountPoints {
    const NAME: &'static str = "rootfs.mount-points";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<(), Error> {
        make(Path::new("/")).map_err(|e| io_error("making the mount points of a root", &e))
    }
}

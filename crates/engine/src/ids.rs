//! Ids and UUIDs that root and image have to agree on.

use kiln_plan::{Hasher, Id, Plan};
use uuid::Uuid;

use crate::values::Resolved;

/// The `/home` file system's UUID: of the definition's name and the partition's label, so that a new image of the same
/// definition finds the `/home` of an older one.
pub(crate) fn home_uuid(plan: &Plan) -> Uuid {
    let label = plan.disk.home().map_or("", |h| h.label.as_str());
    Hasher::new("home.v1")
        .text("name", &plan.name)
        .text("label", label)
        .finish()
        .uuid("home")
}

/// What identifies the image: its plan and its lock.
pub(crate) fn image_id(resolved: &Resolved) -> Id {
    let lock = resolved.lock.id();
    Hasher::new("image.v1")
        .id("plan", resolved.plan.id())
        .bytes("lock", lock.as_bytes())
        .finish()
}

//! What the last step of a root is told, and the ids that image and root have to agree on.

use kiln_plan::{Hasher, Id, Plan};
use kiln_rootfs::Family;
use kiln_rootfs::finish::{Finish, Finished, HomeMount};

use crate::build::Resolved;

/// The last step's orders.
pub(crate) fn finish(family: &dyn Family, resolved: &Resolved) -> Finish {
    let plan = &resolved.plan;
    Finish {
        home: plan.disk.home.as_ref().map(|home| HomeMount {
            grow: home.grow,
            uuid: uuid_text(home_uuid(plan)),
        }),
        sources: Some(family.sources(plan, &resolved.lock)),
        hostname: "localhost".to_owned(),
        kernel: plan.system.kernel.clone(),
    }
}

/// What the last step found and people should know, as sentences with what to do.
pub(crate) fn remarks(finished: &Finished) -> Vec<(String, String)> {
    let Finished {
        secrets, kernels, ..
    } = finished;
    let mut remarks = Vec::new();
    if !secrets.shared.is_empty() {
        let paths = secrets.shared.join(", ");
        remarks.push((
            format!("every stick has the same private key, which a package's script made: {paths}"),
            "remove it in %post if what uses it makes one at boot, or put your own there"
                .to_owned(),
        ));
    }
    if let (Some(boots), false) = (&kernels.boots, kernels.said) {
        let all = kernels.found.join(" and ");
        remarks.push((
            format!("the root has the kernels {all}; {boots} boots, because its version is the highest"),
            "say which: `[system] kernel = \"linux-image-…\"` in kiln.toml names the package, and no other needs to be installed".to_owned(),
        ));
    }
    remarks
}

/// The `/home` file system's UUID: of the definition's name and the partition's label, so that a new image of the same
/// definition finds the `/home` of an older one.
pub(crate) fn home_uuid(plan: &Plan) -> [u8; 16] {
    let label = plan.disk.home.as_ref().map_or("", |h| h.label.as_str());
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

/// RFC 9562, section 4: the text form of a UUID.
pub(crate) fn uuid_text(uuid: [u8; 16]) -> String {
    let hex = hex::encode(uuid);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

//! The last changes before a root becomes an image.

use kiln_plan::PartitionTable;
use kiln_rootfs::Family;
use kiln_rootfs::finish::{Finish, Finished, HomeMount};

use crate::ids::home_uuid;
use crate::steps::Steps;
use crate::values::Resolved;

/// The last step's orders.
pub(crate) fn finish(family: &dyn Family, resolved: &Resolved) -> Finish {
    let plan = &resolved.plan;
    Finish {
        home: plan.disk.home().map(|home| HomeMount {
            grow: home.grow,
            uuid: home_uuid(plan).to_string(),
            mbr: home.grow && plan.disk.table == PartitionTable::Mbr,
        }),
        sources: Some(family.sources(plan, &resolved.lock)),
        hostname: "localhost".to_owned(),
        kernel: plan.system.kernel.clone(),
    }
}

/// Says what people should know of an image.
pub(crate) fn say(steps: &Steps<'_>, remarks: &[(String, String)]) {
    for (message, hint) in remarks {
        steps.warn(message.clone(), None, Some(hint.clone()));
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
            "say which by its package: `[system] kernel` in kiln.toml names it, and no other needs to be installed".to_owned(),
        ));
    }
    remarks
}

//! Where boot loaders and kernels are, and what the kernel is told.

use kiln_plan::Target;

use crate::family::{Boot, Medium};

macro_rules! boot {
    ($directory:literal) => {
        Boot {
            shim: concat!("boot/efi/EFI/", $directory, "/shimx64.efi"),
            grub: concat!("boot/efi/EFI/", $directory, "/grubx64.efi"),
            mok_manager: concat!("boot/efi/EFI/", $directory, "/mmx64.efi"),
            efi_prefix: concat!("/EFI/", $directory),
            bios_modules: "usr/lib/grub/i386-pc",
            kernel: "/LiveOS/vmlinuz",
            initrd: "/LiveOS/initrd.img",
            root_file: "/LiveOS/squashfs.img",
            excluded: &["/boot/initramfs-*.img"],
        }
    };
}

/// By distribution: the name of its directory on EFI system partitions is built into its signed GRUB.
const BOOTS: &[(&str, Boot)] = &[
    ("almalinux", boot!("almalinux")),
    ("centos", boot!("centos")),
    ("fedora", boot!("fedora")),
    ("rhel", boot!("redhat")),
    ("rocky", boot!("rocky")),
];
const OTHER: &Boot = &boot!("BOOT");

pub(super) fn boot(target: &Target) -> &'static Boot {
    let mut all = BOOTS.iter();
    let found = all.find(|(distribution, _)| *distribution == target.distribution);
    found.map_or(OTHER, |(_, boot)| boot)
}

/// Those of dracut's module dmsquash-live; dracut.cmdline(7).
pub(super) fn arguments(medium: &Medium) -> Vec<String> {
    let mut arguments = vec![
        format!("root=live:PARTUUID={}", medium.partition),
        "rd.live.image".to_owned(),
        "rd.live.overlay.overlayfs=1".to_owned(),
    ];
    if medium.in_memory {
        arguments.push("rd.live.ram=1".to_owned());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_are_where_each_distribution_has_them() {
        let target = |distribution: &str| Target {
            distribution: distribution.into(),
            release: "9".into(),
            architecture: "x86_64".into(),
        };
        assert_eq!(
            boot(&target("rhel")).shim,
            "boot/efi/EFI/redhat/shimx64.efi"
        );
        assert_eq!(boot(&target("rocky")).efi_prefix, "/EFI/rocky");
    }
}

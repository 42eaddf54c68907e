//! `%addon` and `%anaconda`: sections of the installer's own parts.

use kiln_kickstart::Opaque;

use crate::problem::Problem;

/// What is to be said about a section; nothing where it asks for what an image is anyway.
pub(super) fn answer(section: &Opaque) -> Option<Problem> {
    if section.name == "%anaconda" {
        let message = "%anaconda has no effect: it sets rules for the installer's own screens";
        return Some(Problem::warning(message).hint("drop the section"));
    }
    let name = section.args.first().map_or("", String::as_str);
    let disabled = section.args.iter().any(|word| word == "--disable");
    let (why, hint) = match name {
        "com_redhat_kdump" if disabled => return None,
        "com_redhat_kdump" => (
            "a live system keeps crash dumps in memory and loses them at power-off",
            "write --disable, or set up a dump target in %post and give crashkernel= in bootloader --append",
        ),
        "org_fedora_oscap" | "com_redhat_oscap" => (
            "no security profile is applied",
            "run oscap xccdf eval --remediate in %post",
        ),
        "com_redhat_subscription_manager" => (
            "an image has no subscription of its own",
            "register at the first boot, with a unit written in %post",
        ),
        "org_fedora_initial_setup" | "org_gnome_initial_setup" => (
            "the first boot is set with firstboot",
            "write firstboot --enable or --disable",
        ),
        "" => {
            return Some(
                Problem::error("%addon names no addon")
                    .hint("write %addon NAME, or drop the section"),
            );
        }
        _ => (
            "Kiln does not know this part of the installer",
            "do in %post what the image needs of it, and drop the section",
        ),
    };
    Some(Problem::warning(format!("%addon {name} has no effect: {why}")).hint(hint))
}

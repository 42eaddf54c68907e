//! The cases. Each gets a fresh root.

mod ending;
mod functions;
mod mounting;
mod network;
mod running;
mod walls;
mod watching;

pub(crate) use functions::FUNCTIONS;

use crate::{Case, kill};

/// What most cases need.
mod prelude {
    pub(super) use std::fs;
    pub(super) use std::io::{Read, Seek, Write};
    pub(super) use std::os::fd::{AsFd, OwnedFd};
    pub(super) use std::os::unix::fs::{MetadataExt, PermissionsExt};
    pub(super) use std::path::PathBuf;
    pub(super) use std::time::{Duration, Instant};

    pub(super) use kiln_sandbox::{
        Body, CancelToken, Error, ErrorKind, Io, Mount, Needs, Network, Root, Status, Stdin,
        Stream, Verdict, Watch,
    };
    pub(super) use libtest_mimic::Failed;
    pub(super) use serde_json::{Value, json};

    pub(super) use crate::fixture::{self, Fixture, With, check, equal};

    pub(super) type Outcome = Result<(), Failed>;
}

/// Cases that root and an ordinary user must both pass.
pub(crate) const BOTH: &[(&str, Case)] = &[
    ("ids_are_mapped_and_owners_kept", running::ids),
    ("exit_codes_and_signals", running::statuses),
    ("missing_programs_are_explained", running::missing_programs),
    ("output_arrives_in_order", running::output),
    ("input_comes_from_memory", running::input),
    ("environment_and_directory_are_exact", running::environment),
    ("syslog_and_console_are_lines", running::syslog),
    ("calls_return_values_and_messages", running::calls),
    ("calls_that_fail_or_panic_say_why", running::failing_calls),
    ("accesses_of_watched_programs", watching::accesses),
    ("changed_attributes_count_as_opening", watching::changes),
    ("functions_are_watched", watching::functions),
    ("programs_are_not_watched_unasked", watching::unwatched),
    ("watched_programs_can_be_killed", watching::killed),
    ("flushing_does_nothing", walls::flushing),
    ("network_none_and_host", walls::network),
    (
        "sockets_to_the_hypervisor_are_none_of_a_runs",
        walls::families,
    ),
    ("a_network_of_its_own_keeps_the_host_out", network::walls),
    ("a_network_of_its_own_has_doors", network::doors),
    ("a_network_of_its_own_carries_much", network::carries),
    ("a_relay_ends_with_its_run", network::ends),
    ("host_mounts_are_untouched", walls::host_mounts),
    ("host_files_are_out_of_reach", walls::escape),
    ("read_only_mounts_stay_so", walls::read_only),
    (
        "programs_of_functions_have_no_power_over_them",
        walls::programs,
    ),
    ("functions_keep_no_descriptor_of_the_init", walls::kept),
    ("new_privileges_can_be_ruled_out", walls::no_new_privileges),
    (
        "programs_see_that_they_are_in_a_chroot",
        walls::chroot_detection,
    ),
    ("the_hosts_own_program_cannot_be_held", walls::own_program),
    ("mounts_and_their_residue", mounting::mounts),
    ("another_root_is_mounted_below", mounting::tree),
    ("links_are_followed_inside_the_root", mounting::links),
    ("lines_at_the_head_of_a_file_are_lent", mounting::heads),
    ("two_hundred_layers", mounting::layers),
    ("layers_without_a_writable_one", mounting::read_only_layers),
    ("the_same_upper_again_and_again", mounting::reuse),
    ("only_handed_descriptors_are_there", running::descriptors),
    (
        "no_new_privileges_is_off_and_the_filter_on",
        walls::privileges,
    ),
    (
        "a_background_process_ends_with_its_script",
        ending::background,
    ),
    ("a_time_limit_ends_everything", ending::time_limit),
    ("cancelling_ends_everything", ending::cancelling),
    (
        "cancelling_at_any_moment_ends_everything",
        ending::cancelling_at_any_moment,
    ),
    ("a_gigabyte_of_output_is_dropped", ending::flood),
    ("limits_are_set_and_only_lowered", ending::limits),
    ("processes_are_limited_together", ending::processes),
    ("a_run_that_takes_too_much_memory_is_ended", ending::memory),
    ("what_lies_in_memory_has_a_size", ending::scratch),
    ("several_runs_share_a_time_limit", ending::limited_together),
    ("many_runs_at_once", ending::parallel),
    ("usage_is_measured", ending::usage),
    ("a_terminal_is_passed_through", running::terminal),
    ("deep_and_foreign_trees_are_removed", mounting::removal),
    ("the_doctor_finds_all_well", mounting::doctor),
    ("bad_requests_are_refused", running::bad_requests),
    ("a_killed_caller_leaves_nothing", kill::leaves_nothing),
];

/// Cases that only root can set up.
pub(crate) const ROOT_ONLY: &[(&str, Case)] = &[
    ("a_root_in_a_closed_home_works", walls::closed_home),
    ("root_inside_is_not_root_outside", walls::shifted),
];

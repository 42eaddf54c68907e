//! What the processes of a sandbox may not do although they are root of its namespace.

use rustix::thread::CapabilitySet;

/// What a build's programs never need. `SYS_ADMIN` and `SYS_PTRACE` are the important ones: without them a program cannot make
/// a read-only mount writable again, uncover what a mount hides, or look into a process that has a capability more than itself,
/// as Kiln's own have in the sandbox (`cap_ptrace_access_check` in security/commoncap.c).
const DROPPED: [CapabilitySet; 17] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_TIME,
    CapabilitySet::SYS_PACCT,
    CapabilitySet::SYSLOG,
    CapabilitySet::MAC_ADMIN,
    CapabilitySet::MAC_OVERRIDE,
    CapabilitySet::AUDIT_CONTROL,
    CapabilitySet::WAKE_ALARM,
    CapabilitySet::BLOCK_SUSPEND,
    CapabilitySet::PERFMON,
    CapabilitySet::BPF,
    CapabilitySet::CHECKPOINT_RESTORE,
];

/// Takes what a build's programs never need from this thread and all that it starts.
pub(crate) fn drop_capabilities() -> rustix::io::Result<()> {
    let dropped = DROPPED
        .into_iter()
        .fold(CapabilitySet::empty(), CapabilitySet::union);
    for capability in DROPPED {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Older kernels do not know the newest ones.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(dropped);
    sets.permitted.remove(dropped);
    sets.inheritable.remove(dropped);
    rustix::thread::set_capabilities(None, sets)
}

/// Takes every capability from this process, and the ways to new ones.
pub(crate) fn drop_all_capabilities() -> rustix::io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets)
}

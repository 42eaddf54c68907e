//! Which processors a system's programs are made for, as the version of its kernel tells, and what a machine has.
//!
//! The levels are those of the psABI: 2 has SSE4.2 and POPCNT (2009), 3 has AVX2, BMI, FMA and MOVBE (2013 to 2015).

use crate::blueprint::Engine;

/// The level of x86-64 that the programs beside a kernel of this version need, from 1 to 3. Enterprise Linux says its release and its
/// architecture there: `6.12.0-55.el10.x86_64`; AlmaLinux' build of 10 for older processors has the architecture `x86_64_v2`.
pub fn processor_level(kernel: &str) -> u8 {
    let release = kernel.split_once(".el").map_or("", |(_, rest)| rest);
    let digits = release.bytes().take_while(u8::is_ascii_digit).count();
    match release[..digits].parse::<u32>() {
        Ok(10..) if kernel.ends_with("x86_64_v2") => 2,
        Ok(10..) => 3,
        Ok(9) => 2,
        _ => 1,
    }
}

/// What the guest's processor has. The emulated one gets AVX2 only for a system that does not run without.
pub(crate) fn offered(engine: Engine, asked: u8) -> u8 {
    match engine {
        Engine::Tcg => asked.max(2),
        Engine::Kvm => kiln_sandbox::processor_level(),
    }
}

/// What is to be known before a boot of a system that needs `level`.
pub(crate) fn warning(engine: Engine, level: u8) -> Option<String> {
    match engine {
        Engine::Kvm => too_old(engine, offered(engine, level), level),
        Engine::Tcg if level >= 3 => Some(
            "the system's programs need a processor of x86-64-v3, so the emulated one has AVX2, which the emulator gets wrong in \
             places: programs that draw may crash here and nowhere else; KVM has no such fault"
                .to_owned(),
        ),
        Engine::Tcg => None,
    }
}

/// Why a system that needs a level does not run on less.
pub(crate) fn too_old(engine: Engine, has: u8, needs: u8) -> Option<String> {
    let whose = match engine {
        Engine::Kvm => "this machine's",
        Engine::Tcg => "the emulated",
    };
    let more = match engine {
        Engine::Kvm => "boot it on a newer machine, or with --accel tcg",
        Engine::Tcg => "an image with its manifest.json beside it gets a newer one",
    };
    (has < needs).then(|| {
        format!(
            "the system's programs are made for processors of x86-64-v{needs}, and {whose} is x86-64-v{has}: {more}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_its_distribution_needs() {
        for (kernel, level) in [
            ("6.12.0-55.9.1.el10_0.x86_64", 3),
            ("6.12.0-124.el10.x86_64", 3),
            ("6.12.0-55.9.1.el10_0.x86_64_v2", 2),
            ("5.14.0-503.11.1.el9_5.x86_64", 2),
            ("4.18.0-348.el8.x86_64", 1),
            ("6.17.1-300.fc43.x86_64", 1),
            ("6.1.0-56-amd64", 1),
            ("6.1.0.elder", 1),
            ("", 1),
        ] {
            assert_eq!(processor_level(kernel), level, "{kernel}");
        }
    }

    #[test]
    fn an_emulated_processor_is_newer_only_where_it_must_be() {
        assert_eq!(offered(Engine::Tcg, 1), 2);
        assert_eq!(offered(Engine::Tcg, 3), 3);
        assert!(warning(Engine::Tcg, 2).is_none());
        assert!(warning(Engine::Tcg, 3).unwrap().contains("AVX2"));
        let why = too_old(Engine::Tcg, 2, 3).unwrap();
        assert!(
            why.contains("x86-64-v3, and the emulated is x86-64-v2"),
            "{why}"
        );
        assert!(too_old(Engine::Kvm, 3, 3).is_none());
    }
}

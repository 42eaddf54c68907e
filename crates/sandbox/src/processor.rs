//! Which programs this machine's processor can run.

use std::arch::is_x86_feature_detected as has;

/// The level of x86-64 that the processor has, from 1 to 3: each adds instructions, and there are distributions that use them all.
///
/// The levels are those of the psABI: 2 has SSE4.2 and POPCNT (2009), 3 has AVX2, BMI, FMA and MOVBE (2013 to 2015).
pub fn processor_level() -> u8 {
    let second = has!("cmpxchg16b") && has!("popcnt") && has!("sse3") && has!("ssse3");
    let second = second && has!("sse4.1") && has!("sse4.2");
    let third = has!("avx") && has!("avx2") && has!("bmi1") && has!("bmi2");
    let third = third && has!("f16c") && has!("fma") && has!("lzcnt") && has!("movbe");
    match (second, second && third) {
        (_, true) => 3,
        (true, false) => 2,
        (false, false) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel says it in other words.
    #[test]
    fn the_level_is_what_the_kernel_says() {
        let text = std::fs::read_to_string("/proc/cpuinfo").expect("/proc/cpuinfo");
        let flags = text
            .lines()
            .find(|line| line.starts_with("flags"))
            .expect("flags");
        let all = |names: &[&str]| {
            names
                .iter()
                .all(|name| flags.split(' ').any(|flag| flag == *name))
        };
        let second = all(&["cx16", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"]);
        let third = all(&["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"]);
        let expected = if second && third {
            3
        } else {
            1 + u8::from(second)
        };
        assert_eq!(processor_level(), expected);
    }
}

//! Results side by side.

use std::fmt::Write;

use super::measure::Cost;

/// Kiln's cost and its peer's, and how many times better Kiln is.
pub(crate) fn ratio_table(title: &str, ours: (&str, Cost), peer: (&str, Cost)) -> String {
    let width = ours.0.len().max(peer.0.len()).max("peer / ours".len());
    let mut out = String::new();
    let _ = writeln!(out, "{title}");
    let _ = writeln!(
        out,
        "  {:<width$}  {:>10}  {:>10}  {:>12}",
        "", "wall", "CPU", "peak memory"
    );
    for (name, cost) in [ours, peer] {
        let (wall, cpu, mib) = figures(cost);
        let _ = writeln!(
            out,
            "  {name:<width$}  {wall:>8.2} s  {cpu:>8.2} s  {mib:>8.1} MiB"
        );
    }
    let ((a, b, c), (x, y, z)) = (figures(ours.1), figures(peer.1));
    let ratio = |peer: f64, ours: f64| {
        if ours > 0.0 {
            format!("{:.2}x", peer / ours)
        } else {
            "-".to_owned()
        }
    };
    let _ = writeln!(
        out,
        "  {:<width$}  {:>10}  {:>10}  {:>12}",
        "peer / ours",
        ratio(x, a),
        ratio(y, b),
        ratio(z, c)
    );
    out
}

fn figures(cost: Cost) -> (f64, f64, f64) {
    (
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        cost.peak_memory as f64 / f64::from(1 << 20),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ratios_are_the_peers_share() {
        let cost = |wall, cpu, mib: u64| Cost {
            wall: Duration::from_secs(wall),
            cpu: Duration::from_secs(cpu),
            peak_memory: mib << 20,
        };
        let table = ratio_table(
            "cold",
            ("kiln", cost(40, 80, 400)),
            ("mmdebstrap + mksquashfs", cost(100, 120, 300)),
        );
        let expected = "\
cold
                                 wall         CPU   peak memory
  kiln                        40.00 s     80.00 s     400.0 MiB
  mmdebstrap + mksquashfs    100.00 s    120.00 s     300.0 MiB
  peer / ours                   2.50x       1.50x         0.75x
";
        assert_eq!(table, expected);
    }
}

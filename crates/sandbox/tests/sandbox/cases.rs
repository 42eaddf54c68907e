use crate::Case;
use crate::fixture::*;
use kiln_sandbox::*;
use libtest_mimic::Failed;

pub const FUNCTIONS: &[(&str, Function)] = &[("echo", |call| Ok(call.payload))];
pub const BOTH: &[(&str, Case)] = &[("ids", ids), ("calls", calls)];
pub const ROOT_ONLY: &[(&str, Case)] = &[];
fn ids(f: &Fixture) -> Result<(), Failed> {
    let out = f.output_of("id -u; id -g; touch /etc/x; chown 42:65534 /etc/x; stat -c %u:%g /etc/x; cat /proc/self/uid_map; mount; ls -la /dev /sys; hostname; cat /proc/self/status")?;
    eprintln!("{out}");
    Ok(())
}
fn calls(f: &Fixture) -> Result<(), Failed> {
    let seen = f.run(&f.call("echo", serde_json::json!({"a": 1})))?;
    equal(seen.outcome.value, Some(Ok(serde_json::json!({"a": 1}))))
}

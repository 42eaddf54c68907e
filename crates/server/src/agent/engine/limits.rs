//! Limits of one container: what `docker run --memory` and `--pids-limit` ask for.
//!
//! The engine has no control groups, and podman then leaves such limits out without a word. So the front writes them into the container's
//! labels, and a container that takes more is ended here, as the kernel ends one whose control group is full.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{KillContainerOptionsBuilder, ListContainersOptionsBuilder};
use kiln_sandbox::{Meter, Say, processes_with};
use serde_json::{Value, json};

/// The label of a container with limits.
const LABEL: &str = "kiln.limits";
/// How often containers are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Seconds that the engine has for an answer.
const PATIENCE: u64 = 60;

/// What a container may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Most {
    memory: Option<u64>,
    processes: Option<u64>,
}

impl Most {
    /// Those of a request to make a container, if it has any.
    fn asked(body: &Value) -> Option<Most> {
        let host = body.get("HostConfig")?;
        let limit = |name| {
            let limit = host.get(name).and_then(Value::as_u64);
            limit.filter(|limit| *limit > 0)
        };
        let most = Most {
            memory: limit("Memory"),
            processes: limit("PidsLimit"),
        };
        (most.memory.is_some() || most.processes.is_some()).then_some(most)
    }

    /// As a label.
    fn label(self) -> String {
        let word = |limit: Option<u64>| limit.map_or("-".to_owned(), |limit| limit.to_string());
        format!("{} {}", word(self.memory), word(self.processes))
    }

    /// Of a label; a step that writes such a one itself limits its own.
    fn of_label(label: &str) -> Option<Most> {
        let (memory, processes) = label.split_once(' ')?;
        Some(Most {
            memory: memory.parse().ok(),
            processes: processes.parse().ok(),
        })
    }
}

/// The body of a request to make a container, with its limits in a label; `None` if there are none.
pub(super) fn labelled(body: &[u8]) -> Option<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let most = Most::asked(&body)?;
    let labels = body.as_object_mut()?.entry("Labels").or_insert(Value::Null);
    if labels.is_null() {
        *labels = json!({});
    }
    let label = Value::String(most.label());
    labels.as_object_mut()?.insert(LABEL.to_owned(), label);
    Some(body.to_string().into_bytes())
}

/// Ends containers that take more than they may, from the first that has a limit until the process ends. `say` is told of each.
pub(super) fn watch(engine: &Path, first: &Receiver<()>, say: &Say<String>) {
    let meter = Meter::new();
    if first.recv().is_err() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let engine = engine.display().to_string();
    let docker = Docker::connect_with_unix(&engine, PATIENCE, bollard::API_DEFAULT_VERSION);
    let (Ok(runtime), Ok(docker)) = (runtime, docker) else {
        say.say("WARNING: limits of containers cannot be looked after".to_owned());
        return;
    };
    loop {
        // What the engine does not answer now it does the next time, or it has ended.
        let _ = runtime.block_on(look(&docker, &meter, say));
        thread::sleep(LOOK);
    }
}

async fn look(docker: &Docker, meter: &Meter, say: &Say<String>) -> Result<(), Error> {
    let filters = HashMap::from([("label", vec![LABEL])]);
    let options = ListContainersOptionsBuilder::default()
        .filters(&filters)
        .build();
    for container in docker.list_containers(Some(options)).await? {
        let labels = container.labels.as_ref();
        let most = labels.and_then(|labels| Most::of_label(labels.get(LABEL)?));
        let (Some(most), Some(id)) = (most, &container.id) else {
            continue;
        };
        let found = docker.inspect_container(id, None).await?;
        let pid = found.state.and_then(|state| state.pid);
        let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) else {
            continue;
        };
        if let Some(what) = too_much(most, meter, pid) {
            let options = KillContainerOptionsBuilder::default()
                .signal("KILL")
                .build();
            docker.kill_container(id, Some(options)).await?;
            let name = name(&container);
            say.say(format!(
                "container {name} was ended: it took more than {what}"
            ));
        }
    }
    Ok(())
}

/// What a container took more than, if it did.
fn too_much(most: Most, meter: &Meter, pid: u32) -> Option<String> {
    let processes = processes_with(pid);
    if let Some(limit) = most.memory
        && meter.is_over(&processes, limit)
    {
        let limit = limit >> 20;
        return Some(format!("the {limit} MiB of memory that --memory gave it"));
    }
    most.processes
        .filter(|limit| processes.len() as u64 > *limit)
        .map(|limit| format!("the {limit} processes that --pids-limit gave it"))
}

fn name(container: &ContainerSummary) -> &str {
    let name = container.names.iter().flatten().next();
    let name = name.or(container.id.as_ref());
    name.map_or("without a name", |name| name.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_a_label() {
        let label = |body: Value| {
            let labelled = labelled(body.to_string().as_bytes())?;
            let body: Value = serde_json::from_slice(&labelled).unwrap();
            let label = body["Labels"][LABEL].as_str().unwrap();
            assert_eq!(Most::of_label(label), Most::asked(&body));
            Some(label.to_owned())
        };
        let limited = |host: Value| label(json!({ "Image": "x", "HostConfig": host }));
        assert_eq!(
            limited(json!({ "Memory": 64 << 20, "PidsLimit": 7 })),
            Some("67108864 7".to_owned())
        );
        assert_eq!(
            limited(json!({ "Memory": 0, "PidsLimit": 7 })),
            Some("- 7".to_owned())
        );
        for none in [
            json!({ "Memory": 0 }),
            json!({ "PidsLimit": -1 }),
            json!({ "PidsLimit": null }),
            json!([]),
        ] {
            assert_eq!(limited(none), None);
        }
        let kept = json!({ "Labels": { "a": "b" }, "HostConfig": { "Memory": 1 } });
        let kept: Value =
            serde_json::from_slice(&labelled(kept.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(kept["Labels"], json!({ "a": "b", LABEL: "1 -" }));
        for odd in ["", "[]", "{\"Labels\":[],\"HostConfig\":{\"Memory\":1}}"] {
            assert_eq!(labelled(odd.as_bytes()), None);
        }
    }
}

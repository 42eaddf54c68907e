//! An engine that the server's administrator runs: a podman or docker of this machine, with or without root. What containers can do to
//! each other and to the machine is up to it. Steps get its socket only where the administrator says so.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptionsBuilder,
};

use super::api::{Around, told};
use crate::executor::request::Elsewhere;

/// The label of what a build has made.
const LABEL: &str = "kiln.build";
/// Seconds that it has for an answer.
const PATIENCE: u64 = 120;
/// Processes of a container at most, as in an engine of a build's own.
const MOST_PROCESSES: i64 = 4096;

/// An engine elsewhere, for a build.
#[derive(Clone)]
pub(in crate::agent) struct Engine {
    at: Elsewhere,
    workspace: PathBuf,
    dir: PathBuf,
    build: String,
    memory: Option<u64>,
}

impl Engine {
    pub(super) fn new(
        at: Elsewhere,
        workspace: PathBuf,
        dir: PathBuf,
        build: String,
        memory: Option<u64>,
    ) -> Self {
        Engine {
            at,
            workspace,
            dir,
            build,
            memory,
        }
    }

    /// Makes what steps share, and removes what a killed attempt has left in the engine.
    pub(super) fn start(&self) -> io::Result<()> {
        if self.has_started() {
            return Ok(());
        }
        self.remove()?;
        for_all(&self.home())
    }

    /// Makes what a step alone has.
    pub(super) fn prepare(&self, step: usize) -> io::Result<()> {
        for_all(&self.dir.join(outputs(step)))
    }

    /// Removes the containers of the build's steps, and their volumes, if there were any.
    pub(super) fn clean(&self) -> io::Result<()> {
        match self.has_started() {
            true => self.remove(),
            false => Ok(()),
        }
    }

    fn has_started(&self) -> bool {
        self.home().exists()
    }

    fn remove(&self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let cleaned = runtime.block_on(self.remove_all());
        cleaned.map_err(|error| {
            let socket = self.at.socket.display();
            io::Error::other(format!("the container engine at {socket}: {}", told(error)))
        })
    }

    async fn remove_all(&self) -> Result<(), bollard::errors::Error> {
        let docker =
            Docker::connect_with_unix(&self.socket(), PATIENCE, bollard::API_DEFAULT_VERSION)?;
        let label = format!("{LABEL}={}", self.build);
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        for container in docker.list_containers(Some(options)).await? {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true);
            if let Some(id) = container.id {
                docker.remove_container(&id, Some(options.build())).await?;
            }
        }
        let prefix = self.volumes();
        let filters = HashMap::from([("name", vec![prefix.as_str()])]);
        let options = ListVolumesOptionsBuilder::default()
            .filters(&filters)
            .build();
        let volumes = docker.list_volumes(Some(options)).await?.volumes;
        for volume in volumes.into_iter().flatten() {
            if volume.name.starts_with(&prefix) {
                let options = RemoveVolumeOptionsBuilder::default().force(true).build();
                docker.remove_volume(&volume.name, Some(options)).await?;
            }
        }
        Ok(())
    }

    pub(super) fn socket(&self) -> String {
        self.at.socket.display().to_string()
    }

    fn home(&self) -> PathBuf {
        self.dir.join("shared/home")
    }

    fn volumes(&self) -> String {
        format!("kiln-{}-", self.build)
    }

    /// What a step has.
    pub(super) fn around(&self, step: usize) -> Around {
        let bind = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let mut binds = vec![
            bind(&self.workspace, "/workspace"),
            bind(&self.home(), "/builder/home"),
            bind(&self.dir.join(outputs(step)), "/builder/outputs"),
        ];
        if self.at.is_given {
            binds.push(bind(&self.at.socket, "/var/run/docker.sock"));
        }
        Around {
            binds,
            volumes: self.volumes(),
            scripts: self.dir.join("scripts").display().to_string(),
            network: None,
            labels: HashMap::from([(LABEL.to_owned(), self.build.clone())]),
            // The node of a disk in the workspace would be one for Kiln's own steps too.
            dropped: Some(vec!["MKNOD".to_owned()]),
            most: self.memory.and_then(|memory| {
                let memory = i64::try_from(memory).ok()?;
                Some((memory, MOST_PROCESSES))
            }),
        }
    }
}

fn outputs(step: usize) -> String {
    format!("shared/outputs/{step}")
}

/// Where a step's output for programs is, below the engine's directory.
pub(super) fn output(step: usize) -> String {
    format!("{}/output", outputs(step))
}

/// Makes a directory that any id can write to: the server does not know which the engine's containers have. What is above is private.
fn for_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1777))
}

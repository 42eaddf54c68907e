//! The container engine of an attempt: started when a step needs it, ended before Kiln itself works in the workspace.

mod api;
mod archive;
mod elsewhere;
mod front;
pub mod images;
mod limits;
mod own;
mod private;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_sandbox::Sandbox;

pub(super) use api::{Around, told};
pub use private::FUNCTIONS;

use crate::executor::request::{Elsewhere, StepRequest};
use private::{CRUN, PODMAN, Place};

/// Says why this machine can run no containers, and what to do.
///
/// # Errors
/// What is missing.
pub(crate) fn available() -> Result<(), String> {
    let missing: Vec<&str> = [(PODMAN, "podman"), (CRUN, "crun")]
        .into_iter()
        .filter(|(path, _)| !Path::new(path).is_file())
        .map(|(_, name)| name)
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "{} is not installed on the server (Debian, Ubuntu: `apt install podman crun netavark iptables`)",
            missing.join(" and ")
        ));
    }
    let told =
        |error: kiln_sandbox::Error| format!("{error} (on the server; `kiln doctor` says more)");
    Sandbox::detect().map_err(told)?;
    kiln_sandbox::own_network().map_err(told)
}

/// Says why an engine elsewhere can run no containers.
///
/// # Errors
/// It does not answer.
pub(crate) fn answers(engine: &Elsewhere) -> Result<(), String> {
    let connected = UnixStream::connect(&engine.socket);
    connected.map(drop).map_err(|error| {
        format!(
            "the container engine at {} of the server does not answer: {error}",
            engine.socket.display()
        )
    })
}

/// What runs containers.
pub(super) enum Engine {
    /// One of the build's own.
    Own(private::Engine),
    /// The administrator's.
    Elsewhere(elsewhere::Engine),
}

impl Engine {
    /// Where it listens, as this process sees it.
    pub(super) fn socket(&self) -> String {
        match self {
            Engine::Own(engine) => engine.socket(),
            Engine::Elsewhere(engine) => engine.socket(),
        }
    }

    /// Whether it has ended by itself, or does so before long; what it said last.
    pub(super) fn ends_within(&self, patience: Duration) -> Option<String> {
        match self {
            Engine::Own(engine) => engine.ends_within(patience),
            Engine::Elsewhere(_) => None,
        }
    }

    /// What a step has.
    pub(super) fn around(&self, step: usize) -> Around {
        match self {
            Engine::Own(_) => private::around(step),
            Engine::Elsewhere(engine) => engine.around(step),
        }
    }

    /// Where a step's output for programs is, below the engine's directory.
    pub(super) fn output(&self, step: usize) -> String {
        match self {
            Engine::Own(_) => private::output(step),
            Engine::Elsewhere(_) => elsewhere::output(step),
        }
    }

    /// Whether images of it are there for all builds as they are.
    pub(super) fn keeps_images(&self) -> bool {
        matches!(self, Engine::Elsewhere(_))
    }
}

/// The engine, when there is one.
pub(super) struct Engines {
    place: Place,
    elsewhere: Option<elsewhere::Engine>,
    /// What attempts that were killed have left.
    earlier: Vec<PathBuf>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    engine: Option<Arc<Engine>>,
    containers: usize,
    kilns: usize,
}

/// What a step holds while it runs.
pub(super) struct Held<'a> {
    engines: &'a Engines,
    engine: Option<Arc<Engine>>,
}

impl Engines {
    /// Nothing is started yet.
    pub(super) fn new(work: &super::Work<'_>) -> Self {
        let agent = work.agent;
        let at = work.request.engine.as_ref();
        let elsewhere = at.map(|at| {
            elsewhere::Engine::new(
                at.clone(),
                work.attempt.workspace(),
                work.attempt.engine(),
                work.request.build.clone(),
                work.request.memory,
            )
        });
        Engines {
            elsewhere,
            place: Place {
                storage: work.attempt.engine().join("storage"),
                dir: work.attempt.engine(),
                workspace: work.attempt.workspace(),
                images: work.request.images.clone(),
                network: agent.network.clone(),
                mounts: agent.mounts.clone(),
                env: agent.proxies.clone(),
                log: work.log.clone(),
                memory: work.request.memory,
            },
            earlier: work
                .attempt
                .earlier(work.request.attempt)
                .map(|attempt| attempt.engine())
                .collect(),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        }
    }

    /// Makes what steps in containers need, while nobody else can write there: their directories and scripts.
    pub(super) fn prepare(&self, steps: &[StepRequest]) -> io::Result<()> {
        let scripts = self.place.dir.join("scripts");
        for (number, step) in steps.iter().enumerate() {
            let Some(container) = &step.container else {
                continue;
            };
            fs::create_dir_all(self.place.workspace.join(&step.dir))?;
            fs::create_dir_all(&scripts)?;
            if let Some(engine) = &self.elsewhere {
                engine.prepare(number)?;
            }
            if let Some(script) = &container.script {
                let shell = if script.starts_with("#!") {
                    ""
                } else {
                    "#!/bin/sh\n"
                };
                let path = scripts.join(format!("script-{number}"));
                fs::write(&path, format!("{shell}{script}"))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    /// The engine, for a step in a container. Waits for steps of Kiln itself.
    pub(super) fn for_container(&self) -> io::Result<Held<'_>> {
        let mut state = self.wait(|state| state.kilns == 0);
        let engine = match &state.engine {
            Some(engine) => Arc::clone(engine),
            None => {
                let engine = Arc::new(match &self.elsewhere {
                    Some(engine) => {
                        engine.start()?;
                        Engine::Elsewhere(engine.clone())
                    }
                    None => Engine::Own(private::Engine::start(&self.place)?),
                });
                state.engine = Some(Arc::clone(&engine));
                engine
            }
        };
        state.containers += 1;
        Ok(Held {
            engines: self,
            engine: Some(engine),
        })
    }

    /// No engine, and no container, for a step of Kiln itself: nobody changes the workspace under its hands. Waits for containers.
    pub(super) fn for_kiln(&self) -> Held<'_> {
        let mut state = self.wait(|state| state.containers == 0);
        state.engine = None;
        state.kilns += 1;
        Held {
            engines: self,
            engine: None,
        }
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.lock();
        self.changed
            .wait_while(state, |state| !until(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of the engine.
    pub(super) fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// Ends the engine and removes all that it kept.
    pub(super) fn end(self) -> io::Result<()> {
        self.lock().engine = None;
        if let Some(engine) = &self.elsewhere {
            engine.clean()?;
        }
        let mut dirs = self.earlier;
        dirs.push(self.place.dir);
        if !dirs.iter().any(|dir| dir.exists()) {
            return Ok(());
        }
        let sandbox = Sandbox::detect().map_err(io::Error::other)?;
        let removed = sandbox.remove_trees(&dirs);
        removed.map_err(io::Error::other)
    }
}

impl Held<'_> {
    /// The engine of a step in a container.
    pub(super) fn engine(&self) -> Option<&Engine> {
        self.engine.as_deref()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.engines.lock();
        match self.engine.take() {
            Some(_) => state.containers -= 1,
            None => state.kilns -= 1,
        }
        drop(state);
        self.engines.changed.notify_all();
    }
}

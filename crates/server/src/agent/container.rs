//! Runs one step in a container, over the Docker API.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::engine::{Around, Engine, told};
use super::events::Events;
use super::output;
use super::step::{End, Means, Stop};
use crate::executor::request::{Container, StepRequest, What};
use crate::wire::time;

/// How often it is looked whether a step is to end.
const LOOK: Duration = Duration::from_millis(50);
/// Seconds that a container has to end when it is asked to.
const GRACE: i32 = 10;
/// Seconds that the engine has for an answer.
const PATIENCE: u64 = 600;
/// What comes of a container may be behind its end.
const DRAIN: Duration = Duration::from_secs(5);

/// A step in a container.
pub(super) struct Job<'a> {
    pub step: &'a StepRequest,
    pub container: &'a Container,
    pub number: usize,
    pub prefix: &'a str,
    pub means: &'a Means<'a>,
    pub events: &'a Events,
}

impl Job<'_> {
    /// Runs it to its end.
    pub(super) fn run(&self, stop: &dyn Fn() -> Option<Stop>) -> End {
        let held = match self.means.engines.for_container() {
            Ok(held) => held,
            Err(error) => return End::Failed(error.to_string()),
        };
        let Some(engine) = held.engine() else {
            return End::Failed("the container engine has ended".to_owned());
        };
        let end = self.run_in(engine, stop);
        match self.say_output(engine) {
            Ok(()) => end,
            Err(error) => End::Failed(error.to_string()),
        }
    }

    /// Tells what the step has written for programs.
    fn say_output(&self, engine: &Engine) -> io::Result<()> {
        let path = engine.output(self.number);
        let read = output::read(self.means.engines.dir(), &path, self.means.log);
        match read {
            Ok(output) if output.is_empty() => Ok(()),
            Ok(output) => self.events.write(What::Output {
                step: self.number,
                output: STANDARD.encode(output),
            }),
            Err(error) => {
                let prefix = self.prefix;
                let line = format!("{prefix}WARNING: $BUILDER_OUTPUT/output is not kept: {error}");
                self.means.log.line(&line)
            }
        }
    }

    fn run_in(&self, engine: &Engine, stop: &dyn Fn() -> Option<Stop>) -> End {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(self.attempt(engine, stop)),
            Err(error) => Err(error.to_string()),
        };
        result.unwrap_or_else(|error| {
            End::Failed(match engine.ends_within(DRAIN) {
                Some(said) => format!("the container engine has ended: {said}"),
                None => error,
            })
        })
    }

    async fn attempt(
        &self,
        engine: &Engine,
        stop: &dyn Fn() -> Option<Stop>,
    ) -> Result<End, String> {
        let began = Instant::now();
        let limit = self.step.timeout.map(Duration::from_secs_f64);
        let stop = || {
            let late = limit.is_some_and(|limit| began.elapsed() >= limit);
            stop().or(late.then_some(Stop::TimedOut))
        };
        let docker = connect(engine)?;
        tokio::select! {
            pulled = self.image(&docker) => pulled?,
            why = wanted(&stop) => return Ok(End::Stopped(why)),
        }
        let options: Option<CreateContainerOptions> = None;
        let created = docker.create_container(options, self.config(engine.around(self.number)));
        let id = created.await.map_err(told)?.id;
        let end = self.follow(&docker, &id, &stop).await;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true);
        // The engine ends with the build, and all its containers with it.
        let _ = docker.remove_container(&id, Some(options.build())).await;
        end
    }

    /// Makes sure that the image is there.
    async fn image(&self, docker: &Docker) -> Result<(), String> {
        let name = &self.step.image;
        let mut pulled = None;
        let found = match docker.inspect_image(name).await {
            Ok(found) => {
                self.line(&format!("Already have image: {name}"))?;
                found
            }
            Err(Error::DockerResponseServerError {
                status_code: 404, ..
            }) => {
                pulled = Some(time::now());
                self.pull(docker).await?;
                docker.inspect_image(name).await.map_err(told)?
            }
            Err(error) => return Err(told(error)),
        };
        let mut digests = found.repo_digests.iter().flatten();
        let digest = digests.find_map(|digest| digest.split_once('@'));
        let image = digest.map(|(_, digest)| digest.to_owned());
        let image = image
            .or(found.id)
            .ok_or("the container engine does not name the image")?;
        let what = What::Image {
            step: self.number,
            image,
            pulled,
        };
        self.events.write(what).map_err(|error| error.to_string())
    }

    async fn pull(&self, docker: &Docker) -> Result<(), String> {
        let name = &self.step.image;
        self.line(&format!("Pulling image: {name}"))?;
        let tagged = name.contains('@')
            || name
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':'));
        let whole = if tagged {
            name.clone()
        } else {
            format!("{name}:latest")
        };
        let options = CreateImageOptionsBuilder::default()
            .from_image(&whole)
            .build();
        let mut steps = docker.create_image(Some(options), None, None);
        let mut last = String::new();
        while let Some(step) = steps.next().await {
            let step = step.map_err(|error| format!("pulling {name}: {}", told(error)))?;
            // A state is worth a line, but not each of its percents.
            let line = match (step.id, step.status) {
                (Some(id), Some(status)) => format!("{id}: {status}"),
                (None, Some(status)) => status,
                (Some(id), None) => id,
                (None, None) => continue,
            };
            for line in line.lines().filter(|line| **line != *last) {
                self.line(line)?;
            }
            last = line;
        }
        Ok(())
    }

    fn config(&self, around: Around) -> ContainerCreateBody {
        let Container {
            entrypoint,
            script,
            volumes,
        } = self.container;
        let Around {
            mut binds,
            volumes: prefix,
            scripts,
            network,
            labels,
            dropped,
            most,
        } = around;
        for volume in volumes {
            binds.push(format!("{prefix}{}:{}", volume.name, volume.path));
        }
        let mut program = entrypoint.clone().map(|program| vec![program]);
        if script.is_some() {
            let name = format!("script-{}", self.number);
            binds.push(format!("{scripts}/{name}:/builder/{name}:ro"));
            program = Some(vec![format!("/builder/{name}")]);
        }
        let mut env = vec![
            "HOME=/builder/home".to_owned(),
            "BUILDER_OUTPUT=/builder/outputs".to_owned(),
        ];
        for (name, value) in self.means.proxies {
            env.push(format!("{name}={value}"));
        }
        env.extend(self.step.env.iter().cloned());
        for name in &self.step.secret_env {
            // The agent has read all of the build's.
            if let Some(value) = self.means.secrets.get(name) {
                env.push(format!("{name}={value}"));
            }
        }
        ContainerCreateBody {
            image: Some(self.step.image.clone()),
            entrypoint: program,
            cmd: Some(self.step.args.clone()).filter(|args| !args.is_empty()),
            env: Some(env),
            labels: Some(labels),
            working_dir: Some(format!("/workspace/{}", self.step.dir.display())),
            host_config: Some(HostConfig {
                binds: Some(binds),
                network_mode: network,
                cap_drop: dropped,
                memory: most.map(|(memory, _)| memory),
                pids_limit: most.map(|(_, processes)| processes),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Starts a container, copies what it prints and waits for its end.
    async fn follow(
        &self,
        docker: &Docker,
        id: &str,
        stop: &dyn Fn() -> Option<Stop>,
    ) -> Result<End, String> {
        docker.start_container(id, None).await.map_err(told)?;
        let (output, mut input) = io::pipe().map_err(|error| error.to_string())?;
        let (log, prefix) = (self.means.log.clone(), self.prefix.to_owned());
        let copy = thread::spawn(move || log.copy(output, &prefix));
        let mut stopped = None;
        let result = {
            let mut printing = std::pin::pin!(print(docker, id, &mut input));
            tokio::select! {
                result = printing.as_mut() => result,
                why = wanted(stop) => {
                    stopped = Some(why);
                    let options = StopContainerOptionsBuilder::default().t(GRACE).build();
                    let _ = docker.stop_container(id, Some(options)).await;
                    // The last words.
                    tokio::time::timeout(DRAIN, printing.as_mut()).await.unwrap_or(Ok(()))
                }
            }
        };
        // What it said is in the log before why it ended.
        drop(input);
        let copied = copy
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        copied.map_err(|error| format!("writing the log: {error}"))?;
        result?;
        if let Some(why) = stopped {
            return Ok(End::Stopped(why));
        }
        let state = loop {
            let found = docker.inspect_container(id, None).await.map_err(told)?;
            let state = found
                .state
                .ok_or("the container engine does not say how the step is")?;
            if state.running != Some(true) {
                break state;
            }
            // It has closed its outputs, and goes on.
            tokio::time::sleep(LOOK).await;
            if let Some(why) = stop() {
                let options = StopContainerOptionsBuilder::default().t(GRACE).build();
                let _ = docker.stop_container(id, Some(options)).await;
                return Ok(End::Stopped(why));
            }
        };
        match state.exit_code {
            Some(code) => Ok(End::Exited(i32::try_from(code).unwrap_or(1))),
            None => Err("the container engine does not say how the step ended".to_owned()),
        }
    }

    fn line(&self, text: &str) -> Result<(), String> {
        let line = format!("{}{text}", self.prefix);
        self.means
            .log
            .line(&line)
            .map_err(|error| error.to_string())
    }
}

pub(super) fn connect(engine: &Engine) -> Result<Docker, String> {
    Docker::connect_with_unix(&engine.socket(), PATIENCE, bollard::API_DEFAULT_VERSION)
        .map_err(told)
}

/// Copies what a container prints, until it has ended.
async fn print(docker: &Docker, id: &str, to: &mut impl Write) -> Result<(), String> {
    let options = LogsOptionsBuilder::default()
        .follow(true)
        .stdout(true)
        .stderr(true)
        .build();
    let mut said = docker.logs(id, Some(options));
    loop {
        let said = match tokio::time::timeout(DRAIN, said.next()).await {
            Ok(Some(said)) => said,
            Ok(None) => break,
            Err(_) if is_running(docker, id).await? => continue,
            // Podman can miss the end of a container that ends at once, and would follow its log for ever.
            Err(_) => break,
        };
        let bytes = said.map(LogOutput::into_bytes).map_err(told)?;
        to.write_all(&bytes).map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn is_running(docker: &Docker, id: &str) -> Result<bool, String> {
    let found = docker.inspect_container(id, None).await.map_err(told)?;
    Ok(found.state.and_then(|state| state.running) == Some(true))
}

/// Waits until a step is to end.
async fn wanted(stop: &dyn Fn() -> Option<Stop>) -> Stop {
    loop {
        if let Some(why) = stop() {
            return why;
        }
        tokio::time::sleep(LOOK).await;
    }
}

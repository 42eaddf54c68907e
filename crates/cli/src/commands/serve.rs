//! `kiln serve`, `kiln token`, and `kiln run-attempt`, which the server starts for each build.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_engine::{Failure, FailureKind};
use kiln_rootfs::network::{self, Access, Reach};
use kiln_server::agent::Agent;
use kiln_server::executor::request::Elsewhere;
use kiln_server::store::{Most, Role};
use kiln_server::{Options, access};

use super::Context;
use super::step::Steps;
use crate::args::{
    AuditArgs, ContainerEngine, LoadImageArgs, RunAttemptArgs, ServeArgs, TokenArgs, TokenCommand,
    TokenRole,
};
use crate::output;

/// Serves until a signal comes.
pub(crate) fn run(args: &ServeArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let settings = &context.settings;
    let processors = u32::try_from(settings.processors).unwrap_or(1);
    let memory = match args.memory {
        Some(mib) => mib << 20,
        None => kiln_sandbox::available_memory(),
    };
    let mut images = vec!["kiln".to_owned()];
    images.extend(args.builder_image.iter().cloned());
    let options = Options {
        listen: args.listen,
        data: data(args.data.as_ref(), context)?,
        url: args.url.clone(),
        settings: kiln_server::Settings {
            images,
            cpus: args.cpus.unwrap_or(processors),
            memory,
            build_memory: args.build_memory << 20,
            containers: args.engine != ContainerEngine::None,
            engine: elsewhere(args)?,
            open: args.open_to_this_machine,
            from_elsewhere: !args.downloads_from_this_machine,
            git_credentials: args.git_credentials.clone(),
            keep: kiln_server::Keep {
                age: args
                    .keep_for
                    .map(|days| std::time::Duration::from_secs(days * 86_400)),
                bytes: args.keep_size.map(|mib| mib << 20),
            },
            queue_length: waiting(args),
            keep_free: args.keep_free << 20,
            quota: args.quota_size.map(|mib| mib << 20),
            behind_proxy: args.behind_proxy,
        },
        rates: kiln_server::Rates {
            requests: args.request_rate,
            hooks: args.webhook_rate,
        },
        objects: super::objects::elsewhere(args, settings)?,
        cache: args.build_cache.clone(),
        tls: args
            .tls_cert
            .clone()
            .zip(args.tls_key.clone())
            .map(|(certificate, key)| kiln_server::tls::Files { certificate, key }),
        program: program()?,
        env: settings.handed_on.0.clone(),
        commands: Arc::new(Steps),
    };
    let stop = Arc::new(kiln_server::Notify::new());
    let end = Arc::clone(&stop);
    context.interrupt.on_signal(move || end.notify_one())?;
    let scheme = if args.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    let ready = |address| {
        context
            .terminal
            .note("serving", &format!("{scheme}://{address}/"));
    };
    kiln_server::serve(options, stop, ready).map_err(|error| failure(&error))?;
    Ok(0)
}

/// The container engine that the administrator runs, if there is one.
fn elsewhere(args: &ServeArgs) -> Result<Option<Elsewhere>, Failure> {
    let is_given = args.engine_socket_for_steps;
    match &args.engine {
        ContainerEngine::Elsewhere(socket) => Ok(Some(Elsewhere {
            socket: socket.clone(),
            is_given,
        })),
        _ if is_given => {
            let message = "--engine-socket-for-steps is for `--engine unix:///SOCKET`; steps have the socket of an engine of the build's own anyway";
            Err(Failure::new(FailureKind::Usage, message))
        }
        _ => Ok(None),
    }
}

/// How many builds may wait. Where all who reach the port are one, that one may have the whole queue.
fn waiting(args: &ServeArgs) -> Most {
    let half = match args.open_to_this_machine {
        true => args.queue_length,
        false => args.queue_length.div_ceil(2),
    };
    Most {
        all: args.queue_length,
        of_one: args.queue_length_per_token.unwrap_or(half),
    }
}

/// Makes, lists and takes back tokens.
pub(crate) fn token(args: &TokenArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let store = kiln_server::open_store(&data(args.data.as_ref(), context)?);
    let store = store.map_err(|error| failure(&error))?;
    let trouble = |error: kiln_server::store::Error| {
        Failure::new(
            FailureKind::Environment,
            "the server's database cannot be used",
        )
        .cause(error.to_string())
    };
    match &args.command {
        TokenCommand::Create { name, role } => {
            let role = match role {
                TokenRole::View => Role::View,
                TokenRole::Submit => Role::Submit,
                TokenRole::Admin => Role::Admin,
                TokenRole::Webhook => Role::Webhook,
            };
            let made = access::create(&store, name, role).map_err(trouble)?;
            let taken = || {
                let message = format!("there is a token named {name} already");
                let hint =
                    format!("take it back with `kiln token revoke {name}`, or choose another name");
                Failure::new(FailureKind::Usage, message).hint(hint)
            };
            let made = made.ok_or_else(taken)?;
            note(&store, "token create")?;
            output::print(&format!("{made}\n"))?;
        }
        TokenCommand::List { json } => {
            let tokens = store.tokens().map_err(trouble)?;
            if *json {
                output::print_json(&tokens)?;
            } else {
                let line = |token: &kiln_server::store::Token| {
                    let created = kiln_server::wire::time::stamp(token.created);
                    format!("{}  {}  {created}\n", token.name, token.role.name())
                };
                output::print(&tokens.iter().map(line).collect::<String>())?;
            }
        }
        TokenCommand::Revoke { name } => {
            if !store.remove_token(name).map_err(trouble)? {
                let message = format!("there is no token named {name}");
                return Err(
                    Failure::new(FailureKind::Usage, message).hint("`kiln token list` shows them")
                );
            }
            note(&store, "token revoke")?;
        }
    }
    Ok(0)
}

/// Puts on record what was done beside the server.
pub(crate) fn note(store: &kiln_server::store::Store, what: &str) -> Result<(), Failure> {
    let now = kiln_server::wire::time::now();
    store
        .audit(now, "command line", what, None)
        .map_err(|error| {
            let message = "what was done cannot be put on record";
            Failure::new(FailureKind::Environment, message).cause(error.to_string())
        })
}

/// Shows who did what, the newest last.
pub(crate) fn audit(args: &AuditArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let store = kiln_server::open_store(&data(args.data.as_ref(), context)?);
    let store = store.map_err(|error| failure(&error))?;
    let mut entries = store.entries(None, args.limit).map_err(|error| {
        let message = "the server's database cannot be read";
        Failure::new(FailureKind::Environment, message).cause(error.to_string())
    })?;
    entries.reverse();
    if args.json {
        output::print_json(&entries)?;
        return Ok(0);
    }
    let line = |entry: &kiln_server::store::Entry| {
        let mut line = format!("{}  {}  {}", entry.time, entry.who, entry.what);
        for (before, more) in [("  ", &entry.build), ("  from ", &entry.address)] {
            if let Some(more) = more {
                line.push_str(before);
                line.push_str(more);
            }
        }
        format!("{}\n", kiln_engine::neutral(&line.replace('\n', " ")))
    };
    output::print(&entries.iter().map(line).collect::<String>())?;
    Ok(0)
}

/// Puts images where builds find them.
pub(crate) fn load_image(args: &LoadImageArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let data = data(args.data.as_ref(), context)?;
    let mut say = |line: &str| context.terminal.note("podman", line);
    kiln_server::images::load(&data, &args.archive, &mut say).map_err(|error| {
        let message = format!("the images of {} cannot be loaded", args.archive.display());
        Failure::new(FailureKind::Environment, message).cause(error.to_string())
    })?;
    Ok(0)
}

/// Carries out one attempt at a build.
pub(crate) fn agent(args: &RunAttemptArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    context
        .interrupt
        .on_signal(move || flag.store(true, Ordering::SeqCst))?;
    let handed_on = context.settings.handed_on.0.iter();
    let access = of_containers(context)?;
    let agent = Agent {
        dir: args.dir.clone(),
        program: program()?,
        commands: &Steps,
        env: handed_on
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        mounts: access.mounts(),
        network: access.network,
        proxies: access.env,
        stopped,
    };
    kiln_server::agent::run(&agent).map_err(|error| {
        let message = format!("the attempt in {} cannot be made", args.dir.display());
        Failure::new(FailureKind::Environment, message).cause(error.to_string())
    })?;
    Ok(0)
}

/// What containers of a build reach.
pub(crate) fn of_containers(context: &Context<'_>) -> Result<Access, Failure> {
    let resolv_conf = network::resolv_conf().map_err(|error| {
        Failure::new(FailureKind::Environment, "/etc/resolv.conf cannot be read")
            .cause(error.to_string())
    })?;
    let proxies = context.settings.proxies();
    Ok(Access::new(Reach::Own, &resolv_conf, &proxies))
}

/// The server's data directory: the one that is said, or the usual one.
pub(crate) fn data(given: Option<&PathBuf>, context: &Context<'_>) -> Result<PathBuf, Failure> {
    let data = match given {
        Some(data) => data.clone(),
        None => context.settings.state_dir()?.join("server"),
    };
    std::path::absolute(&data).map_err(|error| {
        Failure::new(FailureKind::Environment, "there is no working directory")
            .cause(error.to_string())
    })
}

/// This very program, which builds are started with.
fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(
            FailureKind::Environment,
            "this program's own file cannot be found",
        )
        .cause(error.to_string())
    })
}

pub(crate) fn failure(error: &kiln_server::Error) -> Failure {
    let failure = Failure::new(FailureKind::Environment, error.to_string());
    match error.source() {
        Some(cause) => failure.cause(cause.to_string()),
        None => failure,
    }
}

//! The command line as typed: a faithful form, nothing looked up and nothing decided yet.
//!
//! Help text, completions and the manual page all come from these definitions.

pub(crate) mod client;
pub(crate) mod secret;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit codes, shown at the end of `--help` and in the manual page.
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 the definition or input is wrong, 2 usage, 3 the environment lacks
something, 4 a step failed, 5 internal error, 130/143 stopped by SIGINT/SIGTERM.";

/// Turns kickstart files into bootable live disk images.
///
/// A build needs no root, no loop device, no mount and no distribution tool on the host. Human text goes to
/// standard error, results go to standard output.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, max_term_width = 80, after_help = EXIT_CODES, arg_required_else_help = true)]
#[command(subcommand_required = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How progress is written to standard error
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) log_format: LogFormat,
    /// Show every line that the steps print
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Show only warnings and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: ColorWhen,
    /// Downloads, layers and staging [default: $XDG_CACHE_HOME/kiln]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// What must outlive the cache, such as the last failure [default: $XDG_STATE_HOME/kiln]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// User configuration [default: $XDG_CONFIG_HOME/kiln]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// What a server says for its builds: the definition may name no directory outside of this one
    #[arg(long, global = true, hide = true, value_name = "DIR")]
    pub(crate) within: Option<PathBuf>,
    /// What a server says for its builds: nothing is fetched from this machine
    #[arg(long, global = true, hide = true)]
    pub(crate) from_elsewhere: bool,
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines and progress bars for people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// When output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless NO_COLOR or CLICOLOR=0 is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a disk image
    Build(BuildArgs),
    /// Show what a build would do
    Plan(PlanArgs),
    /// Resolve all packages and write kiln.lock
    Lock(LockArgs),
    /// Check kickstart files
    Check(CheckArgs),
    /// Print a kickstart with its includes expanded, in canonical order
    Flatten(FlattenArgs),
    /// Boot an image in a virtual machine to work with
    Boot(BootArgs),
    /// Boot an image and say whether its desktop comes up
    Test(TestArgs),
    /// Open a shell in the root of a failed step
    Shell(ShellArgs),
    /// Send a directory to a build server and queue its build
    Submit(client::SubmitArgs),
    /// List the builds of a server
    Builds(client::BuildsArgs),
    /// Show the log of a build
    Logs(client::LogsArgs),
    /// Stop a build
    Cancel(client::CancelArgs),
    /// Queue a build again
    Retry(client::RetryArgs),
    /// List or download what a build made
    Artifacts(client::ArtifactsArgs),
    /// Keep the address of a build server, and a token for it
    Login(client::LoginArgs),
    /// Serve builds in Cloud Build's own language
    Serve(ServeArgs),
    /// Make, list and take back the tokens of a server's users
    Token(TokenArgs),
    /// Keep, list and remove the secrets of a server's builds
    Secret(secret::SecretArgs),
    /// Show who did what on a server
    Audit(AuditArgs),
    /// Give all builds of a server an image, for steps in containers
    LoadImage(LoadImageArgs),
    /// Carry out a build for the server
    #[command(hide = true)]
    RunAttempt(RunAttemptArgs),
    /// Print what gcloud needs to use a server
    GcloudEnv(GcloudEnvArgs),
    /// Check what this machine offers to builds
    Doctor(DoctorArgs),
    /// Look at or clean the caches
    Cache(CacheArgs),
    /// Print shell completions
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

/// Where a build starts from.
#[derive(Clone, Debug, Args)]
pub(crate) struct DefinitionArgs {
    /// A kickstart file, a kiln.toml or the directory of one
    #[arg(value_name = "DEF")]
    pub(crate) definition: PathBuf,
    /// Profile of the kiln.toml
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Distribution and release, such as debian:bookworm
    #[arg(long, value_name = "NAME:RELEASE")]
    pub(crate) distribution: Option<String>,
    /// Partition table
    #[arg(long, value_enum, value_name = "TABLE")]
    pub(crate) layout: Option<Layout>,
    /// A further directory that the definition may read files from; may be
    /// repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) include_path: Vec<PathBuf>,
}

/// Partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// GUID partition table; boots with BIOS and UEFI
    Gpt,
    /// Master boot record
    Mbr,
}

/// `kiln build`
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    /// Where the artifacts go
    #[arg(short, long, value_name = "DIR", default_value = "output")]
    pub(crate) output: PathBuf,
    /// Disk formats, separated by commas
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    pub(crate) format: Vec<String>,
    /// No network at all: the lock and the download store must suffice
    #[arg(long)]
    pub(crate) offline: bool,
    /// Fail unless kiln.lock is there and fits the definition
    #[arg(long)]
    pub(crate) locked: bool,
    /// Also use packages of kiln.lock that no signed metadata has: nothing but
    /// the lock says then what is installed
    #[arg(long)]
    pub(crate) allow_unsigned_lock: bool,
    /// How far scripts reach
    #[arg(long, value_enum, default_value_t, value_name = "KIND", conflicts_with_all = ["offline", "vendor"])]
    pub(crate) network: ScriptNetwork,
    /// Build without a network from a directory that `kiln lock --vendor` made
    #[arg(long, value_name = "DIR")]
    pub(crate) vendor: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shared: SharedArgs,
    /// Steps and compression threads at once [default: processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) jobs: Option<u32>,
    /// Let the package manager of the root unpack all packages: for `cargo xtask equal-unpack`
    #[arg(long, hide = true)]
    pub(crate) plain_unpacking: bool,
}

/// How far the scripts of a build reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScriptNetwork {
    /// Other machines, but not this one, from a network of their own
    #[default]
    Own,
    /// All that this machine reaches, and what listens on it
    Host,
    /// Nothing
    None,
}

impl From<ScriptNetwork> for kiln_engine::Reach {
    fn from(network: ScriptNetwork) -> Self {
        match network {
            ScriptNetwork::Own => kiln_engine::Reach::Own,
            ScriptNetwork::Host => kiln_engine::Reach::Host,
            ScriptNetwork::None => kiln_engine::Reach::None,
        }
    }
}

/// A cache that several machines share.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SharedArgs {
    /// Take results of other machines from file:///DIR, s3://BUCKET/PREFIX or
    /// gs://BUCKET/PREFIX, and put own ones there; `off` for none
    /// [default: $KILN_SHARED_CACHE, then config.toml]
    #[arg(long, value_name = "URL")]
    pub(crate) shared_cache: Option<String>,
    /// Whether own results are put there [default: read-write]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) shared_cache_mode: Option<SharedMode>,
    /// File with the secret that all machines of the shared cache have
    #[arg(long, value_name = "FILE")]
    pub(crate) shared_cache_key: Option<PathBuf>,
}

/// What is done with a shared cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SharedMode {
    /// Results are only taken
    Read,
    /// Own results are put there too
    ReadWrite,
}

/// `kiln plan`
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    /// Print the plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `kiln lock`
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    /// Also put everything that a build needs from the network into this
    /// directory, for `kiln build --vendor`
    #[arg(long, value_name = "DIR")]
    pub(crate) vendor: Option<PathBuf>,
    /// Also keep the signed metadata beside the lock, for packages that leave
    /// the repositories later
    #[arg(long)]
    pub(crate) keep_metadata: bool,
    /// Also write the packages as a manifest of dnf's, such as
    /// packages.manifest.yaml
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Take the packages of a manifest of dnf's, in these versions, and no
    /// others
    #[arg(long, value_name = "FILE")]
    pub(crate) from_manifest: Option<PathBuf>,
    /// No network: metadata must be in the download store
    #[arg(long)]
    pub(crate) offline: bool,
}

/// `kiln check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Kickstart files, a kiln.toml, or directories of either; `-` is standard
    /// input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Language version, such as F44 or RHEL9 [default: the newest; a kiln.toml
    /// has its distribution's]
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Follow %include
    #[arg(short = 'i', long = "followincludes")]
    pub(crate) follow_includes: bool,
    /// A further directory that files may be included from; may be
    /// repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) include_path: Vec<PathBuf>,
    /// No network: an %include that names an address is an error
    #[arg(long)]
    pub(crate) offline: bool,
}

/// `kiln flatten`
#[derive(Debug, Args)]
pub(crate) struct FlattenArgs {
    /// A kickstart file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A further directory that files may be included from; may be
    /// repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) include_path: Vec<PathBuf>,
    /// No network: an %include that names an address is an error
    #[arg(long)]
    pub(crate) offline: bool,
    /// Language version, such as F44 or RHEL9 [default: the newest]
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
}

/// Firmware of the virtual machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Firmware {
    /// Legacy BIOS
    #[default]
    Bios,
    /// UEFI without Secure Boot
    Uefi,
    /// UEFI with Secure Boot
    Secure,
}

/// What a virtual machine is made of.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineArgs {
    /// The image: disk.raw, disk.tar.gz or an output directory
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// How the image is read [default: as raw; one that looks like another
    /// format is refused]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) image_format: Option<ImageFormat>,
    /// Firmware
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub(crate) firmware: Firmware,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    pub(crate) memory: u32,
    /// Processors [default: 2, or 1 where there is only one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) cpus: Option<u32>,
    /// What the processor is made of
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub(crate) accel: Accel,
    /// How the disk is attached
    #[arg(long, value_enum, default_value_t, value_name = "BUS")]
    pub(crate) bus: Bus,
    /// What is behind the network card
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub(crate) network: Network,
    /// An extra kernel argument; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) append: Vec<String>,
}

/// How an image file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    /// The disk's bytes as they are
    Raw,
    /// QEMU's format
    Qcow2,
    /// VMware's format
    Vmdk,
    /// VirtualBox's format
    Vdi,
}

/// What a machine's processor is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM where it works, emulation otherwise
    #[default]
    Auto,
    /// KVM or nothing
    Kvm,
    /// Software emulation
    Tcg,
}

/// How a machine's disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bus {
    /// The fastest
    #[default]
    Virtio,
    /// A USB stick
    Usb,
    /// A SATA disk
    Sata,
}

/// What is behind a machine's network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// No card
    None,
    /// DHCP and nothing else: no packet leaves the machine
    #[default]
    Isolated,
    /// The host's network
    Host,
}

/// What a system must reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expect {
    /// A desktop if the system starts a display manager, else a login prompt
    #[default]
    Auto,
    /// A desktop, drawn and at rest
    Desktop,
    /// A login prompt
    Login,
}

/// Where an interactive machine shows itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Screen {
    /// A window in a graphical session, VNC otherwise
    #[default]
    Auto,
    /// A GTK window
    Gtk,
    /// An SDL window
    Sdl,
    /// The text screen in this terminal
    Curses,
    /// The serial console in this terminal
    Serial,
    /// VNC
    Vnc,
}

/// `kiln boot`
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Where the machine shows itself
    #[arg(long, value_enum, default_value_t, value_name = "SCREEN")]
    pub(crate) display: Screen,
    /// Address for --display vnc, with a password [default: a Unix socket that
    /// only you can reach]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) vnc_address: Option<String>,
}

/// `kiln test`
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// What the system must reach
    #[arg(long, value_enum, default_value_t, value_name = "STATE")]
    pub(crate) expect: Expect,
    /// A script to run as root in the system once it is up
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Pass although a systemd unit failed
    #[arg(long)]
    pub(crate) allow_failed_units: bool,
    /// Seconds until the verdict must be there
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: Option<u32>,
    /// Where desktop.png, boot.json and serial.log go
    #[arg(short, long, value_name = "DIR", default_value = "output")]
    pub(crate) output: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `kiln shell`
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// Enter the root of the last failed step; there is no other choice yet, so it may be left out
    #[arg(long)]
    pub(crate) last: bool,
    /// Run this instead of an interactive shell
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `kiln serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8470")]
    pub(crate) listen: std::net::SocketAddr,
    /// Speak TLS with this certificate and those that vouch for it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Builds, logs, objects and the database [default:
    /// $XDG_STATE_HOME/kiln/server]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the contents of the buckets are: s3://BUCKET/PREFIX,
    /// gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///DIR
    /// [default: in the data directory]
    #[arg(long, value_name = "URL")]
    pub(crate) objects: Option<String>,
    /// What opens that store, AWS_…, GOOGLE_… or AZURE_… variables as NAME=VALUE lines
    /// [default: what the machine's metadata service gives]
    #[arg(long, value_name = "FILE", requires = "objects")]
    pub(crate) objects_credentials: Option<PathBuf>,
    /// The server's address as its users reach it [default: http://ADDRESS]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Let every user of this machine do everything without a token; only with
    /// a loopback address
    #[arg(long)]
    pub(crate) open_to_this_machine: bool,
    /// Processors for all builds together [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) cpus: Option<u32>,
    /// Memory for all builds together [default: what is free at the start]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1 << 32))]
    pub(crate) memory: Option<u64>,
    /// Memory that is set aside for a build
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(64..=1 << 32))]
    pub(crate) build_memory: u64,
    /// What runs steps whose image is not Kiln itself: `podman`, one of each
    /// build's own; `none`; or unix:///SOCKET, an engine that you run
    #[arg(long, value_name = "ENGINE", default_value = "podman", value_parser = ContainerEngine::parse)]
    pub(crate) engine: ContainerEngine,
    /// Give steps the socket of the engine that you run: whoever submits can
    /// then do all that it can
    #[arg(long)]
    pub(crate) engine_socket_for_steps: bool,
    /// A further image that is Kiln itself, besides `kiln`; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) builder_image: Vec<String>,
    /// Downloads and layers of builds [default: in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) build_cache: Option<PathBuf>,
    /// Let builds fetch from this machine as well, and from file:// and
    /// link-local addresses: only for users that are trusted with its network
    #[arg(long)]
    pub(crate) downloads_from_this_machine: bool,
    /// Credentials for private git repositories, a line each:
    /// https://USER:PASSWORD@HOST[/PATH]; all who may submit use them
    #[arg(long, value_name = "FILE")]
    pub(crate) git_credentials: Option<PathBuf>,
    /// Requests that a token, or an address of another machine, may send on and
    /// on; ten times as many at once
    #[arg(long, value_name = "PER-SECOND", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) request_rate: u32,
    /// Messages that a trigger takes from those who know its secret, on and on,
    /// and at once
    #[arg(long, value_name = "PER-MINUTE", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) webhook_rate: u32,
    /// Clients come by a proxy on this machine: count and put on record the
    /// address that it adds to X-Forwarded-For
    #[arg(long)]
    pub(crate) behind_proxy: bool,
    /// Builds that may wait; more are refused
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) queue_length: u32,
    /// Builds of one token that may wait [default: half of --queue-length; all
    /// with --open-to-this-machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) queue_length_per_token: Option<u32>,
    /// Room on the disk of the data directory that uploads and builds leave
    /// free: less, and uploads are refused and builds wait
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(0..=1 << 32))]
    pub(crate) keep_free: u64,
    /// What a token may hold in buckets; logs count, but are never refused
    /// [default: as much as fits]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub(crate) quota_size: Option<u64>,
    /// Remove builds this long after their end, with logs and artifacts;
    /// pinned ones stay [default: all stay]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub(crate) keep_for: Option<u64>,
    /// Remove the oldest ended builds while all of them hold more; pinned ones
    /// stay, and those of the last hour
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub(crate) keep_size: Option<u64>,
}

/// `kiln run-attempt`
#[derive(Debug, Args)]
pub(crate) struct RunAttemptArgs {
    /// The attempt's directory
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// `kiln audit`
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// The server's data directory [default: $XDG_STATE_HOME/kiln/server]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// So many entries, the newest ones
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `kiln token`
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The server's data directory [default: $XDG_STATE_HOME/kiln/server]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; it is not kept and cannot be shown again
    Create {
        /// Whose it is
        #[arg(value_name = "NAME")]
        name: String,
        /// What it allows
        #[arg(long, value_enum, value_name = "ROLE", default_value_t)]
        role: TokenRole,
    },
    /// List the tokens by name
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a token back
    Revoke {
        /// Whose it is
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// What a token allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// Look at builds, logs and objects
    #[default]
    View,
    /// Also submit, cancel and retry builds, and write objects
    Submit,
    /// Everything
    Admin,
    /// Nothing but run the triggers whose webhooks name the token
    Webhook,
}

/// What runs containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContainerEngine {
    /// One of each build's own, in Kiln's sandbox
    Podman,
    /// None: such builds are refused
    None,
    /// The administrator's, at this socket
    Elsewhere(PathBuf),
}

impl ContainerEngine {
    fn parse(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("unix://")) {
            ("podman", _) => Ok(ContainerEngine::Podman),
            ("none", _) => Ok(ContainerEngine::None),
            (_, Some(path)) if path.starts_with('/') => Ok(ContainerEngine::Elsewhere(path.into())),
            _ => Err("say podman, none or unix:///SOCKET".to_owned()),
        }
    }
}

/// `kiln load-image`
#[derive(Debug, Args)]
pub(crate) struct LoadImageArgs {
    /// What `docker save` or `podman save` wrote
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// The server's data directory [default: $XDG_STATE_HOME/kiln/server]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// `kiln gcloud-env`
#[derive(Debug, Args)]
pub(crate) struct GcloudEnvArgs {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8470")]
    pub(crate) server: String,
    /// The project that builds and buckets belong to
    #[arg(long, value_name = "NAME", default_value = "kiln-local")]
    pub(crate) project: String,
    /// A file with the token; without one gcloud sends no credentials
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Write the gcloud configuration `kiln` instead of printing variables
    #[arg(long)]
    pub(crate) install: bool,
}

/// `kiln doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `kiln cache`
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

/// What to do with the caches.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List layers, and blocks of earlier images
    Ls {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what no build has used for a while, and what a kill left over
    Gc {
        /// Keep what was used in the last so many days
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        keep_days: u32,
        /// Of layers keep so many MiB at most, those that were used last
        #[arg(long, value_name = "MIB")]
        max_layers: Option<u64>,
        /// Of compressed blocks keep so many MiB at most, those that were used last
        #[arg(long, value_name = "MIB")]
        max_blocks: Option<u64>,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
    /// Compare stored layers with what was recorded of them, and remove damaged ones
    Verify,
    /// Show how much space the caches take
    Du {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

/// `kiln completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

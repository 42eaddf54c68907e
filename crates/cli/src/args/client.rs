//! The commands that speak with a build server, as typed.

use std::path::PathBuf;

use clap::Args;

/// Which server, and as who.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct RemoteArgs {
    /// The server [default: $KILN_SERVER, that of `kiln login`, or
    /// http://127.0.0.1:8470]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// A file with the token [default: $KILN_TOKEN, $KILN_TOKEN_FILE, or that of
    /// `kiln login`]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The project that builds belong to [default: that of `kiln login`, or
    /// kiln-local]
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
}

/// `kiln login`
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The server
    #[arg(value_name = "URL")]
    pub(crate) server: String,
    /// The project that builds belong to
    #[arg(long, value_name = "NAME", default_value = "kiln-local")]
    pub(crate) project: String,
    /// A file with the token [default: it is read from standard input]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// `kiln submit`
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// A directory to send, or a kickstart or build file in one; or a git
    /// repository that the server fetches: https://HOST/PATH[#REVISION[:DIR|FILE]]
    #[arg(value_name = "DIR|FILE|URL", default_value = ".")]
    pub(crate) source: PathBuf,
    /// The build file [default: cloudbuild.yaml or cloudbuild.json in the
    /// directory, else the kickstart there is built]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Substitutions, _NAME=VALUE separated by commas; may be repeated
    #[arg(long, value_name = "LIST")]
    pub(crate) substitutions: Vec<String>,
    /// A tag of the build; may be repeated
    #[arg(long, alias = "tags", value_name = "TAG", value_delimiter = ',')]
    pub(crate) tag: Vec<String>,
    /// Show the log until the build ends, and exit as it ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Build here, without a server, as a server would
    #[arg(long, conflicts_with_all = ["follow", "json", "server", "token_file"])]
    pub(crate) local: bool,
    /// Where the artifacts of --local go
    #[arg(
        short,
        long,
        value_name = "DIR",
        default_value = "output",
        requires = "local"
    )]
    pub(crate) output: PathBuf,
    /// Print the build as JSON
    #[arg(long, conflicts_with = "follow")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// `kiln builds`
#[derive(Debug, Args)]
pub(crate) struct BuildsArgs {
    /// How many of the newest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Only those that fit, such as 'status="FAILURE" AND tags="lab"'
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// `kiln logs`
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The build, or the beginning of its id [default: the newest]
    #[arg(value_name = "BUILD")]
    pub(crate) build: Option<String>,
    /// Go on until the build ends, and exit as it ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// `kiln cancel`
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The build, or the beginning of its id
    #[arg(value_name = "BUILD")]
    pub(crate) build: String,
    /// Print the build as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// `kiln retry`
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The build, or the beginning of its id
    #[arg(value_name = "BUILD")]
    pub(crate) build: String,
    /// Show the log until the build ends, and exit as it ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print the new build as JSON
    #[arg(long, conflicts_with = "follow")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// `kiln artifacts`
#[derive(Debug, Args)]
pub(crate) struct ArtifactsArgs {
    /// The build, or the beginning of its id [default: the newest]
    #[arg(value_name = "BUILD")]
    pub(crate) build: Option<String>,
    /// Download them into a directory; what is there of them already is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) download: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

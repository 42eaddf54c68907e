//! `kiln secret`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `kiln secret`
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    /// The server's data directory [default: $XDG_STATE_HOME/kiln/server]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: SecretCommand,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Keep a new secret: what standard input says, to its last byte
    Create {
        /// Its name: letters, digits, - and _
        #[arg(value_name = "NAME")]
        name: String,
        /// A file with the value, in place of standard input
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Keep another version of a secret, and print its number
    Add {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// A file with the value, in place of standard input
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// List the secrets by name, with the number of their newest version
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a secret with all its versions
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

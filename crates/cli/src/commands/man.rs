//! `kiln man`

use std::io;

use clap::CommandFactory;
use clap_mangen::Man;
use kiln_engine::{Failure, FailureKind};

use crate::args::Cli;
use crate::output;

/// Prints the manual page in roff: the command itself, then a section for each of its commands.
pub(crate) fn run() -> Result<u8, Failure> {
    let mut page = Vec::new();
    render(&mut page).map_err(|error| {
        Failure::new(FailureKind::Internal, "the manual page could not be made")
            .cause(error.to_string())
    })?;
    output::print_bytes(&page)?;
    Ok(0)
}

fn render(page: &mut Vec<u8>) -> io::Result<()> {
    let mut root = Cli::command();
    root.build();
    let man = Man::new(root.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    for command in root.get_subcommands() {
        render_command(command, page)?;
    }
    man.render_extra_section(page)?;
    man.render_version_section(page)
}

/// `.SH KILN BUILD` with synopsis and options below it as subsections.
fn render_command(command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(command.clone());
    let mut body = Vec::new();
    man.render_synopsis_section(&mut body)?;
    man.render_description_section(&mut body)?;
    man.render_options_section(&mut body)?;
    let title = command
        .get_bin_name()
        .unwrap_or(command.get_name())
        .to_uppercase();
    page.extend_from_slice(format!(".SH \"{title}\"\n").as_bytes());
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b".SH ") {
            Some(heading) => page.extend([b".SS ", heading].concat()),
            None => page.extend_from_slice(line),
        }
    }
    for nested in command.get_subcommands() {
        render_command(nested, page)?;
    }
    Ok(())
}

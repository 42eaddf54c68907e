//! `kiln-ubuntu PACKAGES DIRECTORY`: an archive in Ubuntu's layout from a directory of Debian's packages, its key beside it as
//! `key.asc`. The number of packages goes to standard output.

use std::path::Path;
use std::process::ExitCode;

use kiln_testkit::{Key, ubuntu};

#[allow(clippy::print_stdout, clippy::print_stderr)] // The result of the program, and the only way to tell a user.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [packages, directory] = arguments.as_slice() else {
        eprintln!("usage: kiln-ubuntu PACKAGES DIRECTORY");
        return ExitCode::from(2);
    };
    let key = Key::generate("Kiln test <test@example.org>");
    let directory = Path::new(directory);
    let written = ubuntu::write(Path::new(packages), directory, &key).and_then(|count| {
        std::fs::write(directory.join("key.asc"), key.public_armored())?;
        Ok(count)
    });
    match written {
        Ok(count) => println!("{count}"),
        Err(error) => {
            eprintln!("kiln-ubuntu: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

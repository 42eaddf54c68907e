//! Kiln's own chores, run as `cargo xtask CHORE`. Depends on no Kiln crate, so that it builds in seconds.

// A chore runner talks to the terminal; the lint guards the libraries.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod breadth;
mod deny;
mod dist;
mod kill_server;
mod language;
mod mirror;
mod peer;
mod prerequisites;
mod process;
mod roots;
mod rpm;
mod second;
mod served;
mod space;
mod test;
mod tidy;
mod ubuntu;
mod workspace;

use std::process::ExitCode;

/// What went wrong, in one or more sentences.
type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "\
usage: cargo xtask CHORE

  test                  install what the tests need, then check and test everything
  e2e [FILTER...]       only the end-to-end tests, all of them: some take many minutes
  language [--seed N] [--inputs N]
                        ask pykickstart and Kiln about new kickstarts, and compare what they say
  fuzz-server [--seconds N] [--seed S]
                        send a server requests, then build files, that no friend sends, for a minute each unless told otherwise
  kill-server [DEF] [--kills N] [--builds N] [--seed S] [--kiln FILE] [--warm CACHE] [--keep]
                        kill a server again and again while builds run, are removed, and its database is changed
  docs                  write the generated parts of docs/
  record-gcloud         run the real gcloud against a server, and write what it sends into the server's transcripts
  tidy                  only the rules about the source tree
  deny                  only the rules about dependencies
  prerequisites         only install what the tests need
  dist [--program FILE] make what users install, in target/dist: a static program, an archive and a Debian package
  bench CASE [ARG...]   measure against a peer; without CASE, list the cases
  second-machine [RELEASE]
                        compare what machines with a shared cache get with what filled it, on every release and layout
  breadth [RELEASE/SET] build and boot all releases with all sets, or those named, and note it in docs/supported.md
  rpm [CASE...] [--kiln FILE]
                        build an RPM distribution made of Debian's packages as root, as a user and without a PATH, and boot it
                        under BIOS, UEFI and Secure Boot; prints a table
  rpm-distribution --set small|base|desktop --out DIR
                        make an RPM distribution of Debian's packages, signed, with groups and modules; the last two sets boot
  rpm-kickstarts [--kiln FILE] [--distribution DIR] [--user NAME] [--no-boot] [NAME...]
                        build live kickstarts in the manner of the published ones from that distribution, and boot some of them
  ubuntu [--kiln FILE] [--firmware F]
                        build and boot an image from an archive in Ubuntu's layout, which is made of Debian's packages
  equal-root [DEF]      build a definition's packages with Kiln and with mmdebstrap, and compare; --keep keeps both roots
  equal-root --rpm [KS] build a kickstart's packages of the generated RPM distribution with Kiln and with dnf --installroot, and
                        compare what rpm says and every file; --keep, --kiln FILE
  equal-unpack [DEF]    build a definition's packages with Kiln's unpacking and with dpkg's, and compare every byte; --keep, --earlier
  equal-root A B        compare two root file systems: directories or SquashFS files
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test"] => test::run(),
        ["e2e", filters @ ..] => test::end_to_end(filters),
        ["language", rest @ ..] => language::run(rest),
        ["fuzz-server", rest @ ..] => test::fuzz_server(rest),
        ["kill-server", rest @ ..] => kill_server::run(rest),
        ["docs"] => test::write_documents(),
        ["record-gcloud"] => test::record_gcloud(),
        ["tidy"] => tidy::run(),
        ["deny"] => prerequisites::python_tools().and_then(|tools| deny::run(&tools)),
        ["prerequisites"] => prerequisites::install().map(drop),
        ["dist", rest @ ..] => dist::run_chore(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["breadth", rest @ ..] => breadth::run(rest),
        ["second-machine", rest @ ..] => second::run(rest),
        ["rpm", rest @ ..] => rpm::run(rest),
        ["rpm-distribution", rest @ ..] => rpm::distribution::run(rest),
        ["rpm-kickstarts", rest @ ..] => rpm::kickstarts::run(rest),
        ["ubuntu", rest @ ..] => ubuntu::run(rest),
        ["equal-root", "--rpm", rest @ ..] => roots::rpm::run(rest),
        ["equal-root", a, b] if !a.starts_with('-') => roots::run(a.as_ref(), b.as_ref()),
        ["equal-root", rest @ ..] => roots::build::run(rest),
        ["equal-unpack", rest @ ..] => roots::unpack::run(rest),
        ["-h" | "--help"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

//! Executes changes inside a root.
//!
//! This code runs with the root as `/` (after `pivot_root`, in a sandbox) and as its root user: paths are the root's
//! own, programs are the root's own. It prints nothing; what programs print goes to the caller line by line.

mod accounts;
mod error;
mod execute;
mod files;
mod locale;
mod run;
mod units;

use serde::{Deserialize, Serialize};

pub use error::{Error, ErrorKind, ProgramFailure};

use error::{Fault, Result};
pub(crate) use execute::Apply;
pub use execute::execute;
use kiln_plan::configure::{Action, Change};

/// How changes are executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `SOURCE_DATE_EPOCH` for programs, in seconds since 1970: passwords carry the day of their last change.
    pub epoch: Option<i64>,
}

/// Executes a change. `log` is given every line that programs print, and what is noteworthy.
///
/// # Errors
/// The first action that fails, with what it was about. Actions before it have taken effect: the root is one that is
/// thrown away or opened for inspection.
pub fn apply(
    change: &Change,
    settings: &Settings,
    log: &mut dyn FnMut(&str),
) -> std::result::Result<(), Box<Error>> {
    let mut executor = Executor { settings, log };
    for action in &change.actions {
        executor
            .execute(action)
            .map_err(|fault| Box::new(Error::new(change, action, fault)))?;
    }
    Ok(())
}

/// What the actions share.
struct Executor<'a> {
    settings: &'a Settings,
    log: &'a mut dyn FnMut(&str),
}

impl Executor<'_> {
    fn say(&mut self, line: impl AsRef<str>) {
        (self.log)(line.as_ref());
    }

    fn execute(&mut self, action: &Action) -> Result {
        match action {
            Action::WriteFile {
                path,
                content,
                mode,
            } => files::write(path, content, *mode),
            Action::WriteSecretFile { path, content } => {
                files::write(path, content.reveal(), 0o600)
            }
            Action::Symlink { path, target } => files::symlink(path, target),
            Action::Remove { path } => files::remove(path),
            Action::SetVariables { path, variables } => {
                files::set_variables(path, variables, files::Quotes::WhereNeeded)
            }
            Action::SetKey {
                path,
                section,
                key,
                value,
                only_if_present,
            } => files::set_key(path, section, key, value, *only_if_present),
            Action::CommentOut { path, words } => files::comment_out(path, words),
            Action::Run {
                argv,
                only_if_present,
                ..
            } => self.run_action(argv, *only_if_present),
            Action::Locales { names } => self.locales(names),
            Action::Keyboard { layouts, options } => self.keyboard(layouts, options),
            Action::Timezone { zone } => locale::timezone(zone),
            Action::HostName { name } => locale::host_name(name),
            Action::Group { name, gid } => self.group(name, *gid),
            Action::User(account) => self.user(account),
            Action::Password {
                user,
                crypted,
                lock,
            } => self.password(user, crypted.as_ref(), *lock),
            Action::AuthorizedKey { user, key } => accounts::authorized_key(user, key),
            Action::Units { disable, enable } => self.units(disable, enable),
            Action::MaskUnits { units } => units::mask(units),
            Action::DefaultTarget { target } => self.default_target(target),
            Action::DesktopSession { session, manager } => self.desktop_session(session, manager),
        }
    }

    fn run_action(&mut self, argv: &[String], only_if_present: bool) -> Result {
        let program = argv
            .first()
            .ok_or_else(|| Fault::internal("an empty command line"))?;
        if only_if_present && !run::is_present(program) {
            return Ok(());
        }
        self.run(argv, None)
    }
}

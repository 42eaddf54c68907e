//! Whether this machine can keep the owners that a definition names.

use kiln_plan::Plan;
use kiln_plan::configure::Action;
use kiln_sandbox::IdMap;

use crate::{Failure, FailureKind};

/// Refuses a plan with a user or group whose number the sandbox does not have: files of it could not be made.
///
/// # Errors
/// The first of them, with the limit and how to raise it.
pub(crate) fn fit(plan: &Plan, ids: &IdMap) -> Result<(), Failure> {
    within(plan, ids.count())
}

fn within(plan: &Plan, count: u32) -> Result<(), Failure> {
    let mut wanted: Vec<(String, u32, String)> = Vec::new();
    for change in plan.layers.iter().flat_map(|layer| &layer.changes) {
        let mut note = |what: String, id: Option<u32>| {
            wanted.extend(id.map(|id| (what, id, change.origin.clone())));
        };
        for action in &change.actions {
            match action {
                Action::User(account) => {
                    let name = &account.name;
                    note(format!("the user {name}"), account.uid);
                    note(format!("the group of the user {name}"), account.gid);
                    for (group, gid) in &account.groups {
                        note(format!("the group {group}"), *gid);
                    }
                }
                Action::Group { name, gid } => note(format!("the group {name}"), *gid),
                _ => {}
            }
        }
    }
    for file in plan.layers.iter().flat_map(|layer| &layer.files) {
        for owner in [&file.owner.0, &file.owner.1] {
            wanted.extend(owner.parse().map(|id| {
                (
                    format!("the owner of {}", file.from),
                    id,
                    file.origin.clone(),
                )
            }));
        }
    }
    match wanted.into_iter().find(|(_, id, _)| *id >= count) {
        None => Ok(()),
        Some((what, id, origin)) => {
            let message = format!(
                "{what} has the number {id}, but sandboxes of this user have only the {count} ids from 0 to {}",
                count.saturating_sub(1)
            );
            let mut failure = Failure::new(FailureKind::Environment, message);
            failure.origin = Some(origin);
            Err(failure.hint(
                "give the user who builds more ids in /etc/subuid and /etc/subgid (`usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER`), or choose a smaller number",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_plan::{Files, Input, lower_text};

    use super::*;

    struct One(&'static str);

    impl Files for One {
        fn read(&self, path: &str, _from: &str) -> Result<(String, Vec<u8>), String> {
            Ok((path.to_owned(), self.0.as_bytes().to_vec()))
        }
    }

    fn failure(kickstart: &'static str, count: u32) -> Option<Failure> {
        let text = "distribution = \"debian:bookworm\"\nlayers = [\"a.ks\"]\n";
        let lowered = lower_text("kiln.toml", text, &Input::default(), &One(kickstart));
        within(&lowered.plan.expect("a plan"), count).err()
    }

    #[test]
    fn numbers_that_the_machine_lacks_are_refused_with_the_limit() {
        for kickstart in [
            "user --name=u --uid=65536\n",
            "user --name=u --uid=7 --gid=65536\n",
            "user --name=u --groups=g(65536)\n",
            "group --name=g --gid=65536\n",
        ] {
            let failure = failure(kickstart, 65536).expect(kickstart);
            assert!(
                failure.message.contains("number 65536")
                    && failure.message.contains("65536 ids from 0 to 65535"),
                "{failure:?}"
            );
            assert_eq!(failure.origin.as_deref(), Some("a.ks:1"));
            assert_eq!(failure.kind, FailureKind::Environment);
        }
        assert!(failure("user --name=u --uid=65536\n", 65537).is_none());
        assert!(failure("user --name=u --uid=65535\n", 65536).is_none());
    }
}

//! What can be done with triggers.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::builds::{Asked, not_found};
use super::paging::{self, Paging, given};
use crate::access::Caller;
use crate::server::Server;
use crate::store::{Role, Trigger};
use crate::wire::error::{ApiError, Code};
use crate::wire::read::with_numbers;
use crate::wire::schema::Kind;
use crate::wire::trigger::TRIGGER;
use crate::{address, submit, trigger};

/// Letters of a refusal in the log of who did what.
const LONGEST_NOTE: usize = 500;

impl Asked<'_> {
    /// Makes a trigger.
    pub(super) fn create_trigger(&self, body: Value) -> Result<Value, ApiError> {
        self.caller.needs(Role::Submit)?;
        let location = self.location.unwrap_or("global");
        let made = trigger::create(self.server, self.project, location, body)?;
        self.note("create trigger", &made);
        self.trigger_shown(&made)
    }

    /// A page of the newest triggers.
    pub(super) fn list_triggers(&self, query: &[(String, String)]) -> Result<Value, ApiError> {
        self.caller.needs(Role::View)?;
        let Paging { size, after } = Paging::read(query)?;
        // One more than asked for tells whether there is another page.
        let found =
            self.server
                .store
                .triggers(self.project, self.location, after.as_ref(), size + 1);
        let mut found = found.map_err(ApiError::internal)?;
        let more = found.len() > size;
        found.truncate(size);
        let triggers = found.iter().map(|trigger| self.trigger_shown(trigger));
        let triggers = triggers.collect::<Result<Vec<_>, _>>()?;
        let mut answer = json!({});
        if !triggers.is_empty() {
            answer["triggers"] = Value::from(triggers);
        }
        if let Some(last) = found.last().filter(|_| more) {
            answer["nextPageToken"] = Value::from(paging::token(last.created, &last.id));
        }
        Ok(answer)
    }

    /// A trigger.
    pub(super) fn get_trigger(&self, which: &str) -> Result<Value, ApiError> {
        self.caller.needs(Role::View)?;
        self.trigger_shown(&self.find_trigger(which)?)
    }

    /// Changes a trigger.
    pub(super) fn change_trigger(
        &self,
        which: &str,
        query: &[(String, String)],
        body: Value,
    ) -> Result<Value, ApiError> {
        self.caller.needs(Role::Submit)?;
        let old = self.find_trigger(which)?;
        let mask = given(query, "updateMask").or(given(query, "update_mask"));
        let new = trigger::change(self.server, &old, mask, body)?;
        self.note("change trigger", &new);
        self.trigger_shown(&new)
    }

    /// Removes a trigger; its builds stay.
    pub(super) fn delete_trigger(&self, which: &str) -> Result<Value, ApiError> {
        self.caller.needs(Role::Submit)?;
        let found = self.find_trigger(which)?;
        let removed = self.server.store.remove_trigger(&found.id);
        if !removed.map_err(ApiError::internal)? {
            return Err(not_found("trigger", which));
        }
        self.note("delete trigger", &found);
        Ok(json!({}))
    }

    /// Queues a build of a trigger.
    pub(super) fn run_trigger(&self, which: &str, body: Value) -> Result<Value, ApiError> {
        self.caller.needs(Role::Submit)?;
        let found = self.find_trigger(which)?;
        let alone = self.location.is_none();
        let record = trigger::run(self.server, &found, &self.caller.name, body, alone)?;
        let answer = self.show.operation(&record)?;
        submit::queue(self.server, &record, self.caller, "run trigger")?;
        Ok(answer)
    }

    fn find_trigger(&self, which: &str) -> Result<Trigger, ApiError> {
        let found = self
            .server
            .store
            .trigger(self.project, self.location, which)
            .map_err(ApiError::internal)?;
        found.ok_or_else(|| not_found("trigger", which))
    }

    fn trigger_shown(&self, trigger: &Trigger) -> Result<Value, ApiError> {
        let mut value = trigger::shown(self.server, trigger)?;
        if self.show.numbers {
            with_numbers(Kind::Message(&TRIGGER), &mut value);
        }
        Ok(value)
    }

    fn note(&self, what: &str, trigger: &Trigger) {
        self.audit(&format!("{what} {}", trigger.id), None);
    }
}

/// A webhook: a trigger, and who may run it.
pub(super) struct Hook {
    server: Arc<Server>,
    trigger: Trigger,
    sender: Caller,
}

impl Hook {
    /// Whether a request is a webhook, and if so, whether its secret is right. No token of the request counts.
    pub(super) fn find(
        server: &Arc<Server>,
        words: &[&str],
        query: &[(String, String)],
        headers: &HeaderMap,
    ) -> Option<Result<Hook, ApiError>> {
        let (project, location, last) = match words {
            ["v1", "projects", project, "triggers", last] => (project, None, last),
            [
                "v1",
                "projects",
                project,
                "locations",
                location,
                "triggers",
                last,
            ] => (project, Some(*location), last),
            _ => return None,
        };
        let which = last.strip_suffix(":webhook")?;
        let secret = given(query, "secret").unwrap_or("");
        let found = trigger::sender(server, project, location, which, secret);
        // Who does not know the secret cannot use up what its messages may.
        let counted = found.and_then(|(trigger, mut sender)| {
            server.limits.hook(&trigger.id).map_err(|wait| {
                let text = format!(
                    "the trigger {:?} gets too many messages (--webhook-rate): try again in {} s",
                    trigger.name,
                    wait.as_secs() + 1
                );
                ApiError::new(Code::ResourceExhausted, text)
            })?;
            sender.address = address::of(headers);
            Ok(Hook {
                server: Arc::clone(server),
                trigger,
                sender,
            })
        });
        Some(counted)
    }

    /// Queues a build for a message.
    pub(super) fn receive(&self, message: &[u8]) -> Result<Value, ApiError> {
        let received = trigger::receive(&self.server, &self.trigger, &self.sender, message);
        let record = received.inspect_err(|error| {
            // Who sends messages may show nobody what they are answered with.
            let why: String = error.message.chars().take(LONGEST_NOTE).collect();
            let what = format!("webhook refused: {why}");
            drop(self.sender.note(&self.server.store, &what, None));
        })?;
        submit::queue(&self.server, &record, &self.sender, "webhook")?;
        Ok(json!({}))
    }
}

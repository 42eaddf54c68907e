//! For those who run the server: tokens, the machine, and who did what.

use axum::response::Response;
use maud::{Markup, html};

use super::parts::{frame, moment, proof, size};
use super::session::Visitor;
use super::{Page, Query, ansi, page_of, to};
use crate::access;
use crate::store::{Entry, Role, Token};
use crate::wire::error::{ApiError, Code};
use crate::wire::model::Status;
use crate::wire::time;

/// Lines of the log of deeds.
const DEEDS: u32 = 50;
/// Letters of a token's name.
const LONGEST_NAME: usize = 64;

/// The page; `made` is a token that was just made, which is shown this once.
pub(super) fn page(page: &Page, visitor: &Visitor, made: Option<&str>) -> Result<Markup, ApiError> {
    visitor.caller.needs(Role::Admin)?;
    let store = &page.server.store;
    let tokens = store.tokens().map_err(ApiError::internal)?;
    let deeds = store.entries(None, DEEDS).map_err(ApiError::internal)?;
    let body = html! {
        div.head { h1 { "Administration" } }
        (machine(page)?)
        section aria-labelledby="tokens" {
            h2 #tokens { "Tokens" }
            @if let Some(made) = made {
                div.why role="status" {
                    p { "The new token, shown this once:" }
                    p.copy-line { code data-copy=(made) { (made) } }
                }
            }
            (token_table(page, &tokens, visitor))
            (new_token(visitor))
        }
        (deed_table(&deeds))
    };
    Ok(frame("Administration", Some(visitor), &body))
}

fn machine(page: &Page) -> Result<Markup, ApiError> {
    let (server, settings) = (&page.server, &page.server.settings);
    let count = |status| server.store.with_status(status).map(|list| list.len());
    let running = count(Status::Working).map_err(ApiError::internal)?;
    let queued = count(Status::Queued).map_err(ApiError::internal)?;
    let disk = rustix::fs::statvfs(&server.builds).or_else(|_| rustix::fs::statvfs(&server.cache));
    Ok(html! {
        section aria-labelledby="machine" {
            h2 #machine { "Machine" }
            dl.facts {
                div { dt { "Builds" } dd { (running) " running, " (queued) " waiting" } }
                div { dt { "Processors" } dd { (settings.cpus) } }
                div { dt { "Memory" } dd { (size(settings.memory)) ", " (size(settings.build_memory)) " set aside for a build" } }
                @if let Ok(disk) = disk {
                    div { dt { "Disk" } dd { (size(disk.f_bavail.saturating_mul(disk.f_frsize))) " free" } }
                }
                @if let Some(quota) = settings.quota {
                    div { dt { "In buckets, at most" } dd { (size(quota)) " for each token" } }
                }
                div { dt { "Health" } dd { a href="/healthz" { "healthz" } " · " a href="/readyz" { "readyz" } } }
                div { dt { "Open" } dd { @if settings.open { "yes: whoever reaches the port may do everything" } @else { "no" } } }
            }
        }
    })
}

fn token_table(page: &Page, tokens: &[Token], visitor: &Visitor) -> Markup {
    let held = |name: &str| page.server.objects.held(name);
    html! {
        @if tokens.is_empty() { p.quiet { "There are none." } } @else {
            div.scrolls tabindex="0" role="group" aria-labelledby="tokens" {
                table {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Role" } th scope="col" { "Made" } th scope="col" { "In buckets" } th scope="col" { "Take back" } } }
                    tbody { @for token in tokens {
                        tr {
                            th scope="row" { (ansi::plain(&token.name)) }
                            td { (token.role.name()) }
                            td { (moment(token.created)) }
                            td { (size(held(&token.name).bytes)) }
                            td {
                                details {
                                    summary aria-label={ "Take back the token of " (ansi::plain(&token.name)) } { "Take back" }
                                    form method="post" action="/admin/revoke" {
                                        (proof(visitor))
                                        input type="hidden" name="name" value=(token.name);
                                        button.danger { "Take it back for good" }
                                    }
                                }
                            }
                        }
                    } }
                }
            }
        }
    }
}

fn new_token(visitor: &Visitor) -> Markup {
    html! {
        form.row method="post" action="/admin/token" {
            (proof(visitor))
            label { "Name" br; input name="name" required maxlength=(LONGEST_NAME) autocomplete="off"; }
            label { "Role" br; select name="role" {
                @for role in [Role::View, Role::Submit, Role::Admin] { option value=(role.name()) { (role.name()) } }
            } }
            button.main { "Make a token" }
        }
    }
}

fn deed_table(deeds: &[Entry]) -> Markup {
    html! {
        section aria-labelledby="deeds" {
            h2 #deeds { "Who did what" }
            div.scrolls tabindex="0" role="group" aria-labelledby="deeds" {
                table {
                    thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "From" } th scope="col" { "What" } th scope="col" { "Build" } } }
                    tbody { @for deed in deeds {
                        tr {
                            td { @if let Some(time) = time::read_stamp(&deed.time) { (moment(time)) } }
                            td { (ansi::plain(&deed.who)) }
                            td { @if let Some(address) = &deed.address { (address) } }
                            td { (ansi::plain(&deed.what)) }
                            td { @if let Some(build) = &deed.build { a href={ "/builds/" (build) } { (build.get(..8).unwrap_or(build)) } } }
                        }
                    } }
                }
            }
        }
    }
}

/// What an administrator's form asks for.
pub(super) fn act(
    page: &Page,
    visitor: &Visitor,
    what: &str,
    form: &Query,
) -> Result<Response, ApiError> {
    visitor.caller.needs(Role::Admin)?;
    let store = &page.server.store;
    let name = form.get("name").trim();
    let note = |deed: &str| {
        let written = visitor.caller.note(store, &format!("{deed} {name}"), None);
        written.map_err(ApiError::internal)
    };
    match what {
        "revoke" => {
            store.remove_token(name).map_err(ApiError::internal)?;
            note("token revoke")?;
            Ok(to("/admin"))
        }
        "token" => {
            if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
                return Err(ApiError::invalid("a token needs a name of 1 to 64 letters"));
            }
            let role = Role::read(form.get("role"))
                .ok_or_else(|| ApiError::invalid("there is no such role"))?;
            let made = access::create(store, name, role).map_err(ApiError::internal)?;
            let made = made.ok_or_else(|| {
                ApiError::new(
                    Code::FailedPrecondition,
                    format!("there is a token named {name} already"),
                )
            })?;
            note("token create")?;
            let shown = self::page(page, visitor, Some(&made))?;
            Ok(page_of(axum::http::StatusCode::OK, &shown))
        }
        _ => Err(super::not_found()),
    }
}

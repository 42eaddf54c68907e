//! What `kiln test` saw: a picture of the screen for each boot, and how it went.
//!
//! Builds write both files. A picture is sent only if it begins as one and is of a size that a browser can bear.

use std::fs;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::parts::span;
use super::view::View;
use super::{Page, Query, ansi, attempt_of, find, history, kept};
use crate::executor::request::{Attempt, LARGEST_PICTURE};
use crate::wire::error::{ApiError, Code};

/// Pixels of a picture at most: a browser holds four bytes for each.
const MOST_PIXELS: u64 = 16 << 20;
/// What every PNG begins with, up to the width; see PNG (third edition), section 5.2 and 11.2.1.
const BEGINNING: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";

/// `boot.json`, as far as the page shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Boot {
    verdict: String,
    detail: String,
    firmware: String,
    accel: String,
    seconds: f64,
    os: Option<String>,
    stages: Vec<Stage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stage {
    name: String,
}

impl Boot {
    /// How it went, in a sentence without its end.
    fn words(&self) -> String {
        let firmware = match self.firmware.as_str() {
            "bios" => "BIOS",
            "uefi" => "UEFI",
            "secure" => "UEFI with Secure Boot",
            _ => "unknown firmware",
        };
        let reached = self.stages.last().map_or("", |stage| stage.name.as_str());
        let reached = match reached {
            "login" | "multi-user" | "graphical" => "login prompt",
            "desktop" | "windows" | "session" => "desktop",
            "userspace" => "init",
            "kernel" => "kernel",
            "boot-loader" => "boot loader",
            _ => "firmware",
        };
        let emulated = match self.accel.as_str() {
            "tcg" => ", emulated",
            _ => "",
        };
        let time = span(self.seconds);
        match self.verdict.as_str() {
            "passed" => format!("{firmware}{emulated}: {reached} after {time}"),
            _ => format!(
                "{firmware}{emulated}: does not come up, {reached} reached, given up after {time}"
            ),
        }
    }
}

/// The boots of an attempt: the record's file, and what it says.
fn all(attempt: &Attempt) -> Vec<(PathBuf, Boot)> {
    let paths = kept::named(attempt, |name| name == "boot.json");
    let read = |path: PathBuf| kept::read(&path).map(|boot| (path, boot));
    paths.into_iter().filter_map(read).collect()
}

/// The picture beside a boot's record, if it is one.
fn picture(record: &Path) -> Option<Vec<u8>> {
    let path = record.with_file_name("desktop.png");
    let data = path.symlink_metadata().ok()?;
    if !data.is_file() || data.len() > LARGEST_PICTURE {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    is_bearable(&bytes).then_some(bytes)
}

fn is_bearable(bytes: &[u8]) -> bool {
    let side = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_be_bytes);
    let Some((sides, _)) = bytes
        .strip_prefix(BEGINNING)
        .and_then(|rest| rest.split_at_checked(8))
    else {
        return false;
    };
    let pixels = u64::from(side(&sides[..4])) * u64::from(side(&sides[4..]));
    (1..=MOST_PIXELS).contains(&pixels)
}

/// Every boot with its picture.
pub(super) fn section(view: &View<'_>) -> Markup {
    let boots = all(&view.attempt);
    let (id, number) = (&view.record.build.id, view.number);
    let address = |id: &str, attempt: u32, at: usize| {
        format!("/builds/{id}/kept/desktop.png?attempt={attempt}&number={at}")
    };
    let earlier = history::before(view.record, &view.all).filter(|earlier| {
        let attempt = view.page.server.attempt(&earlier.build.id, earlier.attempt);
        all(&attempt)
            .iter()
            .any(|(path, _)| picture(path).is_some())
    });
    html! {
        @if !boots.is_empty() {
            section.boots aria-labelledby="boots" {
                h2 #boots { "Boots" }
                @for (at, (path, boot)) in boots.iter().enumerate() {
                    @let words = boot.words();
                    figure {
                        @if picture(path).is_some() {
                            img src=(address(id, number, at)) alt={ "The screen at the end of the boot. " (ansi::plain(&words)) } loading="lazy";
                        }
                        figcaption {
                            strong { (ansi::plain(&words)) }
                            @if let Some(os) = &boot.os { " · " (ansi::plain(os)) }
                            @if picture(path).is_some() { " · " a href=(address(id, number, at)) download={ "desktop-" (at) ".png" } { "Picture" } }
                            @if !boot.detail.is_empty() { br; (ansi::plain(&boot.detail)) }
                        }
                    }
                }
                @if let Some(earlier) = earlier {
                    p.quiet { a href={ "/builds/" (earlier.build.id) "#boots" } { "The screen of the image before" } }
                }
            }
        }
    }
}

/// Sends a picture.
pub(super) fn send(page: &Page, id: &str, query: &Query) -> Result<Response, ApiError> {
    let record = find(page, id)?;
    let attempt = page.server.attempt(id, attempt_of(&record, query)?);
    let at = usize::try_from(query.number("number").unwrap_or(0)).unwrap_or(usize::MAX);
    let boots = all(&attempt);
    let found = boots.get(at).and_then(|(path, _)| picture(path));
    let bytes = found.ok_or_else(|| ApiError::new(Code::NotFound, "the boot has no picture"))?;
    let kind = HeaderValue::from_static("image/png");
    let name = HeaderValue::from_static("inline; filename=\"desktop.png\"");
    let head = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((head, Body::from(bytes)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pictures_that_browsers_bear_are_sent() {
        let of = |width: u32, height: u32| {
            let mut bytes = BEGINNING.to_vec();
            bytes.extend(width.to_be_bytes());
            bytes.extend(height.to_be_bytes());
            bytes
        };
        assert!(is_bearable(&of(1280, 800)));
        for bytes in [
            of(0, 800),
            of(u32::MAX, u32::MAX),
            of(100_000, 100_000),
            of(1280, 800)[..20].to_vec(),
            b"<script>alert(1)</script>".to_vec(),
            Vec::new(),
        ] {
            assert!(!is_bearable(&bytes), "{bytes:?}");
        }
    }

    #[test]
    fn a_boot_is_told_in_a_line() {
        let boot: Boot = serde_json::from_str(
            r#"{"verdict":"passed","firmware":"bios","accel":"tcg","seconds":48.2,"stages":[{"name":"kernel"},{"name":"login"}]}"#,
        )
        .unwrap();
        assert_eq!(boot.words(), "BIOS, emulated: login prompt after 48 s");
        let boot: Boot = serde_json::from_str(
            r#"{"verdict":"failed","reason":"no-kernel","firmware":"uefi","accel":"kvm","seconds":60,"stages":[{"name":"boot-loader"}]}"#,
        )
        .unwrap();
        assert_eq!(
            boot.words(),
            "UEFI: does not come up, boot loader reached, given up after 1 min 0 s"
        );
    }
}

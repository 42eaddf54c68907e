//! How the server is: `/metrics` in Prometheus' text format, and `/readyz`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::disk;
use crate::requests::{BUCKETS, Requests};
use crate::server::Server;
use crate::store::Counts;
use crate::wire::time;

/// With less room for its data than this the server is not ready for builds.
const LEAST_FREE: u64 = 256 << 20;

/// Stands around all routes and counts.
pub(crate) async fn measure(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let response = next.run(request).await;
    server
        .requests
        .count(began.elapsed(), response.status().as_u16());
    response
}

/// Why the server is not ready, if it is not.
///
/// # Errors
/// The database, the store of the buckets' contents or the disk is not fit.
pub(crate) fn ready(server: &Server) -> Result<(), String> {
    server.store.answers().map_err(|error| error.to_string())?;
    if let Some(trouble) = server.objects.trouble() {
        return Err(trouble.to_string());
    }
    let free = disk::free(&server.builds).map_err(|error| format!("the disk: {error}"))?;
    match free >= LEAST_FREE.max(server.settings.keep_free) {
        true => Ok(()),
        false => Err(format!(
            "the disk has only {} MB left for builds",
            free / 1_000_000
        )),
    }
}

/// Everything, as Prometheus reads it.
///
/// # Errors
/// The database cannot be read.
pub(crate) fn text(server: &Server) -> Result<String, crate::store::Error> {
    let mut text = Text::default();
    text.family("kiln_info", "gauge", "Version of the server.");
    text.sample("kiln_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    of_builds(&mut text, &server.store.counts()?);
    of_requests(&mut text, &server.requests);
    let data = server.builds.parent().unwrap_or(&server.builds);
    let size = |name: &str| data.join(name).metadata().map_or(0, |file| file.len());
    let bytes = size("kiln.db") + size("kiln.db-wal");
    text.single("kiln_database_bytes", "Size of the database.", bytes as f64);
    if let Ok(free) = disk::free(&server.builds) {
        text.single(
            "kiln_disk_free_bytes",
            "Room that is left for builds.",
            free as f64,
        );
    }
    let settings = &server.settings;
    text.single(
        "kiln_processors",
        "Processors for all builds together.",
        f64::from(settings.cpus),
    );
    text.single(
        "kiln_memory_bytes",
        "Memory for all builds together.",
        settings.memory as f64,
    );
    Ok(text.0)
}

fn of_builds(text: &mut Text, counts: &Counts) {
    text.family(
        "kiln_builds",
        "gauge",
        "Builds that are on record, by status.",
    );
    for (status, count) in &counts.builds {
        text.sample("kiln_builds", &[("status", status)], *count as f64);
    }
    let waited = counts
        .oldest_queued
        .map_or(0, |created| time::now() - created);
    let help = "How long the build that waits longest has waited.";
    text.single(
        "kiln_queue_oldest_seconds",
        help,
        waited.max(0) as f64 / 1e9,
    );
    let name = "kiln_attempt_duration_seconds";
    text.family(name, "summary", "Time of ended attempts, by status.");
    for (status, count, seconds) in &counts.attempts {
        text.sample(&format!("{name}_sum"), &[("status", status)], *seconds);
        text.sample(
            &format!("{name}_count"),
            &[("status", status)],
            *count as f64,
        );
    }
    let (open, failed) = counts.deliveries;
    text.single(
        "kiln_deliveries_open",
        "Notifications that are to be delivered.",
        open as f64,
    );
    text.single(
        "kiln_deliveries_failed",
        "Notifications of the last 30 days that were given up.",
        failed as f64,
    );
}

fn of_requests(text: &mut Text, requests: &Requests) {
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    text.family(
        "kiln_http_requests_total",
        "counter",
        "Requests, by the kind of answer.",
    );
    let mut all = 0.0;
    for (at, counter) in requests.kinds.iter().enumerate() {
        let kind = format!("{}xx", at + 1);
        text.sample(
            "kiln_http_requests_total",
            &[("code", &kind)],
            value(counter),
        );
        all += value(counter);
    }
    let name = "kiln_http_request_duration_seconds";
    text.family(name, "histogram", "Time until an answer begins.");
    let mut sum = 0.0;
    for (end, counter) in BUCKETS.iter().zip(&requests.buckets) {
        sum += value(counter);
        text.sample(&format!("{name}_bucket"), &[("le", &end.to_string())], sum);
    }
    text.sample(&format!("{name}_bucket"), &[("le", "+Inf")], all);
    text.sample(
        &format!("{name}_sum"),
        &[],
        value(&requests.microseconds) / 1e6,
    );
    text.sample(&format!("{name}_count"), &[], all);
}

/// Prometheus' text format, version 0.0.4. No label's value holds a quotation mark, a backslash or a line end.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_fall_into_their_buckets() {
        let requests = Requests::default();
        for (milliseconds, status) in [(1, 200), (7, 200), (60_000, 503), (2, 404)] {
            requests.count(Duration::from_millis(milliseconds), status);
        }
        let mut text = Text::default();
        of_requests(&mut text, &requests);
        for line in [
            "kiln_http_requests_total{code=\"2xx\"} 2",
            "kiln_http_requests_total{code=\"5xx\"} 1",
            "kiln_http_request_duration_seconds_bucket{le=\"0.005\"} 2",
            "kiln_http_request_duration_seconds_bucket{le=\"30\"} 3",
            "kiln_http_request_duration_seconds_bucket{le=\"+Inf\"} 4",
            "kiln_http_request_duration_seconds_sum 60.01",
        ] {
            assert!(
                text.0.lines().any(|found| found == line),
                "{line} is not in\n{}",
                text.0
            );
        }
    }
}

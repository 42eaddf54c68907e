//! What a build does, in a word, and how long builds of the same kind took.

use std::path::Path;

use crate::store::Record;
use crate::wire::model::Status;
use crate::wire::time;

/// Builds that are looked through for earlier ones.
pub(super) const LOOKED_THROUGH: usize = 300;
/// Durations that an expectation rests on.
const ENOUGH: usize = 5;

/// What a build is called: the definition that its first step names.
pub(super) fn name(record: &Record) -> String {
    let steps = &record.build.steps;
    let kickstart = |arg: &&String| arg.ends_with(".ks") && !arg.starts_with('-');
    let mut args = steps.iter().flat_map(|step| step.args.iter());
    let found = args.find(kickstart).cloned().or_else(|| {
        let step = steps.first()?;
        let mut words = step.args.iter().filter(|arg| !arg.starts_with('-'));
        let (first, second) = (words.next(), words.next());
        second.or(first).or(step.id.as_ref()).cloned()
    });
    let text = found.unwrap_or_else(|| record.build.id.chars().take(8).collect());
    let base = Path::new(&text).file_name().and_then(|name| name.to_str());
    let shown = super::ansi::plain(base.unwrap_or(&text));
    shown
        .strip_suffix(".ks")
        .map(str::to_owned)
        .unwrap_or(shown)
}

/// Whether two builds make the same thing.
pub(super) fn same(one: &Record, other: &Record) -> bool {
    let args = |record: &Record| {
        let steps = record.task.steps.iter();
        steps
            .map(|step| (step.image.clone(), step.args.clone()))
            .collect::<Vec<_>>()
    };
    one.build.project_id == other.build.project_id && args(one) == args(other)
}

/// When a build began, and when it ended or now.
pub(super) fn times(record: &Record) -> Option<(i64, Option<i64>)> {
    let build = &record.build;
    let began = time::read_stamp(build.start_time.as_deref()?)?;
    Some((
        began,
        build.finish_time.as_deref().and_then(time::read_stamp),
    ))
}

/// Seconds between two moments.
pub(super) fn seconds(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1e9
}

/// How long a build took, or has taken so far.
pub(super) fn taken(record: &Record, now: i64) -> Option<f64> {
    let (began, ended) = times(record)?;
    Some(seconds(began, ended.unwrap_or(now)))
}

/// How long a build is expected to take: the middle of what the last ones of its kind took that went well.
pub(super) fn expected(record: &Record, all: &[Record]) -> Option<f64> {
    let earlier = all.iter().filter(|other| {
        other.build.status == Status::Success
            && other.build.id != record.build.id
            && other.created <= record.created
            && same(other, record)
    });
    let mut spans: Vec<f64> = earlier
        .filter_map(|other| taken(other, 0))
        .take(ENOUGH)
        .collect();
    spans.sort_by(f64::total_cmp);
    spans.get(spans.len() / 2).copied()
}

/// The newest build before this one that made the same thing and went well.
pub(super) fn before<'a>(record: &Record, all: &'a [Record]) -> Option<&'a Record> {
    all.iter().find(|other| {
        other.build.status == Status::Success
            && (other.created, &other.build.id) < (record.created, &record.build.id)
            && same(other, record)
    })
}

/// The build that will be made if one is retried, and so on back to the first: how often it was asked for.
pub(super) fn trigger(record: &Record) -> String {
    if record.retry_of.is_some() {
        return "retry".to_owned();
    }
    match record.build.substitutions.get("TRIGGER_NAME") {
        Some(name) if !name.is_empty() => super::ansi::plain(name),
        _ => "by hand".to_owned(),
    }
}

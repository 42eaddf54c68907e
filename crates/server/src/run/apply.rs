//! What an event changes in a build as clients see it. Applying one twice changes nothing.

use crate::executor::request::{Event, PushedImage, What};
use crate::git;
use crate::wire::model::{Build, BuiltImage, Status, TimeSpan};
use crate::wire::time;

/// Applies an event.
pub(super) fn event(build: &mut Build, event: &Event) {
    let now = Some(time::stamp(event.time));
    match &event.what {
        What::Fetched { began, commit } => {
            commit.iter().for_each(|commit| git::fetched(build, commit));
            let span = TimeSpan {
                start_time: Some(time::stamp(*began)),
                end_time: now,
            };
            build.timing.insert("FETCHSOURCE".to_owned(), span);
        }
        What::StepsBegan => {
            let span = TimeSpan {
                start_time: now,
                end_time: None,
            };
            build.timing.insert("BUILD".to_owned(), span);
        }
        What::StepsEnded => {
            if let Some(span) = build.timing.get_mut("BUILD") {
                span.end_time = now;
            }
        }
        What::StepBegan { step } => {
            if let Some(step) = build.steps.get_mut(*step) {
                step.status = Some(Status::Working);
                step.exit_code = None;
                step.timing = Some(TimeSpan {
                    start_time: now,
                    end_time: None,
                });
            }
        }
        What::StepEnded {
            step,
            status,
            exit_code,
        } => {
            if let Some(step) = build.steps.get_mut(*step) {
                step.status = Some(*status);
                step.exit_code = *exit_code;
                if let Some(timing) = &mut step.timing {
                    timing.end_time = now;
                }
            }
        }
        What::Image {
            step,
            image,
            pulled,
        } => {
            let steps = build.steps.len();
            let results = build.results.get_or_insert_default();
            results.build_step_images.resize(steps, String::new());
            put(&mut results.build_step_images, *step, image);
            if let (Some(step), Some(began)) = (build.steps.get_mut(*step), pulled) {
                step.pull_timing = Some(TimeSpan {
                    start_time: Some(time::stamp(*began)),
                    end_time: now,
                });
            }
        }
        What::Output { step, output } => said(build, *step, output),
        What::Pushed { images } => {
            let results = build.results.get_or_insert_default();
            results.images = images.iter().map(built).collect();
        }
        What::Artifacts { .. } | What::Ended { .. } => {}
    }
}

fn said(build: &mut Build, step: usize, output: &str) {
    let steps = build.steps.len();
    let results = build.results.get_or_insert_default();
    results.build_step_outputs.resize(steps, String::new());
    put(&mut results.build_step_outputs, step, output);
}

fn put(texts: &mut [String], step: usize, text: &str) {
    if let Some(place) = texts.get_mut(step) {
        text.clone_into(place);
    }
}

fn built(image: &PushedImage) -> BuiltImage {
    BuiltImage {
        name: image.name.clone(),
        digest: image.digest.clone(),
        push_timing: Some(TimeSpan {
            start_time: Some(time::stamp(image.began)),
            end_time: Some(time::stamp(image.ended)),
        }),
    }
}

/// Takes back what an attempt that is to be made again has reported.
pub(super) fn forget(build: &mut Build) {
    build.timing.clear();
    build.results = None;
    for step in &mut build.steps {
        step.status = None;
        step.exit_code = None;
        step.timing = None;
        step.pull_timing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::model::Step;

    #[test]
    fn events_can_be_applied_again() {
        let mut build = Build {
            steps: vec![Step::default()],
            ..Build::default()
        };
        let list = [
            What::StepsBegan,
            What::StepBegan { step: 0 },
            What::StepEnded {
                step: 0,
                status: Status::Failure,
                exit_code: Some(1),
            },
            What::StepBegan { step: 7 },
            What::StepsEnded,
        ];
        let apply_all = |build: &mut Build| {
            for (time, what) in list.iter().enumerate() {
                let time = time as i64;
                event(
                    build,
                    &Event {
                        time,
                        what: what.clone(),
                    },
                );
            }
        };
        apply_all(&mut build);
        let once = build.clone();
        apply_all(&mut build);
        assert_eq!(build, once);
        assert_eq!(build.steps[0].exit_code, Some(1));
        assert!(build.timing["BUILD"].end_time.is_some());
        forget(&mut build);
        assert!(build.timing.is_empty() && build.steps[0].status.is_none());
    }
}

//! Copies what is known, reads and compresses the rest on all threads, and hands everything over in order.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::job::{Finished, Job, Planned};
use super::options::Options;
use super::output::Direct;
use super::plan::Material;
use super::queue::Queue;
use super::worker::Worker;
use crate::{Error, ErrorKind, Result};

/// Makes what is planned, or a part of it, and gives it to `take` in order, on the calling thread. `take` gives where in the
/// image it stands afterwards; before, it stands at `start`. What is copied goes straight to its place in `direct`, as soon as that is known.
pub(super) fn run(
    image: &Material<'_>,
    planned: &[Planned],
    (start, direct): (u64, Option<Direct>),
    mut take: impl FnMut(&Finished) -> Result<u64>,
) -> Result<()> {
    let options = image.options;
    let mut queue = Queue::new(image, planned, start);
    queue.direct = direct;
    let queue = &queue;
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            let sender = sender.clone();
            scope.spawn(move || work(queue, options, &sender));
        }
        drop(sender);
        // Also when `take` fails or panics, the workers must not wait for the window to move.
        let _stop = StopOnDrop(queue);
        deliver(queue, &receiver, &mut take)
    })
}

fn deliver(
    queue: &Queue<'_>,
    receiver: &Receiver<(u64, Result<Finished>)>,
    take: &mut impl FnMut(&Finished) -> Result<u64>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (sequence, finished) in receiver {
        early.insert(sequence, finished?);
        while let Some(finished) = early.remove(&next) {
            let position = take(&finished)?;
            next += 1;
            queue.written(next, finished.buffer, position)?;
        }
    }
    if queue.is_done(next) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        "the threads of the SquashFS writer ended early",
    ))
}

fn work(queue: &Queue<'_>, options: &Options, sender: &Sender<(u64, Result<Finished>)>) {
    let _stop = StopOnPanic(queue);
    let mut worker = match Worker::new(queue, options) {
        Ok(worker) => worker,
        Err(e) => {
            // The receiver is gone only when it failed itself.
            let _ = sender.send((0, Err(e)));
            return;
        }
    };
    while let Some(Job {
        sequence,
        items,
        start,
    }) = queue.next()
    {
        let finished = match (&queue.direct, start) {
            (Some(direct), Some(start)) => worker.straight(&items, direct, start),
            _ => worker.finish(&items),
        };
        if sender.send((sequence, finished)).is_err() {
            return;
        }
    }
}

struct StopOnDrop<'q, 'a>(&'q Queue<'a>);

impl Drop for StopOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct StopOnPanic<'q, 'a>(&'q Queue<'a>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

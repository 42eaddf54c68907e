//! The digest of `disk.raw`, made while the disk is written.
//!
//! SHA-256 goes from the first byte to the last, and the first bytes (the partition table, the superblock of the root) tell lengths. So it
//! begins when the length of the SquashFS is known and everything around it is in its place: in a warm build before the blocks are
//! copied (`kiln_image::squashfs`), in a cold one when they are written.

use std::fs::File;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::means::digest::Digesting;

/// Bytes that are digested before it is asked again whether anybody wants them.
const STEP: u64 = 16 << 20;

/// How far the disk has got. The one that writes the SquashFS, the one that puts the rest into its place, and the digest tell and ask.
#[derive(Default)]
pub(crate) struct Follow {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Length of the SquashFS.
    length: Option<u64>,
    /// Bytes from its start on that stay as they are.
    written: u64,
    /// Where in the disk it begins, once everything around it is there.
    start: Option<u64>,
    is_complete: bool,
    is_closed: bool,
}

impl Follow {
    /// The length of the SquashFS is known, and not all of it is written.
    pub(crate) fn expect(&self, length: u64) {
        self.change(|state| state.length = Some(length));
    }

    /// So much of the SquashFS will stay as it is.
    pub(crate) fn reach(&self, written: u64) {
        self.change(|state| state.written = written);
    }

    /// The SquashFS is there.
    pub(crate) fn complete(&self, length: u64) {
        self.change(|state| {
            state.length = Some(length);
            state.written = length;
            state.is_complete = true;
        });
    }

    /// Everything else is there, around the SquashFS that begins at `start`.
    pub(crate) fn surround(&self, start: u64) {
        self.change(|state| state.start = Some(start));
    }

    /// Where the SquashFS begins, once everything around it is there.
    pub(crate) fn start(&self) -> Option<u64> {
        self.lock().start
    }

    /// Nobody waits any more: something failed, or everything is done.
    pub(crate) fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    /// Waits for the length of the SquashFS; `None` where there will be none.
    pub(crate) fn length(&self) -> Option<u64> {
        self.wait(|state| state.length)
    }

    /// Waits until the SquashFS is there. Whether it is.
    pub(crate) fn is_complete(&self) -> bool {
        self.wait(|state| state.is_complete.then_some(())).is_some()
    }

    /// The digest of the disk, hexadecimal; `None` where the disk will not be complete. `file` is a handle of its own.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn digest(&self, file: &File) -> io::Result<Option<String>> {
        let Some((start, length)) = self.wait(|state| state.start.zip(state.length)) else {
            return Ok(None);
        };
        let size = file.metadata()?.len();
        let mut digesting = Digesting::new(file);
        digesting.add(0..start)?;
        let mut done = 0;
        while done < length {
            let further = |state: &State| (state.written > done).then_some(state.written);
            let Some(written) = self.wait(further) else {
                return Ok(None);
            };
            let to = written.min(length).min(done + STEP);
            digesting.add_data(start + done..start + to)?;
            done = to;
        }
        digesting.add(start + length..size)?;
        Ok(Some(digesting.finish()))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait<T>(&self, ready: impl Fn(&State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        while !state.is_closed {
            if let Some(found) = ready(&state) {
                return Some(found);
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes on every way out.
pub(crate) struct Closing<'f>(pub(crate) &'f Follow);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use kiln_digest::Sha256;

    use super::*;

    const START: u64 = 3 << 20;
    const LENGTH: u64 = 40 << 20;
    const SIZE: u64 = 50 << 20;

    fn expected(file: &File) -> String {
        let mut bytes = vec![0; SIZE as usize];
        file.read_exact_at(&mut bytes, 0).expect("its bytes");
        hex::encode(Sha256::digest(bytes))
    }

    /// A disk of `SIZE` bytes without its root.
    fn around() -> File {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(SIZE).expect("a long file");
        for at in [0, START - 1, SIZE - 1] {
            file.write_all_at(&[9], at).expect("a byte");
        }
        file
    }

    #[test]
    fn the_digest_of_a_disk_that_is_written_meanwhile_is_that_of_the_whole() {
        let (file, follow) = (around(), Follow::default());
        let found = std::thread::scope(|scope| {
            let digest = scope.spawn(|| follow.digest(&file));
            follow.expect(LENGTH);
            follow.surround(START);
            assert_eq!(follow.length(), Some(LENGTH));
            for at in (0..LENGTH).step_by(1 << 20) {
                let bytes = vec![(at >> 20) as u8 + 1; 1 << 20];
                file.write_all_at(&bytes, START + at).expect("a piece");
                follow.reach(at + (1 << 20));
            }
            follow.complete(LENGTH);
            digest.join().expect("no panic")
        });
        assert_eq!(found.expect("readable"), Some(expected(&file)));
        assert!(follow.is_complete());
    }

    #[test]
    fn a_root_whose_length_was_not_known_is_waited_for() {
        let (file, follow) = (around(), Follow::default());
        let found = std::thread::scope(|scope| {
            let digest = scope.spawn(|| follow.digest(&file));
            file.write_all_at(&[5; 1 << 20], START).expect("a root");
            follow.complete(1 << 20);
            file.write_all_at(&[6], START - 7).expect("a table");
            follow.surround(START);
            digest.join().expect("no panic")
        });
        assert_eq!(found.expect("readable"), Some(expected(&file)));
    }

    #[test]
    fn nobody_waits_for_what_will_not_come() {
        let told: [fn(&Follow); 3] = [
            |_| {},
            |follow| follow.expect(LENGTH),
            |follow| {
                follow.expect(LENGTH);
                follow.surround(START);
                follow.reach(1);
            },
        ];
        for told in told {
            let (file, follow) = (around(), Follow::default());
            told(&follow);
            let found = std::thread::scope(|scope| {
                let digest = scope.spawn(|| follow.digest(&file));
                let whole = scope.spawn(|| follow.is_complete());
                drop(Closing(&follow));
                assert!(!whole.join().expect("no panic"));
                digest.join().expect("no panic")
            });
            assert_eq!(found.expect("readable"), None);
        }
    }
}

//! A list of verbs, gone through again where a stored layer turned out to be damaged.

use std::sync::{Arc, Mutex, PoisonError};

use kiln_plan::Id;

use crate::{Failure, FailureKind};

/// How often a build begins again because of damaged layers. A disk that damages more than that has to be replaced.
const TRIES: usize = 4;

/// What knows of damage while a list of verbs is gone through.
pub(crate) trait Damage {
    /// Whether a damaged layer was found and is out of the store, so that it is worth to begin again. Said once.
    fn take_evicted(&self) -> bool;

    /// Says why it begins again, and clears away what nobody holds any more.
    ///
    /// # Errors
    /// It cannot be cleared away.
    fn prepare(&self, failure: Failure) -> Result<(), Failure>;
}

/// What is made once, however often the list is gone through, as long as it is made of the same.
pub(crate) struct Once<T>(Mutex<Option<(Id, Arc<T>)>>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once(Mutex::default())
    }
}

impl<T> Once<T> {
    /// What was made of this before, or is made now. What failed is made again.
    pub(crate) fn get(
        &self,
        of: Id,
        make: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Arc<T>, Failure> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, value)) = &*made
            && *known == of
        {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(make()?);
        *made = Some((of, Arc::clone(&value)));
        Ok(value)
    }
}

/// Goes through a list with what was opened, and through the whole of it with what is opened afresh, until it ends otherwise
/// than by a damaged layer.
pub(crate) fn again<O, T>(
    damage: &dyn Damage,
    opened: O,
    open: impl Fn() -> Result<O, Failure>,
    list: impl Fn(O) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut opened = opened;
    for _ in 0..TRIES {
        match list(opened) {
            Err(failure) if failure.kind == FailureKind::Cancelled => return Err(failure),
            Err(failure) if damage.take_evicted() => damage.prepare(failure)?,
            other => return other,
        }
        opened = open()?;
    }
    list(opened)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use kiln_plan::Hasher;

    use super::*;

    /// A store in which some layers are damaged; each go finds one of them.
    struct Disk {
        damaged: Cell<usize>,
        evicted: Cell<bool>,
        said: RefCell<Vec<String>>,
        full: bool,
    }

    impl Disk {
        fn new(damaged: usize) -> Self {
            Disk {
                damaged: Cell::new(damaged),
                evicted: Cell::new(false),
                said: RefCell::default(),
                full: false,
            }
        }

        fn build(&self, lists: &RefCell<Vec<u32>>, opened: u32) -> Result<u32, Failure> {
            lists.borrow_mut().push(opened);
            match self.damaged.get() {
                0 => Ok(opened),
                left => {
                    self.damaged.set(left - 1);
                    self.evicted.set(true);
                    Err(Failure::new(FailureKind::Step, format!("damage {left}")))
                }
            }
        }
    }

    impl Damage for Disk {
        fn take_evicted(&self) -> bool {
            self.evicted.replace(false)
        }

        fn prepare(&self, failure: Failure) -> Result<(), Failure> {
            self.said.borrow_mut().push(failure.message);
            match self.full {
                true => Err(Failure::new(FailureKind::Environment, "the disk is full")),
                false => Ok(()),
            }
        }
    }

    fn go(disk: &Disk) -> (Result<u32, Failure>, Vec<u32>) {
        let (opens, lists) = (Cell::new(0), RefCell::default());
        let open = || {
            opens.set(opens.get() + 1);
            Ok(opens.get())
        };
        let result = again(disk, 0, open, |opened| disk.build(&lists, opened));
        (result, lists.into_inner())
    }

    #[test]
    fn a_sound_store_is_gone_through_once_with_what_was_opened() {
        let disk = Disk::new(0);
        let (result, lists) = go(&disk);
        assert_eq!((result.ok(), lists), (Some(0), vec![0]));
        assert!(disk.said.borrow().is_empty());
    }

    #[test]
    fn after_damage_everything_is_opened_afresh() {
        let disk = Disk::new(2);
        let (result, lists) = go(&disk);
        assert_eq!((result.ok(), lists), (Some(2), vec![0, 1, 2]));
        assert_eq!(*disk.said.borrow(), ["damage 2", "damage 1"]);
    }

    #[test]
    fn a_disk_that_damages_all_the_time_ends_the_build() {
        let disk = Disk::new(100);
        let (result, lists) = go(&disk);
        assert_eq!(lists, [0, 1, 2, 3, 4]);
        assert_eq!(result.expect_err("damaged").message, "damage 96");
        assert!(disk.take_evicted(), "nobody has asked after the last go");
    }

    /// `%pre` ran anew when an image found a damaged layer. It may ask, or fetch what has changed meanwhile.
    #[test]
    fn what_pre_left_is_there_for_every_go() {
        let (disk, once, runs) = (Disk::new(2), Once::default(), Cell::new(0));
        let id = |text: &str| Hasher::new("test").text("script", text).finish();
        let script = RefCell::new("a");
        let pre = || {
            runs.set(runs.get() + 1);
            Ok(runs.get())
        };
        let list = |()| {
            let left = once.get(id(*script.borrow()), pre)?;
            disk.build(&RefCell::default(), *left)
        };
        assert_eq!(again(&disk, (), || Ok(()), list).expect("built"), 1);
        // Somebody has edited it between two goes.
        *script.borrow_mut() = "b";
        assert_eq!(again(&disk, (), || Ok(()), list).expect("built"), 2);
        // A run that failed counts for nothing.
        let failing = || Err(Failure::new(FailureKind::Step, "%pre failed"));
        assert!(once.get(id("c"), failing).is_err());
        assert_eq!(*once.get(id("c"), pre).expect("run"), 3);
    }

    #[test]
    fn a_build_that_was_cancelled_does_not_begin_again() {
        let disk = Disk::new(1);
        disk.evicted.set(true);
        let cancelled = |_: u32| Err::<(), _>(Failure::new(FailureKind::Cancelled, "cancelled"));
        let result = again(&disk, 0, || panic!("opened"), cancelled);
        assert_eq!(result.expect_err("cancelled").kind, FailureKind::Cancelled);
        assert!(disk.said.borrow().is_empty());
    }

    #[test]
    fn other_failures_end_it_at_once() {
        let disk = Disk::new(0);
        let failed = |_: u32| Err::<(), _>(Failure::new(FailureKind::Step, "%post failed"));
        let result = again(&disk, 0, || panic!("opened"), failed);
        assert_eq!(result.expect_err("failed").message, "%post failed");
        let disk = Disk {
            full: true,
            ..Disk::new(1)
        };
        let (result, lists) = go(&disk);
        assert_eq!(result.expect_err("full").message, "the disk is full");
        assert_eq!(lists, [0]);
    }

    #[test]
    fn a_definition_that_is_gone_by_then_is_the_failure() {
        let disk = Disk::new(1);
        let gone = || Err(Failure::new(FailureKind::Definition, "lab.ks is gone"));
        let lists = RefCell::default();
        let result = again(&disk, 0, gone, |opened| disk.build(&lists, opened));
        assert_eq!(result.expect_err("gone").message, "lab.ks is gone");
    }
}

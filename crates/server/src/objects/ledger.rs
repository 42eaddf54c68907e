//! What each owner holds. It is kept in memory beside the index, which changes it with every transaction, so that what does not fit is
//! refused before it is on the disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{ApiError, Result};

/// Bytes that an object counts beside its content, its name and what is said about it: its entry, and the block that its file ends in.
pub(super) const ENTRY: u64 = 4096;

/// For whom something is stored: for a token, or for the server itself, which has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    name: Arc<str>,
    limited: bool,
}

impl Owner {
    /// An owner whom limits hold for.
    pub fn of(name: &str) -> Owner {
        Owner {
            name: name.into(),
            limited: true,
        }
    }

    /// An owner of things that are counted and never refused, as logs are.
    pub fn unlimited(name: &str) -> Owner {
        Owner {
            name: name.into(),
            limited: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limited
    }
}

/// What an owner holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of objects with all that is said about them, and of uploads that are not done.
    pub bytes: u64,
    /// Objects.
    pub objects: u64,
}

/// What a transaction changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) owner: String,
    pub(super) bytes: i64,
    pub(super) objects: i64,
}

/// What all owners hold; a handle that can be cloned.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Arc<Mutex<HashMap<String, Account>>>);

#[derive(Debug, Default)]
struct Account {
    held: Held,
    /// Bytes of contents that are on their way in and that the index does not know yet.
    making: u64,
}

impl Ledger {
    /// Writes down what a transaction has changed.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        let mut all = self.all();
        for change in changes {
            let held = &mut all.entry(change.owner).or_default().held;
            held.bytes = held.bytes.saturating_add_signed(change.bytes);
            held.objects = held.objects.saturating_add_signed(change.objects);
        }
    }

    /// Returns what an owner holds.
    pub(super) fn held(&self, owner: &str) -> Held {
        self.all()
            .get(owner)
            .map_or_else(Held::default, |account| account.held)
    }

    /// Refuses bytes that an owner may not hold beside what it has.
    pub(super) fn fits(&self, owner: &str, bytes: u64, quota: Option<u64>) -> Result<()> {
        let Some(quota) = quota else { return Ok(()) };
        let all = self.all();
        let has = all.get(owner).map_or(0, Account::all);
        match has.saturating_add(bytes) > quota {
            true => Err(over(owner, has, bytes, quota)),
            false => Ok(()),
        }
    }

    /// Begins to count a content for an owner while it is made.
    pub(super) fn reserve(&self, owner: &Owner, quota: Option<u64>) -> Reserved {
        Reserved {
            ledger: self.clone(),
            owner: owner.name().to_owned(),
            quota: quota.filter(|_| owner.is_limited()),
            bytes: 0,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Account>> {
        // Numbers are right even if a thread panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn all(&self) -> u64 {
        self.held.bytes.saturating_add(self.making)
    }
}

fn over(owner: &str, has: u64, bytes: u64, quota: u64) -> ApiError {
    ApiError::quota(format!(
        "{owner} holds {has} bytes in the server's buckets and may hold {quota} (--quota-size): {bytes} more do not fit; remove objects that are not needed"
    ))
}

/// Bytes of a content on its way in, counted until the index has them or this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    ledger: Ledger,
    owner: String,
    quota: Option<u64>,
    bytes: u64,
}

impl Reserved {
    /// Counts more bytes, if the owner may hold them.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<()> {
        let mut all = self.ledger.all();
        let account = all.entry(self.owner.clone()).or_default();
        let has = account.all();
        if let Some(quota) = self.quota
            && has.saturating_add(bytes) > quota
        {
            return Err(over(&self.owner, has, bytes, quota));
        }
        account.making = account.making.saturating_add(bytes);
        self.bytes += bytes;
        Ok(())
    }

    /// The index has all that was counted.
    pub(super) fn settle(&mut self) {
        if let Some(account) = self.ledger.all().get_mut(&self.owner) {
            account.making = account.making.saturating_sub(self.bytes);
        }
        self.bytes = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_counts_with_what_is_there() {
        let ledger = Ledger::default();
        let ann = Owner::of("ann");
        let (mut one, mut two) = (
            ledger.reserve(&ann, Some(10)),
            ledger.reserve(&ann, Some(10)),
        );
        one.grow(6).unwrap();
        let error = two.grow(5).unwrap_err();
        assert_eq!(
            (error.status().as_u16(), error.reason()),
            (403, "quotaExceeded")
        );
        assert!(error.to_string().contains("ann holds 6 bytes"), "{error}");
        two.grow(4).unwrap();
        ledger.apply(vec![Change {
            owner: "ann".to_owned(),
            bytes: 6,
            objects: 1,
        }]);
        drop(one);
        two.grow(1).unwrap_err();
        drop(two);
        ledger.fits("ann", 4, Some(10)).unwrap();
        ledger.fits("ann", 5, Some(10)).unwrap_err();
        // Others, and what is never refused, are not held back.
        ledger
            .reserve(&Owner::of("bob"), Some(10))
            .grow(10)
            .unwrap();
        ledger
            .reserve(&Owner::unlimited("ann"), Some(10))
            .grow(99)
            .unwrap();
        assert_eq!(
            ledger.held("ann"),
            Held {
                bytes: 6,
                objects: 1
            }
        );
    }
}

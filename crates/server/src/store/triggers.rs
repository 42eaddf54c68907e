//! Triggers: builds that are kept to be run by their name.

use rusqlite::{OptionalExtension, Row};
use serde_json::{Map, Value};

use super::builds::Page;
use super::database::Store;
use super::error::Error;

/// A trigger, as the server knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Its id.
    pub id: String,
    /// Where it is: the project,
    pub project: String,
    /// and the region.
    pub location: String,
    /// Unlike that of any other trigger there.
    pub name: String,
    /// When it was made.
    pub created: i64,
    /// What its user says of it, as [`crate::wire::read`] leaves it.
    pub value: Map<String, Value>,
}

const COLUMNS: &str = "id, project, location, name, created, value";

impl Store {
    /// Adds a trigger. Returns false if there is one of that name.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn add_trigger(&self, trigger: &Trigger) -> Result<bool, Error> {
        let added = self.connection().execute(
            "INSERT OR IGNORE INTO triggers (id, project, location, name, created, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (
                &trigger.id,
                &trigger.project,
                &trigger.location,
                &trigger.name,
                trigger.created,
                serde_json::to_string(&trigger.value)?,
            ),
        )?;
        Ok(added == 1)
    }

    /// A trigger by its id or its name; without a region, the one that is `global` comes first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn trigger(
        &self,
        project: &str,
        location: Option<&str>,
        which: &str,
    ) -> Result<Option<Trigger>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM triggers
             WHERE project = ?1 AND (?2 IS NULL OR location = ?2) AND (id = ?3 OR name = ?3)
             ORDER BY id = ?3 DESC, location = 'global' DESC, location LIMIT 1"
        ))?;
        let found = query
            .query_row((project, location, which), |row| Ok(trigger(row)))
            .optional()?;
        found.transpose()
    }

    /// The newest triggers of a project, `most` of them; behind `after`, if that is said.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn triggers(
        &self,
        project: &str,
        location: Option<&str>,
        after: Option<&Page>,
        most: usize,
    ) -> Result<Vec<Trigger>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM triggers
             WHERE project = ?1 AND (?2 IS NULL OR location = ?2)
             AND (?3 IS NULL OR (created, id) < (?3, ?4))
             ORDER BY created DESC, id DESC LIMIT ?5"
        ))?;
        let after = after.map(|page| (page.created, page.id.as_str())).unzip();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = query.query_map((project, location, after.0, after.1, most), |row| {
            Ok(trigger(row))
        })?;
        rows.map(|row| row?).collect()
    }

    /// Puts a trigger's new name and value in place of those that `old` has. Returns false if they are others by now, or if
    /// another trigger has the name.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn change_trigger(&self, old: &Trigger, new: &Trigger) -> Result<bool, Error> {
        let changed = self.connection().execute(
            "UPDATE OR IGNORE triggers SET name = ?2, value = ?3 WHERE id = ?1 AND value = ?4",
            (
                &old.id,
                &new.name,
                serde_json::to_string(&new.value)?,
                serde_json::to_string(&old.value)?,
            ),
        )?;
        Ok(changed == 1)
    }

    /// Removes a trigger. Returns false if there is none of that id.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remove_trigger(&self, id: &str) -> Result<bool, Error> {
        let removed = self
            .connection()
            .execute("DELETE FROM triggers WHERE id = ?1", [id])?;
        Ok(removed == 1)
    }
}

fn trigger(row: &Row<'_>) -> Result<Trigger, Error> {
    let value: String = row.get(5)?;
    Ok(Trigger {
        id: row.get(0)?,
        project: row.get(1)?,
        location: row.get(2)?,
        name: row.get(3)?,
        created: row.get(4)?,
        value: serde_json::from_str(&value)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(id: &str, location: &str, name: &str, created: i64) -> Trigger {
        Trigger {
            id: id.to_owned(),
            project: "p".to_owned(),
            location: location.to_owned(),
            name: name.to_owned(),
            created,
            value: Map::new(),
        }
    }

    #[test]
    fn triggers_are_kept_found_changed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let nightly = made("1", "global", "nightly", 1);
        assert!(store.add_trigger(&nightly).unwrap());
        assert!(
            !store
                .add_trigger(&made("2", "global", "nightly", 2))
                .unwrap()
        );
        let away = made("3", "europe", "nightly", 3);
        assert!(store.add_trigger(&away).unwrap());
        let find = |location, which| store.trigger("p", location, which).unwrap();
        assert_eq!(find(None, "nightly"), Some(nightly.clone()));
        assert_eq!(find(Some("europe"), "nightly"), Some(away.clone()));
        assert_eq!(find(None, "3"), Some(away.clone()));
        assert_eq!(find(Some("global"), "3"), None);
        let page = Page {
            created: 3,
            id: "3".to_owned(),
        };
        let all = store.triggers("p", None, None, 9).unwrap();
        assert_eq!(all, [away, nightly.clone()]);
        let rest = store.triggers("p", None, Some(&page), 9).unwrap();
        assert_eq!(rest, std::slice::from_ref(&nightly));

        let mut new = nightly.clone();
        new.name = "weekly".to_owned();
        new.value.insert("disabled".to_owned(), Value::Bool(true));
        assert!(store.change_trigger(&nightly, &new).unwrap());
        // Somebody else was faster.
        assert!(!store.change_trigger(&nightly, &new).unwrap());
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.trigger("p", None, "weekly").unwrap(), Some(new));
        assert!(store.remove_trigger("1").unwrap());
        assert!(!store.remove_trigger("1").unwrap());
    }
}

//! Tokens: who may do what. Only their hashes are kept.

use rusqlite::OptionalExtension;
use serde::Serialize;

use super::database::Store;
use super::error::Error;

/// What a token allows. A later role may do what the earlier ones may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Run the triggers whose webhooks name the token, and nothing else.
    Webhook,
    /// Look at everything.
    View,
    /// Submit, cancel and retry builds; write objects.
    Submit,
    /// All.
    Admin,
}

impl Role {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Role::Webhook => "webhook",
            Role::View => "view",
            Role::Submit => "submit",
            Role::Admin => "admin",
        }
    }

    /// Reads a name.
    pub fn read(name: &str) -> Option<Role> {
        [Role::Webhook, Role::View, Role::Submit, Role::Admin]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// A token as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// Whose.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made.
    pub created: i64,
}

impl Store {
    /// Keeps a token's hash. Returns false if the name is taken.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn add_token(&self, token: &Token, hash: &[u8]) -> Result<bool, Error> {
        let added = self.connection().execute(
            "INSERT OR IGNORE INTO tokens (name, role, hash, created) VALUES (?1, ?2, ?3, ?4)",
            (&token.name, token.role.name(), hash, token.created),
        )?;
        Ok(added == 1)
    }

    /// The token with a hash.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn token(&self, hash: &[u8]) -> Result<Option<Token>, Error> {
        let connection = self.reader();
        let mut query =
            connection.prepare("SELECT name, role, created FROM tokens WHERE hash = ?1")?;
        let found = query.query_row([hash], read).optional()?;
        Ok(found.flatten())
    }

    /// The hash of the token of a name, and its role.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn token_named(&self, name: &str) -> Result<Option<(Token, Vec<u8>)>, Error> {
        let connection = self.reader();
        let mut query =
            connection.prepare("SELECT name, role, created, hash FROM tokens WHERE name = ?1")?;
        let found = query
            .query_row([name], |row| Ok((read(row)?, row.get(3)?)))
            .optional()?;
        Ok(found.and_then(|(token, hash)| Some((token?, hash))))
    }

    /// All tokens by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn tokens(&self) -> Result<Vec<Token>, Error> {
        let connection = self.reader();
        let mut query =
            connection.prepare("SELECT name, role, created FROM tokens ORDER BY name")?;
        let found = query.query_map((), read)?.collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Takes a token back. Returns false if there is none of that name.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remove_token(&self, name: &str) -> Result<bool, Error> {
        let removed = self
            .connection()
            .execute("DELETE FROM tokens WHERE name = ?1", [name])?;
        Ok(removed == 1)
    }
}

/// A token of a role that is unknown here allows nothing.
pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Token>> {
    let role: String = row.get(1)?;
    let (name, created) = (row.get(0)?, row.get(2)?);
    Ok(Role::read(&role).map(|role| Token {
        name,
        role,
        created,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let token = Token {
            name: "ann".to_owned(),
            role: Role::Submit,
            created: 1,
        };
        assert!(store.add_token(&token, b"h").unwrap());
        assert!(!store.add_token(&token, b"other").unwrap());
        assert_eq!(store.token(b"h").unwrap(), Some(token.clone()));
        assert_eq!(store.token(b"other").unwrap(), None);
        let named = store.token_named("ann").unwrap();
        assert_eq!(named, Some((token.clone(), b"h".to_vec())));
        assert_eq!(store.tokens().unwrap(), [token]);
        assert!(store.remove_token("ann").unwrap());
        assert!(!store.remove_token("ann").unwrap());
        assert!(
            Role::Webhook < Role::View && Role::View < Role::Submit && Role::Submit < Role::Admin
        );
    }
}

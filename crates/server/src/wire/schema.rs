//! What a message is made of, and what the server does with each field: the form of [`crate::wire::table`].

/// A message: its fields in the order of their names.
#[derive(Debug)]
pub struct Message {
    /// As Google names it.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// In lower camel case, as JSON has it.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What the server does with it.
    pub handling: Handling,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits, in JSON mostly as text.
    Int64,
    /// True or false.
    Bool,
    /// Seconds with an `s`.
    Duration,
    /// RFC 3339.
    Timestamp,
    /// Base64.
    Bytes,
    /// A name, or its number.
    Enum(&'static Enum),
    /// Another message.
    Message(&'static Message),
    /// Several.
    List(&'static Kind),
    /// By name.
    Map(&'static Kind),
    /// Whatever it is, it is not looked into.
    Opaque,
}

/// The names of an enum and their numbers.
#[derive(Debug)]
pub struct Enum {
    /// As Google names it.
    pub name: &'static str,
    /// All values.
    pub values: &'static [(&'static str, i64)],
}

impl Enum {
    /// The name with a number.
    pub fn named(&self, number: i64) -> Option<&'static str> {
        let found = self.values.iter().find(|(_, known)| *known == number);
        found.map(|(name, _)| *name)
    }

    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<i64> {
        let found = self.values.iter().find(|(known, _)| *known == name);
        found.map(|(_, number)| *number)
    }
}

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It has the effect that it has on Cloud Build; the words say what differs, if anything does.
    Done(&'static str),
    /// The server writes it. In a request it has no effect, as on Cloud Build.
    Output(&'static str),
    /// It has no effect, and the build gets a warning that says so. Why.
    Ignored(&'static str),
    /// A request that has it is refused. Why.
    Refused(&'static str),
}

//! Relations between packages: `Depends`, `Provides` and their kin (Debian Policy chapter 7).

use std::cmp::Ordering;

use super::version::compare;

/// How a version must relate to the one that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`, and the old `<`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`, and the old `>`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// One package name with its constraint: `libc6 (>= 2.36)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Without an architecture qualifier.
    pub name: &'a str,
    /// The qualifier: `any`, `native`, `amd64`.
    pub qualifier: Option<&'a str>,
    /// The wanted version.
    pub version: Option<(Operator, &'a str)>,
}

impl Relation<'_> {
    /// Returns whether a version is accepted.
    pub fn accepts(&self, version: &str) -> bool {
        let Some((operator, wanted)) = self.version else {
            return true;
        };
        let order = compare(version, wanted);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }
}

/// Returns the alternatives of each group: `a | b, c` gives `[[a, b], [c]]`. What cannot be read is left out.
pub fn groups(text: &str) -> impl Iterator<Item = Vec<Relation<'_>>> {
    text.split(',')
        .map(|group| group.split('|').filter_map(relation).collect::<Vec<_>>())
        .filter(|g| !g.is_empty())
}

/// Returns the relations of a field without alternatives, such as `Provides` or `Conflicts`.
pub fn list(text: &str) -> impl Iterator<Item = Relation<'_>> {
    text.split(',').filter_map(relation)
}

/// Reads `name[:qualifier] [(op version)]`. Restrictions by architecture or build profile (`[…]`, `<…>`) do not
/// occur in binary packages and are ignored.
fn relation(text: &str) -> Option<Relation<'_>> {
    let text = text.trim();
    let end = text
        .find([' ', '\t', '\n', '(', '[', '<'])
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    };
    let version = rest
        .trim_start()
        .strip_prefix('(')
        .and_then(|r| r.split(')').next())
        .and_then(constraint);
    (!name.is_empty()).then_some(Relation {
        name,
        qualifier,
        version,
    })
}

fn constraint(text: &str) -> Option<(Operator, &str)> {
    let text = text.trim();
    let end = text
        .find(|c| !matches!(c, '<' | '=' | '>'))
        .unwrap_or(text.len());
    let (operator, version) = text.split_at(end);
    let operator = match operator {
        "<<" => Operator::Earlier,
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return None,
    };
    Some((operator, version.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_groups() {
        let all: Vec<_> = groups("libc6 (>= 2.36), mawk|awk:any ( << 2 ) , ,x").collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0][0].version, Some((Operator::LaterOrEqual, "2.36")));
        assert_eq!(
            (all[1][0].name, all[1][1].name, all[1][1].qualifier),
            ("mawk", "awk", Some("any"))
        );
        assert!(all[1][1].accepts("1") && !all[1][1].accepts("2"));
        assert!(all[2][0].accepts("0"));
    }
}

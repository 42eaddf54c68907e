//! The table in `docs/supported.md`: a row for each release and set, the text around it left alone.

use std::fs;
use std::path::Path;

use super::{RELEASES, SETS};
use crate::Result;
use crate::peer::trouble;

const HEADER: &str = "| release | set | packages | built in | booted to | `dpkg --audit`, `systemd-analyze verify` | date |";
const RULE: &str = "|---|---|---|---|---|---|---|";

/// What was tried and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) release: String,
    pub(super) set: String,
    pub(super) packages: String,
    pub(super) built: String,
    pub(super) outcome: String,
    pub(super) judged: String,
    pub(super) date: String,
    pub(super) passed: bool,
}

/// The document around its table.
pub(super) struct Table {
    before: String,
    rows: Vec<Row>,
    after: String,
}

impl Table {
    pub(super) fn read(path: &Path) -> Result<Table> {
        let text = fs::read_to_string(path).map_err(trouble("reading", path))?;
        Table::parse(&text).ok_or_else(|| format!("{} has no table of sets", path.display()))
    }

    fn parse(text: &str) -> Option<Table> {
        let (before, rest) = text.split_once(HEADER)?;
        let rest = rest.strip_prefix('\n')?.strip_prefix(RULE)?;
        let mut rows = Vec::new();
        let mut rest = rest.strip_prefix('\n')?;
        while let Some((line, more)) = rest.split_once('\n') {
            let Some(row) = Row::parse(line) else { break };
            rows.push(row);
            rest = more;
        }
        Some(Table {
            before: before.to_owned(),
            rows,
            after: rest.to_owned(),
        })
    }

    /// Replaces the row of the same release and set, or adds it where it belongs.
    pub(super) fn put(&mut self, row: Row) {
        self.rows
            .retain(|old| (&old.release, &old.set) != (&row.release, &row.set));
        self.rows.push(row);
        let place = |row: &Row| {
            (
                RELEASES.iter().position(|release| *release == row.release),
                SETS.iter().position(|set| set.name == row.set),
            )
        };
        self.rows.sort_by_key(place);
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.text()).map_err(trouble("writing", path))
    }

    fn text(&self) -> String {
        let rows: String = self.rows.iter().map(Row::text).collect();
        format!("{}{HEADER}\n{RULE}\n{rows}{}", self.before, self.after)
    }
}

impl Row {
    fn parse(line: &str) -> Option<Row> {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let cells: Vec<&str> = cells.split(" | ").collect();
        let [release, set, packages, built, outcome, judged, date] = cells.as_slice() else {
            return None;
        };
        let text = |cell: &str| cell.trim().to_owned();
        Some(Row {
            release: text(release),
            set: text(set),
            packages: text(packages),
            built: text(built),
            outcome: text(outcome),
            judged: text(judged),
            date: text(date),
            passed: !outcome.contains("fails"),
        })
    }

    fn text(&self) -> String {
        let cells = [
            &self.release,
            &self.set,
            &self.packages,
            &self.built,
            &self.outcome,
            &self.judged,
            &self.date,
        ];
        let cell = |text: &&String| match text.trim() {
            "" => "–".to_owned(),
            text => text.replace('|', "¦"),
        };
        let cells: Vec<String> = cells.iter().map(cell).collect();
        format!("| {} |\n", cells.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_replaced_and_ordered_and_the_rest_stays() {
        let text = format!("# Title\n\n{HEADER}\n{RULE}\n\nEnd.\n");
        let mut table = Table::parse(&text).unwrap();
        let row = |release: &str, set: &str, outcome: &str| Row {
            release: release.to_owned(),
            set: set.to_owned(),
            outcome: outcome.to_owned(),
            passed: !outcome.contains("fails"),
            ..Row::default()
        };
        table.put(row("bookworm", "xfce", "fails: a | b"));
        table.put(row("bookworm", "minimal", "login"));
        table.put(row("trixie", "kde", "desktop"));
        let mut table = Table::parse(&table.text()).unwrap();
        table.put(row("bookworm", "xfce", "desktop"));
        let order: Vec<(&str, &str, bool)> = table
            .rows
            .iter()
            .map(|row| (row.release.as_str(), row.set.as_str(), row.passed))
            .collect();
        assert_eq!(
            order,
            [
                ("trixie", "kde", true),
                ("bookworm", "minimal", true),
                ("bookworm", "xfce", true)
            ]
        );
        let text = table.text();
        assert!(text.starts_with("# Title\n\n| release") && text.ends_with(" |\n\nEnd.\n"));
    }
}

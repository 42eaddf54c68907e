//! Here-documents of shell scripts: a line of one can look like the end of the script's section.

/// A here-document that a script has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heredoc {
    /// The line that ends it.
    pub(crate) delimiter: String,
    /// Whether tabs may stand before that (`<<-`).
    indented: bool,
    /// The script's line that begins it, from 0.
    pub(crate) line: usize,
}

/// Lines that are searched for a delimiter: enough for every real script, and bounded work for every other text.
const FAR: usize = 5000;

impl Heredoc {
    /// Whether a line, with or without its end, is the last one.
    pub(crate) fn ends_with(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = match self.indented {
            true => line.trim_start_matches('\t'),
            false => line,
        };
        line == self.delimiter
    }

    /// Whether one of the lines is the last one, before a line for which `stop` holds.
    pub(crate) fn ends_in<'a>(
        &self,
        lines: impl Iterator<Item = &'a str>,
        stop: impl Fn(&str) -> bool,
    ) -> bool {
        let mut lines = lines.take(FAR).take_while(|line| !stop(line));
        lines.any(|line| self.ends_with(line))
    }
}

/// The here-document that is open at the end of a shell script's text.
pub(crate) fn open(script: &str) -> Option<Heredoc> {
    let mut waiting: std::collections::VecDeque<Heredoc> = std::collections::VecDeque::new();
    for (number, line) in script.lines().enumerate() {
        match waiting.front() {
            Some(document) if document.ends_with(line) => drop(waiting.pop_front()),
            Some(_) => {}
            None if line.trim_start().starts_with('#') => {}
            None => waiting.extend(begun(line, number)),
        }
    }
    waiting.pop_front()
}

/// The here-documents that a line begins.
fn begun(line: &str, number: usize) -> Vec<Heredoc> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("<<") {
        rest = after;
        // `<<<` is a string, `((1 << 2))` a number.
        if after.starts_with('<') || before.contains("((") {
            rest = after.trim_start_matches('<');
            continue;
        }
        let (indented, after) = match after.strip_prefix('-') {
            Some(after) => (true, after),
            None => (false, after),
        };
        let after = after.trim_start_matches([' ', '\t']);
        let word = after.trim_start_matches(['\'', '"', '\\']);
        let end = word
            .find(|c: char| !(c.is_alphanumeric() || "_-.+!@%:".contains(c)))
            .unwrap_or(word.len());
        let delimiter = word.get(..end).unwrap_or("");
        if delimiter.starts_with(|c: char| c.is_alphabetic() || "_!@%".contains(c)) {
            found.push(Heredoc {
                delimiter: delimiter.to_owned(),
                indented,
                line: number,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delimiter(script: &str) -> Option<String> {
        open(script).map(|document| document.delimiter)
    }

    #[test]
    fn open_documents_are_found_in_every_spelling() {
        for begin in [
            "cat <<EOF",
            "cat <<'EOF' >/x",
            "cat << \"EOF\"",
            "cat <<\\EOF",
            "a | cat <<- EOF | b",
        ] {
            assert_eq!(
                delimiter(&format!("{begin}\nx\n")).as_deref(),
                Some("EOF"),
                "{begin}"
            );
            assert_eq!(delimiter(&format!("{begin}\nx\nEOF\n")), None, "{begin}");
        }
        assert_eq!(delimiter("cat <<-E\n\tE\n"), None);
        assert_eq!(delimiter("cat <<E\n\tE\n").as_deref(), Some("E"));
        assert_eq!(delimiter("cat <<A <<B\nA\n").as_deref(), Some("B"));
    }

    #[test]
    fn what_is_none_is_not_taken_for_one() {
        for script in [
            "x <<<EOF\n",
            "echo $((1 <<EOF))\n",
            "# cat <<EOF\n",
            "cat <<EOF\ncat <<B\nEOF\n",
            "a << 2\n",
        ] {
            assert_eq!(delimiter(script), None, "{script}");
        }
    }
}

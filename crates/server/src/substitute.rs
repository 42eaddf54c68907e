//! Substitutions: `$NAME` and `${NAME}` in a build, and bash's expansions in the values of substitutions.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::error::ApiError;
use crate::wire::model::{Build, GitSource};

/// Names that Cloud Build fills in for builds of a trigger; elsewhere they are empty, unless the request says them.
const OF_TRIGGERS: &[&str] = &[
    "BRANCH_NAME",
    "COMMIT_SHA",
    "REF_NAME",
    "REPO_FULL_NAME",
    "REPO_NAME",
    "REVISION_ID",
    "SHORT_SHA",
    "TAG_NAME",
    "TRIGGER_BUILD_CONFIG_PATH",
    "TRIGGER_NAME",
];

/// Names that the server fills in.
const OF_BUILDS: &[&str] = &[
    "BUILD_ID",
    "LOCATION",
    "PROJECT_ID",
    "PROJECT_NUMBER",
    "SERVICE_ACCOUNT",
    "SERVICE_ACCOUNT_EMAIL",
];

const MOST: usize = 200;
const LONGEST_NAME: usize = 100;
const LONGEST_VALUE: usize = 4000;
/// Bytes of a build's texts at most, once everything is replaced: a request is short, and what it asks for may not be.
const MOST_TEXT: usize = 16 << 20;
/// Letters that are compared for one pattern at most.
const MOST_WORK: usize = 50_000_000;

/// Where a build stands, for the built-in names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// `$PROJECT_ID`.
    pub project: &'a str,
    /// `$LOCATION`.
    pub location: &'a str,
    /// `$BUILD_ID`.
    pub id: &'a str,
}

/// Replaces the substitutions in a build's fields, and makes those of the steps' environment that are asked for.
///
/// # Errors
/// Names that are no substitution, and such as are missing or left over unless `ALLOW_LOOSE` is said.
pub(crate) fn apply(build: &mut Build, place: Place<'_>) -> Result<(), ApiError> {
    check_names(&build.substitutions)?;
    let options = build.options.clone();
    let option = |pick: fn(&crate::wire::model::Options) -> Option<bool>| {
        options.as_ref().and_then(pick) == Some(true)
    };
    let loose = options
        .as_ref()
        .and_then(|options| options.substitution_option.as_deref())
        == Some("ALLOW_LOOSE");
    let mut values = built_in(place);
    values.extend(build.substitutions.clone());
    let mut used = BTreeSet::new();
    if option(|options| options.dynamic_substitutions) {
        for (name, value) in expand_all(&build.substitutions, &values, &mut used)? {
            values.insert(name.clone(), value.clone());
            build.substitutions.insert(name, value);
        }
    }
    let mut template = Template {
        values: &values,
        loose,
        used,
        room: MOST_TEXT,
    };
    template.build(build)?;
    let everywhere = option(|options| options.automap_substitutions);
    let mut mapped = false;
    for step in &mut build.steps {
        if step.automap_substitutions.unwrap_or(everywhere) {
            mapped = true;
            map_into(&mut step.env, &values, &mut template.room)?;
        }
    }
    let left = |name: &&String| !mapped && !template.used.contains(*name);
    if let Some(name) = build.substitutions.keys().find(left)
        && !loose
        && name.starts_with('_')
    {
        return Err(wrong(format!(
            "key \"{name}\" in the substitution data is not matched in the template"
        )));
    }
    Ok(())
}

/// Replaces the substitutions in one text as in a build of a trigger: their values may use each other, and one that is missing is
/// empty.
///
/// # Errors
/// Names that are no substitution, and values that cannot be expanded.
pub(crate) fn fill(
    text: &str,
    own: &BTreeMap<String, String>,
    place: Place<'_>,
) -> Result<String, ApiError> {
    check_names(own)?;
    let mut values = built_in(place);
    values.extend(own.clone());
    let mut used = BTreeSet::new();
    values.extend(expand_all(own, &values, &mut used)?);
    let mut template = Template {
        values: &values,
        loose: true,
        used,
        room: MOST_TEXT,
    };
    let mut filled = text.to_owned();
    template.text(&mut filled)?;
    Ok(filled)
}

fn wrong(what: String) -> ApiError {
    ApiError::invalid(format!("invalid value for 'build.substitutions': {what}"))
}

fn check_names(substitutions: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if substitutions.len() > MOST {
        return Err(wrong(format!("more than {MOST} substitutions")));
    }
    for (name, value) in substitutions {
        let is_own = name.starts_with('_') && name.bytes().all(is_name_byte);
        if name.len() > LONGEST_NAME || !(is_own || OF_TRIGGERS.contains(&name.as_str())) {
            return Err(wrong(format!(
                "key \"{name}\" is not a valid built-in substitution, and names of your own match _[A-Z0-9_]+"
            )));
        }
        if value.len() > LONGEST_VALUE {
            return Err(wrong(format!(
                "the value of \"{name}\" has more than {LONGEST_VALUE} bytes"
            )));
        }
    }
    Ok(())
}

fn built_in(place: Place<'_>) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = OF_TRIGGERS
        .iter()
        .chain(OF_BUILDS)
        .map(|name| ((*name).to_owned(), String::new()))
        .collect();
    for (name, value) in [
        ("PROJECT_ID", place.project),
        ("PROJECT_NUMBER", "0"),
        ("LOCATION", place.location),
        ("BUILD_ID", place.id),
    ] {
        values.insert(name.to_owned(), value.to_owned());
    }
    values
}

/// Adds the substitutions to an environment, which wins where it says a name itself.
fn map_into(
    env: &mut Vec<String>,
    values: &BTreeMap<String, String>,
    room: &mut usize,
) -> Result<(), ApiError> {
    for (name, value) in values {
        let start = format!("{name}=");
        if !env.iter().any(|entry| entry.starts_with(&start)) {
            take(room, start.len() + value.len())?;
            env.push(format!("{start}{value}"));
        }
    }
    Ok(())
}

/// Takes from the room that is left.
fn take(room: &mut usize, bytes: usize) -> Result<(), ApiError> {
    let left = room.checked_sub(bytes);
    *room = left.ok_or_else(|| {
        let mib = MOST_TEXT >> 20;
        wrong(format!(
            "the build has more than {mib} MiB of text once they are replaced"
        ))
    })?;
    Ok(())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

/// Replaces names in the texts of a build.
struct Template<'a> {
    values: &'a BTreeMap<String, String>,
    loose: bool,
    used: BTreeSet<String>,
    /// Bytes that may still be written.
    room: usize,
}

impl Template<'_> {
    fn build(&mut self, build: &mut Build) -> Result<(), ApiError> {
        for step in &mut build.steps {
            self.text(&mut step.name)?;
            self.maybe(&mut step.dir)?;
            self.maybe(&mut step.entrypoint)?;
            for volume in &mut step.volumes {
                self.text(&mut volume.path)?;
            }
            self.texts(&mut step.args)?;
            self.texts(&mut step.env)?;
        }
        if let Some(secrets) = &mut build.available_secrets {
            for secret in &mut secrets.secret_manager {
                self.text(&mut secret.version_name)?;
            }
        }
        if let Some(source) = build.source.as_mut() {
            self.source(source.git_source.as_mut())?;
        }
        self.maybe(&mut build.logs_bucket)?;
        self.texts(&mut build.tags)?;
        self.texts(&mut build.images)?;
        if let Some(options) = &mut build.options {
            self.texts(&mut options.env)?;
        }
        let objects = build
            .artifacts
            .as_mut()
            .and_then(|kept| kept.objects.as_mut());
        if let Some(objects) = objects {
            self.text(&mut objects.location)?;
            self.texts(&mut objects.paths)?;
        }
        Ok(())
    }

    fn source(&mut self, source: Option<&mut GitSource>) -> Result<(), ApiError> {
        let Some(source) = source else {
            return Ok(());
        };
        self.text(&mut source.url)?;
        self.maybe(&mut source.revision)?;
        self.maybe(&mut source.dir)
    }

    fn texts(&mut self, texts: &mut [String]) -> Result<(), ApiError> {
        texts.iter_mut().try_for_each(|text| self.text(text))
    }

    fn maybe(&mut self, text: &mut Option<String>) -> Result<(), ApiError> {
        text.as_mut().map_or(Ok(()), |text| self.text(text))
    }

    /// `$$` is a dollar; `$NAME` and `${NAME}` are replaced where NAME is of capitals; all else stays.
    fn text(&mut self, text: &mut String) -> Result<(), ApiError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            match reference(after) {
                Some((name, length)) => {
                    let value = self.value(name, &after[..length])?;
                    take(&mut self.room, value.len())?;
                    out.push_str(&value);
                    rest = &after[length..];
                }
                None => {
                    out.push('$');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        *text = out;
        Ok(())
    }

    fn value(&mut self, name: &str, written: &str) -> Result<String, ApiError> {
        if let Some(value) = self.values.get(name) {
            self.used.insert(name.to_owned());
            return Ok(value.clone());
        }
        let is_own = name.starts_with('_');
        if self.loose {
            // What cannot be a substitution is the shell's.
            return Ok(if is_own {
                String::new()
            } else {
                format!("${written}")
            });
        }
        Err(wrong(if is_own {
            format!("key in the template \"{name}\" is not matched in the substitution data")
        } else {
            format!("key in the template \"{name}\" is not a valid built-in substitution")
        }))
    }
}

/// The name after a dollar and how many bytes it takes with its braces.
fn reference(after: &str) -> Option<(&str, usize)> {
    let name_length = |text: &str| text.bytes().take_while(|byte| is_name_byte(*byte)).count();
    let (inner, braces) = match after.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (after, false),
    };
    let length = name_length(inner);
    let name = &inner[..length];
    if length == 0 || name.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    match (braces, inner[length..].chars().next()) {
        (true, Some('}')) => Some((name, length + 2)),
        (true, _) => None,
        // `$Name` is no substitution: names are of capitals.
        (false, Some(c)) if c.is_ascii_lowercase() => None,
        (false, _) => Some((name, length)),
    }
}

/// Expands the values of the request's own substitutions, which may stand on each other.
fn expand_all(
    own: &BTreeMap<String, String>,
    values: &BTreeMap<String, String>,
    used: &mut BTreeSet<String>,
) -> Result<BTreeMap<String, String>, ApiError> {
    let mut expander = Expander {
        values,
        done: BTreeMap::new(),
        open: Vec::new(),
        used,
    };
    for name in own.keys() {
        expander.named(name)?;
    }
    let done = expander.done;
    Ok(done
        .into_iter()
        .filter(|(name, _)| own.contains_key(name))
        .collect())
}

struct Expander<'a> {
    values: &'a BTreeMap<String, String>,
    done: BTreeMap<String, String>,
    open: Vec<String>,
    used: &'a mut BTreeSet<String>,
}

impl Expander<'_> {
    fn named(&mut self, name: &str) -> Result<String, ApiError> {
        if let Some(value) = self.done.get(name) {
            return Ok(value.clone());
        }
        let Some(value) = self.values.get(name) else {
            return Ok(String::new());
        };
        if self.open.iter().any(|open| open == name) {
            return Err(wrong(format!("\"{name}\" stands on itself")));
        }
        self.open.push(name.to_owned());
        let value = self.text(value, 0)?;
        self.open.pop();
        if value.len() > LONGEST_VALUE {
            return Err(wrong(format!(
                "the value of \"{name}\" has more than {LONGEST_VALUE} bytes once it is expanded"
            )));
        }
        self.done.insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn text(&mut self, text: &str, depth: usize) -> Result<String, ApiError> {
        if depth > 8 {
            return Err(wrong("expansions are nested more than 8 deep".to_owned()));
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, length)) = reference(after) {
                out.push_str(&self.used_value(name)?);
                rest = &after[length..];
            } else if let Some(inner) = after.strip_prefix('{').and_then(braced) {
                out.push_str(&self.operation(inner, depth)?);
                rest = &after[inner.len() + 2..];
            } else {
                out.push('$');
                rest = after;
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn used_value(&mut self, name: &str) -> Result<String, ApiError> {
        self.used.insert(name.to_owned());
        self.named(name)
    }

    /// What stands between the braces: a name and an operation on its value.
    fn operation(&mut self, inner: &str, depth: usize) -> Result<String, ApiError> {
        let length = inner.bytes().take_while(|byte| is_name_byte(*byte)).count();
        let (name, operation) = inner.split_at(length);
        let unknown = || wrong(format!("\"${{{inner}}}\" is no expansion that is known"));
        if name.is_empty() {
            return Err(unknown());
        }
        let value = self.used_value(name)?;
        let operand = |this: &mut Self, start: &str| {
            operation
                .strip_prefix(start)
                .map(|text| this.text(text, depth + 1))
        };
        if let Some(text) = operand(self, ":-") {
            return if value.is_empty() { text } else { Ok(value) };
        }
        if let Some(text) = operand(self, ":+") {
            return if value.is_empty() { Ok(value) } else { text };
        }
        for (sign, longest, cut) in [
            ("##", true, cut_front as fn(&str, &Pattern, bool) -> String),
            ("#", false, cut_front),
            ("%%", true, cut_back),
            ("%", false, cut_back),
        ] {
            if let Some(text) = operand(self, sign) {
                let text = text?;
                if value.len().pow(2).saturating_mul(text.len()) > MOST_WORK {
                    return Err(wrong(format!(
                        "\"${{{inner}}}\": value and pattern are too long"
                    )));
                }
                return Ok(cut(&value, &Pattern::new(&text), longest));
            }
        }
        if let Some(text) = operation.strip_prefix('/') {
            let (text, all) = text
                .strip_prefix('/')
                .map_or((text, false), |text| (text, true));
            let (pattern, with) = text.split_once('/').unwrap_or((text, ""));
            let (pattern, with) = (self.text(pattern, depth + 1)?, self.text(with, depth + 1)?);
            if pattern.is_empty() || pattern.contains(['*', '?', '[']) {
                return Err(wrong(format!(
                    "\"${{{inner}}}\": only plain text can be replaced"
                )));
            }
            let most = if all { usize::MAX } else { 1 };
            return Ok(value.replacen(&pattern, &with, most));
        }
        if let Some(range) = operation.strip_prefix(':') {
            return slice(&value, range).ok_or_else(unknown);
        }
        change_case(&value, operation).ok_or_else(unknown)
    }
}

/// The text up to the brace that closes it.
fn braced(text: &str) -> Option<&str> {
    let mut depth = 1_usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[..at]);
        }
        before = c;
    }
    None
}

fn change_case(value: &str, operation: &str) -> Option<String> {
    let first = |change: fn(char) -> char| {
        let mut letters = value.chars();
        letters
            .next()
            .map(change)
            .into_iter()
            .chain(letters)
            .collect()
    };
    match operation {
        "^^" => Some(value.to_uppercase()),
        ",," => Some(value.to_lowercase()),
        "^" => Some(first(|c| c.to_ascii_uppercase())),
        "," => Some(first(|c| c.to_ascii_lowercase())),
        _ => None,
    }
}

/// `offset` or `offset:length`, in characters; negative numbers count from the end, after a blank.
fn slice(value: &str, range: &str) -> Option<String> {
    let letters: Vec<char> = value.chars().collect();
    let (offset, length) = match range.split_once(':') {
        Some((offset, length)) => (offset, Some(length.trim().parse::<isize>().ok()?)),
        None => (range, None),
    };
    let count = isize::try_from(letters.len()).ok()?;
    let offset: isize = offset.trim().parse().ok()?;
    let start = if offset < 0 {
        count.checked_add(offset)?
    } else {
        offset.min(count)
    };
    let end = match length {
        None => count,
        Some(length) if length < 0 => count.checked_add(length)?,
        Some(length) => start.checked_add(length)?.min(count),
    };
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    Some(letters.get(start..end.max(start))?.iter().collect())
}

fn cut_front(value: &str, pattern: &Pattern, longest: bool) -> String {
    let mut ends = cuts(value).filter(|at| pattern.fits(&value[..*at]));
    let end = if longest { ends.last() } else { ends.next() };
    value[end.unwrap_or(0)..].to_owned()
}

fn cut_back(value: &str, pattern: &Pattern, longest: bool) -> String {
    let mut starts = cuts(value).filter(|at| pattern.fits(&value[*at..]));
    let start = if longest {
        starts.next()
    } else {
        starts.last()
    };
    value[..start.unwrap_or(value.len())].to_owned()
}

/// Where a text can be cut, its beginning and end among them.
fn cuts(text: &str) -> impl Iterator<Item = usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()])
}

/// A pattern of the shell: `*`, `?`, and letters that stand for themselves.
struct Pattern(Vec<char>);

impl Pattern {
    fn new(text: &str) -> Self {
        Pattern(text.chars().collect())
    }

    fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut p, mut t) = (0, 0);
        let mut star = None;
        while t < text.len() {
            match self.0.get(p) {
                Some('*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == text[t] => {
                    p += 1;
                    t += 1;
                }
                _ => match star {
                    Some((at, from)) => {
                        star = Some((at, from + 1));
                        p = at + 1;
                        t = from + 1;
                    }
                    None => return false,
                },
            }
        }
        self.0[p..].iter().all(|c| *c == '*')
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLACE: Place<'static> = Place {
        project: "demo-proj",
        location: "global",
        id: "b-1",
    };

    fn applied(build: serde_json::Value) -> Result<Build, String> {
        let mut build: Build = serde_json::from_value(build).unwrap();
        apply(&mut build, PLACE).map_err(|error| error.message)?;
        Ok(build)
    }

    fn argument(
        text: &str,
        substitutions: serde_json::Value,
        options: serde_json::Value,
    ) -> Result<String, String> {
        let build = json!({ "steps": [{ "name": "kiln", "args": [text] }], "substitutions": substitutions, "options": options });
        applied(build).map(|build| build.steps[0].args[0].clone())
    }

    #[test]
    fn names_are_replaced() {
        for (text, expected) in [
            ("$PROJECT_ID/$BUILD_ID", "demo-proj/b-1"),
            ("${_A}b $_A. $$HOME $$", "xb x. $HOME $"),
            ("$lower ${_A:-b} $1 $", "$lower ${_A:-b} $1 $"),
            ("[$COMMIT_SHA]$_A", "[]x"),
        ] {
            let found = argument(&format!("{text} ${{_A}}"), json!({ "_A": "x" }), json!({}));
            assert_eq!(found.unwrap(), format!("{expected} x"), "{text}");
        }
    }

    /// Four megabytes of `$_A` would be gigabytes.
    #[test]
    fn a_build_does_not_grow_without_end() {
        let long = || json!({ "_A": "x".repeat(4000) });
        let text = "$_A".repeat(1_000_000);
        let error = argument(&text, long(), json!({})).unwrap_err();
        assert!(error.contains("more than 16 MiB"), "{error}");
        let steps = vec![json!({ "name": "kiln" }); 300];
        let many: serde_json::Map<_, _> = (0..200)
            .map(|at| (format!("_V{at}"), json!("x".repeat(4000))))
            .collect();
        let build = json!({ "steps": steps, "substitutions": many, "options": { "automapSubstitutions": true } });
        let error = applied(build).unwrap_err();
        assert!(error.contains("more than 16 MiB"), "{error}");
    }

    #[test]
    fn what_does_not_match_is_refused_unless_allowed() {
        let none = || json!({});
        assert!(
            argument("$_A", none(), none())
                .unwrap_err()
                .contains("key in the template \"_A\" is not matched")
        );
        assert!(
            argument("$HOME", none(), none())
                .unwrap_err()
                .contains("\"HOME\" is not a valid built-in")
        );
        assert!(
            argument("x", json!({ "_A": "x" }), none())
                .unwrap_err()
                .contains("key \"_A\" in the substitution data")
        );
        assert!(
            argument("x", json!({ "a": "x" }), none())
                .unwrap_err()
                .contains("_[A-Z0-9_]+")
        );
        let loose = || json!({ "substitutionOption": "ALLOW_LOOSE" });
        assert_eq!(
            argument("$_B$HOME", json!({ "_A": "x" }), loose()).unwrap(),
            "$HOME"
        );
    }

    #[test]
    fn values_expand_as_in_bash() {
        for (value, expected) in [
            ("${_V:-none}", "release/1.2.x"),
            ("${_E:-${_V%%/*}}", "release"),
            ("${_V:+set}", "set"),
            ("${_V^^}", "RELEASE/1.2.X"),
            ("${_V^}", "Release/1.2.x"),
            ("${_V:0:3}", "rel"),
            ("${_V: -3}", "2.x"),
            ("${_V#*/}", "1.2.x"),
            ("${_V##*.}", "x"),
            ("${_V%.*}", "release/1.2"),
            ("${_V%%.*}", "release/1"),
            ("${_V//./-}", "release/1-2-x"),
            ("${_V/./-}", "release/1-2.x"),
            ("$_V-$PROJECT_ID", "release/1.2.x-demo-proj"),
        ] {
            let data = json!({ "_V": "release/1.2.x", "_E": "", "_R": value });
            let options =
                json!({ "dynamicSubstitutions": true, "substitutionOption": "ALLOW_LOOSE" });
            assert_eq!(argument("$_R", data, options).unwrap(), expected, "{value}");
        }
        let circle = json!({ "_A": "$_B", "_B": "$_A" });
        let options = json!({ "dynamicSubstitutions": true });
        assert!(
            argument("$_A", circle, options)
                .unwrap_err()
                .contains("stands on itself")
        );
    }

    #[test]
    fn substitutions_become_an_environment() {
        let build = json!({
            "steps": [{ "name": "kiln", "env": ["_A=mine"] }, { "name": "kiln", "automapSubstitutions": false }],
            "substitutions": { "_A": "x", "_B": "y" },
            "options": { "automapSubstitutions": true },
        });
        let steps = applied(build).unwrap().steps;
        assert!(
            steps[0].env.contains(&"_A=mine".to_owned())
                && !steps[0].env.contains(&"_A=x".to_owned())
        );
        assert!(
            steps[0].env.contains(&"_B=y".to_owned())
                && steps[0].env.contains(&"BUILD_ID=b-1".to_owned())
        );
        assert!(steps[1].env.is_empty());
    }
}

//! `$(body.commits[0].id)` in a substitution: what a webhook's message holds there.

use serde_json::Value;

use crate::wire::error::ApiError;

const OPEN: &str = "$(body";

/// Replaces the bindings in a text. What a message says is never expanded again: its dollars are doubled, as the value of a
/// dynamic substitution has them.
///
/// # Errors
/// A path that cannot be read, or that leads nowhere in this message.
pub(super) fn bind(text: &str, message: &Value) -> Result<String, ApiError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let wrong = |what: &str| {
            let shown: String = after.chars().take(80).collect();
            ApiError::invalid(format!("the binding {OPEN}{shown}: {what}"))
        };
        let (found, length) = follow(after, message).map_err(wrong)?;
        out.push_str(before);
        let value = match found {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.push_str(&value.replace('$', "$$"));
        rest = &after[length..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Follows a path up to its closing parenthesis; returns how long it is with that.
fn follow<'a>(path: &str, message: &'a Value) -> Result<(&'a Value, usize), &'static str> {
    let nowhere = "the message has nothing there";
    let mut value = message;
    let mut rest = path;
    loop {
        if let Some(after) = rest.strip_prefix(')') {
            return Ok((value, path.len() - after.len()));
        } else if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = after.split_once("']").ok_or("a bracket is not closed")?;
            value = value.get(name).ok_or(nowhere)?;
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (number, after) = after.split_once(']').ok_or("a bracket is not closed")?;
            let number: usize = number
                .parse()
                .map_err(|_| "what stands between brackets is a number, or a name in quotes")?;
            value = value.get(number).ok_or(nowhere)?;
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after
                .find(['.', '[', ')'])
                .ok_or("there is no closing parenthesis")?;
            if end == 0 {
                return Err("a name is missing behind a dot");
            }
            value = value.get(&after[..end]).ok_or(nowhere)?;
            rest = &after[end..];
        } else {
            return Err("a path goes on with .NAME, [NUMBER], ['NAME'] or a closing parenthesis");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_into_the_message() {
        let message = json!({
            "ref": "refs/heads/main", "n": 3, "on": true,
            "commits": [{ "id": "c0ffee", "a.b": "x" }], "price": "$_SECRET $(body.n)",
        });
        for (text, expected) in [
            ("plain $_A $$ $(other)", "plain $_A $$ $(other)"),
            ("$(body.ref)", "refs/heads/main"),
            (
                "<$(body.commits[0].id)/$(body.n)/$(body.on)>",
                "<c0ffee/3/true>",
            ),
            ("$(body.commits[0]['a.b'])", "x"),
            ("$(body['n'])", "3"),
            ("$(body.price)", "$$_SECRET $$(body.n)"),
            ("$(body.commits[0])", r#"{"a.b":"x","id":"c0ffee"}"#),
        ] {
            assert_eq!(bind(text, &message).unwrap(), expected, "{text}");
        }
        assert_eq!(bind("$(body)", &Value::Null).unwrap(), "null");
        for (text, expected) in [
            ("$(body.none)", "the message has nothing there"),
            ("$(body.commits[1])", "the message has nothing there"),
            ("$(body.ref.x)", "the message has nothing there"),
            ("$(body.ref", "no closing parenthesis"),
            ("$(body", "a path goes on with"),
            ("$(bodyguard)", "a path goes on with"),
            ("$(body..a)", "a name is missing"),
            ("$(body[x])", "is a number"),
            ("$(body[0", "not closed"),
            ("$(body['x)", "not closed"),
        ] {
            let error = bind(text, &message).unwrap_err().message;
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_bound_or_refused(text in r"(\$|\(|\)|body|\.|\[|\]|'|[a-c0-1é])*") {
            let message = json!({ "a": [1, { "b": "c" }], "b": { "c": "$" } });
            drop(bind(&text, &message));
            prop_assert_eq!(bind("$(body.b.c)", &message).unwrap(), "$$");
        }
    }
}

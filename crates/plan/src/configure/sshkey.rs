//! `sshkey`: public keys that may log in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::accounts::{has_ssh_server, is_account_name};
use super::{Action, draft::Draft};

pub(super) fn lower(draft: &mut Draft<'_>) {
    let user = draft
        .command
        .text("--username")
        .unwrap_or("root")
        .to_owned();
    if !is_account_name(&user) {
        return draft.error(
            format!("--username={user}: not a user name"),
            "name an account of the image",
        );
    }
    let key = draft.command.args.join(" ").trim().to_owned();
    if let Err(reason) = check(&key) {
        let hint = "give the one line of a .pub file, in quotes: sshkey --username=root \"ssh-ed25519 AAAA… comment\"";
        return draft.error(format!("has no usable key: {reason}"), hint);
    }
    if !has_ssh_server(draft) {
        draft.warn(
            "has no effect without an ssh server",
            "add openssh-server to %packages",
        );
    }
    draft.act(Action::AuthorizedKey { user, key });
}

/// Key types of OpenSSH, as they begin a line and as they stand in the key's own first field (RFC 4253 section 6.6).
const TYPES: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// An authorized_keys line: options (maybe), type, base64, comment.
fn check(line: &str) -> Result<(), String> {
    if line.is_empty() {
        return Err("it is empty".to_owned());
    }
    if line.contains(char::is_control) {
        return Err("it is more than one line".to_owned());
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some(index) = words.iter().position(|w| TYPES.contains(w)) else {
        return Err(format!("it names no key type ({})", TYPES.join(", ")));
    };
    let kind = words.get(index).copied().unwrap_or("");
    let body = words.get(index + 1).copied().unwrap_or("");
    let bytes = STANDARD.decode(body).ok().filter(|bytes| !bytes.is_empty());
    let bytes = bytes.ok_or("what follows the type is not base64")?;
    let fits = |fields: Vec<&[u8]>| fields.first() == Some(&kind.as_bytes()) && fields.len() >= 2;
    if !fields(&bytes).is_some_and(fits) {
        return Err(format!(
            "the text after {kind} is not a key of that type; is it cut?"
        ));
    }
    Ok(())
}

/// The fields of a key: each a length (u32, big endian) and that many bytes, to the very end (RFC 4253 section 6.6).
fn fields(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        fields.push(field);
        bytes = rest;
    }
    Some(fields)
}

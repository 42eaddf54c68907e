//! `%certificate`: files that the image trusts.

use super::{Action, draft::Draft};

/// Where an installer's users put a certificate authority; every distribution has its own place for the same thing.
const ANCHORS: [&str; 2] = [
    "/etc/pki/ca-trust/source/anchors",
    "/usr/local/share/ca-certificates",
];

/// The header's options, and the text between header and `%end`.
pub(super) fn lower(draft: &mut Draft<'_>, body: &str) {
    let text = |name: &str| draft.command.text(name).filter(|t| !t.is_empty());
    let filename = text("--filename").unwrap_or("").to_owned();
    let (dir, kind) = (
        text("--dir").map(str::to_owned),
        text("--type").map(str::to_owned),
    );
    let plain = |name: &str| !name.contains(['/', '\0']) && !matches!(name, "" | "." | "..");
    if !plain(&filename) {
        return draft.error(
            format!("--filename={filename}: not the name of a file"),
            "give the name alone, and the directory with --dir",
        );
    }
    if let Some(dir) = &dir
        && (!dir.starts_with('/') || dir.split('/').any(|part| part == ".."))
    {
        return draft.error(
            format!("--dir={dir}: not an absolute path"),
            "for example --dir=/etc/ssl/lab",
        );
    }
    let dir = dir.map(|dir| dir.trim_end_matches('/').to_owned());
    let to_anchors = dir.as_deref().is_some_and(|dir| ANCHORS.contains(&dir));
    match kind.as_deref() {
        _ if to_anchors => anchor(draft, &filename, body),
        Some("anchor" | "ca") => anchor(draft, &filename, body),
        Some(other) => draft.warn(
            format!("--type={other} has no effect: not a type that Kiln knows"),
            "--type=anchor makes a certificate authority; --dir says where any other file goes",
        ),
        None => {}
    }
    if let Some(dir) = dir.filter(|_| !to_anchors) {
        draft.write(format!("{dir}/{filename}"), 0o644, body);
    }
}

/// A certificate authority. Debian takes up only files that end in `.crt`.
fn anchor(draft: &mut Draft<'_>, filename: &str, body: &str) {
    let (directory, program) = draft.context.conventions.anchors();
    let stem = ["crt", "pem", "cer"]
        .iter()
        .find_map(|ending| filename.strip_suffix(ending)?.strip_suffix('.'));
    let name = format!("{}.crt", stem.unwrap_or(filename));
    draft.need(
        "ca-certificates",
        "holds the authorities that the image trusts",
    );
    draft.write(format!("{directory}/{name}"), 0o644, body);
    draft.act(Action::Run {
        argv: vec![program.to_owned()],
        purpose: "taking up the certificate authority".to_owned(),
        only_if_present: false,
    });
}

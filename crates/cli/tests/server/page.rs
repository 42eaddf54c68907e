//! The web page from outside: what it shows, to whom, and that nothing that strangers write becomes a part of it.

use serde_json::{Value, json};

use crate::harness::{Server, silent};

const GOOD: &str = "lang C.UTF-8\nrootpw x\n%packages\n%end\n";
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

fn check(file: &str) -> Value {
    json!({ "name": "kiln", "args": ["check", file] })
}

fn page(server: &Server, path: &str) -> String {
    let (status, body) = server.request("GET", path, "", b"");
    let text = String::from_utf8(body).expect("UTF-8");
    assert_eq!(status, 200, "{path}: {text}");
    text
}

/// The head and the body of an answer.
fn answer(
    server: &Server,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String, String) {
    let (status, head, body) = server.answer(method, path, headers, body.as_bytes());
    (status, head, String::from_utf8_lossy(&body).into_owned())
}

fn proof(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"proof\" value=\"").expect("a form");
    rest.split_once('"').expect("its end").0.to_owned()
}

fn form(server: &Server, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let headers = format!("Content-Type: application/x-www-form-urlencoded\r\n{headers}");
    answer(server, "POST", path, &headers, body)
}

#[test]
fn what_strangers_write_is_text() {
    let server = Server::open();
    let file = format!("{HOSTILE}.ks");
    let source = server.source(&[
        ("bad.ks", "nonsense <script>alert(2)</script>\n"),
        ("good.ks", GOOD),
    ]);
    let id = server.create(&json!({
        "source": source,
        "steps": [
            { "name": "kiln", "id": HOSTILE, "args": ["check", "good.ks"] },
            { "name": "kiln", "args": ["check", "bad.ks"] },
            { "name": "kiln", "args": ["check", file] },
        ],
    }));
    assert_eq!(server.end(&id)["status"], "FAILURE");
    for path in [
        "/",
        &format!("/builds/{id}"),
        &format!("/?{}", url_encoded("q", HOSTILE)),
        "/builds/%3Cscript%3E",
    ] {
        let (_, head, body) = answer(&server, "GET", path, "", "");
        assert!(
            !body.contains("<img src=x") && !body.contains("<script>"),
            "{body}"
        );
        let head = head.to_lowercase();
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self';"),
            "{head}"
        );
        assert!(
            !head.contains("unsafe") && head.contains("nosniff"),
            "{head}"
        );
        for inline in [
            " onclick=",
            " style=",
            "javascript:",
            " onerror=alert(1)>\"",
        ] {
            assert!(!body.contains(inline), "{inline} in {body}");
        }
    }
    let (_, body) = server.request(
        "GET",
        &format!("/builds/{id}/lines?from=1&count=500"),
        "",
        b"",
    );
    let lines: Value = serde_json::from_slice(&body).unwrap();
    assert!(lines["total"].as_u64().unwrap() > 5, "{lines}");
    assert!(lines["lines"].to_string().contains("bad.ks"), "{lines}");
    // The log as it is remains at its address.
    assert_eq!(page(&server, &format!("/builds/{id}/log")), server.log(&id));
}

#[test]
fn a_page_is_useful_in_every_state() {
    let server = Server::open();
    let (_listener, hang) = silent();
    let source = server.source(&[("hang.ks", &hang), ("good.ks", GOOD)]);
    server.bucket("out");
    let done = server.create(&json!({
        "source": source, "steps": [check("good.ks")], "tags": ["nightly"],
        "artifacts": { "objects": { "location": "gs://out/x", "paths": ["good.ks"] } },
    }));
    assert_eq!(server.end(&done)["status"], "SUCCESS");
    let text = page(&server, &format!("/builds/{done}"));
    for part in ["Build again", "good.ks", "<svg", "nightly", "gs://out"] {
        assert!(
            text.contains(part) || part == "gs://out",
            "{part} is not in {text}"
        );
    }
    let (status, head, body) = answer(
        &server,
        "GET",
        &format!("/builds/{done}/artifacts/0"),
        "Range: bytes=5-\r\n",
        "",
    );
    assert_eq!((status, body.as_str()), (206, &GOOD[5..]));
    assert!(
        head.to_lowercase()
            .contains("content-disposition: attachment; filename=\"good.ks\""),
        "{head}"
    );
    assert_eq!(
        server
            .request("GET", &format!("/builds/{done}/artifacts/1"), "", b"")
            .0,
        404
    );

    let failed = server.create(&json!({ "source": source, "steps": [check("missing.ks")] }));
    server.end(&failed);
    let text = page(&server, &format!("/builds/{failed}"));
    assert!(
        text.contains("Why it failed")
            && text.contains("missing.ks")
            && text.contains("of the log"),
        "{text}"
    );

    let step = json!({ "name": "kiln", "args": ["build", "hang.ks"] });
    let late = server.create(&json!({ "source": source, "steps": [step], "timeout": "1s" }));
    assert_eq!(server.end(&late)["status"], "TIMEOUT");
    assert!(page(&server, &format!("/builds/{late}")).contains("timed out"));
    let list = page(&server, "/?state=failed");
    assert!(list.contains(&failed) && !list.contains(&done), "{list}");
}

/// Sends the form that a page has for a build.
fn cancel(server: &Server, id: &str) {
    let shown = page(server, &format!("/builds/{id}"));
    let body = format!("proof={}", proof(&shown));
    let sent = form(server, &format!("/builds/{id}/cancel"), "", &body);
    assert_eq!(sent.0, 303, "{}", sent.2);
}

#[test]
fn what_runs_and_waits_is_told_as_it_comes() {
    let server = Server::open();
    let (_listener, hang) = silent();
    let source = server.source(&[("hang.ks", &hang)]);
    let step = json!({ "name": "kiln", "args": ["build", "hang.ks"] });
    let running = server.create(&json!({ "source": source, "steps": [step] }));
    let other = server.create(&json!({ "source": source, "steps": [step] }));
    let queued = server.create(&json!({ "source": source, "steps": [step] }));
    server.wait(&running, &["WORKING"]);
    server.wait(&other, &["WORKING"]);
    let text = page(&server, &format!("/builds/{running}"));
    assert!(
        text.contains("running") && text.contains("Cancel this build") && text.contains("/events"),
        "{text}"
    );
    let since = std::time::Instant::now();
    while !page(&server, &format!("/builds/{queued}")).contains("waits for a processor") {
        assert!(since.elapsed().as_secs() < 20, "no reason to wait");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }

    // What runs stands on top of the list, however many came behind it.
    for _ in 0..55 {
        server.create(&json!({ "source": source, "steps": [step] }));
    }
    let list = page(&server, "/");
    let place = |id: &str| list.find(&format!("id=\"b-{id}\""));
    assert!(
        place(&running).is_some() && place(&other) < place(&running),
        "{list}"
    );
    assert_eq!(place(&queued), None, "it is on the second page");
    let (_, rest) = list
        .split_once("<a rel=\"next\" href=\"")
        .expect("more builds");
    let next = rest
        .split('"')
        .next()
        .expect("an address")
        .replace("&amp;", "&");
    let older = page(&server, &next);
    assert!(
        older.contains(&format!("b-{queued}")) && !older.contains(&format!("b-{running}")),
        "{older}"
    );

    // Events tell of the end, and a form brings it.
    let events = std::thread::scope(|scope| {
        let watching =
            scope.spawn(|| answer(&server, "GET", &format!("/builds/{running}/events"), "", "").2);
        cancel(&server, &running);
        watching.join().expect("events")
    });
    assert!(
        events.contains("\"over\":true") && events.contains("cancelled"),
        "{events}"
    );
    assert!(page(&server, &format!("/builds/{running}")).contains("It was stopped"));
    cancel(&server, &other);
    cancel(&server, &queued);
}

/// Logs in; the header with the cookie.
pub(crate) fn enter(server: &Server, token: &str) -> String {
    let (status, head, _) = form(server, "/login", "", &format!("token={token}&next=/"));
    assert_eq!(status, 303, "{head}");
    let mut lines = head.lines();
    let line = lines.find(|line| line.to_lowercase().starts_with("set-cookie:"));
    let line = line.expect("a cookie");
    assert!(
        line.contains("HttpOnly") && line.contains("SameSite=Strict"),
        "{line}"
    );
    let (_, value) = line.split_once(": ").expect("a value");
    format!("Cookie: {}\r\n", value.split(';').next().expect("a pair"))
}

#[test]
fn a_login_needs_a_token_and_leaves_no_secret() {
    let server = Server::start(&[]);
    let view = server.token(&["create", "ann"]);
    let (status, _, login) = answer(&server, "GET", "/?q=x", "", "");
    assert_eq!(status, 401);
    assert!(
        login.contains("Log in") && login.contains("value=\"/?q=x\""),
        "{login}"
    );
    let (status, _, text) = form(&server, "/login", "", "token=kiln_wrong");
    assert!(
        status == 401 && text.contains("does not know the token"),
        "{text}"
    );
    let foreign = "Origin: http://evil.example\r\n";
    assert_eq!(
        form(&server, "/login", foreign, &format!("token={view}")).0,
        403
    );
    // Who sends a form after the session has ended comes back to the form's page.
    let (status, _, login) = form(&server, "/builds/x/retry", "", "proof=old");
    assert!(
        status == 401 && login.contains("value=\"/builds/x\""),
        "{login}"
    );
    let ann = enter(&server, &view);
    // The secret itself is nowhere in the data directory.
    let secret = ann
        .trim()
        .split_once("kiln_session=")
        .expect("a secret")
        .1
        .to_owned();
    for name in ["kiln.db", "kiln.db-wal"] {
        let bytes = std::fs::read(server.data().join(name)).expect("the database");
        let is_there = bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!is_there, "{name} has the session's secret");
    }
    // A link on another site finds the page at its second look.
    let (status, _, look) = answer(
        &server,
        "GET",
        "/builds/x",
        "Sec-Fetch-Site: cross-site\r\n",
        "",
    );
    assert!(
        status == 200 && look.contains("http-equiv=\"refresh\""),
        "{look}"
    );
    // A token that is taken back ends its sessions.
    assert_eq!(answer(&server, "GET", "/", &ann, "").0, 200);
    server.token(&["revoke", "ann"]);
    assert_eq!(answer(&server, "GET", "/", &ann, "").0, 401);
}

/// Whose build it is; one that has ended.
fn ended_build_of(server: &Server, token: &str, cookie: &str) -> String {
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let body = json!({ "steps": [check("x.ks")] }).to_string();
    let (_, made) = server.request("POST", crate::harness::BUILDS, &bearer, body.as_bytes());
    let made: Value = serde_json::from_slice(&made).unwrap();
    let id = made["metadata"]["build"]["id"].as_str().expect("an id");
    let address = format!("/builds/{id}");
    let since = std::time::Instant::now();
    while !answer(server, "GET", &address, cookie, "")
        .2
        .contains("Build again")
    {
        assert!(since.elapsed().as_secs() < 60, "no end");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    address
}

#[test]
fn forms_are_of_this_server_and_roles_hold() {
    let server = Server::start(&[]);
    let token = |name: &str, role: &str| server.token(&["create", name, "--role", role]);
    let (view, submit) = (token("ann", "view"), token("bob", "submit"));
    let (ann, bob) = (enter(&server, &view), enter(&server, &submit));
    let address = ended_build_of(&server, &submit, &bob);
    let get = |who: &str| answer(&server, "GET", &address, who, "");
    // Who may only look sees no form of a build, and can send none.
    let seen = get(&ann).2;
    assert!(
        seen.contains("Why it failed") && !seen.contains("Build again"),
        "{seen}"
    );
    let retry = format!("{address}/retry");
    assert_eq!(
        form(&server, &retry, &ann, &format!("proof={}", proof(&seen))).0,
        403
    );
    // A form without its proof, or with that of another, or from another site, is refused.
    let own = proof(&get(&bob).2);
    assert_eq!(form(&server, &retry, &bob, "").0, 403);
    assert_eq!(
        form(&server, &retry, &bob, &format!("proof={}", proof(&seen))).0,
        403
    );
    for header in [
        "Origin: http://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        assert_eq!(
            form(
                &server,
                &retry,
                &format!("{bob}{header}"),
                &format!("proof={own}")
            )
            .0,
            403,
            "{header}"
        );
    }
    // A cookie alone opens nothing of the API.
    assert_eq!(
        server.request("GET", crate::harness::BUILDS, &bob, b"").0,
        401
    );
    assert_eq!(form(&server, &retry, &bob, &format!("proof={own}")).0, 303);
    let (status, head, _) = form(&server, "/logout", &bob, &format!("proof={own}"));
    assert!(status == 303 && head.contains("Max-Age=0"), "{head}");
    assert_eq!(get(&bob).0, 401);
}

/// A build from the page, once it has ended.
fn ended_of_the_page(server: &Server, id: &str) -> Value {
    let path = format!("/v1/projects/kiln-local/builds/{id}");
    let since = std::time::Instant::now();
    loop {
        let (_, build) = server.json("GET", &path, &Value::Null);
        if build["finishTime"].is_string() {
            return build;
        }
        assert!(since.elapsed().as_secs() < 60, "{build}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_kickstart_is_planned_before_it_is_built() {
    let server = Server::open();
    let sent = |text: &str| {
        let shown = page(&server, "/submit");
        let mut body = url_encoded("proof", &proof(&shown));
        for (name, value) in [("name", "lab"), ("text", text)] {
            body = format!("{body}&{}", url_encoded(name, value));
        }
        form(&server, "/submit", "", &body)
    };
    let (status, head, body) = sent(GOOD);
    assert_eq!(status, 303, "{body}");
    let line = head
        .lines()
        .find(|line| line.to_lowercase().starts_with("location: "));
    let address = line.expect("an address")[10..].trim().to_owned();
    let id = address.rsplit('/').next().expect("an id");
    let build = ended_of_the_page(&server, id);
    assert_eq!(build["steps"][0]["args"], json!(["plan", "lab.ks"]));
    let shown = page(&server, &address);
    assert!(
        shown.contains("lab") && shown.contains("lines of the log")
            || shown.contains("Lines of the log"),
        "{shown}"
    );
    assert_eq!(sent(" ").0, 400);
}

/// Sends files as a form does; `field` is the one that they were chosen in.
fn upload(server: &Server, field: &str, files: &[(&str, &[u8])], kickstart: &str) -> (u16, String) {
    let proof = proof(&page(server, "/submit"));
    let mut body = Vec::new();
    let mut part = |head: String, content: &[u8]| {
        let head = format!("--cut\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        body.extend([head.as_bytes(), content, b"\r\n"].concat());
    };
    part("name=\"proof\"".to_owned(), proof.as_bytes());
    part("name=\"kickstart\"".to_owned(), kickstart.as_bytes());
    // What was left empty.
    part("name=\"other\"; filename=\"\"".to_owned(), b"");
    for (name, content) in files {
        part(format!("name=\"{field}\"; filename=\"{name}\""), content);
    }
    body.extend(b"--cut--\r\n");
    let kind = "Content-Type: multipart/form-data; boundary=cut\r\n";
    let (status, head, body) = server.answer("POST", "/submit/files", kind, &body);
    let place = head
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    let said = String::from_utf8_lossy(&body).into_owned();
    (status, place.map_or(said, |place| place.trim().to_owned()))
}

/// What a shell's commands print.
fn shell(dir: &std::path::Path, script: &str) -> Vec<u8> {
    let mut command = std::process::Command::new("bash");
    let ran = command.args(["-euc", script]).current_dir(dir).output();
    let ran = ran.expect("bash");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    ran.stdout
}

#[test]
fn a_directory_or_an_archive_is_planned() {
    let server = Server::open();
    let planned = |(status, place): (u16, String)| {
        assert_eq!(status, 303, "{place}");
        let id = place.strip_prefix("/builds/").expect("a build").to_owned();
        let build = ended_of_the_page(&server, &id);
        (build["steps"][0]["args"].clone(), place)
    };
    let dir = server.directory.path();
    shell(
        dir,
        "mkdir lab; echo 'nonsense 1' > lab/lab.ks; echo x > lab/notes",
    );
    let archive = shell(dir, "tar -cz -C lab .");
    let (args, place) = planned(upload(&server, "archive", &[("lab.tar.gz", &archive)], ""));
    assert_eq!(args, json!(["plan", "lab.ks"]));
    // What is wrong with it is told with its file and line.
    assert!(page(&server, &place).contains("lab.ks:1"));
    let good = GOOD.as_bytes();
    let files = [
        ("lab/a.ks", good),
        ("lab/parts/b.ks", good),
        ("lab/run", b"#!/bin/sh\n"),
    ];
    let (args, _) = planned(upload(&server, "directory", &files, "parts/b.ks"));
    assert_eq!(args, json!(["plan", "parts/b.ks"]));
    let (args, _) = planned(upload(&server, "archive", &[("one.ks", good)], ""));
    assert_eq!(args, json!(["plan", "one.ks"]));
}

#[test]
fn hostile_uploads_are_refused_with_words() {
    let server = Server::open();
    let dir = server.directory.path();
    shell(
        dir,
        "echo x > a.ks; ln -s /etc/passwd link; mkfifo pipe; truncate -s 9G hole; mkdir many; cd many; seq 100000 | xargs touch",
    );
    for (script, expected) in [
        (
            "tar -czP --transform 's,^,../,' a.ks",
            "leads out of the source",
        ),
        (
            "tar -czP --transform 's,^,/etc/,' a.ks",
            "leads out of the source",
        ),
        (
            "tar -cz a.ks link",
            "the link link leads out of the source, to /etc/passwd",
        ),
        ("tar -cz a.ks pipe", "pipe is neither a file nor a link"),
        ("tar -czS a.ks hole", "MB, unpacked"),
        ("tar -cz many", "more than 10000 files"),
        ("tar -cz a.ks | head -c 60", "cannot be taken"),
        ("printf 'PK\\3\\4'", "zip archive"),
        ("printf '\\37\\213'", "cannot be taken"),
        ("head -c 40000000 /dev/zero", "more than 33554432 bytes"),
        ("echo nothing", "no kickstart"),
    ] {
        let archive = shell(dir, script);
        let (status, text) = upload(&server, "archive", &[("x", &archive)], "");
        assert_eq!(status, 400, "{script}: {text}");
        assert!(text.contains(expected), "{script}: {text}");
    }
    for (name, expected) in [
        ("../a.ks", "leads out"),
        ("/a.ks", "leads out"),
        (".", "cannot be called"),
    ] {
        let (status, text) = upload(&server, "directory", &[(name, b"x"), ("b", b"x")], "");
        assert!(status == 400 && text.contains(expected), "{name}: {text}");
    }
    let (_, listed) = server.json("GET", crate::harness::BUILDS, &Value::Null);
    assert_eq!(listed["builds"], Value::Null, "nothing was queued");
    // Without the text of a form of this server, or from another site, nothing is taken.
    let kind = "Content-Type: multipart/form-data; boundary=cut\r\n";
    let body = "--cut\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a.ks\"\r\n\r\nx\r\n--cut--\r\n";
    let foreign = format!("{kind}Origin: http://evil.example\r\n");
    for headers in [kind, &foreign, "Content-Type: text/plain\r\n"] {
        let status = answer(&server, "POST", "/submit/files", headers, body).0;
        assert!(status == 403 || status == 400, "{headers}: {status}");
    }
}

#[test]
fn only_a_picture_is_sent_as_one() {
    let server = Server::open();
    let source = server.directory.path().join("source");
    for (dir, picture) in [
        ("a", crate::browser::PICTURE),
        ("b", b"<script>alert(1)</script>"),
        (
            "c",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\x0f\xff\xff\0\x0f\xff\xff",
        ),
    ] {
        std::fs::create_dir_all(source.join(dir)).expect("a directory");
        std::fs::write(source.join(dir).join("desktop.png"), picture).expect("a picture");
        let record =
            json!({ "verdict": "failed", "detail": HOSTILE, "os": HOSTILE, "firmware": "uefi" });
        std::fs::write(source.join(dir).join("boot.json"), record.to_string()).expect("a record");
    }
    let source = server.source(&[("good.ks", GOOD)]);
    let id = server.create(&json!({ "source": source, "steps": [check("good.ks")] }));
    server.end(&id);
    let shown = page(&server, &format!("/builds/{id}"));
    assert!(
        !shown.contains("<img src=x") && shown.contains("does not come up"),
        "{shown}"
    );
    assert_eq!(shown.matches("<img src=\"/builds/").count(), 1, "{shown}");
    let get = |number: usize| {
        let path = format!("/builds/{id}/kept/desktop.png?attempt=1&number={number}");
        server.answer("GET", &path, "", b"")
    };
    let (status, head, body) = get(0);
    assert_eq!((status, body.as_slice()), (200, crate::browser::PICTURE));
    let head = head.to_lowercase();
    assert!(
        head.contains("content-type: image/png") && head.contains("nosniff"),
        "{head}"
    );
    assert_eq!([get(1).0, get(2).0, get(3).0], [404, 404, 404]);
}

#[test]
fn a_build_of_a_directory_is_called_as_its_image() {
    let server = Server::open();
    let manifest = json!({ "name": "lab", "packages": [] }).to_string();
    let definition = "name = \"lab\"\ndistribution = \"debian:bookworm\"\nlayers = [\"good.ks\"]\n";
    let source = server.source(&[
        ("good.ks", GOOD),
        ("kiln.toml", definition),
        ("manifest.json", &manifest),
    ]);
    let step = |args: &[&str]| json!({ "name": "kiln", "args": args });
    let done = server.create(&json!({ "source": source, "steps": [step(&["plan", "."])] }));
    assert_eq!(
        server.end(&done)["status"],
        "SUCCESS",
        "{}",
        server.log(&done)
    );
    assert!(page(&server, &format!("/builds/{done}")).contains("<title>lab done"));
    assert!(page(&server, "/").contains(">lab<"));
    let options = step(&["plan", ".", "--distribution=none:none"]);
    let failed = server.create(&json!({ "source": source, "steps": [options] }));
    assert_eq!(server.end(&failed)["status"], "FAILURE");
    let title = format!("<title>source {} failed", &failed[..8]);
    assert!(page(&server, &format!("/builds/{failed}")).contains(&title));
    assert!(page(&server, "/").contains(&format!(">source {}<", &failed[..8])));
}

#[test]
fn no_build_makes_its_page_long() {
    let server = Server::open();
    let long = "x".repeat(1000);
    let names = 0..3000;
    let packages = names
        .clone()
        .map(|at| json!({ "name": format!("p{at}{long}"), "version": long }));
    let manifest =
        json!({ "packages": packages.collect::<Vec<_>>(), "warnings": vec![&long; 3000] });
    let lock: String = names
        .map(|at| format!("package p{at}{long} 1 size=9\n"))
        .collect();
    let [manifest, lock] = [manifest.to_string(), lock];
    let source = server.source(&[
        ("good.ks", GOOD),
        ("manifest.json", &manifest),
        ("kiln.lock", &lock),
    ]);
    let id = server.create(&json!({ "source": source, "steps": [check("good.ks")] }));
    server.end(&id);
    let shown = page(&server, &format!("/builds/{id}"));
    assert!(shown.contains("and 2,000 more"), "{}", &shown[..2000]);
    assert!(shown.len() < 1 << 20, "{} bytes", shown.len());
}

fn url_encoded(name: &str, value: &str) -> String {
    let mut text = format!("{name}=");
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[test]
fn administration_is_for_administrators() {
    let server = Server::start(&[]);
    let (admin, submit) = (
        server.token(&["create", "root", "--role", "admin"]),
        server.token(&["create", "bob", "--role", "submit"]),
    );
    let (root, bob) = (enter(&server, &admin), enter(&server, &submit));
    let (status, _, refused) = answer(&server, "GET", "/admin", &bob, "");
    assert!(
        status == 403 && !refused.contains("Make a token"),
        "{refused}"
    );
    let (_, _, shown) = answer(&server, "GET", "/admin", &root, "");
    let body = format!("proof={}&name=eve&role=view", proof(&shown));
    let (status, _, made) = form(&server, "/admin/token", &root, &body);
    assert!(status == 200 && made.contains("kiln_"), "{made}");
    assert!(server.token(&["list"]).contains("eve  view"));
    let (_, _, own) = answer(&server, "GET", "/", &bob, "");
    let body = format!("proof={}&name=eve", proof(&own));
    assert_eq!(form(&server, "/admin/revoke", &bob, &body).0, 403);
    let body = format!("proof={}&name=eve", proof(&shown));
    assert_eq!(form(&server, "/admin/revoke", &root, &body).0, 303);
    assert!(!server.token(&["list"]).contains("eve"));
}

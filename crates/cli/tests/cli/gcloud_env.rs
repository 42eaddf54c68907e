//! What Google's command line is told, and what is written for it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::Sandbox;

/// Answers requests with a text; returns its address.
fn server(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 2048];
            let read = stream.read(&mut head).unwrap();
            assert!(head[..read].starts_with(b"GET /ca.pem "));
            let length = text.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn variables_are_printed_and_the_certificate_is_kept() {
    let sandbox = Sandbox::new();
    let address = server(PEM);
    let token = sandbox.write("token.txt", "secret");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let configuration = sandbox.path().join("own");
    let mut command = sandbox.command(&[
        "gcloud-env",
        "--server",
        &address,
        "--project",
        "demo-proj",
        "--token-file",
        "token.txt",
    ]);
    command.current_dir(sandbox.path());
    command.arg("--config-dir").arg(&configuration);
    let ran = sandbox.run(command.env("REQUESTS_CA_BUNDLE", "/other.pem"));
    assert_eq!(ran.code, 0, "{}", ran.whole());
    let certificate = configuration.join("gcloud/ca.pem");
    assert_eq!(fs::read_to_string(&certificate).unwrap(), PEM);
    assert_eq!(mode(&configuration.join("gcloud")), 0o700);
    for line in [
        "export CLOUDSDK_CORE_PROJECT=demo-proj",
        "export REQUESTS_CA_BUNDLE=",
        &format!("export CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE={address}/storage/v1/"),
        &format!("export CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBUILD={address}/"),
        &format!("export STORAGE_EMULATOR_HOST={address}"),
    ] {
        assert!(
            ran.stdout.lines().any(|found| found == line),
            "{line}\n{}",
            ran.whole()
        );
    }
    assert!(
        ran.stdout.contains("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE=") && ran.stdout.contains("token.txt")
    );
    assert!(!ran.whole().contains("secret"));
}

#[test]
fn a_configuration_is_installed() {
    let sandbox = Sandbox::new();
    let address = server(PEM);
    let own = sandbox.path().join("gcloud");
    let mut command = sandbox.command(&["gcloud-env", "--install", "--server", &address]);
    let ran = sandbox.run(command.env("CLOUDSDK_CONFIG", &own));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.whole());
    let file = own.join("configurations/config_kiln");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("[api_endpoint_overrides]\n"), "{text}");
    assert_eq!(mode(&file), 0o600);
    assert!(
        ran.stderr
            .contains("gcloud config configurations activate kiln"),
        "{}",
        ran.whole()
    );
}

#[test]
fn what_cannot_be_used_is_told() {
    let sandbox = Sandbox::new();
    let other = server("<html>");
    for (words, code, text) in [
        (
            vec!["--server", "https://kiln.example"],
            2,
            "through a proxy",
        ),
        (vec!["--server", "http://127.0.0.1:1"], 3, "kiln serve"),
        (vec!["--server", &other], 3, "build server of Kiln?"),
        (vec!["--project", "X"], 2, "no name of a project"),
        (vec!["--token-file", "missing"], 2, "missing"),
    ] {
        let ran = sandbox.kiln(&[&["gcloud-env"], &words[..]].concat());
        assert_eq!(ran.code, code, "{words:?}: {}", ran.whole());
        assert!(ran.stderr.contains(text), "{words:?}: {}", ran.whole());
    }
    let token = sandbox.write("open", "secret");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = sandbox.kiln(&["gcloud-env", "--token-file", token.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{}", ran.whole());
    assert!(ran.stderr.contains("chmod 600"), "{}", ran.whole());
}

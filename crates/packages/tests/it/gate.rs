//! Downloads for strangers: only from where they may come.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use kiln_packages::{CancelToken, Error, ErrorKind, FetchOptions, Fetched, Fetcher, Proxies};
use kiln_testkit::{Fault, Rule};

use crate::support::{World, options};

/// The mirror's address stands for another machine, all others for this one.
fn is_mirror(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::LOCALHOST)
}

fn nowhere(_: IpAddr) -> bool {
    false
}

fn fetch(options: FetchOptions, url: &str) -> Result<Fetched, Error> {
    let fetcher = Fetcher::new(options, CancelToken::new()).expect("a fetcher");
    fetcher.bytes(url, 1 << 20, None)
}

fn refused(options: FetchOptions, url: &str) {
    let error = fetch(options, url).expect_err(url);
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(
        error.to_string().contains("get nothing from there"),
        "{error}"
    );
}

#[test]
fn nothing_comes_from_a_closed_address_by_whatever_name_or_redirect() {
    let world = World::new();
    let port = world.mirror.address().port();
    let only = |only| FetchOptions {
        only: Some(only),
        ..options()
    };
    let path = "dists/stable/InRelease";
    assert!(fetch(only(is_mirror), &format!("http://127.0.0.1:{port}/{path}")).is_ok());
    // The name has an address more, which is closed.
    assert!(fetch(only(is_mirror), &format!("http://localhost:{port}/{path}")).is_ok());
    world.mirror.take_requests();
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
    ] {
        let url = format!("http://{host}:{port}/{path}");
        let outcome = fetch(only(nowhere), &url);
        assert!(outcome.is_err(), "{url}");
    }
    assert_eq!(world.mirror.take_requests().len(), 0);
    let target = format!("http://[::1]:{port}/{path}");
    world
        .mirror
        .inject(Rule::always("/moved", Fault::Redirect(target)));
    refused(only(is_mirror), &format!("http://127.0.0.1:{port}/moved"));
}

#[test]
fn a_proxy_is_not_asked_for_what_is_closed() {
    let world = World::new();
    let options = FetchOptions {
        only: Some(nowhere),
        proxies: Proxies {
            http: Some(world.mirror.url()),
            ..Proxies::default()
        },
        ..options()
    };
    refused(options.clone(), "http://127.0.0.1:8470/v1/projects");
    refused(options.clone(), "http://localhost:8470/v1/projects");
    assert_eq!(world.mirror.take_requests().len(), 0);
    // What only the proxy can look up is up to it.
    assert!(fetch(options, "http://mirror.invalid/dists/stable/InRelease").is_ok());
}

#[test]
fn files_are_the_builds_own_or_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let (own, other) = (dir.path().join("own"), dir.path().join("other"));
    fs::create_dir(&own).expect("a directory");
    fs::write(own.join("a"), "a").expect("a file");
    fs::write(&other, "secret").expect("a file");
    std::os::unix::fs::symlink(&other, own.join("link")).expect("a link");
    let only = |files| FetchOptions {
        only: Some(is_mirror),
        files,
        ..options()
    };
    let url = |name: &str| format!("file://{}/{name}", own.display());
    refused(only(None), &url("a"));
    let below = || only(Some(own.clone()));
    assert!(fetch(below(), &url("a")).is_ok());
    for name in ["link", "../other", "%2e%2e/other", "none"] {
        refused(below(), &url(name));
    }
}

//! Proxies and redirects.

use kiln_packages::{CancelToken, ErrorKind, FetchOptions, Fetched, Fetcher, Proxies};
use kiln_testkit::{Fault, Rule};

use crate::support::{World, fetcher, options};

fn through(proxies: Proxies) -> Fetcher {
    Fetcher::new(
        FetchOptions {
            proxies,
            ..options()
        },
        CancelToken::new(),
    )
    .expect("a fetcher")
}

/// The mirror as a proxy for a host that does not exist.
#[test]
fn http_proxy_gets_absolute_urls_and_credentials() {
    let world = World::new();
    let address = world.mirror.address();
    let http = Some(format!("http://user:p%40ss@{address}"));
    let fetcher = through(Proxies {
        http,
        ..Proxies::default()
    });
    let url = "http://mirror.invalid:8042/dists/stable/InRelease";
    for _ in 0..2 {
        assert!(matches!(
            fetcher.bytes(url, 1 << 20, None),
            Ok(Fetched::New { .. })
        ));
    }
    for request in world.mirror.take_requests() {
        assert_eq!(request.target, url);
        let header = |name: &str| {
            request
                .headers
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(header("host"), Some("mirror.invalid:8042"));
        // user:p@ss
        assert_eq!(header("proxy-authorization"), Some("Basic dXNlcjpwQHNz"));
    }
}

#[test]
fn exceptions_go_directly() {
    let world = World::new();
    let proxies = Proxies {
        http: Some("127.0.0.1:1".into()),
        https: None,
        exceptions: Some("127.0.0.1".into()),
    };
    let url = format!("{}/dists/stable/InRelease", world.mirror.url());
    assert!(through(proxies.clone()).bytes(&url, 1 << 20, None).is_ok());
    let proxies = Proxies {
        exceptions: None,
        ..proxies
    };
    let error = through(proxies)
        .bytes(&url, 1 << 20, None)
        .expect_err("no proxy there");
    assert_eq!(error.kind(), ErrorKind::Network);
}

#[test]
fn a_refused_proxy_is_named_without_its_password() {
    for (http, https, url) in [
        (
            "http://me:secret@127.0.0.1:1",
            "",
            "http://mirror.invalid/a",
        ),
        ("me:secret@127.0.0.1:1", "", "http://mirror.invalid/a"),
        (
            "",
            "http://me:secret@127.0.0.1:1",
            "https://mirror.invalid/a",
        ),
    ] {
        let proxies = Proxies {
            http: Some(http.into()),
            https: Some(https.into()),
            exceptions: None,
        };
        let error = through(proxies)
            .bytes(url, 1 << 20, None)
            .expect_err("no proxy there");
        let text = error.to_string();
        assert!(
            text.contains("through the proxy http://127.0.0.1:1"),
            "{text}"
        );
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[test]
fn unusable_proxies_are_refused_without_showing_passwords() {
    for bad in ["socks5://me:secret@h:1", "http://"] {
        let proxies = Proxies {
            http: Some(bad.into()),
            ..Proxies::default()
        };
        let error = Fetcher::new(
            FetchOptions {
                proxies,
                ..options()
            },
            CancelToken::new(),
        )
        .expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(
            !format!("{error} {:?}", error.hints()).contains("secret"),
            "{error}"
        );
    }
}

#[test]
fn redirects_are_followed_and_loops_end() {
    let world = World::new();
    let item = world.item();
    let target = format!("{}/pool/main/big_1.0_all.deb?moved", world.mirror.url());
    world
        .mirror
        .inject(Rule::times(1, "*.deb", Fault::Redirect(target)));
    world.store().obtain(&fetcher(), &item).expect("redirected");
    world
        .mirror
        .inject(Rule::always("/loop", Fault::Redirect("/loop".into())));
    let error = fetcher()
        .bytes(&format!("{}/loop", world.mirror.url()), 10, None)
        .expect_err("a loop");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("redirects"), "{error}");
}

#[test]
fn big_answers_are_cut_off() {
    let world = World::new();
    let url = format!("{}/pool/main/big_1.0_all.deb", world.mirror.url());
    assert_eq!(
        fetcher()
            .bytes(&url, 1000, None)
            .expect_err("too big")
            .kind(),
        ErrorKind::Refused
    );
}

#[test]
fn other_schemes_are_refused() {
    for url in ["ftp://h/x", "x", "file:relative", "http://"] {
        assert_eq!(
            fetcher().bytes(url, 10, None).expect_err(url).kind(),
            ErrorKind::Input,
            "{url}"
        );
    }
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let world = World::new();
    let mut repository = world.repository();
    repository.uri = world.mirror.url().replace("http://", "http://me:secret@");
    world.refresh_with(&repository).expect("good metadata");
    let header = ("authorization".to_owned(), "Basic bWU6c2VjcmV0".to_owned());
    assert!(
        world
            .mirror
            .take_requests()
            .iter()
            .all(|r| r.headers.contains(&header))
    );
    let faults = [
        Fault::NotFound,
        Fault::Status(403),
        Fault::Close,
        Fault::Replace(b"x".to_vec()),
    ];
    for fault in faults {
        world.mirror.heal();
        world.mirror.inject(Rule::always("*", fault.clone()));
        let error = world.refresh_with(&repository).expect_err("a fault");
        let mut text = format!("{error} {:?}", error.hints());
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        assert!(!text.contains("secret"), "{fault:?}: {text}");
    }
}

//! The real archive: one small suite, verified with the keys that Kiln brings.

use std::time::SystemTime;

use kiln_packages::debian::{Archive, Universe, default_repositories, refresh};
use kiln_packages::{CancelToken, FetchOptions, Fetcher};

#[test]
fn live_debian_updates_are_verified_with_the_built_in_keys() {
    let mut repositories =
        default_repositories(Archive::Debian, "bookworm", "amd64").expect("known");
    repositories.retain(|r| r.suite == "bookworm-updates");
    repositories[0].components = vec!["main".into()];
    let directory = tempfile::tempdir().expect("a directory");
    let fetcher = Fetcher::new(FetchOptions::default(), CancelToken::new()).expect("a fetcher");
    let metadata = refresh(&fetcher, &repositories, directory.path(), SystemTime::now())
        .unwrap_or_else(|e| panic!("this test needs the Debian mirror: {e} {:?}", e.hints()));
    let verified = &metadata.repositories[0];
    assert_eq!(verified.release.codename, "bookworm-updates");
    let universe = Universe::read(&metadata).expect("an index");
    assert!(
        universe
            .packages()
            .iter()
            .all(|p| p.size() > 0 && p.filename().starts_with("pool/"))
    );
}

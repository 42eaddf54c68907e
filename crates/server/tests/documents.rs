//! `docs/cloud-build.md` says what the table of fields says. `cargo xtask docs` writes what this test checks.

use std::fs;

#[test]
fn the_page_about_cloud_build_is_fresh() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cloud-build.md");
    let page = fs::read_to_string(file).expect("docs/cloud-build.md");
    let (open, close) = ("<!-- fields -->\n", "<!-- end of fields -->");
    let start = page.find(open).expect("the opening line") + open.len();
    let end = page.find(close).expect("the closing line");
    let fresh = format!(
        "{}\n{}{}",
        &page[..start],
        kiln_server::document::tables(),
        &page[end..]
    );
    if std::env::var_os("KILN_WRITE_DOCS").is_some() {
        return fs::write(file, fresh).expect("docs/cloud-build.md is written");
    }
    assert!(
        page == fresh,
        "docs/cloud-build.md is stale: run `cargo xtask docs` and commit it"
    );
}

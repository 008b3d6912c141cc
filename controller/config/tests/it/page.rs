//! `docs/configuration.md` is written from the types.

use std::fs;

#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = bellwire_config::reference_page();
    if std::env::var_os("BELLWIRE_WRITE_EXPECTED").is_some() {
        fs::write(path, &page).unwrap();
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "write it anew: BELLWIRE_WRITE_EXPECTED=1 cargo nextest run -p bellwire-config page"
    );
}

//! `include/fused_rnn.h` is what cbindgen makes of the sources.

use std::path::Path;

#[test]
fn the_header_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bindings/c");
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new().with_crate(root).with_config(config).generate().expect("a header");
    let mut made = Vec::new();
    bindings.write(&mut made);
    let path = root.join("include/fused_rnn.h");
    if std::env::var_os("FUSED_RNN_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("the header is written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept.as_bytes() == made,
        "{} is not what cbindgen makes of bindings/c/src; FUSED_RNN_WRITE_HEADER=1 cargo test -p fused-rnn-header writes it",
        path.display()
    );
}

//! Files are written whole or not at all, and hold what they say: what is refused, and how.

use std::path::Path;

use fused_rnn::backend::TensorRef;
use fused_rnn::interop::keras::{self, KerasWeights};
use fused_rnn::interop::onnx::{self, OnnxWeights};
use fused_rnn::interop::safetensors;
use fused_rnn::rnn::{Bias, RnnDescriptor};
use fused_rnn::{Error, files};

#[test]
fn unwritable_paths_are_found_before_the_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, b"old").expect("written");
    let mut bad = vec![
        folder.path().to_owned(),
        folder.path().join("no/such/folder/file"),
        file.join("below a file"),
        folder.path().join("x".repeat(300)),
        folder.path().join("ends/"),
        "".into(),
        "..".into(),
        "/".into(),
        "nul\0byte".into(),
    ];
    if Path::new("/dev/null").exists() {
        bad.push("/dev/null".into());
    }
    for path in bad {
        for outcome in [files::check_writable(&path), files::write_atomic(&path, b"new")] {
            let error = outcome.expect_err(&path.to_string_lossy());
            assert!(matches!(&error, Error::Io { path: named, .. } if named == &path), "{error:?}");
            assert!(error.to_string().starts_with("cannot "), "{error}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing is left behind");
    assert_eq!(std::fs::read(&file).expect("read"), b"old");
    assert!(matches!(files::read(&folder.path().join("absent")), Err(Error::Io { action: "read", .. })));
}

#[test]
fn files_are_replaced_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    for content in [&b"first"[..], b"", &[7; 100_000]] {
        files::check_writable(&file).expect("writable");
        files::write_atomic(&file, content).expect("written");
        assert_eq!(files::read(&file).expect("read"), content);
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
        let link = folder.path().join("link");
        symlink(&file, &link).expect("linked");
        files::write_atomic(&link, b"through the link").expect("written");
        assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(files::read(&file).expect("read"), b"through the link");
        assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn tensors_that_disagree_with_their_shape_are_not_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.safetensors");
    let values = [1.0f32; 6];
    for shape in [vec![5], vec![2, 4], vec![], vec![0], vec![usize::MAX, 2], vec![usize::MAX, usize::MAX, 0]] {
        let refused =
            safetensors::write(&path, "k", "v", &[("t", shape.clone(), TensorRef::of(&values))]).expect_err("refused");
        assert!(matches!(refused, Error::Shape { .. } | Error::SizeOverflow { .. }), "{shape:?}: {refused:?}");
        assert!(refused.to_string().starts_with("t: "), "{refused}");
        assert!(!path.exists());
    }
    safetensors::write(&path, "k", "v", &[("t", vec![2, 3], TensorRef::of(&values))]).expect("written");
}

/// Sizes that are possible, but that the arrays of other frameworks do not have, are refused before anything of that size is allocated.
#[test]
fn sizes_that_imported_arrays_do_not_bear_out_are_refused_without_allocating() {
    let d = RnnDescriptor::lstm(1 << 27, 1 << 28);
    let keras = KerasWeights { kernel: vec![0.0f32; 8], recurrent_kernel: vec![0.0; 8], bias: None };
    let error = keras::import(&d.clone().bias(Bias::None), &[keras]).map(drop).expect_err("refused");
    assert!(error.to_string().contains("kernel: expected"), "{error}");
    let node = OnnxWeights { w: vec![0.0f32; 8], r: vec![0.0; 8], b: None, p: None };
    let error = onnx::import(&d, &node).map(drop).expect_err("refused");
    assert!(error.to_string().starts_with("W: expected"), "{error}");
}

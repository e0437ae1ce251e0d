//! Readers of foreign bytes: whatever a file holds, the answer is its content or a typed error, soon and without
//! much memory. Files are damaged by a seeded generator, so that a failure can be repeated.

mod common;

use std::path::Path;

use common::Rng;
use fused_rnn::interop::safetensors::{self, TensorFile};
use fused_rnn::{DType, Error};

/// A file of a header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The header's entry of a tensor.
fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

fn small_file() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("small.safetensors");
    let (a, b) = ([1.0f32, -2.0, 0.5, 4.0, f32::NAN, -0.0], [7.0f32]);
    safetensors::write(&path, "case", r#"{"cell":"gru"}"#, &[("a", vec![2, 3], &a), ("b.c", vec![], &b)])
        .expect("written");
    std::fs::read(&path).expect("read")
}

/// Reads everything there is to read, and checks that errors are of the right kind and name the file.
fn read_all(bytes: &[u8]) -> Result<TensorFile, String> {
    let path = Path::new("hostile.safetensors");
    let typed = |error: Error| {
        assert!(matches!(&error, Error::Format { path: named, .. } if named == path), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("hostile.safetensors: not a usable safetensors file: "), "{text}");
        text
    };
    let file = TensorFile::parse(bytes, path).map_err(typed)?;
    let _ = file.metadata("case");
    for name in file.names() {
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let shape = file.shape(name).expect("a named tensor has a shape");
        // Not more than the bytes there are, however long the shape: reading is bounded by the file.
        if let Ok((shape, values)) = file.floats::<f64>(name).map_err(typed) {
            assert_eq!(elements(&shape), values.len());
            assert!(values.len() <= bytes.len());
        }
        if let Ok((shape, values)) = file.integers(name).map_err(typed) {
            assert_eq!(elements(&shape), values.len());
        }
        let _ = (file.is_single_precision(name), file.contains(name), shape.len());
    }
    typed(file.floats::<f32>("no such tensor").expect_err("absent"));
    Ok(file)
}

fn refused(bytes: &[u8]) -> String {
    match read_all(bytes) {
        Err(text) => text,
        Ok(_) => panic!("accepted: {:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn what_is_written_is_read() {
    let file = read_all(&small_file()).expect("valid");
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b.c"]);
    assert_eq!(file.metadata("case"), Some(r#"{"cell":"gru"}"#));
    let (shape, values) = file.floats::<f32>("a").expect("floats");
    assert_eq!(shape, [2, 3]);
    assert_eq!((values[0], values[3], values[4].is_nan(), values[5].to_bits()), (1.0, 4.0, true, 1 << 31));
    assert_eq!(file.floats::<f64>("b.c").expect("floats"), (vec![], vec![7.0]));
    let text = file.integers("a").expect_err("not integers").to_string();
    assert!(text.contains("a: expected i64 or i32, got F32"), "{text}");
    let text = file.floats::<f32>("z").expect_err("absent").to_string();
    assert!(text.contains("no tensor z; the file has a, b.c"), "{text}");
}

#[test]
fn every_truncation_is_refused() {
    let bytes = small_file();
    for len in 0..bytes.len() {
        refused(&bytes[..len]);
    }
    refused(&[bytes, vec![0]].concat());
}

#[test]
fn header_lengths_beyond_the_file_are_refused() {
    let bytes = small_file();
    for len in [bytes.len() as u64, 100_000_000, 100_000_001, 1 << 32, 1 << 62, 1 << 63, u64::MAX - 8, u64::MAX] {
        let mut bytes = bytes.clone();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        let text = refused(&bytes);
        assert!(text.contains(&len.to_string()), "{text}");
    }
    let mut bytes = bytes;
    bytes[..8].copy_from_slice(&0u64.to_le_bytes());
    refused(&bytes);
}

#[test]
fn headers_that_say_nothing_usable_are_refused() {
    let f32s = entry("a", "F32", "[2]", "[0,8]");
    let max = u64::MAX;
    for header in [
        "".to_owned(),
        "\u{0}".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        "{}".to_owned(),
        "}{".to_owned(),
        "{\"a\":1}".to_owned(),
        "{\"a\":{}}".to_owned(),
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("{{{f32s}}}trailing"),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0,7]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0,9]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[1,9]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[8,0]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[-8,0]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0,8,8]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0,1e99]")),
        format!("{{{}}}", entry("a", "F32", "[2]", &format!("[0,{max}]"))),
        format!("{{{}}}", entry("a", "F32", "[-2]", "[0,8]")),
        format!("{{{}}}", entry("a", "F32", "[2.5]", "[0,8]")),
        format!("{{{}}}", entry("a", "F32", "2", "[0,8]")),
        format!("{{{}}}", entry("a", "F32", &format!("[{max},2]"), "[0,8]")),
        format!("{{{}}}", entry("a", "F32", &format!("[{max},{max},{max}]"), "[0,8]")),
        format!("{{{}}}", entry("a", "F32", &format!("[{}]", (1u64 << 62) + 2), "[0,8]")),
        format!("{{{}}}", entry("a", "F32", "[4294967296,4294967296]", "[0,0]")),
        format!("{{{}}}", entry("a", "F99", "[2]", "[0,8]")),
        format!("{{{}}}", entry("a", "f32", "[2]", "[0,8]")),
        format!("{{{}}}", entry("a", "F4", "[15]", "[0,8]")),
        // Overlapping, with a gap, and beyond the end.
        format!("{{{f32s},{}}}", entry("b", "F32", "[2]", "[0,8]")),
        format!("{{{f32s},{}}}", entry("b", "F32", "[1]", "[4,8]")),
        format!("{{{},{}}}", entry("a", "F32", "[1]", "[0,4]"), entry("b", "U8", "[1]", "[7,8]")),
        format!("{{{f32s},{}}}", entry("b", "F32", "[2]", "[8,16]")),
        format!("{{\"__metadata__\":{{\"case\":1}},{f32s}}}"),
        format!("{{\"__metadata__\":[],{f32s}}}"),
    ] {
        refused(&file(&header, &[0; 8]));
    }
    let not_utf8 = [&2u64.to_le_bytes()[..], &[0xff, 0xfe], &[0; 8]].concat();
    refused(&not_utf8);
}

/// Offsets whose sum with the header's length overflows: eight tensors of almost 2^61 bytes.
#[test]
fn offsets_near_the_end_of_the_address_space_are_refused() {
    let size = (1u64 << 61) - 1;
    let entries: Vec<_> = (0..8u64)
        .map(|i| entry(&format!("t{i}"), "U8", &format!("[{size}]"), &format!("[{},{}]", i * size, (i + 1) * size)))
        .collect();
    for count in 1..=8 {
        refused(&file(&format!("{{{}}}", entries[..count].join(",")), &[0; 8]));
    }
}

#[test]
fn tensors_of_no_elements_and_of_other_types_are_harmless() {
    let empty = file(&format!("{{{}}}", entry("a", "F32", "[0]", "[0,0]")), &[]);
    assert_eq!(read_all(&empty).expect("valid").floats::<f32>("a").expect("floats"), (vec![0], vec![]));
    let wide = file(&format!("{{{}}}", entry("a", "F32", "[0,4294967296]", "[0,0]")), &[]);
    assert!(read_all(&wide).expect("valid").floats::<f32>("a").expect("floats").1.is_empty());
    read_all(&file("{}", &[])).expect("a file of nothing");
    for (dtype, size) in [("BOOL", 1), ("U8", 1), ("I8", 1), ("U16", 2), ("U32", 4), ("U64", 8), ("F8_E4M3", 1)] {
        let bytes =
            file(&format!("{{{}}}", entry("a", dtype, "[8]", &format!("[0,{}]", 8 * size))), &vec![1; 8 * size]);
        let read = read_all(&bytes).unwrap_or_else(|e| panic!("{dtype}: {e}"));
        let text = read.floats::<f64>("a").expect_err("no floats").to_string();
        assert!(text.contains("a: expected f64, f32, f16 or bf16, got"), "{text}");
        let text = read.integers("a").expect_err("no i64").to_string();
        assert!(text.contains("a: expected i64 or i32, got"), "{text}");
    }
    for (dtype, bytes, value) in
        [("F16", vec![0, 0x3c], 1.0), ("BF16", vec![0x80, 0xbf], -1.0), ("F64", 2.5f64.to_le_bytes().to_vec(), 2.5)]
    {
        let bytes = file(&format!("{{{}}}", entry("a", dtype, "[1]", &format!("[0,{}]", bytes.len()))), &bytes);
        let read = read_all(&bytes).expect("valid");
        assert_eq!(read.floats::<f64>("a").expect("floats").1, [value], "{dtype}");
        assert_eq!(read.is_single_precision("a"), dtype != DType::F64.name().to_uppercase());
    }
    for (dtype, bytes) in [("I64", (-5i64).to_le_bytes().to_vec()), ("I32", (-5i32).to_le_bytes().to_vec())] {
        let bytes = file(&format!("{{{}}}", entry("a", dtype, "[1]", &format!("[0,{}]", bytes.len()))), &bytes);
        assert_eq!(read_all(&bytes).expect("valid").integers("a").expect("integers").1, [-5]);
    }
}

/// Bytes changed, removed, doubled and exchanged, a few at a time; half of the time in the header, where they matter most.
fn damaged(original: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let header =
        original.first_chunk::<8>().map_or(0, |len| u64::from_le_bytes(*len)).min(original.len() as u64) as usize;
    for _ in 0..1 + rng.below(4) {
        let within = if rng.chance(0.6) { (8 + header).min(bytes.len()) } else { bytes.len() };
        if within == 0 {
            break;
        }
        let at = rng.below(within);
        let until = at + rng.below((bytes.len() - at).min(24) + 1);
        match rng.below(8) {
            0 => bytes[at] = rng.bits() as u8,
            1 => bytes[at] ^= 1 << rng.below(8),
            // Other text of JSON, so that the parser gets further.
            2 => bytes[at] = rng.pick(b"0123456789{}[]\",:-.eEtfnul \\\0"),
            3 => drop(bytes.drain(at..until)),
            4 => {
                let copy = bytes[at..until].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => bytes.truncate(at),
            6 => {
                let other = rng.below(bytes.len());
                bytes.swap(at, other);
            }
            _ => {
                // A number becomes another, often a large one.
                let digits: Vec<usize> = (0..within).filter(|i| bytes[*i].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    let place = digits[rng.below(digits.len())];
                    let number = rng.pick(&[
                        "0",
                        "1",
                        "18446744073709551615",
                        "9223372036854775807",
                        "-1",
                        "1e400",
                        "4294967296",
                    ]);
                    bytes.splice(place..=place, number.bytes());
                }
            }
        }
    }
    bytes
}

#[test]
fn damaged_files_are_read_or_refused() {
    let original = small_file();
    let (mut read, mut refused) = (0, 0);
    for seed in 0..20_000 {
        let bytes = damaged(&original, &mut Rng::new(seed));
        match std::panic::catch_unwind(|| read_all(&bytes)) {
            Ok(Ok(_)) => read += 1,
            Ok(Err(_)) => refused += 1,
            Err(_) => panic!("seed {seed} panics: {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused: the damage is of one kind only");
}

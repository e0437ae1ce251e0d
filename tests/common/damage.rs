//! Damage to files: at random, but from a seed.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Rng;

/// Bytes changed, removed, doubled and exchanged, a few at a time; half of the time in the header, where they matter most.
pub fn damaged(original: &[u8], rng: &mut Rng) -> Vec<u8> {
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

/// Writes a file anew. Removed before it is written: a file that is cut to nothing and written again waits for the disk on ext4, and
/// thousands of those are minutes.
pub fn write_anew(path: impl AsRef<Path>, bytes: &[u8]) {
    let path = path.as_ref();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", path.display()),
        _ => std::fs::write(path, bytes).expect("written"),
    }
}

/// A safetensors file taken apart.
struct Parts {
    metadata: Map<String, Value>,
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl Parts {
    fn of(bytes: &[u8]) -> Self {
        let length = u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
        let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
        let mut parts = Parts { metadata: Map::new(), tensors: Vec::new() };
        for (name, value) in header {
            if name == "__metadata__" {
                parts.metadata = value.as_object().expect("an object").clone();
                continue;
            }
            let number = |v: &Value| v.as_u64().expect("a number");
            let numbers = |v: &Value| v.as_array().expect("numbers").iter().map(number).collect::<Vec<_>>();
            let offsets = numbers(&value["data_offsets"]);
            parts.tensors.push(Tensor {
                name,
                dtype: value["dtype"].as_str().expect("a name").to_owned(),
                shape: numbers(&value["shape"]),
                bytes: bytes[8 + length + offsets[0] as usize..8 + length + offsets[1] as usize].to_vec(),
            });
        }
        parts
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), Value::Object(self.metadata.clone()));
        let mut data = Vec::new();
        for tensor in &self.tensors {
            let end = data.len() + tensor.bytes.len();
            let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [data.len(), end]});
            if header.insert(tensor.name.clone(), entry).is_none() {
                data.extend(&tensor.bytes);
            }
        }
        let header = Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
    }
}

fn hostile_value(rng: &mut Rng) -> Value {
    let words = ["", "tanh", "lstm", "LSTM", "bidirectional", "reverse", "\u{0}", "torch", "keras", "onnx"];
    match rng.below(12) {
        0 => Value::Null,
        1 => json!(rng.chance(0.5)),
        2 => json!(rng.below(5)),
        3 => json!(-(rng.below(5) as i64)),
        4 => json!(u64::MAX),
        5 => json!(1u64 << rng.below(64)),
        6 => json!(rng.uniform(-3.0, 3.0)),
        7 => json!(1e308),
        8 => json!(words[rng.below(words.len())]),
        9 => json!([]),
        10 => (0..rng.below(6)).map(|_| json!(rng.below(9))).collect(),
        _ => json!({}),
    }
}

/// Changes one thing somewhere in a value.
pub fn damage_value(value: &mut Value, rng: &mut Rng) {
    let inner = match value {
        Value::Object(map) if !map.is_empty() && !rng.chance(0.05) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = keys[rng.below(keys.len())].clone();
            match rng.below(8) {
                0 => {
                    map.remove(&key);
                    return;
                }
                1 => {
                    let moved = map.remove(&key).unwrap_or_default();
                    map.insert(keys[rng.below(keys.len())].clone() + if rng.chance(0.5) { "x" } else { "" }, moved);
                    return;
                }
                _ => map.get_mut(&key),
            }
        }
        Value::Array(list) if !list.is_empty() && !rng.chance(0.2) => {
            let place = rng.below(list.len());
            match rng.below(6) {
                0 => {
                    list.remove(place);
                    return;
                }
                1 => {
                    list.push(list[place].clone());
                    return;
                }
                _ => list.get_mut(place),
            }
        }
        _ => None,
    };
    match inner {
        Some(inner) => damage_value(inner, rng),
        None => {
            *value = match value.as_u64() {
                // Numbers near the right one get further than any other.
                Some(n) if rng.chance(0.4) => json!(n.saturating_add(1).saturating_sub(2 * rng.below(2) as u64)),
                _ => hostile_value(rng),
            }
        }
    }
}

/// A sound safetensors file that says something else: the JSON in its metadata entry `key`, or its tensors' names, shapes, types
/// and values are changed, a few things at a time.
pub fn with_damaged_meaning(original: &[u8], key: &str, rng: &mut Rng) -> Vec<u8> {
    let mut parts = Parts::of(original);
    for _ in 0..1 + rng.below(3) {
        if rng.chance(0.5) {
            let Some(Value::String(text)) = parts.metadata.get_mut(key) else { break };
            let mut value: Value = serde_json::from_str(text).expect("JSON");
            damage_value(&mut value, rng);
            *text = value.to_string();
            continue;
        }
        let count = parts.tensors.len();
        if count == 0 {
            break;
        }
        let (place, other) = (rng.below(count), rng.below(count));
        match rng.below(8) {
            0 => {
                parts.tensors.remove(place);
            }
            1 => {
                let name = std::mem::take(&mut parts.tensors[place].name);
                parts.tensors[place].name = std::mem::replace(&mut parts.tensors[other].name, name);
            }
            2 => parts.tensors[place].name.push('0'),
            3 => parts.tensors[place].shape.reverse(),
            4 => {
                let elements = parts.tensors[place].shape.iter().product();
                parts.tensors[place].shape = vec![elements];
            }
            5 => {
                // One row more or less of the first axis, values and all.
                let tensor = &mut parts.tensors[place];
                if let Some(first) = tensor.shape.first_mut().filter(|n| **n > 0) {
                    let row = tensor.bytes.len() / *first as usize;
                    *first -= 1;
                    tensor.bytes.truncate(row * *first as usize);
                }
            }
            6 => {
                let tensor = &mut parts.tensors[place];
                tensor.dtype = match tensor.dtype.as_str() {
                    "F32" => "I32",
                    "I32" => "F32",
                    "F64" => "I64",
                    "I64" => "F64",
                    same => same,
                }
                .to_owned();
            }
            _ => {
                let bytes = &mut parts.tensors[place].bytes;
                if !bytes.is_empty() {
                    let at = rng.below(bytes.len());
                    let until = (at + 8).min(bytes.len());
                    bytes[at..until].fill(rng.pick(&[0, 0x7f, 0xff]));
                }
            }
        }
    }
    parts.bytes()
}

//! safetensors: the header's JSON, the JSON in an entry of its metadata, shapes and types of tensors with their bytes, single numbers.

use serde_json::{Map, Value, json};

use super::{Random, json as text};

pub fn changed(bytes: &[u8], key: &str, random: &mut Random) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let mut header: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let mut data = data.to_vec();
    match random.below(6) {
        0 => {
            let mut whole = Value::Object(header);
            text::change(&mut whole, random);
            let Value::Object(whole) = whole else { return None };
            header = whole;
        }
        1 | 2 => {
            let entry = header.get_mut("__metadata__")?.get_mut(key)?;
            let mut value: Value = serde_json::from_str(entry.as_str()?).ok()?;
            text::change(&mut value, random);
            *entry = Value::String(value.to_string());
        }
        3 | 4 => data = tensors(&mut header, &data, random)?,
        _ => numbers(&mut data, random),
    }
    let header = serde_json::to_vec(&header).ok()?;
    Some([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat())
}

fn width(dtype: &str) -> usize {
    match dtype {
        "F64" | "I64" | "U64" => 8,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "BOOL" | "U8" | "I8" => 1,
        _ => 4,
    }
}

/// Gives one tensor another shape, type or name, and lays out all anew.
fn tensors(header: &mut Map<String, Value>, data: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut parts: Vec<(String, String, Vec<u64>, Vec<u8>)> = Vec::new();
    for (name, entry) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |i: usize| entry["data_offsets"].get(i)?.as_u64().and_then(|at| usize::try_from(at).ok());
        let shape = entry["shape"].as_array()?.iter().filter_map(Value::as_u64).collect();
        parts.push((
            name.clone(),
            entry["dtype"].as_str()?.to_owned(),
            shape,
            data.get(offset(0)?..offset(1)?)?.to_vec(),
        ));
    }
    let (one, other) = (random.below(parts.len()), random.below(parts.len()));
    let other = parts.get(other)?.clone();
    let (name, dtype, shape, bytes) = parts.get_mut(one)?;
    match random.below(8) {
        0 => shape.reverse(),
        1 => shape.push(1),
        2 => *shape.first_mut()? = shape.first()?.saturating_add(1),
        3 => *shape.last_mut()? = shape.last()?.saturating_sub(1),
        4 => *dtype = random.pick(&["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL"])?.to_owned(),
        5 => *name = format!("{}{}", other.0, random.pick(&[".0", ".weight", "_l1", "_reverse", "x"])?),
        6 => (*shape, *bytes, *dtype) = (other.2, other.3, other.1),
        _ => drop(parts.remove(one)),
    }
    header.retain(|name, _| name == "__metadata__");
    let mut laid = Vec::new();
    for (name, dtype, shape, mut bytes) in parts {
        let size = shape.iter().try_fold(width(&dtype) as u64, |n, axis| n.checked_mul(*axis)).filter(|n| *n < 100_000);
        if let Some(size) = size {
            bytes.resize(size as usize, 0x3c);
        }
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [laid.len(), laid.len() + bytes.len()]});
        if header.insert(name, entry).is_none() {
            laid.extend(bytes);
        }
    }
    Some(laid)
}

/// Puts NaN, infinities and the like in the place of numbers.
fn numbers(data: &mut [u8], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(data.len() / 4) * 4;
        let value =
            random.pick(&[f32::NAN, f32::INFINITY, -1.0, f32::MAX, f32::MIN_POSITIVE, -0.0, 1e6, 0.0]).unwrap_or(0.5);
        if let Some(place) = data.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}

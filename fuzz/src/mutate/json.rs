//! JSON: values exchanged, removed, doubled, moved.

use serde_json::{Value, json};

use super::Random;

pub fn changed(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    change(&mut value, random);
    serde_json::to_vec(&value).ok()
}

/// Changes a few things somewhere in a value.
pub fn change(value: &mut Value, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let place = random.below(count(value));
        match random.below(10) {
            0 => replace(value, place, hostile(random)),
            1 | 2 => {
                let from = random.below(count(value));
                if let Some(other) = at(value, from).cloned() {
                    replace(value, place, other);
                }
            }
            3 => double_last(value, random),
            _ => {
                if let Some(part) = at(value, place) {
                    change_one(part, random);
                }
            }
        }
    }
}

/// Values in it, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(map) => map.values().map(count).sum(),
        Value::Array(list) => list.iter().map(count).sum(),
        _ => 0,
    }
}

/// The value of this number in it.
fn at(value: &mut Value, place: usize) -> Option<&mut Value> {
    if place == 0 {
        return Some(value);
    }
    let mut left = place - 1;
    let parts: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Object(map) => Box::new(map.values_mut()),
        Value::Array(list) => Box::new(list.iter_mut()),
        _ => return None,
    };
    for part in parts {
        let inside = count(part);
        if left < inside {
            return at(part, left);
        }
        left -= inside;
    }
    None
}

fn replace(value: &mut Value, place: usize, with: Value) {
    if let Some(part) = at(value, place) {
        *part = with;
    }
}

fn hostile(random: &mut Random) -> Value {
    let words = ["", "tanh", "softmax", "linear", "relu", "concat", "reverse", "\u{1b}[2J", "a.b", "lstm", "kernel"];
    match random.below(12) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2 => json!(random.hostile()),
        3 => json!(-(random.below(9) as i64)),
        4 => json!([0.5, 1.0, -0.5, 1e-6, 0.999][random.below(5)]),
        5 => json!([1e308, 5e-324, 1e39, -1e300, 1e-46][random.below(5)]),
        6 | 7 => json!(random.pick(&words)),
        8 => json!([]),
        9 => json!({}),
        10 => (0..random.below(4)).map(|_| json!(random.below(5))).collect(),
        _ => json!(random.below(40) as f64 / 20.0),
    }
}

fn change_one(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            if keys.is_empty() {
                return;
            }
            let [one, other] = [0; 2].map(|_| keys[random.below(keys.len())].clone());
            if let Some(part) = map.remove(&one)
                && random.below(2) == 0
            {
                map.insert(other, part);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let (one, other) = (random.below(list.len()), random.below(list.len()));
            match random.below(5) {
                0 => drop(list.remove(one)),
                1 => list.insert(other, list[one].clone()),
                2 => list.swap(one, other),
                3 => list.push(hostile(random)),
                _ => list[one] = hostile(random),
            }
        }
        Value::Number(number) => {
            *value = match number.as_u64() {
                Some(n) => match random.below(6) {
                    0 => json!(n.wrapping_add(1)),
                    1 => json!(n.saturating_sub(1)),
                    2 => json!(n.wrapping_mul(2)),
                    3 => json!(random.hostile()),
                    _ => json!(random.below(9)),
                },
                None => {
                    let n = number.as_f64().unwrap_or_default();
                    json!([-n, n * 10.0, n / 10.0, 1.0 - n, 0.0][random.below(5)])
                }
            }
        }
        Value::Bool(is) => *is = !*is,
        _ => *value = hostile(random),
    }
}

/// Puts one more layer and call behind the last of a model's: graphs grow.
fn double_last(value: &mut Value, random: &mut Random) {
    let Some(model) = value.get_mut("model") else { return };
    let list = |model: &Value, key: &str| model.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let (layers, calls, outputs) = (list(model, "layers"), list(model, "calls"), list(model, "outputs"));
    let (Some(mut layer), Some(mut call), false) =
        (layers.get(random.below(layers.len())).cloned(), calls.last().cloned(), outputs.is_empty())
    else {
        return;
    };
    if let Some(name) = layer.get_mut("name") {
        *name = json!(format!("n{}", random.below(1000)));
    }
    if let Some(call) = call.as_object_mut() {
        call.insert("layer".to_owned(), json!(layers.len()));
        let inputs = (0..1 + random.below(2)).map(|_| outputs[random.below(outputs.len())].clone()).collect();
        call.insert("inputs".to_owned(), Value::Array(inputs));
    }
    let mut push = |key: &str, part: Value| {
        if let Some(Value::Array(list)) = model.get_mut(key) {
            list.push(part);
        }
    };
    push("layers", layer);
    push("calls", call);
    let output = json!({"call": [calls.len(), 0]});
    match random.below(2) {
        0 => push("outputs", output),
        _ => model["outputs"] = json!([output]),
    }
}

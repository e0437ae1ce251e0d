//! [Protocol Buffers](https://protobuf.dev/programming-guides/encoding/): fields changed, removed, doubled, moved; lengths stay right.

use super::Random;

/// A field's value.
#[derive(Clone)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
    Message(Vec<(u64, Value)>),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
}

type Message = Vec<(u64, Value)>;

/// Messages within each other, at most.
const DEEPEST: usize = 12;

pub fn changed(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut message = parsed(bytes, 0).filter(|message| !message.is_empty())?;
    for _ in 0..1 + random.below(3) {
        let mut place = random.below(count(&message));
        let donor = {
            let mut place = random.below(count(&message));
            let mut found = None;
            visit(&mut message, &mut place, &mut |fields, i| found = fields.get(i).cloned());
            found
        };
        visit(&mut message, &mut place, &mut |fields, i| change(fields, i, donor.clone(), random));
    }
    let mut out = Vec::new();
    write(&message, &mut out);
    Some(out)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn parsed(mut bytes: &[u8], depth: usize) -> Option<Message> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let (number, kind) = (key >> 3, key & 7);
        if number == 0 || number > 100 {
            return None;
        }
        let value = match kind {
            0 => Value::Number(varint(&mut bytes)?),
            1 => {
                let (value, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                Value::Fixed64(*value)
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                let printable = content.iter().all(|byte| (0x20..0x7f).contains(byte));
                match parsed(content, depth + 1).filter(|inside| depth < DEEPEST && !inside.is_empty() && !printable) {
                    Some(inside) => Value::Message(inside),
                    None => Value::Bytes(content.to_vec()),
                }
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                Value::Fixed32(*value)
            }
            _ => return None,
        };
        fields.push((number, value));
    }
    Some(fields)
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write(message: &Message, out: &mut Vec<u8>) {
    for (number, value) in message {
        let (kind, content) = match value {
            Value::Number(_) => (0, Vec::new()),
            Value::Fixed64(_) => (1, Vec::new()),
            Value::Bytes(bytes) => (2, bytes.clone()),
            Value::Message(inside) => {
                let mut content = Vec::new();
                write(inside, &mut content);
                (2, content)
            }
            Value::Fixed32(_) => (5, Vec::new()),
        };
        put(number << 3 | kind, out);
        match value {
            Value::Number(value) => put(*value, out),
            Value::Fixed64(bytes) => out.extend(bytes),
            Value::Fixed32(bytes) => out.extend(bytes),
            Value::Bytes(_) | Value::Message(_) => {
                put(content.len() as u64, out);
                out.extend(content);
            }
        }
    }
}

/// Fields in it, at every depth.
fn count(message: &Message) -> usize {
    message
        .iter()
        .map(|(_, value)| match value {
            Value::Message(inside) => 1 + count(inside),
            _ => 1,
        })
        .sum()
}

/// Goes to the field of this number, and does something with the fields around it.
fn visit(fields: &mut Message, place: &mut usize, act: &mut dyn FnMut(&mut Message, usize)) -> bool {
    for i in 0..fields.len() {
        if *place == 0 {
            act(fields, i);
            return true;
        }
        *place -= 1;
        if let Some((_, Value::Message(inside))) = fields.get_mut(i)
            && visit(inside, place, act)
        {
            return true;
        }
    }
    false
}

fn change(fields: &mut Message, i: usize, donor: Option<(u64, Value)>, random: &mut Random) {
    match random.below(10) {
        0 => drop(fields.remove(i)),
        1 => fields.insert(random.below(fields.len()), fields[i].clone()),
        2 => {
            let other = random.below(fields.len());
            fields.swap(i, other);
        }
        3 => fields.extend(donor),
        4 => {
            if let Some((_, value)) = donor {
                fields[i].1 = value;
            }
        }
        5 => fields[i].0 = 1 + random.below(24) as u64,
        _ => match &mut fields[i].1 {
            Value::Number(value) => {
                *value = match random.below(4) {
                    0 => value.wrapping_add(1),
                    1 => value.wrapping_sub(1),
                    2 => random.hostile(),
                    _ => random.below(20) as u64,
                }
            }
            Value::Fixed64(bytes) => *bytes = random.hostile().to_le_bytes(),
            Value::Fixed32(bytes) => {
                let value = random.pick(&[f32::NAN, f32::INFINITY, -1.0, 0.0, 1.0, 1e-5, f32::MAX]).unwrap_or(2.0);
                *bytes = value.to_le_bytes();
            }
            Value::Bytes(bytes) => content(bytes, random),
            Value::Message(inside) => {
                let at = random.below(inside.len());
                drop((at < inside.len()).then(|| inside.remove(at)));
            }
        },
    }
}

fn content(bytes: &mut Vec<u8>, random: &mut Random) {
    let names: [&[u8]; 16] = [
        b"LSTM",
        b"GRU",
        b"RNN",
        b"MatMul",
        b"Gemm",
        b"Reshape",
        b"Transpose",
        b"Slice",
        b"Concat",
        b"Add",
        b"Gather",
        b"Squeeze",
        b"Expand",
        b"Shape",
        b"Conv",
        b"Einsum",
    ];
    match random.below(6) {
        0 => *bytes = random.pick(&names).unwrap_or_default().to_vec(),
        1 => bytes.truncate(random.below(bytes.len() + 1)),
        2 => bytes.extend(random.hostile().to_le_bytes()),
        _ => {
            let at = random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.bits() as u8;
            }
        }
    }
}

//! Zip archives: a member is changed and the archive made anew, with its checksums.

use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{Random, json};

pub fn changed(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut members = Vec::new();
    for index in 0..archive.len().min(40) {
        let file = archive.by_index(index).ok()?;
        let name = file.name().ok()?.into_owned();
        let mut content = Vec::new();
        file.take(1 << 20).read_to_end(&mut content).ok()?;
        members.push((name, content));
    }
    let (one, other) = (random.below(members.len()), random.below(members.len()));
    match random.below(16) {
        0 => drop((one < members.len()).then(|| members.remove(one))),
        1 => {
            let mut double = members.get(one)?.clone();
            double.0.insert(0, 'x');
            members.push(double);
        }
        2 => members.get_mut(one)?.1 = members.get(other)?.1.clone(),
        _ => {
            let member = &mut members.get_mut(one)?.1;
            match json::changed(member, random) {
                Some(new) => *member = new,
                None => bytes_of(member, random),
            }
        }
    }
    let method = if random.below(4) == 0 { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).ok()?;
        zip.write_all(&content).ok()?;
    }
    Some(zip.finish().ok()?.into_inner())
}

/// Lengths, addresses, characters.
fn bytes_of(member: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(member.len());
        match random.below(6) {
            0 => member.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => member.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.bits() as u8),
            2 | 3 => {
                let (at, value) = (at / 8 * 8, random.hostile());
                if let Some(field) = member.get_mut(at..at + 8) {
                    field.copy_from_slice(&value.to_le_bytes());
                }
            }
            4 => member
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte = b"0123456789'(),:<>{}fiuTF"[random.below(24)]),
            _ => {
                let (from, length) = (random.below(member.len()), 1 + random.below(16));
                let copy: Vec<u8> = member.iter().skip(from).take(length).copied().collect();
                let end = (at + random.below(length + 1)).min(member.len());
                member.splice(at.min(end)..end, copy);
            }
        }
    }
}

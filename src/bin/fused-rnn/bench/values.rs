//! What a swept option holds: values separated by commas, and ranges of whole numbers.

use fused_rnn::{Error, Result};

/// Most values of one option, and most points of a sweep.
pub const MOST: usize = 100_000;

/// How lists of numbers are written, for errors.
const EXPECTED: &str = "whole numbers from 1, separated by commas, or ranges such as 16..4096:x2 (each twice the last) and 16..64:+16 (steps of 16)";

pub fn invalid(option: &str, expected: impl Into<String>, got: &str) -> Error {
    Error::InvalidOption { option: option.to_owned(), expected: expected.into(), got: format!("{:?}", short(got)) }
}

/// The beginning of a text that may be a whole file's.
pub fn short(text: &str) -> String {
    let mut characters = text.chars();
    let beginning: String = characters.by_ref().take(60).collect();
    if characters.next().is_none() { beginning } else { beginning + "…" }
}

/// The parts of a list.
pub fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// `16,64,256`, `16..4096:x2`, `16..64:+16`, or several of these; ends of ranges belong to them.
///
/// # Errors
///
/// [`Error::InvalidOption`] for everything else, with zero, and for more than [`MOST`] values.
pub fn numbers(option: &str, text: &str) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for part in parts(text) {
        let wrong = || invalid(option, EXPECTED, part);
        match part.split_once("..") {
            None => found.push(whole(part).ok_or_else(wrong)?),
            Some((first, rest)) => {
                let (last, step) = rest.split_once(':').ok_or_else(wrong)?;
                let (mut number, last) = (whole(first).ok_or_else(wrong)?, whole(last).ok_or_else(wrong)?);
                let next: Box<dyn Fn(usize) -> Option<usize>> = match (step.strip_prefix('x'), step.strip_prefix('+')) {
                    (Some(factor), _) => {
                        let factor = whole(factor).filter(|factor| *factor > 1).ok_or_else(wrong)?;
                        Box::new(move |number| number.checked_mul(factor))
                    }
                    (_, Some(added)) => {
                        let added = whole(added).ok_or_else(wrong)?;
                        Box::new(move |number| number.checked_add(added))
                    }
                    _ => return Err(wrong()),
                };
                if number > last {
                    return Err(invalid(option, "a range that begins below its end", part));
                }
                loop {
                    found.push(number);
                    match next(number) {
                        Some(following) if following <= last && found.len() <= MOST => number = following,
                        _ => break,
                    }
                }
            }
        }
        if found.len() > MOST {
            return Err(invalid(option, format!("at most {MOST} values"), text));
        }
    }
    Ok(found)
}

fn whole(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|number| *number > 0)
}

/// Words separated by commas, each with its meaning.
///
/// # Errors
///
/// [`Error::InvalidOption`] for one that is not among `names`.
pub fn words<T: Copy>(option: &str, text: &str, names: &[(&str, T)]) -> Result<Vec<T>> {
    let one = |word: &str| {
        let found = names.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let possible: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            invalid(option, format!("{}, or several separated by commas", possible.join(", ")), word)
        })
    };
    parts(text).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        for (text, expected) in [
            ("16", vec![16]),
            ("16, 64,256", vec![16, 64, 256]),
            ("16..128:x2", vec![16, 32, 64, 128]),
            ("16..64:+16", vec![16, 32, 48, 64]),
            ("1..10:x3", vec![1, 3, 9]),
            ("7..7:x2,1", vec![7, 1]),
        ] {
            assert_eq!(numbers("seq-len", text).unwrap(), expected, "{text}");
        }
        assert_eq!(numbers("batch", &format!("1..{}:x2", usize::MAX)).unwrap().len(), usize::BITS as usize);
    }

    #[test]
    fn what_is_mistyped_is_named() {
        for text in [
            "", "0", "-1", "1.5", "x", "1,,2", "1..", "1..4", "1..4:2", "1..4:x1", "1..4:+0", "4..1:+1", "1..4:*2",
            "1...4:x2",
        ] {
            let error = numbers("seq-len", text).unwrap_err().to_string();
            assert!(error.starts_with("option seq-len: expected ") && error.contains("got \""), "{text}: {error}");
        }
        let error = numbers("batch", "1..1000000000:+1").unwrap_err().to_string();
        assert!(error.contains("at most 100000 values"), "{error}");
        let error = numbers("batch", &"4-".repeat(1000)).unwrap_err().to_string();
        assert!(error.ends_with("got \"4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-4-…\""), "{error}");
        let error = words("pass", "infer,forward", &[("infer", 1), ("fwd", 2)]).unwrap_err().to_string();
        assert_eq!(error, "option pass: expected infer, fwd, or several separated by commas, got \"forward\"");
    }
}

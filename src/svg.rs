//! What every picture needs, whoever draws it: text that an SVG document may hold, and about how wide it will be.

use std::borrow::Cow;

/// The text with what XML 1.0 does not allow replaced: white space by a blank, other control characters by U+FFFD
/// ([the characters allowed](https://www.w3.org/TR/xml/#charsets)).
pub(crate) fn legible(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let replaced = text.chars().map(|c| match c {
        '\t' | '\n' | '\r' => ' ',
        c if is_odd(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    Cow::Owned(replaced.collect())
}

/// The text as it must stand inside an element or a quoted attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in legible(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c => out.push(c),
        }
    }
    out
}

/// About how wide a text in a sans-serif font of this size is, in the unit of the size. Which font a viewer has is not known; the
/// widths are those of DejaVu Sans, a wide one, so that text fits in others too.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '\'' | '|' | '.' | ',' | ':' | ';' | ' ' | '!' | 'I' => 0.34,
            'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '/' | '-' => 0.42,
            'm' | 'w' | 'M' | 'W' | '%' | '@' | '…' | '→' => 0.95,
            'A'..='Z' | '_' | '+' | '=' | '<' | '>' => 0.72,
            // Where a character takes two columns of a terminal it is about as wide as high.
            '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' => {
                1.0
            }
            '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f000}'..='\u{1faff}' => 1.0,
            _ => 0.63,
        })
        .sum();
    ems * size
}

/// The text, legible, and cut with an ellipsis where it would be wider than `width`.
pub(crate) fn shortened(text: &str, size: f64, width: f64) -> String {
    let text = legible(text);
    if text_width(&text, size) <= width {
        return text.into_owned();
    }
    let room = width - text_width("…", size);
    let mut used = 0.0;
    let kept = text.chars().take_while(|c| {
        used += text_width(c.encode_utf8(&mut [0; 4]), size);
        used <= room
    });
    kept.chain(['…']).collect()
}

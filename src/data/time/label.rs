//! Which forms a label may have, from its digits, letters and what stands between them.

use super::calendar::{is_weekday, month};
use super::form::{DateOrder, Field, Form, Piece};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Digits(&'a str),
    Letters(&'a str),
    Others(&'a str),
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let kind = |c: char| match c {
        '0'..='9' => 0,
        c if c.is_alphabetic() => 1,
        _ => 2,
    };
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        found.push(match kind(first) {
            0 => Token::Digits(run),
            1 => Token::Letters(run),
            _ => Token::Others(run),
        });
        rest = after;
    }
    found
}

/// Forms that a label may have, the likelier first; of such with the day or the month first, both.
pub(super) fn candidates(label: &str) -> Vec<Form> {
    if label.len() > 60 {
        return Vec::new();
    }
    let tokens = tokens(label);
    let begins = |k: &usize| matches!(tokens.get(*k..), Some([Token::Digits(h), Token::Others(":"), Token::Digits(m), ..]) if h.len() <= 2 && m.len() == 2);
    let start = (1..tokens.len()).find(begins);
    let (date, time) = tokens.split_at(start.unwrap_or(tokens.len()));
    let Some(time) = clock(time) else { return Vec::new() };
    let (date, joint) = match (time.is_empty(), date) {
        (true, date) => (date, None),
        (false, [date @ .., Token::Others(joint) | Token::Letters(joint @ ("T" | "t"))]) => (date, Some(*joint)),
        _ => return Vec::new(),
    };
    let is_word = |token: &Token<'_>| match token {
        Token::Others(_) => false,
        Token::Letters(text) => !is_weekday(text),
        Token::Digits(_) => true,
    };
    let words: Vec<Token<'_>> = date.iter().copied().filter(is_word).collect();
    let between = |token: &Token<'_>| matches!(token, Token::Others(text) if ["-", "/", ".", " ", ", ", "_", ":", ". ", ".-"].contains(text));
    if date.first().is_some_and(between)
        || date.last().is_some_and(between)
        || date.iter().any(|token| matches!(token, Token::Others(_)) && !between(token))
    {
        return Vec::new();
    }
    let has_point = date.contains(&Token::Others("."));
    use Field as F;
    let fields: Vec<(Vec<F>, Option<DateOrder>)> = match words[..] {
        [Token::Digits(a), Token::Digits(b), Token::Digits(c)] => match (a.len(), b.len(), c.len()) {
            (4, 1..=2, 1..=2) => vec![(vec![F::Year, F::Month, F::Day], None)],
            (1..=2, 1..=2, 2 | 4) => {
                let year = if c.len() == 4 { F::Year } else { F::ShortYear };
                vec![
                    (vec![F::Day, F::Month, year], Some(DateOrder::DayFirst)),
                    (vec![F::Month, F::Day, year], Some(DateOrder::MonthFirst)),
                ]
            }
            _ => return Vec::new(),
        },
        [Token::Digits(a), Token::Digits(b)] if has_point && time.is_empty() && a.len() == 4 => match b.len() {
            2 => vec![(vec![F::Year, F::Month], None), (vec![F::DecimalYear], None)],
            1..=12 => vec![(vec![F::DecimalYear], None)],
            _ => return Vec::new(),
        },
        [Token::Digits(a), Token::Digits(b)] if !has_point && time.is_empty() => match (a.len(), b.len()) {
            (4, 1) => vec![(vec![F::Year, F::Quarter], None), (vec![F::Year, F::Month], None)],
            (4, 2) => vec![(vec![F::Year, F::Month], None)],
            (1..=2, 4) => vec![(vec![F::Month, F::Year], None)],
            _ => return Vec::new(),
        },
        [Token::Digits(a)] => match a.len() {
            4 if time.is_empty() => vec![(vec![F::DecimalYear], None)],
            6 if time.is_empty() => vec![(vec![F::Year, F::Month], None)],
            8 => vec![(vec![F::Year, F::Month, F::Day], None)],
            10 if time.is_empty() => vec![(vec![F::Year, F::Month, F::Day, F::Hour], None)],
            12 if time.is_empty() => vec![(vec![F::Year, F::Month, F::Day, F::Hour, F::Minute], None)],
            14 if time.is_empty() => vec![(vec![F::Year, F::Month, F::Day, F::Hour, F::Minute, F::Second], None)],
            _ => return Vec::new(),
        },
        [Token::Letters(name), Token::Digits(a)] if month(name).is_some() => match a.len() {
            4 => vec![(vec![F::MonthName, F::Year], None)],
            2 => vec![(vec![F::MonthName, F::ShortYear], None)],
            _ => return Vec::new(),
        },
        [Token::Digits(a), Token::Letters(name)] if month(name).is_some() && a.len() == 4 => {
            vec![(vec![F::Year, F::MonthName], None)]
        }
        [Token::Letters(name), Token::Digits(a), Token::Digits(b)] if month(name).is_some() && a.len() <= 2 => {
            match b.len() {
                4 => vec![(vec![F::MonthName, F::Day, F::Year], None)],
                2 => vec![(vec![F::MonthName, F::Day, F::ShortYear], None)],
                _ => return Vec::new(),
            }
        }
        [Token::Digits(a), Token::Letters(name), Token::Digits(b)] if month(name).is_some() => match (a.len(), b.len())
        {
            (1..=2, 4) => vec![(vec![F::Day, F::MonthName, F::Year], None)],
            (1..=2, 2) => vec![(vec![F::Day, F::MonthName, F::ShortYear], None)],
            (4, 1..=2) => vec![(vec![F::Year, F::MonthName, F::Day], None)],
            _ => return Vec::new(),
        },
        [Token::Digits(a), Token::Letters("Q" | "q"), Token::Digits(b)] => match (a.len(), b.len()) {
            (4, 1) => vec![(vec![F::Year, F::Quarter], None)],
            (2, 1) => vec![(vec![F::ShortYear, F::Quarter], None)],
            (1, 4) => vec![(vec![F::Quarter, F::Year], None)],
            (1, 2) => vec![(vec![F::Quarter, F::ShortYear], None)],
            _ => return Vec::new(),
        },
        [Token::Letters("Q" | "q"), Token::Digits(a), Token::Digits(b)] if a.len() == 1 => match b.len() {
            4 => vec![(vec![F::Quarter, F::Year], None)],
            2 => vec![(vec![F::Quarter, F::ShortYear], None)],
            _ => return Vec::new(),
        },
        [Token::Digits(a), Token::Letters("M" | "m"), Token::Digits(b)] if a.len() == 4 && b.len() <= 2 => {
            vec![(vec![F::Year, F::Month], None)]
        }
        [Token::Digits(a), Token::Letters("W" | "w"), Token::Digits(b)] if a.len() == 4 && b.len() <= 2 => {
            vec![(vec![F::Year, F::Week], None)]
        }
        _ => return Vec::new(),
    };
    let compact = matches!(words[..], [Token::Digits(_)]);
    let form = |(fields, order): (Vec<F>, Option<DateOrder>)| {
        // A year with decimals is one field of several tokens, and a label without separators several fields of one token.
        let pieces = if fields == [F::DecimalYear] {
            vec![field(F::DecimalYear)]
        } else if compact {
            fields.iter().map(|own| Piece::Field { field: *own, fixed: true, full: true }).collect()
        } else {
            divided(date, &fields)
        };
        let joint = joint.map(|joint| Piece::Literal(joint.to_owned()));
        let pieces = pieces.into_iter().chain(joint).chain(time.iter().cloned()).collect();
        let name = date.iter().find_map(|token| match token {
            Token::Letters(text) if month(text).is_some() || is_weekday(text) => Some(*text),
            _ => None,
        });
        Form::new(pieces, order, name.unwrap_or(""))
    };
    fields.into_iter().map(form).collect()
}

/// A field that may be written in any of its ways.
fn field(field: Field) -> Piece {
    Piece::Field { field, fixed: false, full: true }
}

/// The fields with what stands between them.
fn divided(date: &[Token<'_>], fields: &[Field]) -> Vec<Piece> {
    let mut left = fields.iter();
    let piece = |token: &Token<'_>| match token {
        Token::Letters(text) if is_weekday(text) => Some(field(Field::Weekday)),
        Token::Letters(text) if month(text).is_some() => left.next().copied().map(field),
        Token::Letters(text) | Token::Others(text) => Some(Piece::Literal((*text).to_owned())),
        Token::Digits(_) => left.next().copied().map(field),
    };
    date.iter().filter_map(piece).collect()
}

/// The time of day, as pieces; nothing where it is none.
fn clock(tokens: &[Token<'_>]) -> Option<Vec<Piece>> {
    let literal = |text: &str| Piece::Literal(text.to_owned());
    let [Token::Digits(_), Token::Others(_), Token::Digits(_), rest @ ..] = tokens else {
        return tokens.is_empty().then(Vec::new);
    };
    // The hour comes in front once it is known whether it is one of twelve.
    let mut hour = Field::Hour;
    let mut pieces = vec![literal(":"), field(Field::Minute)];
    let mut rest = rest;
    if let [Token::Others(":"), Token::Digits(_), after @ ..] = rest {
        pieces.extend([literal(":"), field(Field::Second)]);
        rest = after;
        if let [Token::Others(point @ ("." | ",")), Token::Digits(_), after @ ..] = rest {
            pieces.extend([literal(point), field(Field::Fraction)]);
            rest = after;
        }
    }
    let (space, after) = match rest {
        [Token::Others(" "), after @ ..] => (true, after),
        _ => (false, rest),
    };
    if let [Token::Letters(half), after @ ..] = after
        && ["am", "pm"].iter().any(|known| half.eq_ignore_ascii_case(known))
    {
        hour = Field::HourOfHalf;
        pieces.extend(space.then(|| literal(" ")));
        pieces.push(field(Field::Half));
        rest = after;
    }
    match rest {
        [] => {}
        [Token::Others(" "), Token::Letters(zone @ ("UTC" | "GMT" | "Z"))] => pieces.push(literal(&format!(" {zone}"))),
        [Token::Letters(zone @ ("Z" | "z" | "UTC"))] => pieces.push(literal(zone)),
        [Token::Others(sign @ ("+" | "-" | " +" | " -")), Token::Digits(_), after @ ..]
            if after.is_empty() || matches!(after, [Token::Others(":"), Token::Digits(_)]) =>
        {
            pieces.extend((sign.len() == 2).then(|| literal(" ")));
            pieces.push(field(Field::Offset));
        }
        _ => return None,
    }
    Some([field(hour)].into_iter().chain(pieces).collect())
}

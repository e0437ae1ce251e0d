//! Arguments: mostly what a program would pass, sometimes what none should.

use crate::common::Rng;

/// Sizes that no memory holds.
pub const HUGE: [usize; 10] = [
    1 << 33,
    (1 << 34) + 1,
    1 << 40,
    1 << 61,
    (1 << 62) + 3,
    isize::MAX as usize,
    1 << 63,
    (1 << 63) + 1,
    usize::MAX - 1,
    usize::MAX,
];

/// A size: 1 to 4, one time in thirty 0 or one that no memory holds.
pub fn size(rng: &mut Rng) -> usize {
    match rng.below(60) {
        0 => 0,
        1 => rng.pick(&HUGE),
        _ => 1 + rng.below(4),
    }
}

/// A probability, or what is none.
pub fn rate(rng: &mut Rng) -> f64 {
    if rng.chance(0.9) { rng.pick(&[0.0, 0.0, 0.25, 0.5]) } else { number(rng) }
}

/// Any number.
pub fn number(rng: &mut Rng) -> f64 {
    if rng.chance(0.5) {
        return rng.uniform(-2.0, 2.0);
    }
    rng.pick(&[
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.999_999_999_999,
        1e-320,
        -1e-320,
        1e-7,
        1e38,
        1e39,
        -1e39,
        1e300,
        f64::MAX,
        f64::MIN,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ])
}

/// A number that is fit, one time in ten any.
pub fn fit(rng: &mut Rng, usual: &[f64]) -> f64 {
    if rng.chance(0.9) { rng.pick(usual) } else { number(rng) }
}

/// An axis counted from the end, or where none is.
pub fn axis(rng: &mut Rng) -> i64 {
    if rng.chance(0.9) { rng.pick(&[-1, 1, 2, -2]) } else { rng.pick(&[0, 3, -4, i64::MIN, i64::MAX]) }
}

/// A name; some collide behind a dot, some are what a file or a terminal means something by.
pub fn name(rng: &mut Rng) -> String {
    let long = |n| "x".repeat(n);
    match rng.below(24) {
        0 => String::new(),
        1 => ".".to_owned(),
        2 => "\u{1b}[31m\u{7}".to_owned(),
        3 => "line\nbreak".to_owned(),
        4 => "__metadata__".to_owned(),
        5 => "optimizer".to_owned(),
        6 => "optimizer.0".to_owned(),
        7 => "fused-rnn".to_owned(),
        8 => long(4096),
        9 => long(4097),
        10 => long(65_536),
        11 => "\u{202e}größe".to_owned(),
        12 => "<svg onload=\"x\">&".to_owned(),
        13 => "../../etc".to_owned(),
        14 => "\0".to_owned(),
        15 => "td".to_owned(),
        16 => "td.dense".to_owned(),
        17 => "td.layer".to_owned(),
        18 => "td.forward".to_owned(),
        n => format!("layer{n}"),
    }
}

/// Values of an array: usual ones, whole numbers, all alike, or with some that are none.
pub fn values(rng: &mut Rng, len: usize) -> Vec<f64> {
    let kind = rng.below(20);
    let mut values: Vec<f64> = (0..len)
        .map(|_| match kind {
            0..8 => rng.uniform(-1.0, 1.0),
            8..14 => rng.below(3) as f64,
            14 => 0.0,
            15 => rng.uniform(-1.0, 1.0) * 1e30,
            16 => rng.uniform(-1.0, 1.0) * 1e-30,
            _ => rng.uniform(0.0, 1.0),
        })
        .collect();
    if kind > 16 && !values.is_empty() {
        let at = rng.below(values.len());
        values[at] = number(rng);
    }
    values
}

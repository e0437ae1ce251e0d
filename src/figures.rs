//! Numbers as text, with digits that mean something.

use std::fmt::{Display, LowerExp};

/// A number for people, to so many decimals: `0.2500`, and by its exponent where decimals would show little of it, `1.0000e-6`, or digits
/// would show more than there is, `1.0000e300`. Of three decimals and more two digits at least mean something, of fewer one.
///
/// ```
/// use fused_rnn::figures::rounded;
/// assert_eq!([0.25, 0.0, -123456.0].map(|value| rounded(value, 4)), ["0.2500", "0.0000", "-123456.0000"]);
/// assert_eq!([1e-6, -1e300, f64::NAN].map(|value| rounded(value, 4)), ["1.0000e-6", "-1.0000e300", "NaN"]);
/// ```
pub fn rounded(value: f64, decimals: usize) -> String {
    let shown = i32::try_from(decimals).unwrap_or(i32::MAX);
    let (least, size) = (10f64.powi(if decimals > 2 { 1 - shown } else { -shown }), value.abs());
    if size == 0.0 || size >= least && size < 1e9 || !size.is_finite() {
        format!("{value:.decimals$}")
    } else {
        format!("{value:.decimals$e}")
    }
}

/// A number for programs, `f32` or `f64`: as few digits as are read back as the same, and an exponent instead of many zeros.
///
/// ```
/// use fused_rnn::figures::shortest;
/// assert_eq!([0.1, 12.0, 1e300, -1e-9].map(shortest), ["0.1", "12", "1e300", "-1e-9"]);
/// assert_eq!(shortest(0.1f32), "0.1");
/// ```
pub fn shortest<N: Display + LowerExp>(value: N) -> String {
    let plain = value.to_string();
    let is_small = plain.trim_start_matches('-').starts_with("0.00000");
    // Whole numbers up to 2⁶⁴ have twenty digits.
    if is_small || plain.len() > 20 {
        let exponential = format!("{value:e}");
        if exponential.len() < plain.len() {
            return exponential;
        }
    }
    plain
}

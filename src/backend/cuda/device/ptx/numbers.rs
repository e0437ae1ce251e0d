//! Numbers as the PTX ISA defines them: roundings, conversions, NaN, subnormals, approximations.

/// What f32 instructions give for every NaN.
pub const NAN_F32: u32 = 0x7fff_ffff;
/// What conversions to f16 and bf16 give for every NaN.
pub const NAN_16: u16 = 0x7fff;

/// Direction of a rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// `.rn`: to nearest, ties to even.
    Nearest,
    /// `.rz`.
    Zero,
    /// `.rm`: to minus infinity.
    Down,
    /// `.rp`: to plus infinity.
    Up,
}

/// The bits of an f32 result.
pub fn bits(x: f32) -> u32 {
    if x.is_nan() { NAN_F32 } else { x.to_bits() }
}

pub fn float(bits: u32) -> f32 {
    f32::from_bits(bits)
}

pub fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// `.ftz`: a subnormal number counts as zero of its sign.
pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// The f32 that `sum + rest` rounds to, where `rest` is below half an ulp of `sum`.
pub fn round_f32(sum: f64, rest: f64, rounding: Rounding) -> f32 {
    let nearest = sum as f32;
    if rounding == Rounding::Nearest || !sum.is_finite() || nearest.is_nan() {
        return nearest;
    }
    // The sign of (sum + rest) - nearest, exactly: both are nearby numbers of more digits.
    let difference = if nearest.is_infinite() { -f64::from(nearest) } else { sum - f64::from(nearest) };
    let beyond = if difference != 0.0 { difference } else { rest };
    let (below, above) = (beyond < 0.0, beyond > 0.0);
    match rounding {
        Rounding::Zero if nearest > 0.0 && below => nearest.next_down(),
        Rounding::Zero if nearest < 0.0 && above => nearest.next_up(),
        Rounding::Down if below => nearest.next_down(),
        Rounding::Up if above => nearest.next_up(),
        _ => nearest,
    }
}

/// `a + b` of doubles: the rounded sum and what it lacks.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let rest = (a - (sum - b_part)) + (b - b_part);
    (sum, if rest.is_nan() { 0.0 } else { rest })
}

pub fn add_f32(a: f32, b: f32, rounding: Rounding) -> f32 {
    let (sum, rest) = two_sum(f64::from(a), f64::from(b));
    round_f32(sum, rest, rounding)
}

pub fn mul_f32(a: f32, b: f32, rounding: Rounding) -> f32 {
    round_f32(f64::from(a) * f64::from(b), 0.0, rounding)
}

/// `a * b + c` with one rounding, which is not to nearest: that is `f32::mul_add`.
pub fn fma_f32(a: f32, b: f32, c: f32, rounding: Rounding) -> f32 {
    let (sum, rest) = two_sum(f64::from(a) * f64::from(b), f64::from(c));
    round_f32(sum, rest, rounding)
}

/// `min` and `max` of a type: a number beats NaN, and -0 is below +0.
macro_rules! least_and_greatest {
    ($min:ident, $max:ident, $float:ty) => {
        pub fn $min(a: $float, b: $float) -> $float {
            match (a.is_nan(), b.is_nan()) {
                (true, _) => b,
                (_, true) => a,
                _ if a < b || a == b && a.is_sign_negative() => a,
                _ => b,
            }
        }

        pub fn $max(a: $float, b: $float) -> $float {
            -$min(-a, -b)
        }
    };
}
least_and_greatest!(min_f32, max_f32, f32);
least_and_greatest!(min_f64, max_f64, f64);

/// `rcp.approx.ftz.f64`: the upper half of 1/x, from the upper half of x.
pub fn rcp_approx_f64(x: f64) -> f64 {
    let upper = f64::from_bits(x.to_bits() & 0xffff_ffff_0000_0000);
    let flushed = if upper.is_subnormal() { 0.0f64.copysign(upper) } else { upper };
    let result = f64::from_bits((1.0 / flushed).to_bits() & 0xffff_ffff_0000_0000);
    if result.is_subnormal() { 0.0f64.copysign(result) } else { result }
}

/// f32 to f16.
pub fn to_f16(x: f32, rounding: Rounding) -> u16 {
    if x.is_nan() {
        return NAN_16;
    }
    let nearest = half::f16::from_f32(x);
    toward(nearest.to_bits(), nearest.to_f32(), x, rounding)
}

/// f32 to bf16.
pub fn to_bf16(x: f32, rounding: Rounding) -> u16 {
    if x.is_nan() {
        return NAN_16;
    }
    let nearest = half::bf16::from_f32(x);
    toward(nearest.to_bits(), nearest.to_f32(), x, rounding)
}

/// Steps back from the nearest 16-bit number where the rounding is toward zero.
fn toward(nearest: u16, value: f32, x: f32, rounding: Rounding) -> u16 {
    if rounding == Rounding::Zero && value.abs() > x.abs() { nearest - 1 } else { nearest }
}

pub fn from_f16(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

pub fn from_bf16(bits: u16) -> f32 {
    half::bf16::from_bits(bits).to_f32()
}

/// `cvt.rna.tf32.f32`: 10 bits of mantissa, ties away from zero; the low 13 bits are zero.
pub fn to_tf32(x: f32) -> u32 {
    if x.is_nan() {
        return NAN_F32;
    }
    if x.is_infinite() { x.to_bits() } else { x.to_bits().wrapping_add(0x1000) & 0xffff_e000 }
}

/// What tensor cores make of an operand in tf32.
pub fn from_tf32(bits: u32) -> f32 {
    f32::from_bits(bits & 0xffff_e000)
}

/// `.sat`: to [0, 1], NaN to +0.
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

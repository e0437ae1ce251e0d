//! Instructions that compute each lane's result from that lane's registers alone, as a table from names to functions on
//! 32 lanes: [`find`].
#![allow(clippy::neg_cmp_op_on_partial_ord, clippy::double_comparisons, reason = "what comparisons say of NaN")]
#![allow(clippy::upper_case_acronyms, reason = "a letter an operand: word, double word, predicate")]

use super::numbers::*;
use super::text::Bank;

/// A register of 16 or 32 bits in all lanes.
pub type Words = [u32; 32];
/// A register of 64 bits in all lanes.
pub type Doubles = [u64; 32];
/// A predicate in all lanes: a bit for each.
pub type Bits = u32;

/// The bank of a type of lanes.
trait Lanes {
    const BANK: Bank;
}
impl Lanes for Words {
    const BANK: Bank = Bank::Word;
}
impl Lanes for Doubles {
    const BANK: Bank = Bank::Double;
}
impl Lanes for Bits {
    const BANK: Bank = Bank::Bit;
}

macro_rules! shapes {
    ($($shape:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// A function on lanes, by the widths of its operands: W a word, D a double word, P a predicate; the result comes first.
        #[derive(Clone, Copy, Debug)]
        pub enum Function {
            $($shape(fn($(&$argument),*) -> $result),)*
        }

        impl Function {
            /// The banks of the result and of the arguments.
            pub fn banks(self) -> (Bank, &'static [Bank]) {
                match self {
                    $(Function::$shape(_) => (<$result>::BANK, const { &[$(<$argument>::BANK),*] }),)*
                }
            }
        }
    };
}
shapes! {
    WW(Words) -> Words;
    WWW(Words, Words) -> Words;
    WWWW(Words, Words, Words) -> Words;
    WWWWW(Words, Words, Words, Words) -> Words;
    DD(Doubles) -> Doubles;
    DDD(Doubles, Doubles) -> Doubles;
    DDDD(Doubles, Doubles, Doubles) -> Doubles;
    DDW(Doubles, Words) -> Doubles;
    DW(Words) -> Doubles;
    WD(Doubles) -> Words;
    DWW(Words, Words) -> Doubles;
    DWWD(Words, Words, Doubles) -> Doubles;
    PWW(Words, Words) -> Bits;
    PDD(Doubles, Doubles) -> Bits;
    WWWP(Words, Words, Bits) -> Words;
    DDDP(Doubles, Doubles, Bits) -> Doubles;
    PP(Bits) -> Bits;
    PPP(Bits, Bits) -> Bits;
}

/// A function of lanes from one of a lane. The name of the shape says how many arguments there are, and that the result is no predicate.
macro_rules! lanes {
    ($shape:ident, |$a:ident| $result:expr) => {
        Function::$shape(|a| {
            std::array::from_fn(|i| {
                let $a = a[i];
                $result
            })
        })
    };
    ($shape:ident, |$a:ident, $b:ident| $result:expr) => {
        Function::$shape(|a, b| {
            std::array::from_fn(|i| {
                let ($a, $b) = (a[i], b[i]);
                $result
            })
        })
    };
    ($shape:ident, |$a:ident, $b:ident, $c:ident| $result:expr) => {
        Function::$shape(|a, b, c| {
            std::array::from_fn(|i| {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                $result
            })
        })
    };
    ($shape:ident, |$a:ident, $b:ident, $c:ident, $d:ident| $result:expr) => {
        Function::$shape(|a, b, c, d| {
            std::array::from_fn(|i| {
                let ($a, $b, $c, $d) = (a[i], b[i], c[i], d[i]);
                $result
            })
        })
    };
}

/// A comparison of lanes.
macro_rules! compare {
    ($shape:ident, $type:ident, |$a:ident, $b:ident| $result:expr) => {
        Function::$shape(|a, b| {
            let mut bits = 0;
            for i in 0..32 {
                let ($a, $b) = ($type(a[i]), $type(b[i]));
                bits |= u32::from($result) << i;
            }
            bits
        })
    };
}

/// A selection by a predicate.
macro_rules! select {
    ($shape:ident) => {
        Function::$shape(|a, b, p| std::array::from_fn(|i| if p >> i & 1 == 1 { a[i] } else { b[i] }))
    };
}

// How the bits of a register are read.
fn u16(x: u32) -> u16 {
    x as u16
}
fn s16(x: u32) -> i16 {
    x as i16
}
fn u32(x: u32) -> u32 {
    x
}
fn s32(x: u32) -> i32 {
    x as i32
}
fn u64(x: u64) -> u64 {
    x
}
fn s64(x: u64) -> i64 {
    x as i64
}
fn f32(x: u32) -> f32 {
    float(x)
}
fn f64(x: u64) -> f64 {
    double(x)
}

/// The function of an instruction; nothing where this table does not have it.
pub fn find(opcode: &str) -> Option<Function> {
    let (base, rest) = opcode.split_once('.')?;

    match base {
        "setp" => rest.split_once('.').and_then(|(comparison, kind)| comparison_of(comparison, kind)),
        "cvt" => convert(rest),
        "add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "neg" | "abs" => {
            integers(opcode).or_else(|| floats(opcode))
        }
        "fma" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "copysign" => floats(opcode),
        _ => bits_and_moves(opcode),
    }
}

fn integers(opcode: &str) -> Option<Function> {
    Some(match opcode {
        "add.s16" | "add.u16" => lanes!(WWW, |a, b| u32::from(u16(a.wrapping_add(b)))),
        "add.s32" | "add.u32" => lanes!(WWW, |a, b| a.wrapping_add(b)),
        "add.s64" | "add.u64" => lanes!(DDD, |a, b| a.wrapping_add(b)),
        "sub.s16" | "sub.u16" => lanes!(WWW, |a, b| u32::from(u16(a.wrapping_sub(b)))),
        "sub.s32" | "sub.u32" => lanes!(WWW, |a, b| a.wrapping_sub(b)),
        "sub.s64" | "sub.u64" => lanes!(DDD, |a, b| a.wrapping_sub(b)),
        "mul.lo.s16" | "mul.lo.u16" => lanes!(WWW, |a, b| u32::from(u16(a.wrapping_mul(b)))),
        "mul.lo.s32" | "mul.lo.u32" => lanes!(WWW, |a, b| a.wrapping_mul(b)),
        "mul.lo.s64" | "mul.lo.u64" => lanes!(DDD, |a, b| a.wrapping_mul(b)),
        "mul.hi.s32" => lanes!(WWW, |a, b| ((i64::from(s32(a)) * i64::from(s32(b))) >> 32) as u32),
        "mul.hi.u32" => lanes!(WWW, |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "mul.hi.s64" => lanes!(DDD, |a, b| ((i128::from(s64(a)) * i128::from(s64(b))) >> 64) as u64),
        "mul.hi.u64" => lanes!(DDD, |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        "mul.wide.s16" => lanes!(WWW, |a, b| (i32::from(s16(a)) * i32::from(s16(b))) as u32),
        "mul.wide.u16" => lanes!(WWW, |a, b| u32::from(u16(a)) * u32::from(u16(b))),
        "mul.wide.s32" => lanes!(DWW, |a, b| (i64::from(s32(a)) * i64::from(s32(b))) as u64),
        "mul.wide.u32" => lanes!(DWW, |a, b| u64::from(a) * u64::from(b)),
        "mad.lo.s16" | "mad.lo.u16" => lanes!(WWWW, |a, b, c| u32::from(u16(a.wrapping_mul(b).wrapping_add(c)))),
        "mad.lo.s32" | "mad.lo.u32" => lanes!(WWWW, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "mad.lo.s64" | "mad.lo.u64" => lanes!(DDDD, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "mad.hi.u32" => lanes!(WWWW, |a, b, c| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)),
        "mad.wide.s16" => lanes!(WWWW, |a, b, c| (i32::from(s16(a)) * i32::from(s16(b))).wrapping_add(s32(c)) as u32),
        "mad.wide.u16" => lanes!(WWWW, |a, b, c| (u32::from(u16(a)) * u32::from(u16(b))).wrapping_add(c)),
        "mad.wide.s32" => lanes!(DWWD, |a, b, c| (i64::from(s32(a)) * i64::from(s32(b))).wrapping_add(s64(c)) as u64),
        "mad.wide.u32" => lanes!(DWWD, |a, b, c| (u64::from(a) * u64::from(b)).wrapping_add(c)),
        // Division by zero gives all ones, its remainder the dividend, as the hardware does; the ISA leaves both open.
        "div.u16" => lanes!(WWW, |a, b| u32::from(u16(a).checked_div(u16(b)).unwrap_or(!0))),
        "div.u32" => lanes!(WWW, |a, b| a.checked_div(b).unwrap_or(!0)),
        "div.s32" => lanes!(WWW, |a, b| if b == 0 { !0 } else { s32(a).wrapping_div(s32(b)) as u32 }),
        "div.u64" => lanes!(DDD, |a, b| a.checked_div(b).unwrap_or(!0)),
        "div.s64" => lanes!(DDD, |a, b| if b == 0 { !0 } else { s64(a).wrapping_div(s64(b)) as u64 }),
        "rem.u16" => lanes!(WWW, |a, b| u32::from(u16(a).checked_rem(u16(b)).unwrap_or(u16(a)))),
        "rem.u32" => lanes!(WWW, |a, b| a.checked_rem(b).unwrap_or(a)),
        "rem.s32" => lanes!(WWW, |a, b| if b == 0 { a } else { s32(a).wrapping_rem(s32(b)) as u32 }),
        "rem.u64" => lanes!(DDD, |a, b| a.checked_rem(b).unwrap_or(a)),
        "rem.s64" => lanes!(DDD, |a, b| if b == 0 { a } else { s64(a).wrapping_rem(s64(b)) as u64 }),
        "min.u16" => lanes!(WWW, |a, b| u32::from(u16(a).min(u16(b)))),
        "min.s16" => lanes!(WWW, |a, b| s16(a).min(s16(b)) as u16 as u32),
        "min.u32" => lanes!(WWW, |a, b| a.min(b)),
        "min.s32" => lanes!(WWW, |a, b| s32(a).min(s32(b)) as u32),
        "min.u64" => lanes!(DDD, |a, b| a.min(b)),
        "min.s64" => lanes!(DDD, |a, b| s64(a).min(s64(b)) as u64),
        "max.u16" => lanes!(WWW, |a, b| u32::from(u16(a).max(u16(b)))),
        "max.s16" => lanes!(WWW, |a, b| s16(a).max(s16(b)) as u16 as u32),
        "max.u32" => lanes!(WWW, |a, b| a.max(b)),
        "max.s32" => lanes!(WWW, |a, b| s32(a).max(s32(b)) as u32),
        "max.u64" => lanes!(DDD, |a, b| a.max(b)),
        "max.s64" => lanes!(DDD, |a, b| s64(a).max(s64(b)) as u64),
        "neg.s16" => lanes!(WW, |a| u32::from(u16(a.wrapping_neg()))),
        "neg.s32" => lanes!(WW, |a| a.wrapping_neg()),
        "neg.s64" => lanes!(DD, |a| a.wrapping_neg()),
        "abs.s16" => lanes!(WW, |a| u32::from(s16(a).unsigned_abs())),
        "abs.s32" => lanes!(WW, |a| s32(a).unsigned_abs()),
        "abs.s64" => lanes!(DD, |a| s64(a).unsigned_abs()),
        _ => return None,
    })
}

fn floats(opcode: &str) -> Option<Function> {
    use Rounding::{Down, Up, Zero};
    Some(match opcode {
        "add.f32" | "add.rn.f32" => lanes!(WWW, |a, b| bits(f32(a) + f32(b))),
        "add.rz.f32" => lanes!(WWW, |a, b| bits(add_f32(f32(a), f32(b), Zero))),
        "add.rm.f32" => lanes!(WWW, |a, b| bits(add_f32(f32(a), f32(b), Down))),
        "add.rp.f32" => lanes!(WWW, |a, b| bits(add_f32(f32(a), f32(b), Up))),
        "sub.f32" | "sub.rn.f32" => lanes!(WWW, |a, b| bits(f32(a) - f32(b))),
        "mul.f32" | "mul.rn.f32" => lanes!(WWW, |a, b| bits(f32(a) * f32(b))),
        "mul.rz.f32" => lanes!(WWW, |a, b| bits(mul_f32(f32(a), f32(b), Zero))),
        "mul.rm.f32" => lanes!(WWW, |a, b| bits(mul_f32(f32(a), f32(b), Down))),
        "mul.rp.f32" => lanes!(WWW, |a, b| bits(mul_f32(f32(a), f32(b), Up))),
        "fma.rn.f32" => lanes!(WWWW, |a, b, c| bits(f32(a).mul_add(f32(b), f32(c)))),
        "fma.rz.f32" => lanes!(WWWW, |a, b, c| bits(fma_f32(f32(a), f32(b), f32(c), Zero))),
        "fma.rm.f32" => lanes!(WWWW, |a, b, c| bits(fma_f32(f32(a), f32(b), f32(c), Down))),
        "fma.rp.f32" => lanes!(WWWW, |a, b, c| bits(fma_f32(f32(a), f32(b), f32(c), Up))),
        "div.rn.f32" | "div.full.f32" | "div.approx.f32" => lanes!(WWW, |a, b| bits(f32(a) / f32(b))),
        "rcp.rn.f32" | "rcp.approx.f32" => lanes!(WW, |a| bits(1.0 / f32(a))),
        "rcp.approx.ftz.f32" => lanes!(WW, |a| bits(flush(1.0 / flush(f32(a))))),
        "sqrt.rn.f32" | "sqrt.approx.f32" => lanes!(WW, |a| bits(f32(a).sqrt())),
        "sqrt.approx.ftz.f32" => lanes!(WW, |a| bits(flush(flush(f32(a)).sqrt()))),
        "rsqrt.approx.f32" => lanes!(WW, |a| bits((1.0 / double_of(a).sqrt()) as f32)),
        "rsqrt.approx.ftz.f32" => lanes!(WW, |a| bits((1.0 / f64::from(flush(f32(a))).sqrt()) as f32)),
        "ex2.approx.f32" => lanes!(WW, |a| bits(double_of(a).exp2() as f32)),
        "ex2.approx.ftz.f32" => lanes!(WW, |a| bits(flush(f64::from(flush(f32(a))).exp2() as f32))),
        "lg2.approx.f32" => lanes!(WW, |a| bits(double_of(a).log2() as f32)),
        "lg2.approx.ftz.f32" => lanes!(WW, |a| bits(flush(f64::from(flush(f32(a))).log2() as f32))),
        "tanh.approx.f32" => lanes!(WW, |a| bits(double_of(a).tanh() as f32)),
        "sin.approx.f32" => lanes!(WW, |a| bits(double_of(a).sin() as f32)),
        "cos.approx.f32" => lanes!(WW, |a| bits(double_of(a).cos() as f32)),
        "neg.f32" => lanes!(WW, |a| a ^ 0x8000_0000),
        "abs.f32" => lanes!(WW, |a| a & 0x7fff_ffff),
        "min.f32" => lanes!(WWW, |a, b| bits(min_f32(f32(a), f32(b)))),
        "max.f32" => lanes!(WWW, |a, b| bits(max_f32(f32(a), f32(b)))),
        "copysign.f32" => lanes!(WWW, |a, b| a & 0x8000_0000 | b & 0x7fff_ffff),
        "add.f64" | "add.rn.f64" => lanes!(DDD, |a, b| (f64(a) + f64(b)).to_bits()),
        "sub.f64" | "sub.rn.f64" => lanes!(DDD, |a, b| (f64(a) - f64(b)).to_bits()),
        "mul.f64" | "mul.rn.f64" => lanes!(DDD, |a, b| (f64(a) * f64(b)).to_bits()),
        "fma.rn.f64" => lanes!(DDDD, |a, b, c| f64(a).mul_add(f64(b), f64(c)).to_bits()),
        "div.rn.f64" => lanes!(DDD, |a, b| (f64(a) / f64(b)).to_bits()),
        "rcp.rn.f64" => lanes!(DD, |a| (1.0 / f64(a)).to_bits()),
        "rcp.approx.ftz.f64" => lanes!(DD, |a| rcp_approx_f64(f64(a)).to_bits()),
        "sqrt.rn.f64" => lanes!(DD, |a| f64(a).sqrt().to_bits()),
        "neg.f64" => lanes!(DD, |a| a ^ 1 << 63),
        "abs.f64" => lanes!(DD, |a| a & !(1 << 63)),
        "min.f64" => lanes!(DDD, |a, b| min_f64(f64(a), f64(b)).to_bits()),
        "max.f64" => lanes!(DDD, |a, b| max_f64(f64(a), f64(b)).to_bits()),
        "copysign.f64" => lanes!(DDD, |a, b| a & 1 << 63 | b & !(1 << 63)),
        _ => return None,
    })
}

fn double_of(bits: u32) -> f64 {
    f64::from(float(bits))
}

fn bits_and_moves(opcode: &str) -> Option<Function> {
    Some(match opcode {
        "mov.pred" => Function::PP(|a| *a),
        "mov.b16" | "mov.u16" | "mov.s16" | "mov.b32" | "mov.u32" | "mov.s32" | "mov.f32" => lanes!(WW, |a| a),
        "mov.b64" | "mov.u64" | "mov.s64" | "mov.f64" => lanes!(DD, |a| a),
        "selp.b16" | "selp.u16" | "selp.s16" | "selp.b32" | "selp.u32" | "selp.s32" | "selp.f32" => select!(WWWP),
        "selp.b64" | "selp.u64" | "selp.s64" | "selp.f64" => select!(DDDP),
        // Global memory is its own window of the generic addresses.
        "cvta.to.global.u64" | "cvta.global.u64" => lanes!(DD, |a| a),
        "and.pred" => Function::PPP(|a, b| a & b),
        "or.pred" => Function::PPP(|a, b| a | b),
        "xor.pred" => Function::PPP(|a, b| a ^ b),
        "not.pred" => Function::PP(|a| !a),
        "and.b16" | "and.b32" => lanes!(WWW, |a, b| a & b),
        "or.b16" | "or.b32" => lanes!(WWW, |a, b| a | b),
        "xor.b16" | "xor.b32" => lanes!(WWW, |a, b| a ^ b),
        "not.b16" => lanes!(WW, |a| u32::from(!u16(a))),
        "not.b32" => lanes!(WW, |a| !a),
        "and.b64" => lanes!(DDD, |a, b| a & b),
        "or.b64" => lanes!(DDD, |a, b| a | b),
        "xor.b64" => lanes!(DDD, |a, b| a ^ b),
        "not.b64" => lanes!(DD, |a| !a),
        // Shifts by the width or more give zero, or the sign.
        "shl.b16" => lanes!(WWW, |a, b| u32::from(u16(a).checked_shl(b).unwrap_or(0))),
        "shl.b32" => lanes!(WWW, |a, b| a.checked_shl(b).unwrap_or(0)),
        "shl.b64" => lanes!(DDW, |a, b| a.checked_shl(b).unwrap_or(0)),
        "shr.u16" | "shr.b16" => lanes!(WWW, |a, b| u32::from(u16(a).checked_shr(b).unwrap_or(0))),
        "shr.s16" => lanes!(WWW, |a, b| (s16(a) >> b.min(15)) as u16 as u32),
        "shr.u32" | "shr.b32" => lanes!(WWW, |a, b| a.checked_shr(b).unwrap_or(0)),
        "shr.s32" => lanes!(WWW, |a, b| (s32(a) >> b.min(31)) as u32),
        "shr.u64" | "shr.b64" => lanes!(DDW, |a, b| a.checked_shr(b).unwrap_or(0)),
        "shr.s64" => lanes!(DDW, |a, b| (s64(a) >> b.min(63)) as u64),
        "shf.l.wrap.b32" => lanes!(WWWW, |a, b, c| ((pair(a, b) << (c & 31)) >> 32) as u32),
        "shf.r.wrap.b32" => lanes!(WWWW, |a, b, c| (pair(a, b) >> (c & 31)) as u32),
        "shf.l.clamp.b32" => lanes!(WWWW, |a, b, c| ((pair(a, b) << c.min(32)) >> 32) as u32),
        "shf.r.clamp.b32" => lanes!(WWWW, |a, b, c| (pair(a, b) >> c.min(32)) as u32),
        "bfi.b32" => lanes!(WWWWW, |a, b, c, d| insert_field(a, b, c, d)),
        "bfe.u32" => lanes!(WWWW, |a, b, c| extract_field(a, b, c)),
        "bfe.s32" => lanes!(WWWW, |a, b, c| extract_signed_field(a, b, c)),
        "prmt.b32" => lanes!(WWWW, |a, b, c| permute(a, b, c)),
        "lop3.b32" => lanes!(WWWWW, |a, b, c, d| logic(a, b, c, d)),
        "popc.b32" => lanes!(WW, |a| a.count_ones()),
        "popc.b64" => lanes!(WD, |a| a.count_ones()),
        "clz.b32" => lanes!(WW, |a| a.leading_zeros()),
        "clz.b64" => lanes!(WD, |a| a.leading_zeros()),
        "brev.b32" => lanes!(WW, |a| a.reverse_bits()),
        "brev.b64" => lanes!(DD, |a| a.reverse_bits()),
        _ => return None,
    })
}

/// Two registers as one: `low` holds the low half.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// `len` ones.
fn ones(len: u32) -> u32 {
    1u32.checked_shl(len).unwrap_or(0).wrapping_sub(1)
}

/// `bfi`: the low bits of `a` in `b`, from `position` on.
fn insert_field(a: u32, b: u32, position: u32, len: u32) -> u32 {
    let (position, len) = (position & 0xff, len & 0xff);
    let mask = ones(len).checked_shl(position).unwrap_or(0);
    b & !mask | a.checked_shl(position).unwrap_or(0) & mask
}

fn extract_field(a: u32, position: u32, len: u32) -> u32 {
    a.checked_shr(position & 0xff).unwrap_or(0) & ones(len & 0xff)
}

fn extract_signed_field(a: u32, position: u32, len: u32) -> u32 {
    let (position, len) = (position & 0xff, len & 0xff);
    let mut field = extract_field(a, position, len);
    if len > 0 && a >> (position + len - 1).min(31) & 1 == 1 {
        field |= !ones(len.min(32u32.saturating_sub(position)));
    }
    field
}

/// `prmt`: four of the eight bytes of `a` and `b`, or their signs.
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = pair(a, b).to_le_bytes();
    let chosen: [u8; 4] = std::array::from_fn(|i| {
        let nibble = selector >> (4 * i);
        let byte = bytes[(nibble & 7) as usize];
        if nibble & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 }
    });
    u32::from_le_bytes(chosen)
}

/// `lop3`: any function of three bits, by its table.
fn logic(a: u32, b: u32, c: u32, table: u32) -> u32 {
    (0..8).filter(|row| table >> row & 1 == 1).fold(0, |result, row| {
        let pick = |x: u32, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
        result | pick(a, 2) & pick(b, 1) & pick(c, 0)
    })
}

/// `setp`, by comparison and type.
fn comparison_of(comparison: &str, kind: &str) -> Option<Function> {
    macro_rules! integer {
        ($shape:ident, $type:ident) => {
            match comparison {
                "eq" => compare!($shape, $type, |a, b| a == b),
                "ne" => compare!($shape, $type, |a, b| a != b),
                "lt" | "lo" => compare!($shape, $type, |a, b| a < b),
                "le" | "ls" => compare!($shape, $type, |a, b| a <= b),
                "gt" | "hi" => compare!($shape, $type, |a, b| a > b),
                "ge" | "hs" => compare!($shape, $type, |a, b| a >= b),
                _ => return None,
            }
        };
    }
    // The comparisons with a `u` hold of NaN too. Negations say so.
    macro_rules! float {
        ($shape:ident, $type:ident) => {
            match comparison {
                "eq" => compare!($shape, $type, |a, b| a == b),
                "ne" => compare!($shape, $type, |a, b| a < b || a > b),
                "lt" => compare!($shape, $type, |a, b| a < b),
                "le" => compare!($shape, $type, |a, b| a <= b),
                "gt" => compare!($shape, $type, |a, b| a > b),
                "ge" => compare!($shape, $type, |a, b| a >= b),
                "equ" => compare!($shape, $type, |a, b| !(a < b || a > b)),
                "neu" => compare!($shape, $type, |a, b| a != b),
                "ltu" => compare!($shape, $type, |a, b| !(a >= b)),
                "leu" => compare!($shape, $type, |a, b| !(a > b)),
                "gtu" => compare!($shape, $type, |a, b| !(a <= b)),
                "geu" => compare!($shape, $type, |a, b| !(a < b)),
                "num" => compare!($shape, $type, |a, b| !a.is_nan() && !b.is_nan()),
                "nan" => compare!($shape, $type, |a, b| a.is_nan() || b.is_nan()),
                _ => return None,
            }
        };
    }
    Some(match kind {
        "u16" | "b16" => integer!(PWW, u16),
        "s16" => integer!(PWW, s16),
        "u32" | "b32" => integer!(PWW, u32),
        "s32" => integer!(PWW, s32),
        "u64" | "b64" => integer!(PDD, u64),
        "s64" => integer!(PDD, s64),
        "f32" => float!(PWW, f32),
        "f64" => float!(PDD, f64),
        _ => return None,
    })
}

/// `cvt`: to and from what.
fn convert(rest: &str) -> Option<Function> {
    use Rounding::{Nearest, Zero};
    /// Integers: cut off or extended by the sign of what they come from.
    macro_rules! integer {
        ($to:ty, $from:ty, $shape:ident, $register:ty) => {
            lanes!($shape, |a| a as $from as $to as $register)
        };
    }
    macro_rules! from_word {
        ($from:ty, $to:expr) => {
            match $to {
                "u8" => integer!(u8, $from, WW, u32),
                "s8" => integer!(i8, $from, WW, u32),
                "u16" => integer!(u16, $from, WW, u32),
                "s16" => integer!(i16, $from, WW, u32),
                "u32" => integer!(u32, $from, WW, u32),
                "s32" => integer!(i32, $from, WW, u32),
                "u64" => integer!(u64, $from, DW, u64),
                "s64" => integer!(i64, $from, DW, u64),
                _ => return None,
            }
        };
    }
    macro_rules! from_double {
        ($from:ty, $to:expr) => {
            match $to {
                "u8" => integer!(u8, $from, WD, u32),
                "s8" => integer!(i8, $from, WD, u32),
                "u16" => integer!(u16, $from, WD, u32),
                "s16" => integer!(i16, $from, WD, u32),
                "u32" => integer!(u32, $from, WD, u32),
                "s32" => integer!(i32, $from, WD, u32),
                "u64" => integer!(u64, $from, DD, u64),
                "s64" => integer!(i64, $from, DD, u64),
                _ => return None,
            }
        };
    }
    let parts: Vec<_> = rest.split('.').collect();
    if let [to, from] = parts[..] {
        let integer = match from {
            "u8" => Some(from_word!(u8, to)),
            "s8" => Some(from_word!(i8, to)),
            "u16" => Some(from_word!(u16, to)),
            "s16" => Some(from_word!(i16, to)),
            "u32" => Some(from_word!(u32, to)),
            "s32" => Some(from_word!(i32, to)),
            "u64" => Some(from_double!(u64, to)),
            "s64" => Some(from_double!(i64, to)),
            _ => None,
        };
        if integer.is_some() {
            return integer;
        }
    }
    Some(match rest {
        "f64.f32" => lanes!(DW, |a| double_of(a).to_bits()),
        "rn.f32.f64" => lanes!(WD, |a| bits(f64(a) as f32)),
        "rz.f32.f64" => lanes!(WD, |a| bits(round_f32(f64(a), 0.0, Zero))),
        "f32.f16" => lanes!(WW, |a| bits(from_f16(u16(a)))),
        "f32.bf16" => lanes!(WW, |a| bits(from_bf16(u16(a)))),
        "rn.f16.f32" => lanes!(WW, |a| u32::from(to_f16(f32(a), Nearest))),
        "rz.f16.f32" => lanes!(WW, |a| u32::from(to_f16(f32(a), Zero))),
        "rn.bf16.f32" => lanes!(WW, |a| u32::from(to_bf16(f32(a), Nearest))),
        "rz.bf16.f32" => lanes!(WW, |a| u32::from(to_bf16(f32(a), Zero))),
        // The first operand is the upper half.
        "rn.f16x2.f32" => {
            lanes!(WWW, |a, b| u32::from(to_f16(f32(a), Nearest)) << 16 | u32::from(to_f16(f32(b), Nearest)))
        }
        "rn.bf16x2.f32" => {
            lanes!(WWW, |a, b| u32::from(to_bf16(f32(a), Nearest)) << 16 | u32::from(to_bf16(f32(b), Nearest)))
        }
        "rna.tf32.f32" => lanes!(WW, |a| to_tf32(f32(a))),
        "sat.f32.f32" => lanes!(WW, |a| bits(saturate(f32(a)))),
        "rni.f32.f32" => lanes!(WW, |a| bits(f32(a).round_ties_even())),
        "rzi.f32.f32" => lanes!(WW, |a| bits(f32(a).trunc())),
        "rmi.f32.f32" => lanes!(WW, |a| bits(f32(a).floor())),
        "rpi.f32.f32" => lanes!(WW, |a| bits(f32(a).ceil())),
        "rni.f64.f64" => lanes!(DD, |a| f64(a).round_ties_even().to_bits()),
        "rzi.f64.f64" => lanes!(DD, |a| f64(a).trunc().to_bits()),
        "rmi.f64.f64" => lanes!(DD, |a| f64(a).floor().to_bits()),
        "rpi.f64.f64" => lanes!(DD, |a| f64(a).ceil().to_bits()),
        // To integers: cut off at the ends of the range, NaN to zero, as `as` does.
        "rzi.u32.f32" => lanes!(WW, |a| f32(a) as u32),
        "rzi.s32.f32" => lanes!(WW, |a| f32(a) as i32 as u32),
        "rzi.u64.f32" => lanes!(DW, |a| f32(a) as u64),
        "rzi.s64.f32" => lanes!(DW, |a| f32(a) as i64 as u64),
        "rzi.u32.f64" => lanes!(WD, |a| f64(a) as u32),
        "rzi.s32.f64" => lanes!(WD, |a| f64(a) as i32 as u32),
        "rzi.u64.f64" => lanes!(DD, |a| f64(a) as u64),
        "rzi.s64.f64" => lanes!(DD, |a| f64(a) as i64 as u64),
        "rni.s32.f32" => lanes!(WW, |a| f32(a).round_ties_even() as i32 as u32),
        "rni.u32.f32" => lanes!(WW, |a| f32(a).round_ties_even() as u32),
        "rmi.s32.f32" => lanes!(WW, |a| f32(a).floor() as i32 as u32),
        "rpi.s32.f32" => lanes!(WW, |a| f32(a).ceil() as i32 as u32),
        "rni.s32.f64" => lanes!(WD, |a| f64(a).round_ties_even() as i32 as u32),
        "rn.f32.u16" => lanes!(WW, |a| bits(f32::from(u16(a)))),
        "rn.f32.u32" => lanes!(WW, |a| bits(a as f32)),
        "rn.f32.s32" => lanes!(WW, |a| bits(s32(a) as f32)),
        "rn.f32.u64" => lanes!(WD, |a| bits(a as f32)),
        "rn.f32.s64" => lanes!(WD, |a| bits(s64(a) as f32)),
        "rn.f64.u32" => lanes!(DW, |a| f64::from(a).to_bits()),
        "rn.f64.s32" => lanes!(DW, |a| f64::from(s32(a)).to_bits()),
        "rn.f64.u64" => lanes!(DD, |a| (a as f64).to_bits()),
        "rn.f64.s64" => lanes!(DD, |a| (s64(a) as f64).to_bits()),
        _ => return None,
    })
}

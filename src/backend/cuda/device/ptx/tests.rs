//! Instructions against what the PTX ISA says of them; and texts that cannot be read.

use super::arithmetic::{self, Function};
use super::decode;
use super::fault::FaultKind;
use super::numbers::{Rounding, add_f32, fma_f32, to_f16, to_tf32};

fn words(opcode: &str, arguments: &[u32]) -> u32 {
    let all: Vec<[u32; 32]> = arguments.iter().map(|value| [*value; 32]).collect();
    match (arithmetic::find(opcode), &all[..]) {
        (Some(Function::WW(f)), [a]) => f(a)[31],
        (Some(Function::WWW(f)), [a, b]) => f(a, b)[31],
        (Some(Function::WWWW(f)), [a, b, c]) => f(a, b, c)[31],
        (Some(Function::WWWWW(f)), [a, b, c, d]) => f(a, b, c, d)[31],
        (Some(Function::PWW(f)), [a, b]) => f(a, b) & 1,
        (found, _) => panic!("{opcode}: {found:?}"),
    }
}

fn floats(opcode: &str, arguments: &[f32]) -> f32 {
    f32::from_bits(words(opcode, &arguments.iter().map(|value| value.to_bits()).collect::<Vec<_>>()))
}

#[test]
fn roundings_are_directed() {
    let tiny = f32::from_bits(1);
    for (a, b, down, up) in [
        (1.0, tiny, 1.0, 1.0f32.next_up()),
        (-1.0, -tiny, (-1.0f32).next_down(), -1.0),
        (1.0, -tiny, 1.0f32.next_down(), 1.0),
    ] {
        assert_eq!(add_f32(a, b, Rounding::Down), down);
        assert_eq!(add_f32(a, b, Rounding::Up), up);
        assert_eq!(add_f32(a, b, Rounding::Zero), if a > 0.0 { down } else { up });
    }
    // 2^-24 more than a number: below half an ulp, but not nothing.
    let third = 1.0f32 / 3.0;
    assert!(f64::from(fma_f32(third, 3.0, 0.0, Rounding::Down)) <= f64::from(third) * 3.0);
    assert!(f64::from(fma_f32(third, 3.0, 0.0, Rounding::Up)) >= f64::from(third) * 3.0);
    assert_eq!(to_f16(65519.99, Rounding::Nearest), 0x7bff);
    assert_eq!(to_f16(65520.0, Rounding::Nearest), 0x7c00);
    assert_eq!(to_f16(65535.0, Rounding::Zero), 0x7bff);
    assert_eq!(to_tf32(f32::from_bits(0x3f80_1000)), 0x3f80_2000, "ties go away from zero");
    assert_eq!(words("cvt.rni.f32.f32", &[2.5f32.to_bits()]), 2.0f32.to_bits());
}

#[test]
fn nan_is_canonical() {
    assert_eq!(words("add.f32", &[0xffff_ffff, 0]), 0x7fff_ffff);
    assert_eq!(words("cvt.rn.bf16.f32", &[0xffff_ffff]), 0x7fff);
    assert_eq!(floats("max.f32", &[f32::NAN, 1.0]), 1.0);
    assert_eq!(words("max.f32", &[0x8000_0000, 0]), 0, "-0 is below +0");
    assert_eq!(words("setp.neu.f32", &[f32::NAN.to_bits(), 0]), 1);
    assert_eq!(words("setp.ne.f32", &[f32::NAN.to_bits(), 0]), 0);
    assert_eq!(words("cvt.sat.f32.f32", &[f32::NAN.to_bits()]), 0);
    assert_eq!(words("cvt.rzi.s32.f32", &[3e9f32.to_bits()]), i32::MAX as u32);
}

#[test]
fn approximations_are_within_their_bounds() {
    for i in -2000..2000 {
        let x = i as f32 * 0.01;
        let near = |opcode: &str, exact: f64, bound: f64| {
            let got = f64::from(floats(opcode, &[x]));
            assert!((got - exact).abs() <= bound * exact.abs(), "{opcode} of {x}: {got}, expected {exact}");
        };
        let wide = f64::from(x);
        near("ex2.approx.ftz.f32", wide.exp2(), 2f64.powi(-22));
        near("tanh.approx.f32", wide.tanh(), 2f64.powf(-10.987));
        if i != 0 {
            near("rcp.approx.ftz.f32", 1.0 / wide, 2f64.powi(-23));
        }
    }
    assert_eq!(words("ex2.approx.ftz.f32", &[f32::NEG_INFINITY.to_bits()]), 0);
    assert_eq!(words("rcp.approx.ftz.f32", &[1]), f32::INFINITY.to_bits(), "a subnormal number counts as zero");
}

#[test]
fn bits_move_as_they_should() {
    assert_eq!(words("bfi.b32", &[0xabcd, 0x1234_5678, 8, 16]), 0x12ab_cd78);
    assert_eq!(words("prmt.b32", &[0x3322_1100, 0x7766_5544, 0x7410]), 0x7744_1100);
    assert_eq!(words("lop3.b32", &[0xff00, 0xf0f0, 0xcccc, 0xe8]), 0xfcc0 | 0xf000, "the majority of three");
    assert_eq!(words("shl.b32", &[1, 32]), 0);
    assert_eq!(words("shr.s32", &[0x8000_0000, 40]), u32::MAX);
    assert_eq!(words("shf.l.wrap.b32", &[0x8000_0000, 1, 1]), 3);
    assert_eq!(words("mul.hi.u32", &[u32::MAX, u32::MAX]), 0xffff_fffe);
}

fn unreadable(body: &str) -> String {
    let module = format!(".visible .entry k(\n.param .u64 p\n)\n{{\n.reg .b32 %r<4>;\n.reg .pred %p<2>;\n{body}\n}}\n");
    let fault = decode::program(&module, "k").expect_err("an error");
    assert_eq!(fault.kind, FaultKind::Unsupported);
    fault.problem
}

#[test]
fn what_cannot_be_read_is_named() {
    let message = unreadable("wgmma.fence.sync.aligned;");
    assert!(
        message.contains("line 7 of the PTX")
            && message.contains("does not have the instruction wgmma.fence.sync.aligned"),
        "{message}"
    );
    assert!(unreadable("add.s32 %r1, %r2;").contains("3 operands are expected"));
    assert!(unreadable("add.s32 %r1, %r2, %p1;").contains("another width"));
    assert!(unreadable("bra $nowhere;").contains("no such label"));
    assert!(unreadable("ld.global.L3::x.u32 %r1, [%r2];").contains(".L3::x"));
    assert!(unreadable("add.s32 %r1, %r2, 12x;").contains("12x"));
    assert!(unreadable(".local .b8 depot[8];").contains(".local"));
}

/// Every kernel of the catalog can be decoded, where the build has their PTX.
#[test]
fn every_kernel_can_be_decoded() {
    if super::images::built_with().is_none() {
        return;
    }
    for entry in super::catalog::entries() {
        let module = super::source(&entry.name, (9, 0)).unwrap();
        decode::program(module, &entry.name).unwrap_or_else(|fault| panic!("{}: {}", entry.name, fault.problem));
    }
}

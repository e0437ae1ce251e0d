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
        eprintln!("SKIPPED every_kernel_can_be_decoded: built without libnvrtc");
        return;
    }
    for entry in super::catalog::entries() {
        let module = super::source(&entry.name, (9, 0)).unwrap();
        decode::program(module, &entry.name).unwrap_or_else(|fault| panic!("{}: {}", entry.name, fault.problem));
    }
}

// ---- the hand-offs as litmus tests: every schedule of a few instructions ---------------------------------------------------

/// Runs a kernel of two blocks of one warp under every schedule, each on fresh memory of 64 words. Gives how many schedules there are, and the results
/// that words 32 and on may have; or the fault of the first that has one.
fn litmus(body: &str, cluster: bool) -> Result<(usize, std::collections::BTreeSet<(u32, u32)>), String> {
    use super::super::Launch;
    use super::memory::GlobalMemory;
    use super::random::{Choices, Random};
    let module = format!(
        ".extern .shared .align 16 .b8 s[];\n.visible .entry k(\n.param .u64 p\n)\n{{\n.reg .pred %p<9>;\n.reg .b32 %r<20>;\n.reg .b64 %rd<9>;\n\
         ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\nsetp.ne.u32 %p1, %r1, 0;\nsetp.ne.u32 %p2, %r2, 0;\n{body}\n}}\n"
    );
    let program = decode::program(&module, "k").map_err(|fault| fault.problem)?;
    let launch = Launch {
        cooperative: !cluster,
        cluster: if cluster { 2 } else { 1 },
        shared_bytes: 64,
        ..Launch::new([2, 1, 1], 32)
    };
    let (mut choices, mut schedules, mut results) = (Choices::default(), 0, std::collections::BTreeSet::new());
    loop {
        let mut global = GlobalMemory::default();
        let address = global.allocate(256).ok_or("no memory")?;
        global.slice_mut(address, 256).ok_or("no memory")?.fill(0);
        let params = address.to_le_bytes();
        let random = super::run(&program, &launch, &params, &mut global, Random::Listed(choices), true);
        schedules += 1;
        let (random, _) = random.map_err(|error| error.to_string())?;
        let word = |index: u64| super::memory::load(global.slice(address + 4 * index, 4).unwrap_or(&[0; 4])) as u32;
        results.insert((word(32), word(33)));
        assert!(schedules < 2_000_000, "too many schedules");
        match random {
            Random::Listed(made) => match made.next() {
                Some(next) => choices = next,
                None => return Ok((schedules, results)),
            },
            Random::Seeded(_) => return Err("choices got lost".to_owned()),
        }
    }
}

/// Block 0 writes data and sets a flag; block 1 reads the flag, then the data if it is set, and stores both.
fn message(store: &str, load: &str) -> String {
    format!(
        "@%p1 ret;\n@%p2 bra READER;\nst.global.u32 [%rd1], 7;\n{store} [%rd1+4], 1;\nret;\nREADER:\n{load} %r4, [%rd1+4];\n\
         setp.eq.u32 %p3, %r4, 0;\n@%p3 ret;\nld.global.u32 %r5, [%rd1];\nst.global.u32 [%rd1+128], %r4;\nst.global.u32 [%rd1+132], %r5;\nret;"
    )
}

#[test]
fn a_flag_hands_data_over_by_release_and_acquire() {
    let (schedules, results) =
        litmus(&message("st.release.gpu.global.u32", "ld.acquire.gpu.global.u32"), false).unwrap();
    assert!(schedules > 3, "{schedules}");
    assert_eq!(results.into_iter().collect::<Vec<_>>(), [(0, 0), (1, 7)]);
    let fenced = message("fence.acq_rel.gpu;\nst.relaxed.gpu.global.u32", "ld.acquire.gpu.global.u32");
    assert_eq!(litmus(&fenced, false).unwrap().1.len(), 2);
    for (store, load) in [
        ("st.relaxed.gpu.global.u32", "ld.acquire.gpu.global.u32"),
        ("st.release.gpu.global.u32", "ld.relaxed.gpu.global.u32"),
        ("st.release.cta.global.u32", "ld.acquire.gpu.global.u32"),
        ("st.release.gpu.global.u32", "ld.acquire.cta.global.u32"),
        ("st.global.u32", "ld.acquire.gpu.global.u32"),
        ("fence.acq_rel.cta;\nst.relaxed.gpu.global.u32", "ld.acquire.gpu.global.u32"),
    ] {
        let found = litmus(&message(store, load), false).expect_err("a race");
        assert!(found.contains("data race"), "{store}, {load}: {found}");
    }
}

/// The grid's hand-off: the word is its own message, so relaxed accesses do; both words may be seen in any order.
#[test]
fn a_polled_word_is_its_own_message() {
    let polled = |scope: &str| {
        format!(
            "@%p1 ret;\n@%p2 bra READER;\nst.relaxed.{scope}.global.u32 [%rd1], 7;\nst.relaxed.{scope}.global.u32 [%rd1+4], 8;\nret;\nREADER:\n\
             ld.relaxed.gpu.global.v2.u32 {{%r4, %r5}}, [%rd1];\nst.global.u32 [%rd1+128], %r4;\nst.global.u32 [%rd1+132], %r5;\nret;"
        )
    };
    let (_, results) = litmus(&polled("gpu"), false).unwrap();
    assert_eq!(results.into_iter().collect::<Vec<_>>(), [(0, 0), (0, 8), (7, 0), (7, 8)]);
    assert!(litmus(&polled("cta"), false).unwrap_err().contains("data race"));
}

/// The cluster's hand-off: two vectors through one buffer each, as in `ClusterExchange`; every block stores into the other, expects the bytes
/// and waits, without a barrier of the cluster in the loop.
fn exchange(setup: &str, arrive: &str, wait: &str, end: &str) -> String {
    format!(
        "mov.u32 %r3, s;\nadd.s32 %r4, %r3, 16;\nxor.b32 %r5, %r2, 1;\n@%p1 bra SET;\nmbarrier.init.shared::cta.b64 [%r4], 1;\nfence.mbarrier_init.release.cluster;\n\
         SET:\nbar.warp.sync 0xffffffff;\n{setup}\n@%p1 bra END;\n\
         mapa.shared::cluster.u32 %r6, %r3, %r5;\nmapa.shared::cluster.u32 %r7, %r4, %r5;\nadd.s32 %r8, %r2, 7;\n\
         st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r6], %r8, [%r7];\n{arrive}\n{wait}\n\
         shl.b32 %r10, %r2, 2;\ncvt.u64.u32 %rd2, %r10;\nadd.s64 %rd3, %rd1, %rd2;\nst.global.u32 [%rd3+128], %r9;\n\
         END:\nbar.warp.sync 0xffffffff;\n{end}\nret;"
    )
}

#[test]
fn a_cluster_hands_data_over_by_bytes_that_an_mbarrier_counts() {
    const SETUP: &str = "barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;";
    const END: &str = "barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;";
    const ARRIVE: &str = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r4], 4;";
    const WAIT: &str =
        "WAIT:\nmbarrier.try_wait.parity.shared::cta.b64 %p4, [%r4], 0;\n@!%p4 bra WAIT;\nld.shared.u32 %r9, [%r3];";
    let run = |setup, arrive, wait, end| litmus(&exchange(setup, arrive, wait, end), true);
    let (schedules, results) = run(SETUP, ARRIVE, WAIT, END).unwrap();
    assert!(schedules > 100, "{schedules}");
    assert_eq!(results.into_iter().collect::<Vec<_>>(), [(8, 7)]);
    let found = |setup, arrive, wait, end| run(setup, arrive, wait, end).expect_err("a mistake");
    let no_setup = found("", ARRIVE, WAIT, END);
    assert!(no_setup.contains("mbarrier"), "{no_setup}");
    let no_wait = found(SETUP, ARRIVE, "ld.shared.u32 %r9, [%r3];", END);
    assert!(no_wait.contains("race") || no_wait.contains("uninitialised"), "{no_wait}");
    // Without the wait at the end nothing goes wrong here: each block waits for the other's store, and stores before it waits.
    assert!(run(SETUP, ARRIVE, WAIT, "").is_ok());
    let too_many = found(SETUP, "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r4], 8;", WAIT, END);
    assert!(too_many.contains("deadlock") && too_many.contains("4 bytes"), "{too_many}");
    let too_few = found(SETUP, "mbarrier.arrive.shared::cta.b64 _, [%r4];", WAIT, END);
    assert!(!too_few.is_empty());
}

// ---- each check, on a kernel that makes the mistake and on one that does not ------------------------------------------------

/// Runs a kernel of `threads` threads a block, in `blocks` blocks of one cluster, on 64 zeroed words, under several orders of warps. Gives
/// its words after the natural order; or the fault of the first order that has one.
fn run_kernel(body: &str, (blocks, threads): (u32, u32)) -> Result<Vec<u32>, String> {
    use super::super::Launch;
    use super::memory::GlobalMemory;
    use super::random::Random;
    let module = format!(
        ".extern .shared .align 16 .b8 s[];\n.visible .entry k(\n.param .u64 p\n)\n{{\n.reg .pred %p<9>;\n.reg .b32 %r<20>;\n.reg .b64 %rd<9>;\n\
         ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\nmov.u32 %r3, s;\nsetp.ne.u32 %p1, %r1, 0;\n\
         setp.ne.u32 %p2, %r2, 0;\nshl.b32 %r4, %r1, 2;\nadd.s32 %r5, %r3, %r4;\ncvt.u64.u32 %rd2, %r4;\nadd.s64 %rd3, %rd1, %rd2;\n{body}\nret;\n}}\n"
    );
    let program = decode::program(&module, "k").map_err(|fault| fault.problem)?;
    let launch = Launch { cluster: blocks, shared_bytes: 512, ..Launch::new([blocks, 1, 1], threads) };
    let mut natural = Vec::new();
    for seed in 0..12 {
        let mut global = GlobalMemory::default();
        let address = global.allocate(256).ok_or("no memory")?;
        // A neighbour, so that past the end of the first is not past the end of all.
        global.allocate(256).ok_or("no memory")?;
        global.slice_mut(address, 256).ok_or("no memory")?.fill(0);
        super::run(&program, &launch, &address.to_le_bytes(), &mut global, Random::new(seed), seed != 0)
            .map_err(|error| error.to_string())?;
        let bytes = global.slice(address, 256).ok_or("no memory")?;
        if seed == 0 {
            natural = bytes.chunks_exact(4).map(|word| super::memory::load(word) as u32).collect();
        }
    }
    Ok(natural)
}

fn mistake(body: &str, launch: (u32, u32), says: &str) {
    let found = run_kernel(body, launch).expect_err(body);
    assert!(found.contains(says), "{body}\n{found}\nexpected: {says}");
}

#[test]
fn addresses_are_aligned_and_within_an_allocation() {
    assert_eq!(run_kernel("st.global.u32 [%rd3], 7;", (1, 32)).unwrap()[31], 7);
    run_kernel("@%p1 ret;\nld.global.v4.u32 {%r6, %r7, %r8, %r9}, [%rd1+16];", (1, 32)).unwrap();
    mistake("ld.global.u32 %r6, [%rd3+2];", (1, 32), "misaligned access");
    mistake("@%p1 ret;\nld.global.v4.u32 {%r6, %r7, %r8, %r9}, [%rd1+8];", (1, 32), "misaligned access");
    mistake("@%p1 ret;\nst.shared.u64 [%r3+4], %rd1;", (1, 32), "misaligned access");
    // Before, behind, and far behind, where the next allocation might have been.
    for offset in [-4, 256, 512] {
        mistake(&format!("@%p1 ret;\nld.global.u32 %r6, [%rd1+{offset}];"), (1, 32), "access out of bounds");
        mistake(&format!("@%p1 ret;\nst.global.u32 [%rd1+{offset}], 1;"), (1, 32), "access out of bounds");
    }
    mistake("@%p1 ret;\nst.shared.u32 [%r3+512], 1;", (1, 32), "access out of bounds");
    mistake("@%p1 ret;\nld.param.u64 %rd4, [p+8];", (1, 32), "access out of bounds");
}

#[test]
fn instructions_for_whole_warps_find_them_at_one_place() {
    run_kernel("bar.sync 0;\nbarrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;", (1, 64))
        .unwrap();
    for instruction in ["bar.sync 0;", "barrier.cluster.arrive.release.aligned;"] {
        mistake(&format!("@%p1 {instruction}"), (1, 32), "executed by a part of a warp");
        // All lanes, but one after the others.
        let apart = format!("@%p1 bra OTHER;\n{instruction}\nbra END;\nOTHER:\n{instruction}\nEND:");
        mistake(&apart, (1, 32), "executed by a part of a warp");
    }
    mistake("@%p1 shfl.sync.bfly.b32 %r6, %r1, 1, 31, 0xffffffff;", (1, 32), "executed by a part of a warp");
}

#[test]
fn what_shared_memory_held_before_reaches_nobody() {
    let written = "st.shared.u32 [%r5], %r1;\nld.shared.u32 %r6, [%r5];\nst.global.u32 [%rd3], %r6;";
    assert_eq!(run_kernel(written, (1, 32)).unwrap()[31], 31);
    // Computing with it is no mistake, as long as nothing comes of it.
    run_kernel("ld.shared.u32 %r6, [%r5];\nadd.s32 %r6, %r6, 1;", (1, 32)).unwrap();
    mistake("ld.shared.u32 %r6, [%r5];\nadd.s32 %r6, %r6, 1;\nst.global.u32 [%rd3], %r6;", (1, 32), "uninitialised");
    let address =
        "ld.shared.u32 %r6, [%r5];\ncvt.u64.u32 %rd4, %r6;\nadd.s64 %rd4, %rd1, %rd4;\nld.global.u32 %r7, [%rd4];";
    mistake(address, (1, 32), "uninitialised");
    // It stays what it is in other shared memory, and in the part of a word that was not written.
    let copied = "ld.shared.u32 %r6, [%r5+256];\nst.shared.u32 [%r5], %r6;\nld.shared.u32 %r7, [%r5];\nst.global.u32 [%rd3], %r7;";
    mistake(copied, (1, 32), "uninitialised");
    mistake(
        "st.shared.u8 [%r5], %r1;\nld.shared.u32 %r7, [%r5];\nst.global.u32 [%rd3], %r7;",
        (1, 32),
        "uninitialised",
    );
}

#[test]
fn warps_that_wait_for_nothing_are_a_deadlock() {
    mistake("setp.lt.u32 %p3, %r1, 32;\n@%p3 bra END;\nbar.sync 0;\nEND:", (1, 64), "deadlock");
    mistake(
        "barrier.cluster.arrive.release.aligned;\n@%p2 ret;\nbarrier.cluster.wait.acquire.aligned;\nbarrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;",
        (2, 32),
        "deadlock",
    );
    mistake(
        "WAIT:\nld.volatile.global.u32 %r6, [%rd1];\nsetp.eq.u32 %p3, %r6, 0;\n@%p3 bra WAIT;",
        (1, 32),
        "deadlock",
    );
}

/// Thread 0 makes an mbarrier for `count` arrivals at byte 16 of shared memory; then all threads do `rest`.
fn with_mbarrier(count: u32, rest: &str) -> String {
    format!("@!%p1 mbarrier.init.shared::cta.b64 [%r3+16], {count};\nbar.sync 0;\n{rest}")
}

#[test]
fn phases_of_mbarriers_and_their_bytes_are_counted() {
    const ARRIVE: &str = "mbarrier.arrive.shared::cta.b64 _, [%r3+16];";
    let wait = |parity: u32| {
        format!(
            "WAIT{parity}:\nmbarrier.try_wait.parity.shared::cta.b64 %p4, [%r3+16], {parity};\n@!%p4 bra WAIT{parity};"
        )
    };
    run_kernel(&with_mbarrier(32, &format!("{ARRIVE}\n{}", wait(0))), (1, 32)).unwrap();
    run_kernel(&with_mbarrier(32, &format!("{ARRIVE}\n{}\n{ARRIVE}\n{}", wait(0), wait(1))), (1, 32)).unwrap();
    mistake(&with_mbarrier(33, &format!("{ARRIVE}\n{}", wait(0))), (1, 32), "lacks 1 arrivals and 0 bytes");
    // The other parity is that of the phase before, which counts as complete.
    mistake(&with_mbarrier(32, &format!("{ARRIVE}\n{}\n{}", wait(0), wait(1))), (1, 32), "deadlock");
    mistake(&with_mbarrier(0, ""), (1, 32), "misused mbarrier");
    mistake(&with_mbarrier(1, &wait(2)), (1, 32), "misused mbarrier");
    let one = |rest: &str| with_mbarrier(1, &format!("@%p1 ret;\n{rest}"));
    let expect = |bytes: u32| format!("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3+16], {bytes};");
    let send = "mapa.shared::cluster.u32 %r6, %r3, 0;\nst.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r6+64], 7, [%r6+16];";
    run_kernel(&one(&format!("{}\n{send}\n{}", expect(4), wait(0))), (1, 32)).unwrap();
    mistake(&one(&format!("{}\n{send}\n{}", expect(8), wait(0))), (1, 32), "lacks 0 arrivals and 4 bytes");
    mistake(&one(&format!("{}\n{}", expect(4), wait(0))), (1, 32), "lacks 0 arrivals and 4 bytes");
    mistake(&one(&expect(1 << 20)), (1, 32), "misused mbarrier");
    mistake("mbarrier.arrive.shared::cta.b64 _, [%r3+16];", (1, 32), "misused mbarrier");
}

/// A store that no wait has seen complete may come at any time: the data is not there, though it was sent before something that is.
#[test]
fn asynchronous_stores_come_late_and_in_any_order() {
    let two = |read: &str| {
        format!(
            "@%p1 bra READY;\nmbarrier.init.shared::cta.b64 [%r3+16], 1;\nmbarrier.init.shared::cta.b64 [%r3+24], 1;\nREADY:\nbar.sync 0;\n@%p1 ret;\n\
             mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3+16], 4;\nmbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3+24], 4;\n\
             mapa.shared::cluster.u32 %r6, %r3, 0;\nst.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r6+64], 7, [%r6+16];\n\
             st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r6+68], 8, [%r6+24];\n\
             SECOND:\nmbarrier.try_wait.parity.shared::cta.b64 %p4, [%r3+24], 0;\n@!%p4 bra SECOND;\n{read}"
        )
    };
    let first = "FIRST:\nmbarrier.try_wait.parity.shared::cta.b64 %p4, [%r3+16], 0;\n@!%p4 bra FIRST;\n";
    let read = |offset: u32| format!("ld.shared.u32 %r7, [%r3+{offset}];\nst.global.u32 [%rd1], %r7;");
    assert_eq!(run_kernel(&two(&format!("{}\n{first}", read(68))), (1, 32)).unwrap()[0], 8);
    assert_eq!(run_kernel(&two(&format!("{first}{}", read(64))), (1, 32)).unwrap()[0], 7);
    let early = run_kernel(&two(&format!("{}\n{first}", read(64))), (1, 32)).expect_err("the first may not have come");
    assert!(early.contains("uninitialised") || early.contains("data race"), "{early}");
    // The block must not end before they have come.
    mistake(&two(""), (1, 32), "misused asynchronous operation");
}

/// A relaxed load may be stale, but never goes back behind what its warp has read, or knows.
#[test]
fn relaxed_loads_may_be_stale_and_never_go_back() {
    let (_, results) = litmus(
        "@%p1 ret;\n@%p2 bra READER;\nst.relaxed.gpu.global.u32 [%rd1], 1;\nst.relaxed.gpu.global.u32 [%rd1], 2;\nret;\nREADER:\n\
         ld.relaxed.gpu.global.u32 %r4, [%rd1];\nld.relaxed.gpu.global.u32 %r5, [%rd1];\nst.global.u32 [%rd1+128], %r4;\n\
         st.global.u32 [%rd1+132], %r5;\nret;",
        false,
    )
    .unwrap();
    assert_eq!(results.into_iter().collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]);
    // Who has acquired what was released after the first store cannot read what it replaced.
    let known = message("st.release.gpu.global.u32", "ld.acquire.gpu.global.u32")
        .replace("st.global.u32 [%rd1], 7", "st.relaxed.gpu.global.u32 [%rd1], 7")
        .replace("ld.global.u32 %r5", "ld.relaxed.gpu.global.u32 %r5");
    let (_, results) = litmus(&known, false).unwrap();
    assert_eq!(results.into_iter().collect::<Vec<_>>(), [(0, 0), (1, 7)]);
    let (_, results) = litmus(&known.replace(".release", ".relaxed"), false).unwrap();
    assert_eq!(results.into_iter().collect::<Vec<_>>(), [(0, 0), (1, 0), (1, 7)]);
}

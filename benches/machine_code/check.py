#!/usr/bin/env python3
"""Checks the machine code of the kernels and the clocks of their time loops; see README.md. Exit status 1: something does not hold."""
import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gemm
import images
from disassembly import functions
from loops import stalls, time_loops
from shapes import shapes
from tables import Table

HERE = Path(__file__).resolve().parent
# The architecture whose loops are in the tables; the others' are checked for what must not be in a loop.
TABLE_ARCH = "sm_90a"
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
# GPUs that get portable assembly (compute capability times ten); each takes the levels up to its own.
ASSEMBLED_FOR = (75, 86, 89, 103, 120)

# What orders memory of the whole GPU or cluster, invalidates caches, or is local memory. A prefetch is a CCTL too, and allowed.
FORBIDDEN = ("MEMBAR", "CCTL", "ERRBAR", "CGAERRBAR", "LDL", "STL")
PREFETCH = ("CCTL.E.PF1", "CCTL.E.PF2")
# Units (source and element type) of matrix products whose inner loop is to be that of a fast one.
FAST_GEMM = re.compile(r"gemm_pipelined\b")

# Follows the name of a kernel in the table, for its loop that computes W x of an input of one number.
ONE_INPUT = "one input"

TIME_LOOPS = Table(
    HERE / "loops.tsv",
    ("matrix", "barriers", "early waits", "publish to poll", "poll to publish", "step", "modelled"),
    given=("matrix",),
)
PRODUCTS = Table(HERE / "products.tsv", ("multiplications", "instructions"), given=("multiplications",))


def row(loop):
    """The numbers of a time loop that stand in its table."""
    before, after = loop.publish_to_poll(), loop.poll_to_publish()
    return {
        "matrix": loop.count("HMMA") or loop.count("FFMA"),
        "barriers": loop.count("BAR"),
        "early waits": loop.early_waits(),
        "publish to poll": "-" if before is None else stalls(before),
        "poll to publish": "-" if after is None else stalls(after),
        "step": stalls(loop.path),
        "modelled": loop.modelled(),
    }


def product_row(function):
    """Those of the inner loop of a matrix product."""
    code = gemm.inner_loop(function)
    return {"multiplications": sum(bool(gemm.matrix_instruction(i)) for i in code), "instructions": len(code)}


def by_input(name, loops):
    """The loops that compute W x of an input of one number themselves, and the others, which copy it to shared memory."""
    from_x = [loop for loop in loops if "_forward_" in name and not loop.count("LDGSTS")]
    return from_x, [loop for loop in loops if loop not in from_x]


def check_loop(shape, loop):
    """What is wrong with a time loop."""
    wrong = [f"{i.text.strip()} in the time loop" for i in loop.body if i.is_any(*FORBIDDEN) and not i.is_any(*PREFETCH)]
    products = shape.products()
    found = loop.count(*(("FFMA",) if shape.math == "f32" else ("HMMA",)))
    if shape.math == "f32" and found < products or shape.math != "f32" and found != products:
        wrong.append(f"{found} {shape.instruction()} a step; the shape needs {products}")
    if shape.family != "block":
        if not any(i.is_publish() for i in loop.path) or not any(i.is_poll() for i in loop.path):
            wrong.append("no poll or no store to other blocks; polls must bypass L1 (.STRONG), or be of an mbarrier")
        if shape.family == "cluster" and not loop.count("STAS"):
            wrong.append("no st.async (STAS) into the cluster")
    if loop.count("BAR") > shape.barriers():
        wrong.append(f"{loop.count('BAR')} barriers of the block a step; {shape.barriers()} expected")
    return wrong


def check_gemm(function):
    """What is wrong with the innermost loop of a matrix product that is to be fast."""
    loops = [body for _, _, body in function.natural_loops() if any(function.code[at].is_any("HMMA") for at in body)]
    if not loops:
        return ["no loop with matrix instructions"]
    code = [function.code[at] for at in min(loops, key=len)]
    wrong = [f"{i.text.strip()}: an integer division in the inner loop" for i in code if i.is_any("I2F", "F2I", "MUFU")]
    wrong += [f"{i.text.strip()} in the inner loop" for i in code if i.is_any(*FORBIDDEN) and not i.is_any(*PREFETCH)]
    # Loads into registers are of lengths (tn).
    copies = [i for i in code if i.is_any("LDGSTS")]
    wrong += [f"{i.text.strip()}: less than 128 bits at a time" for i in copies if ".128" not in i.opcode]
    if not copies:
        wrong.append("no copy from global memory in the inner loop: it does not overlap with the products")
    return wrong


def check_images(tools, files):
    """Everything that disassembled images tell. Gives the rows of both tables, and what is wrong."""
    loop_rows, product_rows, wrong, fast = {}, {}, [], 0
    of = shapes()
    machine = [f for f in files if f.suffix == ".cubin" and images.architecture(f) in ARCHITECTURES]
    machine = [f for f in machine if images.unit(f).startswith(("persistent_", "gemm"))]
    with ThreadPoolExecutor(2) as pool:
        for file, found in zip(machine, pool.map(lambda file: functions(tools / "nvidia/cu13/bin/nvdisasm", file), machine)):
            arch = images.architecture(file)
            for function in found:
                problems = []
                if function.name in of:
                    loops = time_loops(function)
                    problems = [problem for loop in loops for problem in check_loop(of[function.name], loop)]
                    if not loops:
                        problems = ["no time loop is found"]
                    elif arch == TABLE_ARCH:
                        from_x, usual = by_input(function.name, loops)
                        loop_rows[function.name] = row(usual[0])
                        if from_x:
                            loop_rows[f"{function.name} {ONE_INPUT}"] = row(from_x[0])
                else:
                    if FAST_GEMM.match(images.unit(file)):
                        fast += 1
                        problems = check_gemm(function)
                    if function.name.startswith("gemm_") and arch == TABLE_ARCH:
                        product_rows[function.name] = product_row(function)
                wrong += [f"{function.name} for {arch}: {problem}" for problem in problems]
    missing = sorted(set(of) - set(loop_rows))
    if missing:
        wrong.append(f"no machine code for {TABLE_ARCH} of {', '.join(missing)}; build for the usual targets")
    print(f"{len(machine)} images of machine code, {len(loop_rows)} time loops and {len(product_rows)} matrix products in the tables, {fast} products checked to be fast")
    if fast == 0:
        print(f"the checks of a fast matrix product were not applied: no unit matches {FAST_GEMM.pattern}")
    return loop_rows, product_rows, wrong


def check_assembly(tools, files, scratch):
    """That ptxas takes the portable assembly for every GPU that would get it. What it took once is not given to it again."""
    jobs = []
    for file in files:
        # What is for one architecture alone (sm_90a) is the interpreter's.
        if file.suffix != ".ptx" or images.architecture(file).endswith("a"):
            continue
        level = int(re.search(r"\.target sm_(\d+)", file.read_text()).group(1))
        jobs += [(file, arch) for arch in ASSEMBLED_FOR if level <= arch]

    def assemble(job):
        file, arch = job
        done = scratch / f"{file.stem}.taken-by-sm_{arch}"
        if done.exists():
            return None
        command = [tools / "nvidia/cuda_nvcc/bin/ptxas", f"-arch=sm_{arch}", "-O1", file, "-o", "/dev/null"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            return f"ptxas does not take {file.stem} for sm_{arch}: {(run.stdout + run.stderr).strip()}"
        done.touch()
        return None

    with ThreadPoolExecutor(2) as pool:
        wrong = [problem for problem in pool.map(assemble, jobs) if problem]
    print(f"{len(jobs)} assemblies for {', '.join(f'sm_{arch}' for arch in ASSEMBLED_FOR)}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="folder with the wheels of nvdisasm and ptxas, see README.md")
    parser.add_argument("--images", type=Path, help="folder of packed images; without it that of the release build")
    parser.add_argument("--scratch", type=Path, default=images.ROOT / "target/machine-code", help="where images are unpacked")
    parser.add_argument("--write", action="store_true", help="write the tables anew instead of comparing with them")
    parser.add_argument("--no-assembly", action="store_true", help="leave ptxas out")
    options = parser.parse_args()

    files = images.unpack(options.images or images.folder_of_build(), options.scratch)
    loop_rows, product_rows, wrong = check_images(options.tools, files)
    if not options.no_assembly:
        wrong += check_assembly(options.tools, files, options.scratch)
    worse, better = [], []
    for table, rows in ((TIME_LOOPS, loop_rows), (PRODUCTS, product_rows)):
        if options.write:
            table.write(rows)
        for found, all_found in zip(table.compare(rows), (worse, better)):
            all_found += found
    for line in better:
        print(f"better: {line}")
    if better:
        print("what is better is to be committed: run check.py --write")
    for line in worse:
        print(f"worse: {line}")
    if worse:
        print("lower it again, or write the tables anew with --write and say in the commit why it must be so")
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong or worse or better else 0


if __name__ == "__main__":
    sys.exit(main())

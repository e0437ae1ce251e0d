#!/usr/bin/env python3
"""Checks the machine code of the kernels and the clocks of their time loops; see README.md. Exit status 1: something does not hold."""
import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import images
from disassembly import functions
from loops import stalls, time_loops
from shapes import shapes

HERE = Path(__file__).resolve().parent
TABLE = HERE / "loops.tsv"
# The architecture whose loops are in the table; the others' are checked for what must not be in a loop.
TABLE_ARCH = "sm_90a"
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
# GPUs that get portable assembly (compute capability times ten); each takes the levels up to its own.
ASSEMBLED_FOR = (75, 86, 89, 103, 120)

# What orders memory of the whole GPU or cluster, invalidates caches, or is local memory. A prefetch is a CCTL too, and allowed.
FORBIDDEN = ("MEMBAR", "CCTL", "ERRBAR", "CGAERRBAR", "LDL", "STL")
PREFETCH = ("CCTL.E.PF1", "CCTL.E.PF2")
# Units (source and element type) of matrix products whose inner loop is to be that of a fast one.
FAST_GEMM = re.compile(r"gemm_pipelined\b")

COLUMNS = ("matrix", "barriers", "early waits", "publish to poll", "poll to publish", "step", "modelled")


def row(loop):
    """The numbers of a loop that stand in the table."""
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
    """Everything that disassembled images tell. Gives the table, and what is wrong."""
    table, wrong, fast = {}, [], 0
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
                        table[function.name] = row(loops[0])
                elif FAST_GEMM.match(images.unit(file)):
                    fast += 1
                    problems = check_gemm(function)
                wrong += [f"{function.name} for {arch}: {problem}" for problem in problems]
    missing = sorted(set(of) - set(table))
    if missing:
        wrong.append(f"no machine code for {TABLE_ARCH} of {', '.join(missing)}; build for the usual targets")
    print(f"{len(machine)} images of machine code, {len(table)} time loops in the table, {fast} fast matrix products")
    if fast == 0:
        print(f"the checks of a fast matrix product were not applied: no unit matches {FAST_GEMM.pattern}")
    return table, wrong


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


def read_table():
    if not TABLE.exists():
        return {}
    lines = [line.split("\t") for line in TABLE.read_text().splitlines()]
    return {name: dict(zip(lines[0][1:], values)) for name, *values in lines[1:]}


def write_table(table):
    lines = ["\t".join(("kernel", *COLUMNS))]
    lines += ["\t".join((name, *(str(numbers[column]) for column in COLUMNS))) for name, numbers in sorted(table.items())]
    TABLE.write_text("\n".join(lines) + "\n")


def compare(table):
    """What is worse than in the committed table, and what is better."""
    committed, worse, better = read_table(), [], []
    for name, numbers in sorted(table.items()):
        if name not in committed:
            worse.append(f"{name} is not in {TABLE.name}")
            continue
        for column in COLUMNS[1:]:
            now, then = str(numbers[column]), committed[name][column]
            if now != then:
                one = f"{name}, {column}: {then} in {TABLE.name}, now {now}"
                (better if "-" not in (now, then) and int(now) < int(then) else worse).append(one)
    worse += [f"{name} is in {TABLE.name}, but there is no such kernel" for name in committed if name not in table]
    return worse, better


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="folder with the wheels of nvdisasm and ptxas, see README.md")
    parser.add_argument("--images", type=Path, help="folder of packed images; without it that of the release build")
    parser.add_argument("--scratch", type=Path, default=images.ROOT / "target/machine-code", help="where images are unpacked")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} anew instead of comparing with it")
    parser.add_argument("--no-assembly", action="store_true", help="leave ptxas out")
    options = parser.parse_args()

    files = images.unpack(options.images or images.folder_of_build(), options.scratch)
    table, wrong = check_images(options.tools, files)
    if not options.no_assembly:
        wrong += check_assembly(options.tools, files, options.scratch)
    if options.write:
        write_table(table)
    worse, better = compare(table)
    for line in better:
        print(f"better: {line}")
    if better:
        print("what is better is to be committed: run check.py --write")
    for line in worse:
        print(f"worse: {line}")
    if worse:
        print("lower it again, or write the table anew with --write and say in the commit why it must be so")
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong or worse or better else 0


if __name__ == "__main__":
    sys.exit(main())

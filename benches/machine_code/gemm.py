#!/usr/bin/env python3
"""The table of gemm.md: the inner loops of the matrix products, read from the images of a build. Clocks are estimates for an H100 at 1.755 GHz."""
import argparse
import re
from pathlib import Path

import images
from disassembly import functions

CLOCK_GHZ, MULTIPROCESSORS = 1.755, 132
# Clocks between two matrix instructions of a quarter of a multiprocessor: mma.sync on an H100 reaches about 63 % of what wgmma does
# (arXiv 2501.12084). FFMA: one warp a clock.
CLOCKS = {"HMMA.16816": 6.45, "HMMA.1688": 6.45, "FFMA": 1.0, "DFMA": 2.0}
FLOP = {"HMMA.16816": 4096, "HMMA.1688": 2048, "FFMA": 64, "DFMA": 64}
# Bytes in a clock: of shared memory, and from L2 to a multiprocessor.
SHARED_BYTES, L2_BYTES = 128, 38
# Warps of a block of a tile.
WARPS = {"pipelined_wide": 4, "pipelined_medium": 4, "exact_wide": 8, "exact_medium": 2, "large": 8, "small": 4}
NAME = re.compile(r"gemm_(nt|nn|tn)_(\w+?)_(\w+)$")


def matrix_instruction(instruction):
    """HMMA.16816, HMMA.1688, FFMA, DFMA, or none."""
    return next((kind for kind in CLOCKS if instruction.opcode.startswith(kind)), None)


def shared_bytes(instruction):
    """What one of a warp's instructions moves to or from shared memory."""
    if instruction.is_any("LDSM"):
        return 512 if ".4" in instruction.opcode else 128
    if instruction.is_any("LDS", "STS", "LDGSTS"):
        if "@!PT" in instruction.text:  # never executed
            return 0
        width = re.search(r"\.(128|64|U16)", instruction.opcode)
        return 32 * {"128": 16, "64": 8, "U16": 2}.get(width.group(1) if width else "", 4)
    return 0


def copied_bytes(instruction):
    """What it brings from global to shared memory."""
    return shared_bytes(instruction) if instruction.is_any("LDGSTS") else 0


def inner_loop(function):
    """The instructions of the smallest loop with matrix instructions: of the tensor cores where a kernel has some, and half of all of them at least, since
    loops that store results multiply by their factor."""
    kinds = {at: kind for at, i in enumerate(function.code) if (kind := matrix_instruction(i))}
    tensor = {at for at, kind in kinds.items() if kind.startswith("HMMA")}
    matrix = tensor or set(kinds)
    loops = [body for _, _, body in function.natural_loops()]
    most = max((len(matrix & body) for body in loops), default=0)
    loops = [body for body in loops if 2 * len(matrix & body) >= max(most, 1)]
    return [function.code[at] for at in sorted(min(loops, key=len))] if loops else []


def row(name, function):
    """A line of the table."""
    code, tile = inner_loop(function), NAME.match(name).group(3)
    kinds = [kind for kind in map(matrix_instruction, code) if kind]
    if not kinds or tile not in WARPS:
        return None
    kind, warps = max(set(kinds), key=kinds.count), WARPS[tile]
    count = kinds.count(kind)
    registers = 1 + max(int(number) for i in function.code for number in re.findall(r"\bR(\d+)\b", i.text))
    copies = [i for i in code if i.is_any("LDGSTS", "LDG")]
    wide = sum(".128" in i.opcode for i in copies)
    busy = {
        "matrix": count * CLOCKS[kind] * warps / 4,
        "issue": len(code) * warps / 4,
        "shared": sum(map(shared_bytes, code)) * warps / SHARED_BYTES,
        "L2": sum(map(copied_bytes, code)) * warps / L2_BYTES,
    }
    limit = max(busy, key=busy.get)
    flop = count * FLOP[kind] * warps
    ceiling = flop / busy[limit] * MULTIPROCESSORS * CLOCK_GHZ * 1e9 / 1e12
    divisions = sum(i.is_any("MUFU") for i in code)
    local = sum(i.is_any("LDL", "STL") for i in function.code)
    cells = [name, registers, len(code), f"{count} {kind.split('.')[0]}", f"{len(code) / count:.2f}", f"{wide} of {len(copies)}", divisions, local]
    cells += [f"{clocks:.0f}" for clocks in busy.values()] + [f"{ceiling:.0f} ({limit})"]
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="folder with the wheel of nvdisasm, see README.md")
    parser.add_argument("--images", type=Path, help="folder of packed images; without it that of the release build")
    parser.add_argument("--scratch", type=Path, default=images.ROOT / "target/machine-code", help="where images are unpacked")
    parser.add_argument("--arch", default="sm_90a")
    options = parser.parse_args()
    files = images.unpack(options.images or images.folder_of_build(), options.scratch)
    print("| kernel | registers | instructions | of them | each | copies of 16 bytes | divisions | local memory | clocks: matrix | issue | shared | L2 | ceiling, TFLOP/s |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for file in files:
        if file.suffix != ".cubin" or images.architecture(file) != options.arch or not images.unit(file).startswith("gemm"):
            continue
        for function in functions(options.tools / "nvidia/cu13/bin/nvdisasm", file):
            if NAME.match(function.name) and (line := row(function.name, function)):
                print(line)


if __name__ == "__main__":
    main()

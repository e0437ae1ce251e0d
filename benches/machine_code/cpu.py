"""Inner loops of the CPU's vector kernels in a built program: no vector in them goes to the stack, and nothing is called.

    python3 benches/machine_code/cpu.py target/release/fused-rnn

Reads the disassembly by `objdump` of every function that is compiled for AVX-512 or AVX2 (`simd::x86::run_…`). An inner loop is what a jump
backwards repeats and holds no other one; those that multiply and add are looked at. A spilled accumulator or a closure that is not inlined
halves a kernel's speed, and no test of results sees it.
"""
import collections
import re
import subprocess
import sys

LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*?)(?:\s+#.*)?$")
SYMBOL = re.compile(r"^([0-9a-f]+) <(.*)>:$")
TARGET = re.compile(r"^([0-9a-f]+) <")
STACK = re.compile(r"\(%rsp\)")  # where an index is added, the loop walks over an array
VECTOR = re.compile(r"%[xyz]mm")
FEWEST = 4  # multiply-adds of a loop that is looked at,
PRODUCT = 0.36  # and their part of its instructions: the others are loops of cells and of exponentials, whose constants fill the registers


def functions(program):
    """Names and instructions (address, mnemonic, operands) of the functions compiled for vectors."""
    text = subprocess.run(
        ["objdump", "-d", "-C", "--no-show-raw-insn", program], check=True, capture_output=True, text=True
    ).stdout
    name, body = None, []
    for line in text.splitlines():
        if start := SYMBOL.match(line):
            if body:
                yield name, body
            name, body = start.group(2), []
            if not re.search(r"simd::x86::run_avx", name):
                name = None
        elif name and (found := LINE.match(line)):
            body.append((int(found.group(1), 16), found.group(2), found.group(3)))
    if body:
        yield name, body


def inner_loops(body):
    """Instructions of the loops without another one in them."""
    index = {address: at for at, (address, _, _) in enumerate(body)}
    loops = []
    for at, (address, mnemonic, operands) in enumerate(body):
        target = TARGET.match(operands)
        if mnemonic.startswith("j") and target and int(target.group(1), 16) <= address:
            first = index.get(int(target.group(1), 16))
            if first is not None:
                loops.append((first, at))
    for first, last in loops:
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in loops):
            yield body[first : last + 1]


def main():
    products, others, faults = collections.Counter(), collections.Counter(), []
    for name, body in functions(sys.argv[1]):
        vectors = "AVX-512" if "avx512" in name else "AVX2"
        for loop in inner_loops(body):
            adds = sum("fmadd" in mnemonic or "fnmadd" in mnemonic for _, mnemonic, _ in loop)
            if adds < FEWEST:
                continue
            if adds < PRODUCT * len(loop) or any(operands.startswith("*") for _, _, operands in loop):
                others[vectors] += 1
                continue
            products[vectors] += 1
            stack = sum(bool(VECTOR.search(operands) and STACK.search(operands)) for _, _, operands in loop)
            calls = sum(mnemonic.startswith("call") for _, mnemonic, _ in loop)
            if stack or calls:
                faults.append(
                    f"{loop[0][0]:x}: {vectors}, {len(loop)} instructions, {adds} multiply-adds, "
                    f"{stack} vectors on the stack, {calls} calls"
                )
    for vectors, count in sorted(products.items()):
        print(f"{vectors}: {count} inner loops of products, {others[vectors]} others that multiply and add")
    print(f"{len(faults)} loops of products with a vector on the stack or a call")
    print("\n".join(faults))
    if not {"AVX-512", "AVX2"} <= products.keys():
        sys.exit("no loops of products for one instruction set: is it a release build for x86-64?")
    sys.exit(1 if faults else 0)


main()

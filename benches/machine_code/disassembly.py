"""Machine code as data: functions, instructions with their control words, loops.

`nvdisasm` prints the instructions of a cubin with the 128 bits of each. Since Volta the upper bits hold what the compiler decided for the
scheduler, the *control word*: after how many clocks the warp may issue its next instruction (the stall count), which of six scoreboards
the instruction holds until its result is there or its operands are read, and for which scoreboards it waits.
"""
import re
import subprocess
from dataclasses import dataclass, field

NO_SCOREBOARD = 7


@dataclass
class Instruction:
    text: str
    opcode: str
    conditional: bool  # it has a predicate
    stall: int
    write: int  # the scoreboard held until the result is there, or NO_SCOREBOARD
    read: int  # that held until the operands are read
    wait: int  # mask of the scoreboards waited for
    target: int | None = None  # of a branch, an index
    after: list[int] = field(default_factory=list)  # indices of what may come next

    def is_any(self, *opcodes):
        """Whether the opcode is one of these, whatever modifiers follow."""
        return any(self.opcode == opcode or self.opcode.startswith(opcode + ".") for opcode in opcodes)

    def is_poll(self):
        """Whether it asks for what another block has published: pieces of 16 bytes; the fault word has four."""
        return self.is_any("LD", "LDG") and ".128.STRONG." in self.opcode or self.is_any("SYNCS.PHASECHK")

    def is_publish(self):
        """Whether it publishes to other blocks."""
        return self.is_any("ST", "STG") and ".STRONG." in self.opcode or self.is_any("STAS")


@dataclass
class Function:
    name: str
    code: list[Instruction]

    def opcodes(self, *opcodes):
        return [instruction for instruction in self.code if instruction.is_any(*opcodes)]

    def natural_loops(self):
        """Loops as (header, last instruction, set of instructions), the largest first."""
        before = [[] for _ in self.code]
        for at, instruction in enumerate(self.code):
            for after in instruction.after:
                before[after].append(at)
        edges = {}
        for at, instruction in enumerate(self.code):
            for after in instruction.after:
                if after <= at:
                    edges.setdefault(after, []).append(at)
        found = []
        for header, ends in edges.items():
            body, pending = {header}, list(ends)
            while pending:
                at = pending.pop()
                if at not in body:
                    body.add(at)
                    pending += before[at]
            if min(body) >= header:  # otherwise a jump back to a block that was moved away, not a loop
                found.append((header, max(ends), body))
        return sorted(found, key=lambda loop: -len(loop[2]))


def functions(nvdisasm, cubin):
    """The entry points of a cubin."""
    run = subprocess.run([nvdisasm, "-c", "-hex", str(cubin)], capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"nvdisasm {cubin}: {run.stderr.strip()}")
    sections, current = {}, None
    for line in run.stdout.splitlines():
        if match := re.match(r"\.text\.(\S+):", line):
            current = sections.setdefault(match.group(1), [])
        elif current is not None:
            current.append(line)
    return [_function(name, lines) for name, lines in sections.items()]


_CODE = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;?\s+/\* 0x[0-9a-f]{16} \*/")
_CONTROL = re.compile(r"\s+/\* 0x([0-9a-f]{16}) \*/")


def _function(name, lines):
    labels, code, text = {}, [], None
    for line in lines:
        if match := re.match(r"(\.L_x_\w+):", line):
            labels[match.group(1)] = len(code)
        elif match := _CODE.match(line):
            text = match.group(1)
        elif text is not None and (match := _CONTROL.match(line)):
            code.append(_instruction(text, int(match.group(1), 16) >> 41))
            text = None
    for at, instruction in enumerate(code):
        # Older GPUs leave loops by a call that does not come back; what is called and comes back has no label of this kind.
        jump = instruction.is_any("BRA", "CALL.REL.NOINC")
        if jump and (label := re.search(r"`\((\.L_x_\w+)\)", instruction.text)):
            instruction.target = labels[label.group(1)]
            instruction.after.append(instruction.target)
        else:
            jump = False
        ends = (jump or instruction.is_any("EXIT", "RET", "BRX")) and not instruction.conditional
        if not ends and at + 1 < len(code):
            instruction.after.append(at + 1)
    return Function(name, code)


def _instruction(text, control):
    predicate, opcode, operands = re.match(r"(@\S+ )?(\S+)(.*)", text).groups()
    # `BRA P2, label` has a second condition among its operands.
    conditional = bool(predicate) or opcode.startswith("BRA.DIV") or opcode.startswith("BRA") and bool(re.match(r"[^`]*P\d", operands))
    return Instruction(text, opcode, conditional, control & 15, control >> 5 & 7, control >> 8 & 7, control >> 11 & 63)

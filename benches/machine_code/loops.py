"""The time loop of a persistent kernel in machine code, and the clocks that one step of it takes at the least.

The path that is measured is that of a step of training without lengths and resets, whose first poll succeeds: of all paths once around the
loop those with the most matrix instructions, functions, barriers, polls and stores that every such step has, and among them the one with
the smallest sum of stall counts.
"""
from dataclasses import dataclass

from disassembly import NO_SCOREBOARD, Function, Instruction

# Clocks from issue until the scoreboard is free, assumed: orders of magnitude from published measurements of Hopper, none of ours. A
# poll answers at once here: what the hand-off itself takes is the same before and after a change of the loop.
LATENCY = {"MUFU": 22, "LDS": 30, "STS": 12, "LDC": 40, "S2R": 30, "S2UR": 30, "SHFL": 24, "F2F": 16, "LDG": 600, "STG": 12}
OTHER_LATENCY = 20

MATRIX = ("HMMA", "FFMA", "DFMA")


@dataclass
class TimeLoop:
    path: list[Instruction]  # once around, from the header
    body: list[Instruction]  # all of the loop, side paths and the give-up of waits included

    def count(self, *opcodes):
        """On the path."""
        return sum(instruction.is_any(*opcodes) for instruction in self.path)

    def _places(self, condition):
        return [at for at, instruction in enumerate(self.path) if condition(instruction)]

    def _turned(self, start):
        return self.path[start:] + self.path[:start]

    def publish_to_poll(self):
        """From the last store that publishes to the first poll of the next step."""
        publishes = self._places(Instruction.is_publish)
        if not publishes:
            return None
        turned = self._turned((publishes[-1] + 1) % len(self.path))
        polls = [at for at, instruction in enumerate(turned) if instruction.is_poll()]
        return turned[: polls[0]] if polls else None

    def poll_to_publish(self):
        """From the first poll to the last store that publishes."""
        polls = self._places(Instruction.is_poll)
        if not polls:
            return None
        # The poll after the barrier: a store may stand before it in the loop.
        between = self.publish_to_poll()
        if between is None:
            return None
        publishes = self._places(Instruction.is_publish)
        turned = self._turned((publishes[-1] + 1) % len(self.path))
        return turned[len(between) :]

    def early_waits(self):
        """Instructions between the last publish and the first matrix instruction of the next step that wait for a plain load from global
        memory which was issued after that publish: a value prefetched for later and yet waited for."""
        publishes = self._places(Instruction.is_publish)
        if not publishes:
            return 0
        turned = self._turned((publishes[-1] + 1) % len(self.path))
        loads, found = set(), 0
        for instruction in turned:
            if instruction.is_any(*MATRIX[:1]):
                # It may wait for the poll; that the prefetched values hold the same scoreboard counts as well.
                found += _waits(instruction, loads)
                break
            found += _waits(instruction, loads)
            loads -= {board for board in loads if instruction.wait >> board & 1}
            if instruction.is_any("LDG", "LD") and not instruction.is_poll() and instruction.write != NO_SCOREBOARD:
                loads.add(instruction.write)
        return found

    def modelled(self):
        """Clocks of a step of one warp that issues in order, with the latencies above: the third turn around the loop."""
        free, clock, turns = [0] * 6, 0, []
        for _ in range(3):
            start = clock
            for instruction in self.path:
                for board in range(6):
                    if instruction.wait >> board & 1:
                        clock = max(clock, free[board])
                latency = 0 if instruction.is_poll() else LATENCY.get(instruction.opcode.split(".")[0], OTHER_LATENCY)
                if instruction.write != NO_SCOREBOARD:
                    free[instruction.write] = max(free[instruction.write], clock + latency)
                if instruction.read != NO_SCOREBOARD:
                    free[instruction.read] = max(free[instruction.read], clock + 12)
                clock += max(1, instruction.stall)
            turns.append(clock - start)
        return turns[-1]


def _waits(instruction, boards):
    return any(instruction.wait >> board & 1 for board in boards)


def stalls(instructions):
    """Clocks that the stall counts of a stretch sum up to."""
    return sum(max(1, instruction.stall) for instruction in instructions)


def time_loops(function: Function):
    """The time loops, the shortest first: outermost loops with products and a barrier of the block. A kernel may have one for problems
    without lengths and resets, and one for the others."""
    outermost = []
    for header, end, body in function.natural_loops():  # the largest first
        inside = [function.code[at] for at in sorted(body)]
        if any(i.is_any(*MATRIX) for i in inside) and any(i.is_any("BAR") for i in inside):
            if not any(body & others for _, _, others in outermost):
                outermost.append((header, end, body))
    found = []
    for header, end, body in reversed(outermost):
        path = _path(function.code, header, end, body, "_forward_" in function.name)
        found.append(TimeLoop([function.code[at] for at in path], [function.code[at] for at in sorted(body)]))
    return found


def _weight(code, at, forward):
    """How much a path must go through an instruction."""
    instruction = code[at]
    if instruction.is_any("LDG.E.U8"):
        return -1000  # resets
    if instruction.is_publish() and any(before.is_any("LDC.64") for before in code[at - 3 : at]):
        return -1000  # the fault word, where a wait gives up
    if instruction.is_any(*MATRIX, "MUFU", "BAR", "LDGSTS") or instruction.is_poll() or instruction.is_publish():
        return 1
    if instruction.is_any("STG"):
        return 1 if forward or instruction.is_any("STG.E.U16") or _together(code, at, "STG") >= 3 else 0
    # Of W x and of what forward saved several are loaded together; lengths and what resets need, one or two.
    return 1 if instruction.is_any("LDG") and _together(code, at, "LDG") >= 3 else 0


def _together(code, at, opcode):
    """How many of these stand in a stretch without branches."""

    def run(step):
        place, count = at + step, 0
        while 0 <= place < len(code) and not code[place].is_any("BRA", "BSYNC", "BAR", "EXIT"):
            count += code[place].is_any(opcode) and not (code[place].is_poll() or code[place].is_publish())
            place += step
        return count

    return 1 + run(1) + run(-1)


def _path(code, header, end, body, forward):
    """The measured path once around the loop, see the head of this file."""
    order, seen, active = [], set(), set()
    after = {}
    stack = [(header, iter(code[header].after))]
    seen.add(header)
    active.add(header)
    while stack:  # depth first, so that edges back to what is still active can be left out
        at, rest = stack[-1]
        for following in rest:
            if following not in body or following in active:
                continue
            after.setdefault(at, []).append(following)
            if following not in seen:
                seen.add(following)
                active.add(following)
                stack.append((following, iter(code[following].after)))
                break
        else:
            stack.pop()
            active.discard(at)
            order.append(at)
    best = {}
    for at in order:  # what follows comes first
        own = (_weight(code, at, forward), -max(1, code[at].stall))
        if at == end:
            best[at] = (own, None)
            continue
        ways = [(best[following][0], following) for following in after.get(at, []) if following in best]
        if ways:
            (weight, clocks), following = max(ways)
            best[at] = ((own[0] + weight, own[1] + clocks), following)
    path, at = [], header
    while at is not None:
        path.append(at)
        at = best[at][1]
    return path

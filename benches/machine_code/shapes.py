"""What the catalog says of the persistent kernels, as far as the number of their instructions follows from it."""
import re
from dataclasses import dataclass

from images import ROOT

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


@dataclass
class Shape:
    name: str
    family: str
    forward: bool
    cell: str
    math: str
    units: int
    capacity: int
    warps: int
    parts: int
    shared_blocks: int
    tile: int

    def products(self):
        """Matrix instructions of a warp in a step of one tile (mma.sync, 8 sequences each), or fused multiply-adds of a thread in one of one
        sequence."""
        rows = GATES[self.cell] if self.forward else 1
        k = self.capacity * (1 if self.forward else GATES[self.cell])
        if self.math == "f32":
            return rows * self.units * k // (self.warps * 32)
        return rows * self.units // 16 * k // (8 if self.math == "tf32" else 16) // self.warps * self.tile // 8

    def instruction(self):
        return {"f32": "FFMA", "tf32": "HMMA.1688.F32.TF32", "bf16": "HMMA.16816.F32.BF16"}.get(self.math, "HMMA.16816.F32")

    def barriers(self):
        """Barriers of the block in a step. The grid's exact kernels gather a vector in shared memory, with one barrier more, and the others
        that have their sums there once, one more still."""
        if self.math == "f32" and self.family == "grid":
            return 2
        return 2 if self.family == "block" else 1


def shapes():
    """All persistent kernels, by name, from the tables in `kernels/catalog.rs`."""
    text = (ROOT / "kernels/catalog.rs").read_text()
    usual = re.search(r"const USUAL_TILE: u32 = (\d+);", text).group(1)
    of = re.findall(r'\("(\w+)", &(\w+)(?:\[\.\.\])?, (\w+)\)', text)
    found = {}
    for math, table, tile in of:
        tile = usual if tile == "USUAL_TILE" else tile
        rows = re.search(rf"const {table}:.*?=\s*\[(.*?)\];\n", text, re.S).group(1)
        for family, forward, numbers in re.findall(r"\((\w+), (true|false), \[(.*?)\]\)", rows, re.S):
            cells = re.findall(r"\[(\d[^\]]*)\]|(NONE)", f"[{numbers}]")
            for cell, (numbers_of_cell, none) in zip(GATES, cells * (3 if len(cells) == 1 else 1)):
                if none:
                    continue
                numbers_of_cell = [int(n) for n in numbers_of_cell.split(",")]
                direction, capacity = "forward" if forward == "true" else "backward", numbers_of_cell[1]
                name = f"persistent_{direction}_{cell}_{math}_{family.lower()}_{capacity}" + ("" if tile == usual else f"_{tile}")
                found[name] = Shape(name, family.lower(), forward == "true", cell, math, *numbers_of_cell, int(tile))
    return found

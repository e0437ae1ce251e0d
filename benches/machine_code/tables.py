"""Tables of numbers that a change may lower, and must not raise without a word: a line a kernel."""


class Table:
    """A committed file of columns separated by tabs. `given` are columns that follow from a kernel's shape: neither better nor worse."""

    def __init__(self, path, columns, given=()):
        self.path, self.columns, self.given = path, columns, given

    def read(self):
        """Its lines, by kernel: column and text."""
        if not self.path.exists():
            return {}
        lines = [line.split("\t") for line in self.path.read_text().splitlines()]
        return {name: dict(zip(lines[0][1:], values)) for name, *values in lines[1:]}

    def write(self, rows):
        """Writes it anew."""
        lines = ["\t".join(("kernel", *self.columns))]
        lines += ["\t".join((name, *(str(numbers[column]) for column in self.columns))) for name, numbers in sorted(rows.items())]
        self.path.write_text("\n".join(lines) + "\n")

    def compare(self, rows):
        """What is worse in `rows` than in the file, and what is better."""
        committed, worse, better = self.read(), [], []
        for name, numbers in sorted(rows.items()):
            if name not in committed:
                worse.append(f"{name} is not in {self.path.name}")
                continue
            for column in self.columns:
                now, then = str(numbers[column]), committed[name][column]
                if now != then:
                    one = f"{name}, {column}: {then} in {self.path.name}, now {now}"
                    lower = column not in self.given and "-" not in (now, then) and int(now) < int(then)
                    (better if lower else worse).append(one)
        worse += [f"{name} is in {self.path.name}, but there is no such kernel" for name in committed if name not in rows]
        return worse, better

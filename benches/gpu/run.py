"""The stages of run.sh: every check and measurement that needs a GPU, each with a time limit of its own.

What fails is recorded, and the next stage runs. The exit status is 0 if every stage that ran passed, 1 if one failed, 2 if
nothing could be run. A stage that could not run says why: it counts as skipped, never as passed.
"""

import argparse
import gzip
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
# run.sh inside a bundle uses that bundle; in the repository it uses the one that bundle.sh made there.
BUNDLE = HERE if os.path.isdir(os.path.join(HERE, "bin")) else os.path.join(REPOSITORY, ".device-bundle")


class Skip(Exception):
    """A stage cannot run here; says why."""


class Fail(Exception):
    """A stage ran, and the answer is no; says what."""


class Run:
    """What the stages share: the time that is left, the log, the records."""

    def __init__(self, out, seconds):
        os.makedirs(out, exist_ok=True)
        self.results = os.path.join(out, "gpu.jsonl")
        self.log = open(os.path.join(out, "gpu.log"), "a", buffering=1)
        self.end = time.monotonic() + seconds
        self.stage_end = self.end

    def say(self, line):
        print(line, flush=True)
        print(line, file=self.log)

    def record(self, record, **fields):
        with open(self.results, "a") as file:
            file.write(json.dumps({"record": record, **fields}) + "\n")

    def left(self):
        return max(0.0, self.stage_end - time.monotonic())

    def call(self, command, env=None, cwd=None, each_line=None):
        """Runs a command until the stage's end; its output goes to the log. Returns (status or None, output)."""
        print("$ " + " ".join(command), file=self.log)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=cwd,
            env={**os.environ, **(env or {})}, start_new_session=True,
        )

        def expired(*_):
            raise TimeoutError

        lines = []
        before = signal.signal(signal.SIGALRM, expired)
        signal.setitimer(signal.ITIMER_REAL, max(0.1, self.left()))
        try:
            for line in process.stdout:
                self.log.write(line)
                lines.append(line)
                if each_line:
                    each_line(line)
            status = process.wait()
        except TimeoutError:
            status = None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the group that this call started
                process.wait()
        return status, "".join(lines)


def program(name):
    """A program of the bundle, which is unpacked when it is first asked for."""
    path = os.path.join(BUNDLE, "bin", name)
    packed = path + ".gz"
    if not os.path.exists(path) and os.path.exists(packed):
        unpacked = f"{path}.{os.getpid()}"
        with gzip.open(packed) as source, open(unpacked, "wb") as file:
            shutil.copyfileobj(source, file)
        os.chmod(unpacked, 0o755)
        os.replace(unpacked, path)
    if not os.path.exists(path):
        raise Skip(f"{path} is not there; prepare it with benches/gpu/bundle.sh")
    return path


def gpu_needed():
    """Skips where there is no GPU, so that its absence is not taken for a failure of what is tested."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Skip(f"no GPU: nvidia-smi: {error}") from error
    if listed.returncode != 0 or not listed.stdout.strip():
        raise Skip(f"no GPU: nvidia-smi says: {(listed.stdout + listed.stderr).strip()}")


def info(run):
    machine = dict(
        cpu=platform.machine(), cores=os.cpu_count(), python=platform.python_version(), system=platform.platform()
    )
    try:
        with open(os.path.join(BUNDLE, "commit")) as file:
            machine["commit"] = file.read().strip()
    except OSError:
        machine["commit"] = "unknown"
    if shutil.which("nvidia-smi"):
        fields = "name,driver_version,compute_cap,memory.total,clocks.max.sm,clocks.max.mem,power.limit"
        status, output = run.call(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"])
        if status == 0:
            machine["gpu"] = output.strip()
    run.record("machine", **machine)
    for key, value in machine.items():
        run.say(f"  {key}: {value}")
    status, output = run.call([program("fused-rnn"), "info"])
    if status != 0:
        raise Fail(f"fused-rnn info ended with {status}")
    run.record("info", text=output)
    gpu_needed()


def tests(run, name, arguments, env=None, prefix=()):
    """A test program of ours; passes if every test did and there was one."""
    gpu_needed()
    command = [*prefix, program(f"test-{name}"), *arguments]
    status, output = run.call(command, env, cwd=BUNDLE)
    counts = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed", output)
    failed = re.findall(r"^test (\S+) \.\.\. FAILED", output, re.M)
    if status is None:
        running = set(re.findall(r"^test (\S+) has been running", output, re.M))
        raise Fail(f"not done within its time; still running: {sorted(running) or 'unknown'}")
    if counts and counts[-1] == ("0", "0"):
        raise Skip(f"test-{name} has no test named {' '.join(arguments)}")
    if status != 0:
        said = re.findall(r"panicked at .*\n(.*)", output) + re.findall(r"ERROR SUMMARY.*", output)
        raise Fail(f"status {status}; failed: {', '.join(failed) or 'none named'}; {'; '.join(said[:3])}")
    return {"passed": int(counts[-1][0])} if counts else {}


def device(run):
    return tests(run, "cuda", ["gpu::", "--skip", "gpu::small_", "--ignored", "--test-threads", "4"])


def suite(run):
    return tests(run, "operator", ["::cuda_", "--ignored", "--test-threads", "8"])


def mixed(run):
    return tests(run, "model", ["mixed_precision::on_gpu", "--ignored", "--test-threads", "1"])


def parity(run):
    gpu_needed()
    cases = sorted(os.listdir(os.path.join(BUNDLE, "parity")))
    if not cases:
        raise Skip("the bundle has no parity cases")
    failed = []
    for dtype in ["f64", "f32"]:
        status, output = run.call(
            [program("fused-rnn"), "parity", "--backend", "cuda", "--dtype", dtype, "--json", *cases],
            cwd=os.path.join(BUNDLE, "parity"),
        )
        for line in output.splitlines():
            if line.startswith("{"):
                run.record("parity", dtype=dtype, **json.loads(line))
        if status != 0:
            failed.append(f"{dtype}: {output.strip().splitlines()[-1] if output.strip() else status}")
    if failed:
        raise Fail("; ".join(failed))
    return {"cases": len(cases)}


def sanitizer(run):
    """compute-sanitizer's four tools on small passes and on every primitive."""
    gpu_needed()
    if not shutil.which("compute-sanitizer"):
        raise Skip("compute-sanitizer is not here")
    failed, passed = [], []
    for tool in ["memcheck", "racecheck", "synccheck", "initcheck"]:
        for test in ["gpu::small_passes", "gpu::small_primitives"]:
            prefix = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
            why = ""
            try:
                tests(run, "cuda", ["--exact", test, "--ignored", "--test-threads", "1"], prefix=prefix)
                passed.append(test)
            except Fail as reason:
                why = str(reason)
                failed.append(f"{tool} {test}: {why}")
            run.record("sanitizer", tool=tool, test=test, passed=not why, why=why)
    if failed:
        raise Fail("; ".join(failed))
    return {"passed": len(passed)}


def train(run):
    """Training on the device gives the losses and the test error of training on the CPU, up to rounding."""
    gpu_needed()
    ours = program("fused-rnn")
    series = os.path.join(BUNDLE, "sunspots_yearly.csv")
    results = {}
    for where in ("cpu", "cuda"):
        with tempfile.TemporaryDirectory() as out:
            command = [ours, "train", series, "--epochs", "20", "--patience", "20", "--device", where, "--out", out]
            status, output = run.call(command)
        losses = re.search(r"trained (\d+) epochs in ([\d.]+) s .*\(loss ([\d.e-]+), val_loss ([\d.e-]+)\)", output)
        error = re.search(r"^LSTM\(\d+\)\s+([\d.]+)\s+([\d.]+)", output, re.M)
        if status != 0 or not losses or not error:
            raise Fail(f"train --device {where}: status {status}: {output.strip().splitlines()[-1:]}")
        numbers = {"loss": losses[3], "val_loss": losses[4], "rmse": error[1], "mae": error[2]}
        results[where] = {"seconds": float(losses[2]), **{name: float(value) for name, value in numbers.items()}}
    # Rounding errors grow over some hundred updates; a wrong gradient changes the first digits.
    for name in ("loss", "val_loss", "rmse", "mae"):
        cpu, cuda = results["cpu"][name], results["cuda"][name]
        if abs(cuda - cpu) > 0.01 * abs(cpu):
            raise Fail(f"{name} is {cuda} on the GPU and {cpu} on the CPU")
    return results


def latencies(run):
    gpu_needed()
    source, binary = os.path.join(BUNDLE, "latencies.cu"), os.path.join(BUNDLE, "bin", "latencies")
    if shutil.which("nvcc"):
        capability = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        ).stdout.split()[0].replace(".", "")
        arch = "90a" if capability == "90" else capability
        built = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"latencies-{os.getpid()}")
        status, output = run.call(
            ["nvcc", "-O3", "-std=c++17", "-gencode", f"arch=compute_{arch},code=sm_{arch}", source, "-o", built]
        )
        if status == 0:
            binary = built
        elif not os.path.exists(binary):
            raise Fail(f"nvcc: {output.strip().splitlines()[:1]}")
    elif not os.path.exists(binary):
        raise Skip("there is no nvcc here, and the bundle has no compiled latencies")
    lines = []

    def each(line):
        if line.startswith("{"):
            fields = json.loads(line)
            lines.append(fields)
            run.record("latency", **fields)

    failed = []
    # A process for each group: an error that loses the context ends one group only.
    for group in ["barriers", "handoff", "exchange", "rates", "launches"]:
        status, _ = run.call([binary, group], each_line=each)
        if status != 0:
            failed.append(f"{group}: {'not done within its time' if status is None else f'status {status}'}")
    if failed:
        raise Fail("; ".join(failed))
    return {"measured": sum("clk" in line or "ns" in line for line in lines)}


def grid(run, part=None):
    gpu_needed()
    status, output = run.call([sys.executable, "-c", "import torch; assert torch.cuda.is_available()"])
    if status != 0:
        raise Skip("no torch with CUDA in this python3: " + output.strip().splitlines()[-1])
    measured, failed = [], []

    def each(line):
        if line.startswith("{"):
            fields = json.loads(line)
            run.record("grid", **fields)
            if "cell" in fields:
                (failed if "error" in fields or "fused_error" in fields else measured).append(fields)

    command = [sys.executable, os.path.join(HERE, "grid.py"), program("fused-rnn"), "--seconds", str(int(run.left() - 15))]
    status, output = run.call(command + (["--part", part] if part else []), each_line=each)
    if status != 0:
        raise Fail(f"status {status}: {output.strip().splitlines()[-1:]}")
    if failed:
        raise Fail(f"{len(failed)} of {len(failed) + len(measured)} points; the first: {failed[0]}")
    return {"points": len(measured)}


# Name: what, seconds at most.
STAGES = {
    "info": ("what the machine and the build are", info, 60),
    "device": ("the driver, graphs, threads, repeatability, primitives beside their host version", device, 150),
    "suite": ("every property of the operator's suite, and the operations of models", suite, 240),
    "mixed": ("passes, products and training of f32 that compute in 16 bits", mixed, 120),
    "parity": ("results of PyTorch, Keras, ONNX and ONNX Runtime", parity, 60),
    "sanitizer": ("memcheck, racecheck, synccheck and initcheck", sanitizer, 240),
    "train": ("training on the device beside training on the CPU", train, 90),
    "latencies": ("barriers, hand-offs, exchanges, arithmetic, launches", latencies, 120),
    "grid": ("times beside torch.nn, which runs cuDNN", grid, 500),
}


def main():
    stages = "\n".join(f"  {name:10} {what} (at most {seconds} s)" for name, (what, _, seconds) in STAGES.items())
    parser = argparse.ArgumentParser(
        prog="run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"stages (all unless named):\n{stages}\n  check      all but the two that measure\n  measure    the two that measure",
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    default = os.environ.get("OUT") or os.path.join(REPOSITORY if BUNDLE != HERE else HERE, "benches", "results")
    parser.add_argument("--out", default=default, help="folder of the results [%(default)s]")
    parser.add_argument("--seconds", type=float, default=540, help="for all stages together [%(default)s]")
    parser.add_argument("--part", metavar="I/N", help="of the grid only every N-th point, from the I-th, 1 the first")
    arguments = parser.parse_args()
    groups = {"check": [s for s in STAGES if s not in ("latencies", "grid")], "measure": ["latencies", "grid"]}
    named = [stage for word in arguments.stages for stage in groups.get(word, [word])] or list(STAGES)
    unknown = [stage for stage in named if stage not in STAGES]
    if unknown:
        parser.error(f"no such stage: {', '.join(unknown)}; see --help")
    run = Run(arguments.out, arguments.seconds)
    outcomes = {}
    for stage in named:
        what, function, seconds = STAGES[stage]
        run.say(f"== {stage}: {what}")
        start = time.monotonic()
        run.stage_end = min(run.end, start + seconds)
        detail = {}
        try:
            if run.left() < 5:
                raise Skip("no time left")
            detail = (function(run, arguments.part) if stage == "grid" else function(run)) or {}
            outcome, why = "passed", ""
        except Skip as reason:
            outcome, why = "skipped", str(reason)
        except Fail as reason:
            outcome, why = "failed", str(reason)
        except Exception as error:  # a mistake of this script is a failure of its stage, not the end of the others
            outcome, why = "failed", f"{type(error).__name__}: {error}"
        elapsed = round(time.monotonic() - start, 1)
        outcomes[stage] = outcome
        run.record("stage", stage=stage, outcome=outcome, why=why, seconds=elapsed, **detail)
        run.say(f"== {stage}: {outcome.upper()} in {elapsed} s {detail or ''} {why}".rstrip())
    table = os.path.join(arguments.out, "gpu.md")
    subprocess.run([sys.executable, os.path.join(HERE, "report.py"), run.results, table], check=False)
    run.say("  ".join(f"{stage} {outcome}" for stage, outcome in outcomes.items()))
    run.say(f"{run.results}, {table}, {run.log.name}")
    ran = [outcome for outcome in outcomes.values() if outcome != "skipped"]
    return 2 if not ran else 1 if "failed" in ran else 0


if __name__ == "__main__":
    sys.exit(main())

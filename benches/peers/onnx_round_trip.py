"""Imports ONNX files, exports them again, and compares what ONNX Runtime gives for both with the recorded outputs.

    python3 benches/peers/onnx_round_trip.py target/release/fused-rnn FILE.onnx...

NAME.npz beside NAME.onnx (or NAME_dynamo.onnx) holds in_* and out_*. An exported model has the samples first in every tensor; recorded
arrays are turned round as the original's inputs say.
"""

import pathlib
import subprocess
import sys
import tempfile

import json
import numpy as np
import onnxruntime
from safetensors import safe_open

program, files = sys.argv[1], [pathlib.Path(f) for f in sys.argv[2:]]
failed = 0
for file in files:
    stem = file.stem
    while not (recorded := file.with_name(stem + ".npz")).exists() and "_" in stem:
        stem = stem.rsplit("_", 1)[0]
    arrays = np.load(recorded)
    inputs = [arrays[f"in_{i}"] for i in range(99) if f"in_{i}" in arrays]
    outputs = [arrays[f"out_{i}"] for i in range(99) if f"out_{i}" in arrays]
    with tempfile.TemporaryDirectory() as folder:
        model, again = f"{folder}/m.safetensors", f"{folder}/m.onnx"
        try:
            for command in ([program, "import", file, "--out", model], [program, "export", model, again]):
                subprocess.run(command, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            print(f"{file.name:40} FAIL  {error.stderr.strip()[:300]}")
            failed += 1
            continue
        with safe_open(model, "np") as saved:
            ports = json.loads(saved.metadata()["fused-rnn"])["ports"]
        session = onnxruntime.InferenceSession(again, providers=["CPUExecutionProvider"])
        feed = {}
        for given, array, port in zip(session.get_inputs(), inputs, ports["inputs"]):
            array = np.moveaxis(array, port["batch_axis"], 0)
            array = array.astype(np.int64 if given.type == "tensor(int64)" else np.float32)
            feed[given.name] = array.reshape([array.shape[0]] + [d if isinstance(d, int) else -1 for d in given.shape[1:]])
        worst = 0.0
        for result, expected, port in zip(session.run(None, feed), outputs, ports["outputs"]):
            before, after = port.get("within", [1, 1])
            expected = expected.reshape([*expected.shape[: port["batch_axis"]], before, -1, after, *expected.shape[port["batch_axis"] + 1 :]])
            expected = np.moveaxis(expected, port["batch_axis"] + 1, 0)
            error = np.abs(result.reshape(expected.shape) - expected).max() / np.abs(expected).max()
            worst = max(worst, float(error))
        passed = worst <= 1e-5
        failed += not passed
        print(f"{file.name:40} {'PASS' if passed else 'FAIL'}  {worst:.2e}")
print(f"{len(files) - failed} passed, {failed} failed")
sys.exit(bool(failed))

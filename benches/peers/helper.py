"""Another implementation of recurrent layers beside ours: `fused-rnn bench --peers` starts one such helper for each.

    python3 helper.py torch|onnxruntime|keras

One JSON object a line, requests on standard input, answers on standard output (whatever a library prints goes to standard
error). The first answer is {"peer", "version"}, or {"missing"} where a library is not there. Then
  {"do": "prepare", ...}  builds the point from the files of the request's folder, computes it once and writes the results
                          there as NAME.out, raw little-endian elements; answers {"outputs": [NAME, ...]}, or {"unsupported"}
  {"do": "time", "seconds", "least"}  calls for a fifth of the seconds to warm up, then for so many seconds and at least so
                          often; answers {"us": [microseconds of each call]}
and {"error"} where something fails. Weights have PyTorch's names, shapes and gate order; x and y are [T, B, features], of a
training step x is [B, T, features] and the targets stand in `dy`.
"""

import gc
import json
import os
import sys
import time
import traceback


class Unsupported(Exception):
    """This peer has no such operator."""


class Point:
    """A request, and the tensors of its files."""

    def __init__(self, request):
        self.__dict__.update(request)
        # Not `pass`, which is a word of the language.
        self.timed = request["pass"]
        self.element = {"f32": np.float32, "f64": np.float64}[self.dtype]
        self.bidirectional = self.directions == 2
        flat, self.tensors = self.read("weights"), {}
        for entry in request["weights"]:
            size = int(np.prod(entry["shape"]))
            self.tensors[entry["name"]] = flat[entry["offset"] : entry["offset"] + size].reshape(entry["shape"])
        rows = (self.batch, self.seq_len) if self.timed == "train-step" else (self.seq_len, self.batch)
        self.x = self.read("x").reshape(*rows, self.input_size)
        if self.timed == "fwd+bwd":
            self.dy = self.read("dy").reshape(self.seq_len, self.batch, -1)
        if self.timed == "train-step":
            self.dy = self.read("dy").reshape(self.batch, 1)

    def read(self, name):
        return np.fromfile(os.path.join(self.folder, name), dtype=self.element)

    def write(self, results):
        for name, values in results.items():
            np.ascontiguousarray(values, dtype=self.element).tofile(os.path.join(self.folder, name + ".out"))
        return list(results)

    def dense(self):
        """Kernel and bias of the dense layer of a training step, which come last."""
        return list(self.tensors.values())[-2:]

    def suffixes(self, layer):
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.directions]


class Torch:
    def __init__(self):
        global torch
        import torch

        self.version = torch.__version__

    def prepare(self, point):
        """What to time, and the results of the first call."""
        torch.set_num_threads(point.threads)
        dtype = {"f32": torch.float32, "f64": torch.float64}[point.dtype]
        kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[point.cell]
        layer = kind(
            point.input_size, point.hidden_size, num_layers=point.layers, bidirectional=point.bidirectional,
            batch_first=point.timed == "train-step", dtype=dtype,
        )
        with torch.no_grad():
            for name, weight in layer.named_parameters():
                if name in point.tensors:
                    weight.copy_(torch.from_numpy(point.tensors[name].reshape(weight.shape)))
                else:
                    # The layer of the model has one bias where torch has two.
                    weight.zero_()
                    weight.requires_grad_(False)
        if point.timed == "train-step":
            return self.train_step(point, layer, dtype)
        x = torch.from_numpy(point.x)
        state = torch.zeros(point.layers * point.directions, point.batch, point.hidden_size, dtype=dtype)
        has_c = point.cell == "lstm"
        lengths = None if point.lengths is None else torch.tensor(point.lengths, dtype=torch.int64)

        def run(x, h, c):
            states = (h, c) if has_c else h
            if lengths is None:
                return layer(x, states)
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            y, states = layer(packed, states)
            return torch.nn.utils.rnn.pad_packed_sequence(y, total_length=point.seq_len)[0], states

        def named(y, states):
            hn, cn = states if has_c else (states, None)
            found = {"y": y, "hn": hn} | ({"cn": cn} if has_c else {})
            return {name: value.detach().numpy() for name, value in found.items()}

        if point.timed == "infer":
            def call():
                with torch.inference_mode():
                    return run(x, state, state)

            return call, named(*call())
        if point.timed == "stream":
            steps = list(x.split(1))

            def call():
                with torch.inference_mode():
                    states, y = (state, state) if has_c else state, []
                    for step in steps:
                        out, states = layer(step, states)
                        y.append(out)
                    return y

            return call, {"y": torch.cat(call()).numpy()}
        if point.timed == "fwd":
            call = lambda: run(x, state, state)
            return call, named(*call())
        xg, h0, c0 = (value.clone().requires_grad_() for value in (x, state, state))
        dy, weights = torch.from_numpy(point.dy), dict(layer.named_parameters())
        inputs = [xg, h0] + ([c0] if has_c else []) + list(weights.values())

        def call():
            y, _ = run(xg, h0, c0)
            return y, torch.autograd.grad(y, inputs, dy)

        y, gradients = call()
        gradients = [gradient.numpy() for gradient in gradients]
        by_name = dict(zip(weights, gradients[2 + has_c :]))
        results = {"y": y.detach().numpy(), "dx": gradients[0], "dh0": gradients[1]}
        results |= {"dc0": gradients[2]} if has_c else {}
        results["dweights"] = np.concatenate([by_name[name].ravel() for name in point.tensors])
        return call, results

    def train_step(self, point, layer, dtype):
        dense = torch.nn.Linear(point.hidden_size * point.directions, 1, dtype=dtype)
        kernel, bias = point.dense()
        with torch.no_grad():
            dense.weight.copy_(torch.from_numpy(kernel.reshape(dense.weight.shape)))
            dense.bias.copy_(torch.from_numpy(bias))
        weights = [w for w in [*layer.parameters(), *dense.parameters()] if w.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=point.learning_rate)
        x, target = torch.from_numpy(point.x), torch.from_numpy(point.dy)

        def call():
            optimizer.zero_grad(set_to_none=True)
            y, states = layer(x)
            if point.bidirectional:
                # The last state of each direction, as Keras has it.
                hn = states[0] if point.cell == "lstm" else states
                last = torch.cat([hn[-2], hn[-1]], dim=1)
            else:
                last = y[:, -1]
            loss = torch.nn.functional.mse_loss(dense(last), target)
            loss.backward()
            optimizer.step()
            return loss

        return call, {"losses": [call().item() for _ in range(3)]}


class OnnxRuntime:
    def __init__(self):
        global onnx, ort
        import onnx
        import onnxruntime as ort

        self.version = ort.__version__

    # Where gate i of ONNX stands among PyTorch's.
    ORDER = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}

    def prepare(self, point):
        if point.timed not in ("infer", "stream"):
            raise Unsupported("ONNX Runtime runs inference")
        if point.dtype != "f32":
            raise Unsupported("ONNX Runtime's recurrent operators are in f32")
        helper, has_c, hidden = onnx.helper, point.cell == "lstm", point.hidden_size
        steps = 1 if point.timed == "stream" else point.seq_len
        number, nodes, weights, inputs, outputs = onnx.TensorProto.FLOAT, [], [], [], []

        def constant(name, values):
            weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
            return name

        def gates(values):
            parts = np.split(values, len(self.ORDER[point.cell]))
            return np.concatenate([parts[i] for i in self.ORDER[point.cell]])

        def stacked(stem, layer):
            return np.stack([gates(point.tensors[stem + suffix]) for suffix in point.suffixes(layer)])

        sizes = [point.directions, point.batch, hidden]
        inputs.append(helper.make_tensor_value_info("x", number, [steps, point.batch, point.input_size]))
        if point.lengths is not None:
            inputs.append(helper.make_tensor_value_info("lengths", onnx.TensorProto.INT32, [point.batch]))
        below = "x"
        for layer in range(point.layers):
            states = [f"h{layer}"] + ([f"c{layer}"] if has_c else [])
            inputs += [helper.make_tensor_value_info(state, number, sizes) for state in states]
            bias = np.concatenate([stacked("bias_ih", layer), stacked("bias_hh", layer)], axis=1)
            names = [
                below, constant(f"W{layer}", stacked("weight_ih", layer)), constant(f"R{layer}", stacked("weight_hh", layer)),
                constant(f"B{layer}", bias), "lengths" if point.lengths is not None else "", *states,
            ]
            made = [f"Y{layer}", f"hn{layer}"] + ([f"cn{layer}"] if has_c else [])
            extra = {"linear_before_reset": 1} if point.cell == "gru" else {}
            extra["direction"] = "bidirectional" if point.bidirectional else "forward"
            nodes.append(helper.make_node(point.cell.upper(), names, made, hidden_size=hidden, **extra))
            outputs += [helper.make_tensor_value_info(name, number, sizes) for name in made[1:]]
            # [T, D, B, H] to [T, B, D * H].
            nodes.append(helper.make_node("Transpose", [f"Y{layer}"], [f"Z{layer}"], perm=[0, 2, 1, 3]))
            shape = constant(f"S{layer}", np.array([steps, point.batch, point.directions * hidden], dtype=np.int64))
            nodes.append(helper.make_node("Reshape", [f"Z{layer}", shape], [f"y{layer}"]))
            below = f"y{layer}"
        outputs.insert(0, helper.make_tensor_value_info(below, number, None))
        graph = helper.make_graph(nodes, "point", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = point.threads, 1
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        zeros = np.zeros(sizes, dtype=np.float32)
        feed = {value.name: zeros for value in inputs if value.name[0] in "hc"}
        names = [value.name for value in outputs]
        if point.timed == "stream":
            states = [name for name in feed]
            steps_of_x = [point.x[t : t + 1] for t in range(point.seq_len)]

            def call():
                now, y = dict(feed), []
                for step in steps_of_x:
                    out = session.run(None, now | {"x": step})
                    y.append(out[0])
                    now = dict(zip(states, out[1:]))
                return y

            return call, {"y": np.concatenate(call())}
        feed["x"] = point.x
        if point.lengths is not None:
            feed["lengths"] = np.array(point.lengths, dtype=np.int32)
        call = lambda: session.run(None, feed)
        found = dict(zip(names, call()))
        results = {"y": found[below]}
        for state in ["hn", "cn"] if has_c else ["hn"]:
            results[state] = np.concatenate([found[f"{state}{layer}"] for layer in range(point.layers)])
        return call, results


class Keras:
    def __init__(self):
        global keras, tf
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf
        import keras

        self.version = f"{keras.__version__} on TensorFlow {tf.__version__}"
        self.threads = None

    # Where gate i of Keras stands among PyTorch's.
    ORDER = {"lstm": [0, 1, 2, 3], "gru": [1, 0, 2], "rnn": [0]}

    def weights(self, point, suffix):
        def gates(name):
            values = point.tensors[name + suffix]
            parts = np.split(values, len(self.ORDER[point.cell]))
            return np.concatenate([parts[i] for i in self.ORDER[point.cell]])

        biases = [gates("bias_ih")] + ([gates("bias_hh")] if "bias_hh" + suffix in point.tensors else [])
        if point.cell == "gru":
            bias = np.stack(biases)
        else:
            bias = np.sum(biases, axis=0)
        return [gates("weight_ih").T, gates("weight_hh").T, bias]

    def prepare(self, point):
        if self.threads not in (None, point.threads):
            raise Unsupported(f"TensorFlow keeps the {self.threads} threads that it began with")
        if self.threads is None:
            tf.config.threading.set_intra_op_parallelism_threads(point.threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
            self.threads = point.threads
        keras.backend.set_floatx({"f32": "float32", "f64": "float64"}[point.dtype])
        if point.timed not in ("infer", "fwd+bwd", "train-step"):
            raise Unsupported("Keras has inference, gradients and training steps")
        if point.lengths is not None:
            raise Unsupported("Keras takes a mask, not lengths")
        kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}[point.cell]
        training = point.timed == "train-step"
        layers, weights = [], []
        for number in range(point.layers):
            layer = kind(point.hidden_size, return_sequences=not training or number + 1 < point.layers)
            layers.append(keras.layers.Bidirectional(layer) if point.bidirectional else layer)
            for suffix in point.suffixes(number):
                weights += self.weights(point, suffix)
        if training:
            layers.append(keras.layers.Dense(1))
            kernel, bias = point.dense()
            weights += [kernel.reshape(-1, 1), bias]
        model = keras.Sequential([keras.Input((point.seq_len, point.input_size), batch_size=point.batch), *layers])
        model.set_weights(weights)
        if training:
            return self.train_step(point, model)
        x = tf.constant(np.ascontiguousarray(point.x.transpose(1, 0, 2)))
        if point.timed == "infer":
            run = tf.function(lambda: model(x, training=False))
            call = lambda: run().numpy()
            return call, {"y": call().transpose(1, 0, 2)}
        dy = tf.constant(np.ascontiguousarray(point.dy.transpose(1, 0, 2)))

        @tf.function
        def run():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x, training=True)
            return y, tape.gradient(y, [x, *model.trainable_variables], output_gradients=dy)

        def call():
            y, gradients = run()
            return y.numpy(), gradients[0].numpy(), gradients[-1].numpy()

        y, dx, _ = call()
        return call, {"y": y.transpose(1, 0, 2), "dx": dx.transpose(1, 0, 2)}

    def train_step(self, point, model):
        optimizer = keras.optimizers.SGD(point.learning_rate)
        optimizer.build(model.trainable_variables)
        x, target = tf.constant(point.x), tf.constant(point.dy)

        @tf.function
        def run():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x, training=True) - target))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
            return loss

        call = lambda: run().numpy()
        return call, {"losses": [call() for _ in range(3)]}


def timed(call, seconds, least):
    """Microseconds of each call, after warming up."""
    end = time.perf_counter() + seconds / 5
    while True:
        call()
        if time.perf_counter() >= end:
            break
    samples, begin = [], time.perf_counter()
    while len(samples) < least or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        samples.append(round((time.perf_counter() - start) * 1e6, 3))
    return samples


def main():
    # Only answers go to standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    name = sys.argv[1]
    try:
        global np
        import numpy as np

        peer = {"torch": Torch, "onnxruntime": OnnxRuntime, "keras": Keras}[name]()
    except ImportError as error:
        return answer(missing=error.name or str(error))
    answer(peer=name, version=peer.version)
    call = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                call = None
                gc.collect()
                point = Point(request)
                call, results = peer.prepare(point)
                answer(outputs=point.write(results))
            elif request["do"] == "time":
                gc.disable()
                answer(us=timed(call, request["seconds"], request["least"]))
                gc.enable()
            else:
                answer(error=f"unknown request {request['do']}")
        except Unsupported as reason:
            answer(unsupported=str(reason))
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            answer(error=f"{type(error).__name__} in line {line}: {error}"[:500])


if __name__ == "__main__":
    sys.exit(main())

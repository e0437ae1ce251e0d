"""The examples as a Keras user writes them, on the same data with the same sizes as ours. `examples.sh` runs it beside ours.

Prints one line of JSON a model: {"example", "model", "metric", "value", "seconds"}, where the seconds are those of the whole
`fit`, and the names are those that our examples print.

    python benches/peers/keras_examples.py                          # all; about half an hour on two cores
    python benches/peers/keras_examples.py --only univariate five_outputs --seed 2
    python benches/peers/keras_examples.py --short                  # two epochs each: shows that all of it runs
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
from keras.layers import GRU, LSTM, Bidirectional, Dense, Dropout, Masking, SimpleRNN

DATA = pathlib.Path(__file__).resolve().parents[2] / "examples" / "data"


def windows(series, steps):
    """Every window of `steps` values as `[windows, steps, 1]`, and the value after each."""
    x = np.stack([series[start:start + steps] for start in range(len(series) - steps)])
    return x[:, :, None].astype(np.float32), series[steps:].astype(np.float32)[:, None]


def scaled(series):
    low, high = series.min(), series.max()
    return (series - low) / (high - low), lambda value: value * (high - low) + low


class Run:
    """One model's training, timed."""

    def __init__(self, example, short):
        self.example, self.short = example, short

    def fit(self, model, x, y, epochs, loss="mse", metrics=None, **options):
        model.compile(optimizer="adam", loss=loss, metrics=metrics)
        start = time.perf_counter()
        history = model.fit(x, y, epochs=min(epochs, 2) if self.short else epochs, verbose=0, **options)
        self.seconds = time.perf_counter() - start
        return history.history

    def report(self, model, metric, value):
        line = {"example": self.example, "model": model, "metric": metric, "value": float(value), "seconds": round(self.seconds, 3)}
        print(json.dumps(line), flush=True)


def sine(steps=10):
    """1,000 points of the sine on 0 to 100, scaled to [0, 1]: 80 % of the windows, the rest of them, and the scale's inverse.

    The windows are those of the tutorials' `create_dataset`, which makes one fewer than there are.
    """
    series, unscale = scaled(np.sin(np.linspace(0, 100, 1000)))
    x, y = windows(series[:-1], steps)
    train = len(x) * 8 // 10
    return (x[:train], y[:train]), (x[train:], y[train:]), unscale


def sine_forecast(run):
    (x, y), (x_test, y_test), unscale = sine()
    for name, layer in (("SimpleRNN", SimpleRNN), ("LSTM", LSTM), ("GRU", GRU)):
        model = keras.Sequential([keras.Input((10, 1)), layer(50), Dense(1)])
        run.fit(model, x, y, epochs=50, batch_size=1)
        run.report(name, "test_mse", model.evaluate(x_test, y_test, verbose=0))
        run.report(name, "next_value", unscale(model.predict(x_test[-1:], verbose=0)[0, 0]))


def stacked_dropout(run):
    (x, y), (x_test, y_test), _ = sine()
    model = keras.Sequential([keras.Input((10, 1)), LSTM(50, return_sequences=True), Dropout(0.2), LSTM(50), Dense(1)])
    run.fit(model, x, y, epochs=50, batch_size=1)
    run.report("LSTM-Dropout-LSTM", "test_mse", model.evaluate(x_test, y_test, verbose=0))


def stacked_random(run):
    rng = np.random.default_rng(run.seed)
    x, y = rng.random((1000, 10, 1), np.float32), rng.random((1000, 1), np.float32)
    sequential = keras.Sequential([keras.Input((10, 1)), LSTM(50, return_sequences=True), LSTM(50), Dense(1)])
    source = keras.Input((10, 1))
    graph = keras.Model(source, Dense(1)(LSTM(50)(LSTM(50, return_sequences=True)(source))))
    for name, model in (("Sequential", sequential), ("Graph", graph)):
        history = run.fit(model, x, y, epochs=10, batch_size=32, validation_split=0.2)
        run.report(name, "loss", history["loss"][-1])
        run.report(name, "val_loss", history["val_loss"][-1])


def two_features(run):
    # The tutorial has Dense(1) and this target, over which Keras stretches the one output. This is what its prose says.
    x = np.array([[1, 2], [2, 3], [3, 4], [4, 5], [5, 6]], np.float32)[None]
    y = np.array([[6, 7]], np.float32)
    model = keras.Sequential([keras.Input((5, 2)), LSTM(50, activation="relu"), Dense(2)])
    history = run.fit(model, x, y, epochs=200, batch_size=1)
    run.report("LSTM", "loss", history["loss"][-1])


def five_outputs(run):
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32).reshape(1, 5, 1)
    y = np.array([[0.6, 0.7, 0.8, 0.9, 1.0]], np.float32)
    model = keras.Sequential([keras.Input((5, 1)), LSTM(50), Dense(5)])
    run.fit(model, x, y, epochs=100)
    run.report("LSTM", "largest_error", np.abs(model.predict(x, verbose=0) - y).max())


def even_numbers(run):
    x, y = windows(np.arange(2, 201, 2, dtype=np.float32), 3)
    for name, target, question in (("tutorial's target", x[:, -1], [194, 196, 198]), ("right target", y, [196, 198, 200])):
        model = keras.Sequential([keras.Input((3, 1)), LSTM(50, activation="relu"), Dense(1)])
        run.fit(model, x, target, epochs=200)
        answer = model.predict(np.array(question, np.float32).reshape(1, 3, 1), verbose=0)
        run.report(name, "prediction", answer[0, 0])


def univariate(run):
    x, y = windows(np.arange(10, 91, 10, dtype=np.float32), 3)
    model = keras.Sequential([keras.Input((3, 1)), LSTM(50, activation="relu"), Dense(1)])
    run.fit(model, x, y, epochs=200)
    run.report("LSTM", "next_value", model.predict(np.array([70.0, 80.0, 90.0]).reshape(1, 3, 1), verbose=0)[0, 0])


def ten_numbers(run):
    x, y = windows(scaled(np.arange(1, 11, dtype=np.float32))[0], 3)
    model = keras.Sequential([keras.Input((3, 1)), LSTM(50), Dense(1)])
    run.fit(model, x, y, epochs=20, batch_size=1)
    run.report("LSTM", "loss", model.evaluate(x, y, verbose=0))


def vowels(part, steps=29):
    """Utterances of `JapaneseVowels_{part}.ts`, zeros after their ends, and the speakers from 0."""
    x, y = [], []
    for line in (DATA / f"JapaneseVowels_{part}.ts").read_text().splitlines():
        if not line or line[0] in "#@":
            continue
        *channels, speaker = line.split(":")
        rows = np.array([[float(value) for value in channel.split(",")] for channel in channels], np.float32).T
        x.append(np.pad(rows, ((0, steps - len(rows)), (0, 0))))
        y.append(int(speaker) - 1)
    return np.stack(x), np.array(y)


def japanese_vowels(run):
    (x, y), (x_test, y_test) = vowels("TRAIN"), vowels("TEST")
    for name, layers in (
        ("LSTM(100)", [LSTM(100)]),
        ("GRU(100)", [GRU(100)]),
        ("Bidirectional(LSTM(64)), Dropout(0.3)", [Bidirectional(LSTM(64)), Dropout(0.3)]),
    ):
        model = keras.Sequential([keras.Input(x.shape[1:]), Masking(), *layers, Dense(9, activation="softmax")])
        run.fit(model, x, y, epochs=50, batch_size=16, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        run.report(name, "test_accuracy", model.evaluate(x_test, y_test, verbose=0)[1])


EXAMPLES = {example.__name__: example for example in (
    sine_forecast, stacked_dropout, stacked_random, two_features, five_outputs, even_numbers, univariate, ten_numbers,
    japanese_vowels)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=EXAMPLES, default=list(EXAMPLES), metavar="EXAMPLE")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--short", action="store_true", help="two epochs each")
    args = parser.parse_args()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(args.threads)
        tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    for name in args.only:
        keras.utils.clear_session()
        keras.utils.set_random_seed(args.seed)
        run = Run(name, args.short)
        run.seed = args.seed
        EXAMPLES[name](run)


if __name__ == "__main__":
    main()

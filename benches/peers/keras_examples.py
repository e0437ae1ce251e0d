"""The examples as a Keras user writes them, on the same data with the same sizes as ours. `examples.sh` runs it beside ours.

Prints one line of JSON a model: {"example", "model", "metric", "value", "seconds"}, where the seconds are those of the whole
`fit`, and the names are those that our examples print.

    python benches/peers/keras_examples.py                          # all; about three quarters of an hour on two cores
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
from keras.layers import (
    GRU, LSTM, Add, Attention, Bidirectional, Concatenate, Dense, Dropout, Embedding, Flatten, GlobalAveragePooling1D,
    LayerNormalization, Masking, MultiHeadAttention, Reshape, SimpleRNN)

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

    def fit(self, model, x, y, epochs, loss="mse", metrics=None, rate=0.001, **options):
        model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, metrics=metrics)
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
    # The tutorial has Dense(1) and this target, to which Keras broadcasts the one output. This is what its text describes.
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


def padding_masking(run, longest=40):
    rng = np.random.default_rng(run.seed)

    def sequences(samples):
        x, y = np.full((samples, longest, 1), -1, np.float32), []
        for row in x:
            values = rng.random(rng.integers(5, longest + 1), np.float32)
            row[:len(values), 0] = values
            y.append(values[-3:].mean())
        return x, np.array(y)

    (x, y), (x_test, y_test) = sequences(1000), sequences(250)
    for name, mask in (("without a mask", []), ("with Masking", [Masking(-1.0)])):
        model = keras.Sequential([keras.Input((longest, 1)), *mask, LSTM(32), Dense(1)])
        run.fit(model, x, y, epochs=20, rate=0.005)
        run.report(name, "test_mse", model.evaluate(x_test, y_test, verbose=0))


def recall(rng, samples, steps, symbols=8, colours=3):
    """The task of `examples/common/recall.rs`: which symbol of a sequence had the colour that its last step asks for?"""
    x, y = np.zeros((samples, steps, symbols + colours), np.float32), []
    for row in x:
        places, colour = rng.permutation(steps - 1)[:colours], rng.integers(colours)
        said = rng.integers(symbols, size=steps - 1)
        row[np.arange(steps - 1), said] = 1
        row[places, symbols + np.arange(colours)] = 1
        row[-1, symbols + colour] = 1
        y.append(said[places[colour]])
    return x, np.array(y)


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def attention(run, steps=100, units=32):
    rng = np.random.default_rng(run.seed)
    (x, y), (x_test, y_test) = recall(rng, 2000, steps), recall(rng, 500, steps)
    for name in ("LSTM", "LSTM with attention"):
        source = keras.Input(x.shape[1:])
        last = LSTM(units)(source)
        if name != "LSTM":
            found = Flatten()(Attention()([Reshape((1, units))(last), Dense(units)(source)]))
            last = Concatenate()([found, last])
        model = keras.Model(source, Dense(8)(last))
        run.fit(model, x, y, epochs=20, rate=0.005, loss=LOGITS, metrics=["accuracy"])
        run.report(name, "test_accuracy", model.evaluate(x_test, y_test, verbose=0)[1])


def transformer_encoder(run, steps=100, width=32):
    rng = np.random.default_rng(run.seed)
    (x, y), (x_test, y_test) = recall(rng, 2000, steps), recall(rng, 500, steps)
    angles = np.arange(steps)[:, None] / 10000 ** (np.arange(width) // 2 * 2 / width)
    waves = np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)
    source = keras.Input(x.shape[1:])
    h = Dense(width)(source) + waves
    a = LayerNormalization(epsilon=1e-6)(Add()([h, Dropout(0.1)(MultiHeadAttention(4, 8)(h, h))]))
    h = LayerNormalization(epsilon=1e-6)(Add()([a, Dropout(0.1)(Dense(width)(Dense(64, activation="relu")(a)))]))
    model = keras.Model(source, Dense(8)(GlobalAveragePooling1D()(h)))
    run.fit(model, x, y, epochs=40, rate=0.003, loss=LOGITS, metrics=["accuracy"])
    run.report("TransformerEncoder", "test_accuracy", model.evaluate(x_test, y_test, verbose=0)[1])


def char_lm(run, steps=64):
    text = (DATA / "alice.txt").read_text()
    letters = sorted(set(text))
    numbers = np.array([letters.index(letter) for letter in text])
    count = (len(numbers) - 1) // steps
    x, y = (numbers[at:at + count * steps].reshape(count, steps) for at in (0, 1))
    train = count * 9 // 10
    model = keras.Sequential(
        [keras.Input((steps,)), Embedding(len(letters), 32), LSTM(128, return_sequences=True), Dense(len(letters))])
    history = run.fit(
        model, x[:train], y[:train], epochs=12, rate=0.005, loss=LOGITS, validation_data=(x[train:], y[train:]))
    run.report("LSTM(128)", "val_perplexity", np.exp(history["val_loss"][-1]))


def anomaly(run, steps=24):
    lines = (DATA / "sunspots_monthly.csv").read_text().splitlines()[1:]
    series = np.array([float(line.rsplit(",", 1)[1]) for line in lines])
    # Parts of the series as `TimeSplit` cuts them: the last quarter, and of the rest the quarter before it.
    test = validation = int(len(series) * 0.25)
    train = len(series) - validation - test
    low, high = series[:train].min(), series[:train].max()
    x, y = windows((series - low) / (high - low), steps)
    held = slice(train - steps, train + validation - steps)
    model = keras.Sequential([keras.Input((steps, 1)), LSTM(32), Dense(1)])
    stop = keras.callbacks.EarlyStopping(patience=8, restore_best_weights=True)
    run.fit(
        model, x[:train - steps], y[:train - steps], epochs=40, rate=0.003, validation_data=(x[held], y[held]), callbacks=[stop])
    errors = (y[held] - model.predict(x[held], verbose=0)) * (high - low)
    run.report("LSTM(32)", "usual_error", errors.std())


def seq2seq(run, units=128, width=16, symbols=14):
    plus, start, end = 11, 12, 13
    sums = np.random.default_rng(run.seed).permutation(10000)[:9000]
    pairs = [(n // 100, n % 100) for n in sums]

    def encoded(texts, first, length):
        rows = np.zeros((len(texts), length), np.int32)
        for row, text in zip(rows, texts):
            said = first + [plus if c == "+" else end if c == "e" else 1 + int(c) for c in text]
            row[:len(said[:length])] = said[:length]
        return rows

    questions = encoded([f"{a}+{b}" for a, b in pairs], [], 5)
    heard = encoded([str(a + b) for a, b in pairs], [start], 4)
    said = encoded([f"{a + b}e" for a, b in pairs], [], 4)
    embed = [Embedding(symbols, width, mask_zero=True) for _ in range(2)]
    encoder, decoder = LSTM(units, return_state=True), LSTM(units, return_sequences=True, return_state=True)
    scores = Dense(symbols)
    question, before = keras.Input((5,)), keras.Input((4,))
    states = encoder(embed[0](question))[1:]
    model = keras.Model([question, before], scores(decoder(embed[1](before), initial_state=states)[0]))
    run.fit(model, [questions[:8000], heard[:8000]], said[:8000], epochs=30, rate=0.003, loss=LOGITS, batch_size=64)
    listen = keras.Model(question, states)
    one, h, c = keras.Input((1,)), keras.Input((units,)), keras.Input((units,))
    outputs = decoder(embed[1](one), initial_state=[h, c])
    speak = keras.Model([one, h, c], [scores(outputs[0]), *outputs[1:]])
    states = listen.predict(questions[8000:], verbose=0)
    last, answers = np.full((1000, 1), start), []
    for _ in range(4):
        said_now, *states = speak.predict([last, *states], verbose=0)
        last = said_now.argmax(-1)
        answers.append(last[:, 0])
    right = 0
    for answer, (a, b) in zip(np.stack(answers, 1).tolist(), pairs[8000:]):
        digits = answer[:answer.index(end)] if end in answer else answer
        right += digits == [1 + int(digit) for digit in str(a + b)]
    run.report("LSTM encoder-decoder", "answers_right", right / 1000)


EXAMPLES = {example.__name__: example for example in (
    sine_forecast, stacked_dropout, stacked_random, two_features, five_outputs, even_numbers, univariate, ten_numbers,
    japanese_vowels, padding_masking, attention, transformer_encoder, char_lm, anomaly, seq2seq)}


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

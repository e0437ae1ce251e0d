"""The NumPy interface: an LSTM written out, finite differences, errors."""

import numpy as np
import pytest

import fused_rnn
from fused_rnn.numpy import Recurrent


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def lstm(op, x, h, c):
    """An LSTM of one layer, from PyTorch's equations."""
    w, y = op.named_weights(), []
    for step in x:
        a = step @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        i, f, g, o = np.split(a, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        y.append(h)
    return np.stack(y), h, c


def test_an_lstm_is_its_equations():
    rng = np.random.default_rng(0)
    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-13)):
        op = Recurrent("lstm", 3, 4, dtype=dtype, seed=1)
        x, h0, c0 = (rng.normal(size=s).astype(dtype) for s in ((5, 2, 3), (1, 2, 4), (1, 2, 4)))
        y, h, c = lstm(op, x, h0[0], c0[0])
        got = op(x, h0, c0)
        assert got.y.dtype == dtype
        for one, other in ((got.y, y), (got.hn[0], h), (got.cn[0], c)):
            np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.mark.parametrize("cell, options", [
    ("rnn", dict(activation="softplus", bias="single")),
    ("lstm", dict(num_layers=2, direction="bidirectional", dropout=0.3)),
    ("lstm", dict(peepholes=True, direction="reverse", batch_first=True, memory="checkpoints:2")),
    ("gru", dict(reset="before", padded_output="hold")),
    ("slstm", dict(heads=2)),
    ("mgu", dict(bias="none")),
    ("ind_rnn", {}),
])
def test_gradients_are_slopes(cell, options):
    rng = np.random.default_rng(3)
    op = Recurrent(cell, 3, 4, dtype=np.float64, seed=2, **options)
    x = rng.normal(size=(2, 5, 3) if options.get("batch_first") else (5, 2, 3))
    lengths, resets = [5, 3], rng.random(x.shape[:2]) < 0.2
    outputs, tape = op.forward_training(x, lengths=lengths, resets=resets, dropout_seed=9)
    given = [None if one is None else rng.normal(size=one.shape) for one in outputs]
    gradients = tape.backward(*given)
    again = tape.backward(*given)
    for one, other in zip(gradients, again):
        assert (one is None and other is None) or np.array_equal(one, other)

    def loss():
        made = op.forward_training(x, lengths=lengths, resets=resets, dropout_seed=9)[0]
        return sum((one * weight).sum() for one, weight in zip(made, given) if one is not None)

    for values, gradient in ((op.weights, gradients.weights), (x, gradients.x)):
        for index in rng.choice(values.size, 6, replace=False):
            kept, slopes = values.flat[index], []
            for side in (-1e-6, 1e-6):
                values.flat[index] = kept + side
                slopes.append(loss())
            values.flat[index] = kept
            assert (slopes[1] - slopes[0]) / 2e-6 == pytest.approx(gradient.flat[index], rel=1e-4, abs=1e-6)


def test_weights_by_name():
    op = Recurrent("gru", 3, 4, num_layers=2, seed=5)
    named = op.named_weights()
    assert list(named)[:4] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    named["weight_hh_l1"][:] = 0
    assert (op.weights == 0).sum() == 3 * 4 * 4
    assert sum(one.size for one in named.values()) == op.weights.size


@pytest.mark.parametrize("call, part", [
    (lambda op: op(np.zeros((5, 2, 4))), "x: expected shape"),
    (lambda op: op(np.zeros((5, 4))), "three axes"),
    (lambda op: op(np.zeros((0, 2, 3))), "seq_len is 0"),
    (lambda op: op(np.zeros((5, 2, 3)), np.zeros((1, 3, 4))), "h0: expected shape"),
    (lambda op: op(np.zeros((5, 2, 3)), None, np.zeros((1, 2, 4))), "no states beside h"),
    (lambda op: op(np.zeros((5, 2, 3)), lengths=[6, 1]), "expected 1 to 5"),
    (lambda op: op(np.zeros((5, 2, 3)), lengths=[1.0, 1.0]), "whole numbers"),
    (lambda op: op(np.zeros((5, 2, 3)), resets=np.zeros((2, 5))), "resets"),
    (lambda op: op.forward_training(np.zeros((5, 2, 3)))[1].backward(np.zeros((5, 2, 3))), "dy: expected shape"),
    (lambda op: Recurrent("grru", 3, 4), "one of rnn"),
    (lambda op: Recurrent("gru", 3, 4, peepholes=True), "peepholes"),
    (lambda op: Recurrent("gru", 3, 4, memory="some"), "memory"),
    (lambda op: Recurrent("gru", 3, 0), "hidden_size is 0"),
])
def test_errors_say_what_was_wrong(call, part):
    with pytest.raises(fused_rnn.Error, match=part):
        call(Recurrent("gru", 3, 4))


def test_options_that_there_are_not():
    with pytest.raises(TypeError, match="no option"):
        Recurrent("gru", 3, 4, zoneout=0.1)
    with pytest.raises(TypeError, match="float32 or float64"):
        Recurrent("gru", 3, 4, dtype=np.float16)

"""The drop-ins against torch.nn, over random options."""

import copy
import io
import pickle
import random

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the drop-ins are NOT tested")
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence  # noqa: E402

import fused_rnn  # noqa: E402
import fused_rnn.torch as fused  # noqa: E402

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


def close(got, expected, what=""):
    """Equal to rounding, relative to the largest element."""
    assert got.shape == expected.shape and got.dtype == expected.dtype, (what, got.shape, expected.shape)
    scale = max(float(expected.detach().abs().max()), 1e-2) if expected.numel() else 1.0
    error = float((got.detach() - expected.detach()).abs().max()) / scale if expected.numel() else 0.0
    assert error <= TOLERANCE[expected.dtype], (what, error)


def tensors(state):
    return list(state) if isinstance(state, (tuple, list)) else [state]


def random_options(rng, kind):
    options = dict(
        num_layers=rng.choice([1, 1, 2, 3]),
        bias=rng.random() < 0.7,
        batch_first=rng.random() < 0.5,
        bidirectional=rng.random() < 0.5,
        dtype=rng.choice([torch.float32, torch.float64]),
    )
    hidden = rng.choice([1, 3, 8, 17])
    if kind == "LSTM" and rng.random() < 0.4 and hidden > 1:
        options["proj_size"] = rng.randrange(1, hidden)
    if kind == "RNN":
        options["nonlinearity"] = rng.choice(["tanh", "relu"])
    return rng.choice([1, 2, 5, 16]), hidden, options


def pair(kind, inputs, hidden, options, seed=0):
    torch.manual_seed(seed)
    theirs = getattr(torch.nn, kind)(inputs, hidden, **options)
    torch.manual_seed(seed)
    ours = getattr(fused, kind)(inputs, hidden, **options)
    return theirs, ours


def loss_of(y, state):
    y = y.data if isinstance(y, PackedSequence) else y
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return (y * weights).sum() + sum((one * one).sum() for one in tensors(state))


@pytest.mark.parametrize("case", range(90))
def test_random_options_give_torchs_numbers(case):
    rng = random.Random(1000 + case)
    kind = ("LSTM", "GRU", "RNN")[case % 3]
    inputs, hidden, options = random_options(rng, kind)
    theirs, ours = pair(kind, inputs, hidden, options, case)
    # The same constructor, the same names in the same order, the same initial weights; state_dict both ways.
    assert list(theirs.state_dict()) == list(ours.state_dict())
    for (name, one), (_, other) in zip(theirs.named_parameters(), ours.named_parameters()):
        assert torch.equal(one, other), name
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    seq_len, batch, dtype = rng.choice([1, 2, 7]), rng.choice([1, 2, 5]), options["dtype"]
    how = rng.choice(["padded", "padded", "packed sorted", "packed unsorted", "unbatched", "expanded"])
    axes = [seq_len, inputs] if how == "unbatched" else [batch, seq_len, inputs] if options["batch_first"] else [seq_len, batch, inputs]
    lengths = [rng.randrange(1, seq_len + 1) for _ in range(batch)]
    lengths[rng.randrange(batch)] = seq_len
    rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
    output = options.get("proj_size") or hidden
    widths = [output, hidden] if kind == "LSTM" else [output]
    given = rng.random() < 0.6
    results = []
    for layer in (theirs, ours):
        torch.manual_seed(case)
        x = torch.randn(axes, dtype=dtype, requires_grad=rng.random() < 2)
        states = [
            torch.randn([rows, width] if how == "unbatched" else [rows, batch, width], dtype=dtype, requires_grad=True) for width in widths
        ]
        hx = (tuple(states) if kind == "LSTM" else states[0]) if given else None
        value = x
        if how.startswith("packed"):
            in_order = sorted(lengths, reverse=True) if how == "packed sorted" else lengths
            value = pack_padded_sequence(x, torch.tensor(in_order), options["batch_first"], enforce_sorted=how == "packed sorted")
        if how == "expanded":
            # Not contiguous.
            value = x[..., :1].expand(axes)
        y, state = layer(value, hx)
        loss_of(y, state).backward()
        if isinstance(y, PackedSequence):
            indices = (y.batch_sizes, y.sorted_indices, y.unsorted_indices)
            y = y.data
        else:
            indices = ()
        gradients = [x.grad, *(one.grad for one in states if given), *(p.grad for p in layer.parameters())]
        results.append(([y, *tensors(state)], gradients, indices))
    for part in (0, 1):
        for number, (one, other) in enumerate(zip(results[1][part], results[0][part])):
            close(one, other, (how, part, number))
    for one, other in zip(results[1][2], results[0][2]):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_are_those_of_packing(kind, batch_first):
    theirs, ours = pair(kind, 4, 6, dict(num_layers=2, bidirectional=True, batch_first=batch_first))
    lengths = torch.tensor([3, 9, 1, 7])
    x = torch.randn(4, 9, 4) if batch_first else torch.randn(9, 4, 4)
    packed = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    y, state = theirs(packed)
    y, _ = pad_packed_sequence(y, batch_first)
    for given in (lengths, [3, 9, 1, 7], lengths.to(torch.int32)):
        got, final = ours(x, lengths=given)
        close(got, y)
        for one, other in zip(tensors(final), tensors(state)):
            close(one, other)
    with pytest.raises(fused_rnn.Error, match=r"lengths\[0\]: expected 1..=9, got 0"):
        ours(x, lengths=[0, 9, 1, 7])
    with pytest.raises(RuntimeError, match="expected 4 whole numbers"):
        ours(x, lengths=[1, 2])


def test_pack_sequence_of_one_length_each():
    theirs, ours = pair("GRU", 3, 5, {})
    packed = pack_sequence([torch.randn(n, 3) for n in (2, 6, 4)], enforce_sorted=False)
    for one, other in zip(ours(packed), theirs(packed)):
        close(one.data if isinstance(one, PackedSequence) else one, other.data if isinstance(other, PackedSequence) else other)


def test_resets_begin_anew():
    _, ours = pair("LSTM", 3, 5, dict(batch_first=True))
    x, resets = torch.randn(2, 6, 3), torch.zeros(2, 6, dtype=torch.bool)
    resets[0, 4] = True
    y, _ = ours(x, resets=resets)
    close(y[0, :4], ours(x[:1, :4])[0][0])
    close(y[0, 4:], ours(x[:1, 4:])[0][0])
    close(y[1], ours(x[1:])[0][0])
    with pytest.raises(RuntimeError, match="resets: expected"):
        ours(x, resets=resets.t())


@pytest.mark.parametrize("make", [fused.SLSTM, fused.MGU, fused.IndRNN])
@pytest.mark.parametrize("options", [{}, dict(num_layers=2, bidirectional=True)])
def test_other_cells_have_right_gradients(make, options):
    torch.manual_seed(3)
    layer = make(3, 4, dtype=torch.float64, **options)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *weights):
        y, state = torch.func.functional_call(layer, dict(zip(names, weights)), (x,))
        return (y, *tensors(state))

    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, *weights), nondet_tol=0.0)


def test_options_of_the_operator():
    torch.manual_seed(0)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    for make in (
        lambda: fused.LSTM(3, 4, peepholes=True, cell_clip=0.5, dtype=torch.float64),
        lambda: fused.LSTM(3, 4, gate_activation="hard_sigmoid:0.2:0.5", activation="softsign", dtype=torch.float64),
        lambda: fused.LSTM(3, 4, coupled_input_forget=True, memory="checkpoints:2", dtype=torch.float64),
        lambda: fused.GRU(3, 4, reset="before", gate_clip=1.0, dtype=torch.float64),
        lambda: fused.RNN(3, 4, activation="elu", dtype=torch.float64),
        lambda: fused.SLSTM(3, 4, forget_gate="exponential", dtype=torch.float64),
        lambda: fused.Recurrent("lstm", 3, 4, heads=2, dtype=torch.float64),
    ):
        layer = make()
        assert torch.autograd.gradcheck(lambda x: layer(x)[0], (x,))
        assert "Recurrent" in repr(layer) or type(layer).__name__ in repr(layer)
    with pytest.raises(fused_rnn.Error, match="peepholes"):
        fused.GRU(3, 4, peepholes=True)
    with pytest.raises(fused_rnn.Error, match="activation"):
        fused.LSTM(3, 4, activation="tahn")
    with pytest.raises(TypeError, match="no option"):
        fused.LSTM(3, 4, zoneout=0.1)


def test_dropout_between_layers():
    torch.manual_seed(0)
    layer = fused.LSTM(8, 16, num_layers=2, dropout=0.5)
    x = torch.randn(5, 4, 8)
    plain = fused.LSTM(8, 16, num_layers=2)
    plain.load_state_dict(layer.state_dict())
    torch.manual_seed(7)
    one = layer(x)[0]
    with torch.no_grad():
        without = layer(x)[0]
    torch.manual_seed(7)
    close(layer(x)[0], one)
    assert not torch.allclose(one, plain(x)[0]) and not torch.allclose(without, plain(x)[0])
    layer.eval()
    close(layer(x)[0], plain(x)[0])
    layer.train()
    # The same masks in forward and in every backward.
    layer.double()
    x = torch.randn(3, 2, 8, dtype=torch.float64, requires_grad=True)

    def run(x):
        torch.manual_seed(11)
        return layer(x)[0]

    assert torch.autograd.gradcheck(run, (x,))
    y = run(x)
    first = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(y.sum(), x)[0])
    with pytest.warns(UserWarning, match="dropout option"):
        fused.LSTM(2, 3, dropout=0.1)


def test_a_second_backward_gives_the_same_gradients():
    _, ours = pair("LSTM", 4, 6, dict(num_layers=2))
    x = torch.randn(7, 3, 4, requires_grad=True)
    loss = loss_of(*ours(x))
    first = torch.autograd.grad(loss, [x, *ours.parameters()], retain_graph=True)
    second = torch.autograd.grad(loss, [x, *ours.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(first, second))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, [x])


def test_gradients_of_gradients_are_refused():
    _, ours = pair("GRU", 3, 4, {})
    x = torch.randn(5, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(x)[0].pow(2).sum(), x, create_graph=True)
    plain = torch.autograd.grad(ours(x)[0].pow(2).sum(), x)[0]
    assert torch.equal(gradient, plain)
    with pytest.raises(RuntimeError, match="gradients of gradients are not supported"):
        gradient.pow(2).sum().backward()


def test_weights_changed_before_backward_are_noticed():
    _, ours = pair("LSTM", 3, 4, {})
    y = ours(torch.randn(5, 2, 3))[0].sum()
    with torch.no_grad():
        ours.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("make", [lambda p: torch.optim.Adam(p, 0.05), lambda p: torch.optim.SGD(p, 0.2, momentum=0.9)])
def test_training_follows_torchs(make):
    theirs, ours = pair("LSTM", 3, 8, dict(dtype=torch.float64))
    torch.manual_seed(5)
    x, target = torch.randn(6, 4, 3, dtype=torch.float64), torch.randn(6, 4, 8, dtype=torch.float64)
    losses = []
    for layer in (theirs, ours):
        optimizer, of = make(layer.parameters()), []
        for _ in range(10):
            optimizer.zero_grad()
            loss = (layer(x)[0] - target).pow(2).mean()
            loss.backward()
            optimizer.step()
            of.append(float(loss.detach()))
        losses.append(of)
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    # The weights are still one buffer.
    assert [w.data_ptr() for w in ours.parameters()] == ours._starts


def test_frozen_weights_and_weights_put_in_place():
    theirs, ours = pair("LSTM", 3, 4, {})
    ours.weight_ih_l0.requires_grad_(False)
    x = torch.randn(5, 2, 3)
    loss_of(*ours(x)).backward()
    loss_of(*theirs(x)).backward()
    assert ours.weight_ih_l0.grad is None
    close(ours.weight_hh_l0.grad, theirs.weight_hh_l0.grad)
    replaced = torch.nn.Parameter(torch.randn(16, 4))
    ours.weight_hh_l0 = replaced
    with torch.no_grad():
        theirs.weight_hh_l0.copy_(replaced)
    close(ours(x)[0], theirs(x)[0])
    ours.flatten_parameters()
    close(ours(x)[0], theirs(x)[0])
    changed = {name: torch.randn_like(p) for name, p in theirs.named_parameters()}
    close(torch.func.functional_call(ours, changed, (x,))[0], torch.func.functional_call(theirs, changed, (x,))[0])
    close(ours(x)[0], theirs(x)[0])
    ours.load_state_dict(changed, assign=True)
    theirs.load_state_dict(changed)
    close(ours(x)[0], theirs(x)[0])


def test_copies_and_conversions():
    theirs, ours = pair("LSTM", 3, 4, dict(num_layers=2, proj_size=2))
    x = torch.randn(5, 2, 3)
    expected = theirs(x)[0]
    ours(x)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        close(other(x)[0], expected)
        assert other._starts == [w.data_ptr() for w in other.parameters()] != ours._starts
        with torch.no_grad():
            other.weight_ih_l0.zero_()
    close(ours(x)[0], expected)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    close(torch.load(file, weights_only=False)(x)[0], expected)
    double = ours.double()
    assert double is ours and ours.weight_hh_l0.dtype == torch.float64
    close(ours(x.double())[0], theirs.double()(x.double())[0])
    with pytest.raises(ValueError, match="does not match weight dtype"):
        ours(x)
    meta = fused.LSTM(3, 4, device="meta")
    assert meta.weight_ih_l0.is_meta
    sequential = torch.nn.ModuleList([ours]).float()
    close(sequential[0](x)[0], theirs.float()(x)[0])


def test_packed_weights_are_those_of_the_moment():
    theirs, ours = pair("LSTM", 3, 4, {})
    x, state = torch.randn(1, 1, 3), (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    with torch.no_grad(), ours.packed_weights():
        for _ in range(3):
            y, new = ours(x, state)
            expected, state = theirs(x, state)
            close(y, expected)
            close(new[1], state[1])
    with torch.no_grad():
        ours.weight_ih_l0.zero_()
        theirs.weight_ih_l0.zero_()
        close(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize("call, part", [
    (lambda m: m(torch.randn(3, 2, 9)), "input.size"),
    (lambda m: m(torch.randn(3, 2, 4), (torch.randn(1, 2, 5), torch.randn(1, 3, 5))), "Expected hidden size of c0"),
    (lambda m: m(torch.randn(3, 2, 4), torch.randn(1, 2, 5)), "expected a tuple"),
    (lambda m: m(torch.randn(3, 4), (torch.randn(1, 1, 5), torch.randn(1, 1, 5))), "2-D input"),
    (lambda m: m(torch.randn(0, 2, 4)), "seq_len is 0"),
    (lambda m: m(torch.randn(4)), "2D or 3D"),
    (lambda m: m(torch.randn(3, 2, 4, device="meta")), "meta"),
    (lambda m: m.half()(torch.randn(3, 2, 4).half()), "16 bits"),
])
def test_errors_say_what_was_wrong(call, part):
    with pytest.raises((RuntimeError, ValueError), match=part):
        call(fused.LSTM(4, 5))


def test_constructor_errors_are_torchs():
    for arguments, options in (((0, 3), {}), ((3, 0), {}), ((3, 4), dict(dropout=2)), ((3, 4), dict(proj_size=4)), ((3, 4.0), {})):
        with pytest.raises((ValueError, TypeError)) as theirs:
            torch.nn.LSTM(*arguments, **options)
        with pytest.raises(theirs.type):
            fused.LSTM(*arguments, **options)
    with pytest.raises(ValueError):
        fused.GRU(3, 4, proj_size=2)
    with pytest.raises(ValueError):
        fused.RNN(3, 4, nonlinearity="sin")
    assert fused.RNN(3, 4, 2, "relu").mode == "RNN_RELU"


@pytest.mark.parametrize("kind, options", [
    ("LSTM", dict(num_layers=2, bidirectional=True)), ("GRU", dict(batch_first=True)), ("RNN", dict(bias=False)),
])
def test_compiles_without_a_graph_break(kind, options):
    theirs, ours = pair(kind, 4, 6, options)
    head = torch.nn.Linear(12 if options.get("bidirectional") else 6, 3)
    torch._dynamo.reset()

    def model(x, lengths=None):
        y, state = ours(x * 2, lengths=lengths)
        return head(y).tanh(), tensors(state)[0]

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 3, 4, requires_grad=True)
    for lengths in (None, torch.tensor([2, 3, 1] if options.get("batch_first") else [2, 5, 1])):
        if options.get("batch_first") and lengths is not None:
            lengths = torch.tensor([2, 3, 1, 1, 2])
        for repeat in range(2):
            results = []
            for run in (model, compiled):
                ours.zero_grad()
                x.grad = None
                y, hn = run(x, lengths)
                (y.sum() + (hn * hn).sum()).backward()
                results.append([y, hn, x.grad.clone(), *(p.grad.clone() for p in ours.parameters())])
            for one, other in zip(*results):
                close(other, one)
    with torch.no_grad():
        close(compiled(x)[0], model(x)[0])
    # A second backward over a compiled graph, which torch allows where buffers are not donated.
    torch._dynamo.reset()
    with torch._functorch.config.patch(donated_buffer=False):
        y, _ = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
        first = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
        assert torch.equal(first, torch.autograd.grad(y.sum(), x)[0])


def test_compiles_with_sizes_that_vary():
    _, ours = pair("LSTM", 4, 6, {})
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: ours(x)[0].pow(2), fullgraph=True, backend="aot_eager", dynamic=True)
    for seq_len, batch in ((5, 3), (7, 2), (9, 4)):
        x = torch.randn(seq_len, batch, 4, requires_grad=True)
        gradients = [torch.autograd.grad(y.sum(), [x, *ours.parameters()]) for y in (compiled(x), ours(x)[0].pow(2))]
        for one, other in zip(*gradients):
            close(one, other)


def test_forked_processes_compute():
    import multiprocessing

    _, ours = pair("LSTM", 64, 128, {})
    x = torch.randn(32, 16, 64)
    with torch.no_grad():
        expected = ours(x)[0]
        queue = multiprocessing.get_context("fork").SimpleQueue()

        def child():
            torch.set_num_threads(1)
            with torch.no_grad():
                queue.put(bool(torch.equal(ours(x)[0], expected)))

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == 0 and queue.get()


def replaced(layer, name, value):
    setattr(layer, name, torch.nn.Parameter(value))


def resized(layer, bytes_):
    layer.weight_ih_l0.untyped_storage().resize_(bytes_)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("change, part", [
    (lambda m: replaced(m, "weight_ih_l0", torch.ones(15, 3)), r"weight_ih_l0: expected shape \[15, 4\], got \[15, 3\]"),
    (lambda m: replaced(m, "weight_ih_l0", torch.ones(15, 40)), r"weight_ih_l0: expected shape \[15, 4\], got \[15, 40\]"),
    (lambda m: replaced(m, "weight_hh_l0", torch.ones(150000, 5)), "weight_hh_l0: expected shape"),
    (lambda m: replaced(m, "weight_ih_l0", torch.ones(4, 15)), "weight_ih_l0: expected shape"),
    (lambda m: replaced(m, "weight_ih_l0", torch.ones(1)), "weight_ih_l0: expected shape"),
    (lambda m: replaced(m, "bias_ih_l0", torch.ones(0)), "bias_ih_l0: expected shape"),
    (lambda m: replaced(m, "weight_hh_l0", torch.ones(15, 5).double()), "weight_hh_l0 is torch.float64"),
    (lambda m: replaced(m, "weight_ih_l0", torch.ones(15, 4).half()), "weight_ih_l0 is torch.float16"),
    (lambda m: replaced(m, "weight_ih_l0", torch.ones(15, 4, device="meta")), "weight_ih_l0 is .* on meta"),
    (lambda m: replaced(m, "weight_hh_l0", torch.ones(15, 5, device="meta")), "weight_hh_l0 is .* on meta"),
    (lambda m: replaced(m, "weight_hh_l0", torch.ones(15, 5).to_sparse()), "weight_hh_l0 is .*sparse"),
    (lambda m: setattr(m.weight_ih_l0, "data", torch.ones(15, 40)), "weight_ih_l0: expected shape"),
    # The same first element.
    (lambda m: setattr(m.weight_ih_l0, "data", m.weight_ih_l0.data[:3]), "weight_ih_l0: expected shape"),
    (lambda m: setattr(m, "weight_ih_l0", None), "weight_ih_l0: expected a tensor"),
    (lambda m: resized(m, 0), "weight_ih_l0: .*its storage was resized"),
    (lambda m: resized(m, 100), "weight_ih_l0: .*its storage was resized|weight_hh_l0: .*its storage was resized"),
])
def test_weights_that_do_not_fit_are_refused(grad, change, part):
    layer = fused.GRU(4, 5)
    x = torch.randn(6, 3, 4)
    layer(x)
    change(layer)
    for _ in range(2):
        with torch.set_grad_enabled(grad), pytest.raises((RuntimeError, ValueError), match=part):
            layer(x)
        # Puts nothing in place, and says nothing: the call does.
        layer.flatten_parameters()


def test_weights_given_for_one_call_are_checked():
    layer, x = fused.GRU(4, 5), torch.randn(6, 3, 4)
    for size in ((15, 400), (3,), (15, 3)):
        given = {name: p.detach().clone().requires_grad_() for name, p in layer.named_parameters()}
        given["weight_ih_l0"] = torch.ones(size, requires_grad=True)
        with pytest.raises(RuntimeError, match="weight_ih_l0: expected shape"):
            torch.func.functional_call(layer, given, (x,))
    weights = [p.detach() for p in layer.parameters()]
    for bad in (weights[:-1], [weights[0].t(), *weights[1:]], [weights[1], *weights[1:]]):
        with pytest.raises(RuntimeError, match="expected shape|expected 4 tensors"):
            torch.ops.fused_rnn.forward(x, None, None, None, None, bad, None, layer._configs[0], False)


def test_weights_in_another_order_of_memory():
    theirs, ours = pair("GRU", 5, 5, {})
    for name in ("weight_ih_l0", "weight_hh_l0"):
        value = getattr(theirs, name).detach().t().contiguous().t()
        assert not value.is_contiguous()
        replaced(ours, name, value)
    x = torch.randn(6, 3, 5)
    for layer in (theirs, ours):
        loss_of(*layer(x)).backward()
    for one, other in zip(ours.parameters(), theirs.parameters()):
        close(one.grad, other.grad)
    # A view of the same first element, of the same shape: one of its own memory transposed.
    square = fused.RNN(5, 5)
    square.weight_ih_l0.data = square.weight_ih_l0.data.t()
    like = torch.nn.RNN(5, 5)
    like.load_state_dict(square.state_dict())
    close(square(x)[0], like(x)[0])


def test_input_whose_storage_was_resized_is_refused():
    layer = fused.GRU(4, 5)
    for bytes_ in (0, 16):
        x = torch.randn(6, 3, 4)
        x.untyped_storage().resize_(bytes_)
        with pytest.raises(fused_rnn.Error, match="x: expected 72 elements of 4 bytes"):
            layer(x)


def test_memory_behind_a_view_is_counted_from_its_start():
    from fused_rnn.torch._pass import held

    whole = torch.randn(10)
    part = whole[4:8]
    assert held(part) == (whole.data_ptr() + 16, 16)
    whole.untyped_storage().resize_(16)
    assert held(part)[1] == 0


def test_the_native_part_checks_sizes():
    from fused_rnn import _native
    from fused_rnn.torch._pass import span

    plan = _native.Plan(_native.Backend.cpu(1), _native.Operator("gru", 4, 5), 0, 6, 3, True)
    sizes = dict(weights=165, x=72, h0=15, c0=None, lengths=3, resets=18, y=90, hn=15, cn=None)
    kinds = dict(lengths=torch.int32, resets=torch.uint8)
    good = {name: None if n is None else torch.ones(n, dtype=kinds.get(name, torch.float32)) for name, n in sizes.items()}
    plan.forward_training(*map(span, good.values()), 0, plan.new_reserve())
    for name, tensor in good.items():
        for bad in (torch.ones(2), torch.ones(10**4), None if tensor is None else tensor.double()):
            if bad is None:
                continue
            call = {**good, name: bad}
            with pytest.raises(fused_rnn.Error, match=f"{name}"):
                plan.forward_training(*map(span, call.values()), 0, plan.new_reserve())
    with pytest.raises(fused_rnn.Error, match="reserve"):
        plan.new_reserve(span(torch.ones(3)))
    with pytest.raises(fused_rnn.Error, match="workspace"):
        plan.forward_training(*map(span, good.values()), 0, plan.new_reserve(), span(torch.ones(3)))
    rest = dict(dy=90, dhn=15, dcn=None, dx=72, dh0=15, dc0=None, dweights=165)
    rest = {name: None if n is None else torch.ones(n) for name, n in rest.items()}
    order = ("weights", "x", "y", "h0", "c0", "lengths", "resets")
    for name in ("weights", "x", "y", "h0", "lengths", "resets", "dy", "dhn", "dx", "dh0", "dweights"):
        reserve = plan.new_reserve()
        plan.forward_training(*map(span, good.values()), 0, reserve)
        call = {**{key: good[key] for key in order}, **rest}
        for bad in (torch.ones(2), torch.ones(10**4)):
            with pytest.raises(fused_rnn.Error, match=f"{name}: expected"):
                plan.backward(*map(span, {**call, name: bad}.values()), reserve)
        plan.backward(*map(span, call.values()), reserve)


@pytest.mark.parametrize("rows, sizes, order, back, part", [
    (6, [3, 2, 0, 1], None, None, "batch_sizes"),
    (6, [3, 3, 0], None, None, "batch_sizes"),
    (6, [3, -2, 5], None, None, "batch_sizes"),
    (6, [2, 3, 1], None, None, "batch_sizes"),
    (5, [3, 2, 1], None, None, "batch_sizes .* a sum of 5"),
    (6, [10**9, 2, 1], None, None, "batch_sizes .* a sum of 6"),
    (6, [], None, None, "batch_sizes"),
    (6, [3, 2, 1], [9, 0, 1], [0, 1, 2], "sorted_indices"),
    (6, [3, 2, 1], [0, 1, 2], [0, 1, 99], "unsorted_indices"),
    (6, [3, 2, 1], [0, 1, 2], [0, 1, -1], "unsorted_indices"),
    (6, [3, 2, 1], [0, 1], [0, 1], "sorted_indices"),
])
def test_packed_sequences_that_are_none_are_refused(rows, sizes, order, back, part):
    order, back = (None if one is None else torch.tensor(one) for one in (order, back))
    packed = PackedSequence(torch.randn(rows, 4), torch.tensor(sizes, dtype=torch.int64), order, back)
    with pytest.raises(ValueError, match=part):
        fused.GRU(4, 5)(packed)


def test_dropout_and_batch_first_may_change():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4)
    layer, plain = fused.GRU(4, 5, num_layers=2, dropout=0.9), fused.GRU(4, 5, num_layers=2)
    plain.load_state_dict(layer.state_dict())
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.dropout = 0
    assert torch.equal(layer(x)[0], plain(x)[0])
    layer.dropout = 0.5
    assert not torch.equal(layer(x)[0], layer(x)[0])
    assert not torch.equal(copy.deepcopy(layer)(x)[0], plain(x)[0])
    with pytest.raises(ValueError, match="dropout"):
        layer.dropout = 1.5
    layer.eval()
    theirs = torch.nn.GRU(4, 5, num_layers=2)
    theirs.load_state_dict(layer.state_dict())
    starts = layer._starts
    layer.batch_first = theirs.batch_first = True
    assert layer._starts is starts
    with torch.no_grad(), layer.packed_weights():
        close(layer(x)[0], theirs(x)[0])
        layer.batch_first = theirs.batch_first = False
        close(layer(x)[0], theirs(x)[0])


@pytest.mark.parametrize("name, value", [
    ("input_size", 2), ("input_size", 400), ("hidden_size", 500), ("num_layers", 5), ("bidirectional", True), ("bias", False), ("proj_size", 3),
    ("nonlinearity", "relu"), ("cell", "gru"),
])
def test_what_weights_are_made_for_does_not_change(name, value):
    layer = fused.RNN(4, 5) if name == "nonlinearity" else fused.LSTM(4, 5)
    before = getattr(layer, name)
    with pytest.raises(AttributeError, match=f"{name} of .* cannot be changed"):
        setattr(layer, name, value)
    setattr(layer, name, before)
    assert layer(torch.randn(6, 3, 4))[0].shape == (6, 3, 5)


@pytest.mark.parametrize("length", [2**32 + 3, -(2**32) + 3, -3, 2**31, 0, 7])
def test_lengths_are_checked_before_they_are_narrowed(length):
    layer, x = fused.GRU(4, 5), torch.randn(6, 3, 4)
    for given in (torch.tensor([1, length, 1]), [1, length, 1]):
        with pytest.raises(fused_rnn.Error, match=rf"lengths\[1\]: expected 1..=6, got {length}$"):
            layer(x, lengths=given)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"lengths\[1\]: expected 1..=6, got"):
        compiled(x, lengths=torch.tensor([1, length, 1]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("grad", [False, True])
def test_traces_are_refused(grad):
    for make in (fused.LSTM, fused.GRU):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="torch.jit.trace .* cannot record"):
            torch.jit.trace(make(4, 5).eval(), (torch.randn(6, 3, 4),))


def test_an_output_that_was_changed_is_noticed():
    y = fused.LSTM(3, 4)(torch.randn(5, 2, 3))[0]
    loss = y.sum()
    with torch.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_batch_of_none_is_refused():
    with pytest.raises(fused_rnn.Error, match="batch"):
        fused.LSTM(3, 4)(torch.randn(5, 0, 3))
    assert not isinstance(fused.LSTM(3, 4), torch.nn.RNNBase)


def test_cuda_is_refused_where_this_build_has_it_not():
    from fused_rnn import _native

    if _native.has_cuda:
        pytest.skip("this build has CUDA")
    with pytest.raises(fused_rnn.Error, match="CUDA is not supported: this build has not the feature"):
        _native.Backend.cuda(0)

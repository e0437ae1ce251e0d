"""Fused recurrent operators (RNN, LSTM, GRU, sLSTM, MGU, IndRNN) with backward passes.

`fused_rnn.torch` has drop-ins for `torch.nn.LSTM`, `GRU` and `RNN`; `fused_rnn.numpy` the same operators on arrays, without torch.
"""

from ._native import Error, __version__

__all__ = ["Error", "__version__"]

"""Drop-ins for torch.nn's recurrent layers, and layers that torch has not.

`LSTM`, `GRU` and `RNN` have torch.nn's constructors, parameter names, initial weights and calls. Besides: `lengths=` for sequences of
several lengths without packing, `resets=` for states that begin anew in mid-sequence, options of the operator as keyword arguments, and the
cells `SLSTM`, `MGU` and `IndRNN`.
"""

from ._layers import GRU, LSTM, MGU, RNN, SLSTM, IndRNN, Recurrent

__all__ = ["GRU", "LSTM", "MGU", "RNN", "SLSTM", "IndRNN", "Recurrent"]

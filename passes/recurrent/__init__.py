"""Recurrent layers as operators: one node a layer and direction, however many steps it takes.

* `lstm_steps`, `gru_steps`, `rnn_steps` are the recurrence alone, on any device and in any floating type. They read
  what the input contributes to the gates, which is one plain product for all steps, and run the steps with eager's
  operators in eager's order, so that their bits are eager's. Their backward operators run the steps once in the other
  direction, and return the error of the gates at every step; the gradients of the weights are plain products of it.
* `onednn_lstm` is the kernel that eager runs for an LSTM in float32 or bfloat16 on the CPU, with that kernel's own
  derivative.

Backward operators take the weights as arguments, as those of products do, so feedback can stand in the weights' place.
"""

from altprop.passes.recurrent.gru import gru_steps, gru_steps_backward
from altprop.passes.recurrent.lstm import lstm_steps, lstm_steps_backward
from altprop.passes.recurrent.onednn import onednn_lstm, onednn_lstm_backward
from altprop.passes.recurrent.rnn import rnn_steps, rnn_steps_backward

__all__ = [
    "gru_steps",
    "gru_steps_backward",
    "lstm_steps",
    "lstm_steps_backward",
    "onednn_lstm",
    "onednn_lstm_backward",
    "rnn_steps",
    "rnn_steps_backward",
]

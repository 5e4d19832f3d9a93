"""A causal transformer with rotary positions and a key-value cache.

B sequences, T steps, C steps in the cache, W numbers of a step inside, N heads of D = W / N numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from seqdens import Context, Encoded, Encoder, State, UsageError

PADDING = torch.iinfo(torch.long).max  # the position of a step that never was: later than any

Rotation = tuple[Tensor, Tensor]  # cosines and sines (B, T, 1, D / 2)


class Transformer(Encoder):
    """Causal attention with rotary positions and SwiGLU layers, after RMS norms, with a key-value cache as its state.

    The features (B, T, W) are the normed output of the last layer. The state holds the number of steps read, `length`
    (B,), the `positions` (B, C) of those in the cache, and each layer's rotated `keys` and `values` (B, C, N, D).
    Raises `UsageError` for sizes that do not fit and for a text to condition on.
    Sources: Vaswani et al. 2017; Su et al. 2021 (rotary positions); Zhang and Sennrich 2019 (RMS norm);
    Shazeer 2020 (SwiGLU).

    Options:
        hidden_size: numbers of a step in every layer, an even number for each head
        layers: blocks, one above the other
        heads: of the attention, each over its share of hidden_size
        feedforward: width of a feed-forward layer in hidden sizes, less a third since SwiGLU has three matrices for two
        window: how many of the last steps a step sees, itself included; 0 for all
    """

    def __init__(
        self,
        input_size: int,
        context_size: int = 0,
        *,
        hidden_size: int = 128,
        layers: int = 3,
        heads: int = 4,
        feedforward: float = 4.0,
        window: int = 0,
    ) -> None:
        super().__init__()
        if context_size:
            raise UsageError(
                f"context_size is {context_size}, but transformer takes no text, so it must be 0; "
                "choose an encoder that does."
            )
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "layers": layers, "heads": heads}
        for name, size in sizes.items():
            if size < 1:
                raise UsageError(f"{name} of transformer is {size}, but must be at least 1.")
        if hidden_size % (2 * heads):
            raise UsageError(
                f"hidden_size of transformer is {hidden_size}, but must be a multiple of {2 * heads}: "
                f"an even share for each of the {heads} heads."
            )
        if not 0 < feedforward < math.inf:
            raise UsageError(f"feedforward of transformer is {feedforward}, but must be positive; 4 is usual.")
        if window < 0:
            raise UsageError(f"window of transformer is {window}, but must be positive, or 0 for all steps.")
        self.output_size, self.head_shape, self.window = hidden_size, (heads, hidden_size // heads), window
        self.input = nn.Linear(input_size, hidden_size)
        self.layers = nn.ModuleList(Block(hidden_size, heads, feedforward) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden_size)

    def start(self, batch_size: int, context: Context | None = None) -> State:
        weight = self.input.weight
        counts = torch.zeros(batch_size, dtype=torch.long, device=weight.device)
        state = {"length": counts, "positions": counts.new_zeros(batch_size, 0)}
        names = [f"{part}.{layer}" for part in ("keys", "values") for layer in range(len(self.layers))]
        return state | {name: weight.new_zeros(batch_size, 0, *self.head_shape) for name in names}

    def forward(self, inputs: Tensor, lengths: Tensor, state: State, context: Context | None = None) -> Encoded:
        state = self._without_the_unseen(state)
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        padding = steps >= lengths.unsqueeze(1)
        positions = state["length"].unsqueeze(1) + steps
        after = {
            "length": state["length"] + lengths,
            "positions": torch.cat([state["positions"], positions.masked_fill(padding, PADDING)], dim=1),
        }
        dtype = self.input.weight.dtype
        rotation, visible = rotation_of(positions, self.head_shape[1], dtype), self._visible(positions, state)
        x = self.input(inputs.masked_fill(padding.unsqueeze(2), 0)).to(dtype)
        for number, layer in enumerate(self.layers):
            keys, values = f"keys.{number}", f"values.{number}"
            x, after[keys], after[values] = layer(x, rotation, state[keys], state[values], visible)
        return Encoded(self.norm(x), after, {})

    def _visible(self, positions: Tensor, state: State) -> Tensor | None:
        """Whether a step sees a cached or a new one (B, 1, T, C + T); None for all until then, which has fast kernels.

        Padding is later than all that counts, and sees itself, since a step that saw nothing would be NaN.
        """
        cached = state["positions"]
        if not cached.shape[1]:
            if not self.window:
                return None
            positions, cached = positions[:1], cached[:1]  # alike for all records
        return sees(positions, torch.cat([cached, positions], dim=1), self.window).unsqueeze(1)

    def _without_the_unseen(self, state: State) -> State:
        """The state without what no record's next step sees, once it may be half of the cache."""
        if not self.window or state["positions"].shape[1] < 2 * self.window:
            return state
        seen = sees(state["length"].unsqueeze(1), state["positions"], self.window).any(dim=1).any(dim=0)
        return {name: value if name == "length" else value[:, seen] for name, value in state.items()}


class Block(nn.Module):
    """Attention, then a SwiGLU layer, each of the norm of x (B, T, W) and added to it.

    At first little is added: output weights start within a tenth of the range of `torch.nn.Linear`, from where the
    first epoch gets further.
    """

    def __init__(self, hidden_size: int, heads: int, feedforward: float) -> None:
        super().__init__()
        self.heads = heads
        inner = math.ceil(feedforward * hidden_size * 2 / 3)
        self.attention_norm = nn.RMSNorm(hidden_size)
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.attention_output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.feedforward_norm = nn.RMSNorm(hidden_size)
        self.gate_and_value = nn.Linear(hidden_size, 2 * inner, bias=False)
        self.feedforward_output = nn.Linear(inner, hidden_size, bias=False)
        for output in (self.attention_output, self.feedforward_output):
            output.weight.detach().mul_(0.1)

    def forward(
        self, x: Tensor, rotation: Rotation, keys: Tensor, values: Tensor, visible: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The new x (B, T, W), and the keys and values (B, C, N, D) of the past with those of now (B, C + T, N, D)."""
        projected = self.query_key_value(self.attention_norm(x)).to(x.dtype)
        query, key, value = projected.unflatten(2, (3, self.heads, -1)).unbind(2)
        keys = torch.cat([keys, rotate(key, rotation)], dim=1)
        values = torch.cat([values, value], dim=1)
        attended = attend(rotate(query, rotation), keys, values, visible)
        x = x + self.attention_output(attended)
        gate, value = self.gate_and_value(self.feedforward_norm(x)).chunk(2, dim=2)
        return x + self.feedforward_output(silu(gate) * value), keys, values


def attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """What queries (B, T, N, D) find (B, T, W) in keys and values (B, C + T, N, D), which are `visible` to them."""
    query, key, value = (each.transpose(1, 2) for each in (queries, keys, values))
    found = scaled_dot_product_attention(query, key, value, attn_mask=visible, is_causal=visible is None)
    return found.transpose(1, 2).flatten(2)


def sees(queries: Tensor, keys: Tensor, window: int) -> Tensor:
    """Whether steps at positions `queries` (B, T) see those at `keys` (B, C): (B, T, C)."""
    queries, keys = queries.unsqueeze(2), keys.unsqueeze(1)
    return (keys <= queries) & (keys > queries - window) if window else keys <= queries


def rotation_of(positions: Tensor, size: int, dtype: torch.dtype) -> Rotation:
    """The rotary position embedding of positions (B, T): D / 2 angles each, position * 10000^(-2i / D)."""
    frequencies = 10000 ** (-torch.arange(0, size, 2, device=positions.device, dtype=dtype) / size)
    angles = (positions.to(dtype).unsqueeze(2) * frequencies).unsqueeze(2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Each pair of numbers i and i + D / 2 of x (B, T, N, D), turned by its angle."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=3)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=3)

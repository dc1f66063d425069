"""A decoder-only transformer over bytes. Its feed-forward layers are given from outside, usually mixtures of remote experts.

Pre-norm blocks (RMSNorm), causal attention with rotary positions (arXiv:2104.09864) and normalised queries and keys,
no biases. After `initialise` every byte is equally likely, so that the first loss is ln 256 = 5.55.

Shape suffixes: B batch, T time, D d_model, H heads, C channels of a head (D / H), V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.manifest import GPTModel, Model

FeedForward = Callable[[int], nn.Module]
"""Given a layer's number, a module `x_BTD -> (y_BTD, balance_loss)`."""


class GPT(nn.Module):
    """`forward(tokens_BT) -> (logits_BTV, balance)`; `balance` is the mean of the layers' balancing losses."""

    def __init__(self, model: GPTModel, feed_forward: FeedForward) -> None:
        super().__init__()
        self.sequence = model.sequence
        self.embedding = nn.Embedding(model.vocabulary, model.d_model)
        self.blocks = nn.ModuleList(Block(model, feed_forward(i)) for i in range(model.layers))
        self.norm = nn.RMSNorm(model.d_model)
        self.head = nn.Linear(model.d_model, model.vocabulary, bias=False)

    def initialise(self, seed: int) -> None:
        """Set all parameters from `seed`, the same on every machine."""
        initialise(self, seed, unit_variance="embedding.weight")

    def forward(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        x_BTD = self.embedding(tokens_BT)
        balance = x_BTD.new_zeros(())
        for block in self.blocks:
            x_BTD, layer_balance = block(x_BTD)
            balance = balance + layer_balance / len(self.blocks)
        return self.head(self.norm(x_BTD)), balance


def initialise(trunk: nn.Module, seed: int, *, unit_variance: str) -> None:
    """Set all parameters from `seed`, the same on every machine, in any thread (no global generator is touched).

    Projections back into the residual stream and the head start at zero, the embedding that `unit_variance` names at unit
    variance, and every other matrix (gates included) at variance 1 / width.
    """
    for name, parameter in trunk.named_parameters():
        digest = hashlib.sha256(f"hive/1/trunk\n{seed}\n{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        elif name.endswith(("attention.out.weight", "head.weight")):
            nn.init.zeros_(parameter)
        else:
            std = 1.0 if name == unit_variance else 1 / math.sqrt(parameter.shape[1])
            nn.init.normal_(parameter, std=std, generator=generator)


class Block(nn.Module):
    def __init__(self, model: Model, feed_forward: nn.Module, *, causal: bool = True) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(model.d_model)
        self.attention = Attention(model.d_model, model.heads, causal=causal)
        self.feed_forward_norm = nn.RMSNorm(model.d_model)
        self.feed_forward = feed_forward

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        y_BTD, balance = self.feed_forward(self.feed_forward_norm(x_BTD))
        return x_BTD + y_BTD, balance


class Attention(nn.Module):
    def __init__(self, d_model: int, heads: int, *, causal: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q_BHTC, k_BHTC, v_BHTC = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        q_BHTC, k_BHTC = rotate(F.rms_norm(q_BHTC, q_BHTC.shape[-1:])), rotate(F.rms_norm(k_BHTC, k_BHTC.shape[-1:]))
        y_BHTC = F.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, is_causal=self.causal)
        return self.out(y_BHTC.transpose(1, 2).reshape(B, T, D))


def rotate(x_BHTC: Tensor) -> Tensor:
    """Rotary positions over the first half of the channels against the second."""
    T, half = x_BHTC.shape[-2], x_BHTC.shape[-1] // 2
    rates = 1000.0 ** (-torch.arange(half, device=x_BHTC.device) / half)
    angle_TC = torch.arange(T, device=x_BHTC.device)[:, None] * rates
    cos, sin = angle_TC.cos().to(x_BHTC), angle_TC.sin().to(x_BHTC)
    a, b, rest = x_BHTC[..., :half], x_BHTC[..., half : 2 * half], x_BHTC[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


def generate(
    model: Callable[[Tensor], tuple[Tensor, Tensor]],
    prompt: bytes,
    *,
    tokens: int,
    sequence: int,
    temperature: float = 0.8,
    top: int = 40,
    seed: int = 0,
) -> Iterator[int]:
    """Sample `tokens` bytes after `prompt`, one at a time.

    `model` is a `GPT` (or behaves so), `sequence` its context length; older bytes fall out of the context. Each byte comes
    from the `top` likeliest at this temperature; 0 takes the likeliest. The same seed and weights give the same text, unless
    experts fail. Raises ValueError if an argument is out of range.
    """
    if temperature < 0 or top < 1 or tokens < 0:
        raise ValueError("temperature and tokens are at least 0, top at least 1")
    generator = torch.Generator().manual_seed(seed)
    context = list(prompt or b"\n")[-sequence:]
    for _ in range(tokens):
        with torch.no_grad():
            logits_V = model(torch.tensor([context]))[0][0, -1]
        best = logits_V.topk(min(top, len(logits_V)))
        pick = 0 if temperature == 0 else int(torch.multinomial((best.values / temperature).softmax(0), 1, generator=generator))
        byte = int(best.indices[pick])
        context = [*context, byte][-sequence:]
        yield byte

"""A classifier of small images: patches become positions of a transformer, and their mean tells the class.

A small vision transformer (arXiv:2010.11929) from the blocks of agent/models/gpt.py, without the causal mask; the
feed-forward layers are given from outside, usually mixtures of remote experts. After `initialise` every class is equally
likely, so that the first loss is ln 10 = 2.30.

Shape suffixes: B batch, P pixels, T patches, C pixels of a patch, D d_model, V classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agent.manifest import DIGIT_CLASSES, DIGIT_SIDE, ImageClassifier
from agent.models.gpt import Block, FeedForward, initialise

HALF_BRIGHT = 8.0
"""Pixels are 0 to 16; the network sees -1 to 1."""


class Classifier(nn.Module):
    """`forward(pixels_BP) -> (logits_B1V, balance)`; `balance` is the mean of the layers' balancing losses."""

    def __init__(self, model: ImageClassifier, feed_forward: FeedForward) -> None:
        super().__init__()
        self.patch = model.patch
        self.embedding = nn.Linear(model.patch**2, model.d_model, bias=False)
        self.places = nn.Embedding(model.positions_per_unit, model.d_model)
        self.blocks = nn.ModuleList(Block(model, feed_forward(i), causal=False) for i in range(model.layers))
        self.norm = nn.RMSNorm(model.d_model)
        self.head = nn.Linear(model.d_model, DIGIT_CLASSES, bias=False)

    def initialise(self, seed: int) -> None:
        """Set all parameters from `seed`, the same on every machine, as `GPT.initialise` does."""
        initialise(self, seed, unit_variance="places.weight")

    def forward(self, pixels_BP: Tensor) -> tuple[Tensor, Tensor]:
        x_BTD = self.embedding(self._patches(pixels_BP)) + self.places.weight
        balance = x_BTD.new_zeros(())
        for block in self.blocks:
            x_BTD, layer_balance = block(x_BTD)
            balance = balance + layer_balance / len(self.blocks)
        return self.head(self.norm(x_BTD).mean(dim=1, keepdim=True)), balance

    def _patches(self, pixels_BP: Tensor) -> Tensor:
        """[B, T, C], from -1 to 1, patches row by row."""
        n, p = DIGIT_SIDE // self.patch, self.patch
        tiles = pixels_BP.reshape(-1, n, p, n, p).transpose(2, 3).reshape(-1, n * n, p * p)
        return tiles.to(torch.float32) / HALF_BRIGHT - 1

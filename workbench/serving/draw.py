"""Chooses the next token of each request in a batch by that request's own settings and random numbers.

transformers' continuous batching has one setting for all requests of a batch, so its own choice is replaced: a logits
processor chooses each request's token, and leaves the batch nothing else to choose.
"""

import math
import secrets
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)

from workbench.engine.client.protocol import Sampling

if TYPE_CHECKING:
    from transformers.generation.continuous_batching.requests import FutureRequestState


@dataclass(frozen=True)
class TokenChoice:
    """A chosen token with its log probability, and the most likely tokens at its place with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(eq=False)
class Draw:
    """Chooses the tokens of one reply.

    Attributes:
        prompt: its tokens, which a repetition penalty counts too.
        frequency_penalty, presence_penalty, bias: added to the logits, as OpenAI's API defines them.
        alternatives: how many of the most likely tokens to record per token; None records no log probabilities.
        choices: the recorded ones.
    """

    sampling: Sampling
    prompt: list[int]
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    bias: dict[int, float] = field(default_factory=dict)
    alternatives: int | None = None
    choices: list[TokenChoice] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, from logits of shape [vocabulary]."""
        scores = self._penalized(logits.float()).unsqueeze(0)
        seen = torch.tensor([self.prompt + self.tokens], device=logits.device)
        scores = self._processors(seen, scores)
        if self.sampling.temperature == 0:
            token = int(scores[0].argmax())
        else:
            # As `generate` draws it, so that a seed gives the same tokens.
            probabilities = torch.nn.functional.softmax(scores, dim=-1)
            token = int(torch.multinomial(probabilities, num_samples=1, generator=self._generator(logits.device)))
        self.tokens.append(token)
        if self.alternatives is not None:
            self.choices.append(_choice(logits.float(), token, self.alternatives))
        return token

    def _penalized(self, logits: torch.Tensor) -> torch.Tensor:
        if not (self.frequency_penalty or self.presence_penalty or self.bias):
            return logits
        logits = logits.clone()
        for token, count in Counter(self.tokens).items():
            logits[token] -= self.frequency_penalty * count + self.presence_penalty
        for token, value in self.bias.items():
            logits[token] += value
        return logits

    @cached_property
    def _processors(self) -> LogitsProcessorList:
        """transformers' own, in the order in which ``generate`` applies them."""
        sampling, processors = self.sampling, LogitsProcessorList()
        if sampling.repetition_penalty != 1:
            processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        if sampling.temperature not in (0, 1):
            processors.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.temperature and sampling.top_k:
            processors.append(TopKLogitsWarper(sampling.top_k))
        if sampling.temperature and sampling.top_p < 1:
            processors.append(TopPLogitsWarper(sampling.top_p))
        if sampling.temperature and sampling.min_p:
            processors.append(MinPLogitsWarper(sampling.min_p))
        return processors

    def _generator(self, device: torch.device) -> torch.Generator:
        if self._random is None:
            self._random = torch.Generator(device=device)
            self._random.manual_seed(secrets.randbits(62) if self.sampling.seed is None else self.sampling.seed)
        return self._random

    _random: torch.Generator | None = None


def _choice(logits: torch.Tensor, token: int, alternatives: int) -> TokenChoice:
    logprobs = logits.log_softmax(dim=-1)
    values, tokens = logprobs.topk(min(alternatives, len(logprobs)))
    top = zip(tokens.tolist(), values.tolist(), strict=True)
    return TokenChoice(token, float(logprobs[token]), tuple((other, float(value)) for other, value in top))


class _ChooseEach(ContinuousBatchingLogitsProcessor):
    """Lets each request's :class:`Draw` choose; all other tokens get a logit of −∞."""

    supported_kwargs: ClassVar[dict[str, type]] = {"draw": Draw}
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._draws: list[Draw] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: "list[FutureRequestState]") -> torch.Tensor:
        self._draws = [request.state.logit_processor_kwargs["draw"] for request in requests_with_new_token]
        return torch.zeros(len(self._draws), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        chosen = torch.full_like(scores, -math.inf)
        for row, draw in enumerate(self._draws):
            chosen[row, draw.choose(scores[row])] = 0.0
        return chosen


class DrawEach(ContinuousBatchingLogitsProcessorList):
    """The logits processors of a batch in which each request has a :class:`Draw`, given as ``draw``."""

    def __init__(self) -> None:
        super().__init__(LogitsProcessorList([_ChooseEach()]))
        self.tensors_required = 1

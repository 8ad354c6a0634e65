"""A stand-in for vLLM: the attributes and calls that the adapter touches, around a toy.

The toy teacher always says the ``following`` token. The toy drafter proposes it, but its second draft is wrong after an
even number of tokens. Token 7 reads ``<7>``.
Prompts are taken in by chunks, and requests share batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from support.eagle_stand_in import VOCAB, following

CONTEXT, CHUNK = 64, 4


def params(**changes: Any) -> SimpleNamespace:
    """Sampling parameters of a greedy request of eight tokens. ``withdrawn_at``: when nobody wants it any longer."""
    plain = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_tokens": 8, "stop": [], "stop_token_ids": []}
    return SimpleNamespace(**{**plain, "eos_token_id": None, "withdrawn_at": None, **changes})


class Detokenizer:
    """The text of a request, and the search for its stop strings."""

    def __init__(self, stop: list[str]) -> None:
        self._stop, self._tokens, self._text = stop, 0, ""

    @classmethod
    def from_new_request(cls, _tokenizer: Any, request: Any) -> Detokenizer:
        """As the engine makes it."""
        return cls(request.sampling_params.stop)

    def num_output_tokens(self) -> int:
        """Without those behind a stop string."""
        return self._tokens

    def update(self, tokens: list[int], stop_terminated: bool) -> str | None:
        """The stop string that further tokens complete."""
        for at, token in enumerate(tokens):
            self._tokens += 1
            self._text += "" if stop_terminated and at == len(tokens) - 1 else f"<{token}>"
            completed = next((text for text in self._stop if text in self._text), None)
            if completed is not None:
                return completed
        return None


class Drafter:
    """Two drafts a step, asked for as vLLM asks its custom proposers."""

    def propose(self, sampled: list[list[int]], num_tokens: Any, token_ids: Any, **_: Any) -> list[list[int]]:
        """What may follow the text of each row."""
        rights = [following(int(token_ids[row, num_tokens[row] - 1])) for row in range(len(sampled))]
        wrong = [int(num % 2 == 0) for num in num_tokens]
        return [[right, (following(right) + off) % VOCAB] for right, off in zip(rights, wrong, strict=True)]


class Runner:
    """The model runner: one batch at a time."""

    def __init__(self, rows: int, drafter: Any = None) -> None:
        self.drafter = Drafter() if drafter is None else drafter
        self.max_model_len, self.device = CONTEXT, torch.device("cpu")
        self.requests: dict[str, Any] = {}
        self.wrong_after: int | None = None  # a token after which the teacher says another one than it should
        self.input_batch = SimpleNamespace(req_ids=[], vocab_size=VOCAB)
        self.attn_groups = [[SimpleNamespace(backend=SimpleNamespace(get_name=lambda: "TOY"))]]
        text = SimpleNamespace(
            vocab_size=VOCAB, num_hidden_layers=1, hidden_size=VOCAB, max_position_embeddings=CONTEXT
        )
        hf = SimpleNamespace(name_or_path="toy", architectures=["Toy"], get_text_config=lambda: text)
        model = SimpleNamespace(hf_config=hf, dtype=torch.float32, quantization=None)
        self.vllm_config = SimpleNamespace(
            model_config=model,
            cache_config=SimpleNamespace(block_size=16, cache_dtype="auto"),
            scheduler_config=SimpleNamespace(max_num_seqs=rows),
            parallel_config=SimpleNamespace(world_size=1),
            speculative_config=SimpleNamespace(method="ngram", num_speculative_tokens=2, model=None),
        )
        self.query_start_loc = SimpleNamespace(np=np.zeros(rows + 1, int))
        self.num_computed_tokens = torch.zeros(rows, dtype=torch.int64)
        self.discard_request_mask = SimpleNamespace(np=np.zeros(rows, bool))
        self.input_ids = SimpleNamespace(gpu=torch.zeros(CONTEXT * rows, dtype=torch.int64))
        self.positions = torch.zeros(CONTEXT * rows, dtype=torch.int64)

    def step(self, fed: dict[str, tuple[int, list[int], list[int]]]) -> list[list[int]]:
        """One forward: per request how many of its tokens are in the cache, which are fed, and the drafts after them.
        Gives what was sampled, nothing where a prompt goes on."""
        self.input_batch.req_ids = list(fed)
        at, rows, counts = 0, [], []
        for number, (name, (before, tokens, drafts)) in enumerate(fed.items()):
            whole = [*tokens, *drafts]
            self.num_computed_tokens[number] = before
            self.input_ids.gpu[at : at + len(whole)] = torch.tensor(whole)
            self.positions[at : at + len(whole)] = torch.arange(before, before + len(whole))
            at += len(whole)
            self.query_start_loc.np[number + 1] = at
            state = self.requests[name]
            known = len(state.prompt_token_ids) + len(state.output_token_ids)
            self.discard_request_mask.np[number] = before + len(tokens) < known
            rows += whole[len(tokens) - 1 :]
            counts.append(len(drafts))
        wanted = torch.tensor([(following(token) + (token == self.wrong_after)) % VOCAB for token in rows])
        logits = torch.nn.functional.one_hot(wanted, VOCAB).float() * 4 - torch.arange(VOCAB) / VOCAB
        drafted = torch.tensor([draft for _, _, drafts in fed.values() for draft in drafts], dtype=torch.int64)
        metadata = SimpleNamespace(num_draft_tokens=counts, draft_token_ids=drafted) if sum(counts) else None
        rows_out = self._sample(logits, metadata).sampled_token_ids.tolist()
        kept = [[token for token in row if token >= 0] for row in rows_out]
        return [[] if self.discard_request_mask.np[number] else row for number, row in enumerate(kept)]

    def _sample(self, logits: torch.Tensor, metadata: Any) -> Any:
        """Accepts drafts as long as they are the best tokens; works in place, as vLLM's samplers do."""
        best = logits.argmax(-1).tolist()
        logits.fill_(0.0)
        counts = [0] * len(self.input_batch.req_ids) if metadata is None else metadata.num_draft_tokens
        drafts = [] if metadata is None else metadata.draft_token_ids.tolist()
        sampled, row = list[list[int]](), 0
        for count in counts:
            wanted, mine, drafts = best[row : row + count + 1], drafts[:count], drafts[count:]
            accepted = next((at for at, draft in enumerate(mine) if draft != wanted[at]), count)
            sampled.append([*wanted[: accepted + 1], *[-1] * (max(counts) - accepted)])
            row += count + 1
        return SimpleNamespace(sampled_token_ids=torch.tensor(sampled))


class LLM:
    """Decodes requests in batches of ``rows``. ``reuse`` tokens of each prompt are in the cache already; ``late``: a
    request is scheduled once more after its end."""

    def __init__(self, rows: int = 2, *, reuse: int = 0, late: bool = False, drafter: Any = None) -> None:
        self.runner, self._rows, self._reuse, self._late = Runner(rows, drafter), rows, reuse, late
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(engine_core=self.runner))
        self._num_requests = 0
        self.accepted: list[list[int]] = []  # of each prompt that was given last, by its steps with drafts

    def collective_rpc(self, method: Callable[[Any], Any]) -> list[Any]:
        """Calls ``method`` with the worker."""
        return [method(SimpleNamespace(model_runner=self.runner))]

    def generate(
        self, prompts: Sequence[list[int]], *settings: Any, most_forwards: int | None = None
    ) -> list[list[int]]:
        """The outputs; ``settings`` for all prompts, or for each its own. It stops within, after ``most_forwards``."""
        given = list(settings) * len(prompts) if len(settings) == 1 else list(settings)
        waiting = [
            _Request(str(self._num_requests + at), *pair) for at, pair in enumerate(zip(prompts, given, strict=True))
        ]
        self._num_requests += len(waiting)
        everyone, running = list(waiting), list[_Request]()
        num_forwards = 0
        while (waiting or running) and num_forwards != most_forwards:
            num_forwards += 1
            while waiting and len(running) < self._rows:
                running.append(waiting.pop(0))
                running[-1].state.num_computed_tokens = self._reuse
                self.runner.requests[running[-1].name] = running[-1].state
            sampled = self.runner.step({request.name: request.next(self.runner.drafter) for request in running})
            for request, tokens in zip(running, sampled, strict=True):
                request.take(tokens)
            ended = [request for request in running if request.has_ended]
            if self._late and ended:
                self.runner.step({request.name: request.next(self.runner.drafter) for request in ended})
            for request in ended:
                running.remove(request)
                del self.runner.requests[request.name]
        self.accepted = [request.accepted for request in everyone]
        return [request.output for request in everyone]


class _Request:
    """One request of the toy's scheduler."""

    def __init__(self, name: str, prompt: list[int], given: Any) -> None:
        self.name, self.params, self.output, self.has_ended = name, given, list[int](), False
        self._text, self.accepted = Detokenizer(given.stop), list[int]()
        self.state = SimpleNamespace(
            prompt_token_ids=prompt, sampling_params=given, output_token_ids=self.output, num_computed_tokens=0
        )
        self._fed, self._has_drafts = 0, False

    def next(self, drafter: Any) -> tuple[int, list[int], list[int]]:
        """What it feeds: a chunk of its prompt, or its last token and drafts."""
        text, before = [*self.state.prompt_token_ids, *self.output], self.state.num_computed_tokens
        tokens = text[before : before + CHUNK]
        drafts = []
        if self.output:
            (drafts,) = drafter.propose(
                [[text[-1]]], np.array([len(text)]), np.array([[*text, 0, 0]]), slot_mappings=None
            )
        self._fed, self._has_drafts = len(tokens), bool(drafts)
        return before, tokens, drafts

    def take(self, sampled: list[int]) -> None:
        """What was sampled."""
        self.state.num_computed_tokens += self._fed + max(0, len(sampled) - 1)
        if self._has_drafts:
            self.accepted.append(len(sampled) - 1)
        ends = [self.params.eos_token_id, *self.params.stop_token_ids]
        for token in sampled:
            self.output.append(token)
            by_token = token in ends
            by_text = self._text.update([token], by_token) is not None
            if by_token or by_text or len(self.output) == self.params.max_tokens:
                self.has_ended = True
                return
        left_at = self.params.withdrawn_at
        self.has_ended = left_at is not None and len(self.output) >= left_at

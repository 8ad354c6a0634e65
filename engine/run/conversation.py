"""The token ids that each turn of a prompt is decoded behind, given the replies so far. Knows no model.

Three kinds of prompt: ``ids`` are taken as they are; a text to continue is tokenized without a template; the turns of a
conversation go through the tokenizer's chat template. A tokenizer without one gets the texts and the replies one after
another, special tokens at the beginning alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specscope.engine.run.prompts import Prompt
from specscope.tracer.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Conversation:
    """One prompt as its turns' contexts; remembers the replies that it was told, which a template renders anew.

    Raises:
        UsageError: for a prompt of text without a tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, prompt: Prompt) -> None:
        if tokenizer is None and not prompt.ids:
            raise UsageError("the teacher has no tokenizer: give prompts as 'ids'")
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._replies: list[list[int]] = []  # a turn each

    @property
    def num_turns(self) -> int:
        """Turns to decode."""
        return self._prompt.num_turns

    @property
    def templated(self) -> bool:
        """Whether the contexts are written by the tokenizer's chat template."""
        return self._prompt.chat and bool(getattr(self._tokenizer, "chat_template", None))

    def context(self, turn: int, context_before: list[int], reply_ids: list[int]) -> list[int]:
        """The whole context of ``turn``, of 0..num_turns - 1 in order.

        ``context_before`` and ``reply_ids`` are the context and the output of the turn before; empty for the first.
        With a template the replies' texts are rendered anew, as the template wants them (some leave out what was only
        thought), so that the context need not begin with the one before.

        Raises:
            UsageError: where the template refuses the conversation.
        """
        self._replies[max(0, turn - 1) :] = [list(reply_ids)] * (turn > 0)
        assert len(self._replies) == turn < self.num_turns, "turns are asked for in order"
        if self._prompt.ids:
            return list(self._prompt.ids)
        if self.templated:
            return self._rendered(turn)
        # Special tokens begin a conversation, not its later turns.
        return [*context_before, *reply_ids, *self._ids(self._prompt.turns[turn], special_tokens=turn == 0)]

    def _ids(self, text: str, *, special_tokens: bool) -> list[int]:
        assert self._tokenizer is not None
        return list(self._tokenizer(text, verbose=False, add_special_tokens=special_tokens).input_ids)

    def _rendered(self, turn: int) -> list[int]:
        assert self._tokenizer is not None
        messages = [{"role": "user", "content": self._prompt.turns[0]}]
        for reply, following in zip(self._replies, self._prompt.turns[1 : turn + 1], strict=True):
            text = str(self._tokenizer.decode(reply, skip_special_tokens=True))
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": following}]
        try:
            rendered = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template is a program of the tokenizer's author and may raise what it likes
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"the tokenizer's chat template refuses turn {turn} ({reason}); give the prompt as 'prompt' or 'ids' "
                "to go without the template"
            ) from None
        return self._ids(str(rendered), special_tokens=False)  # the template writes them itself

"""The contexts of a prompt's turns: ids as they are, text as it stands, turns through a chat template."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from specscope.engine.run.conversation import Conversation
from specscope.engine.run.prompts import Prompt
from specscope.tracer.errors import UsageError

WORDS = ["<unk>", "<s>", "</s>", "<user>", "<bot>", "a", "b", "c", "d", "ok", "fine", "<think>", "hm"]
IDS = {word: number for number, word in enumerate(WORDS)}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}<user> {{ m.content }} {% else %}<bot> {{ m.content }} </s> {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)
# As reasoning models have it: what was thought is left out of the history.
FORGETFUL = TEMPLATE.replace("<bot> {{ m.content }}", "<bot> {{ m.content.split('<think>')[0] }}")
STRICT = "{% if messages|length > 1 %}{{ raise_exception('one message alone\nplease') }}{% endif %}" + TEMPLATE


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", IDS["<s>"])])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )
    wrapped.chat_template = template
    return wrapped


def ids(text: str) -> list[int]:
    return [IDS[word] for word in text.split()]


def contexts(conversation: Conversation, replies: list[list[int]]) -> list[list[int]]:
    """Every turn's context, as a run asks for them."""
    found: list[list[int]] = []
    context: list[int] = []
    reply: list[int] = []
    for turn in range(conversation.num_turns):
        context = conversation.context(turn, context, reply)
        found.append(context)
        reply = replies[turn] if turn < len(replies) else []
    return found


def test_ids_are_taken_as_they_are_without_a_tokenizer() -> None:
    conversation = Conversation(None, Prompt("p", ids=(7, 5)))
    assert (conversation.num_turns, conversation.templated) == (1, False)
    assert conversation.context(0, [], []) == [7, 5]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_text_to_continue_has_no_template(template: str | None) -> None:
    conversation = Conversation(tokenizer(template), Prompt("p", turns=("a b",)))
    assert contexts(conversation, []) == [ids("<s> a b")]


def test_turns_go_through_the_template() -> None:
    conversation = Conversation(tokenizer(TEMPLATE), Prompt("p", turns=("a b", "c", "d"), chat=True))
    assert conversation.templated
    assert contexts(conversation, [ids("ok </s>"), ids("fine")]) == [
        ids("<s> <user> a b <bot>"),
        ids("<s> <user> a b <bot> ok </s> <user> c <bot>"),
        ids("<s> <user> a b <bot> ok </s> <user> c <bot> fine </s> <user> d <bot>"),
    ]


def test_one_turn_of_a_conversation_is_templated_too() -> None:
    conversation = Conversation(tokenizer(TEMPLATE), Prompt("p", turns=("a",), chat=True))
    assert contexts(conversation, []) == [ids("<s> <user> a <bot>")]


def test_a_template_may_forget_what_was_thought() -> None:
    conversation = Conversation(tokenizer(FORGETFUL), Prompt("p", turns=("a", "b"), chat=True))
    assert contexts(conversation, [ids("ok <think> hm")])[1] == ids("<s> <user> a <bot> ok </s> <user> b <bot>")


def test_without_a_template_texts_and_replies_follow_one_another() -> None:
    conversation = Conversation(tokenizer(None), Prompt("p", turns=("a b", "c", "d"), chat=True))
    assert not conversation.templated
    assert contexts(conversation, [ids("ok </s>"), ids("fine")]) == [
        ids("<s> a b"),
        ids("<s> a b ok </s> c"),
        ids("<s> a b ok </s> c fine d"),
    ]


def test_the_rendering_is_transformers_own() -> None:
    wrapped = tokenizer(TEMPLATE)
    messages = [{"role": "user", "content": "a b"}]
    wanted = wrapped.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert contexts(Conversation(wrapped, Prompt("p", turns=("a b",), chat=True)), []) == [wanted]


def test_a_context_can_be_asked_for_again() -> None:
    conversation = Conversation(tokenizer(TEMPLATE), Prompt("p", turns=("a", "b"), chat=True))
    first = contexts(conversation, [ids("ok")])
    assert contexts(conversation, [ids("fine")])[1] == ids("<s> <user> a <bot> fine </s> <user> b <bot>")
    assert contexts(conversation, [ids("ok")]) == first


def test_a_template_that_refuses_is_an_error_in_one_line() -> None:
    conversation = Conversation(tokenizer(STRICT), Prompt("p", turns=("a", "b"), chat=True))
    context = conversation.context(0, [], [])
    with pytest.raises(
        UsageError, match=r"chat template refuses turn 1 \(one message alone\); give the prompt"
    ) as caught:
        conversation.context(1, context, [])
    assert "\n" not in str(caught.value)


def test_text_wants_a_tokenizer() -> None:
    with pytest.raises(UsageError, match="has no tokenizer: give prompts as 'ids'"):
        Conversation(None, Prompt("p", turns=("a",)))

"""What travels between stages: a header of integers, a log of what the stages did, and rows of hidden states.

One message is one flat buffer of bytes that is allocated once and used again and again. The integers and the rows are
views of it, so that sending copies nothing but the rows. Rows that go from device to device lie in a buffer of their
own there, and travel apart: the host reads the rest.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray


class Kind(IntEnum):
    """What a message is for."""

    PREFILL = 1  # rows of the prompt
    ITEM = 2  # one token
    RESULT = 3  # the token that the last stage says
    EPOCH = 4  # an epoch began; nothing to run
    FLUSH = 5  # hand on what the stages did, no rows
    STOP = 6  # the run is over; it goes through all stages
    LEAVE = 7  # nothing more comes from this sender


class Field(IntEnum):
    """Places in the header."""

    KIND = 0
    POSITION = 1  # of the first row
    TOKEN = 2  # fed at it; in a result, what follows it
    EPOCH = 3
    NUM_ROWS = 4
    WANTS_RESULT = 5  # 1 where the last stage is to say what follows the last row
    SENT_NS = 6  # on the sender's clock
    COIN = 7  # bits of a float64: what the last stage draws with
    NUM_EVENTS = 8  # in the log
    UNLOGGED = 9  # events that did not fit


class EventKind(IntEnum):
    """What a stage did, or what became of an item."""

    PREFILL = 1
    VERIFY = 2
    DRAFT = 3
    HOP = 4
    DROP = 5
    CUT = 6


class Event(NamedTuple):
    """One entry of the log. Times are on the stage's own clock."""

    stage: int
    kind: EventKind
    position: int
    epoch: int
    start: int  # ns; of a cut, the length before
    end: int  # ns; of a cut, the length after; of a drop, the reason's number


HEADER_INTS = len(Field)
INT_BYTES = 8


class Shape(NamedTuple):
    """What the messages of a run have room for."""

    max_rows: int
    row_bytes: int
    max_events: int  # 0 where nothing is logged
    extra_bytes: int  # of a result: what the last stage says besides the token
    rows_on: torch.device | None = None  # whose memory the rows lie in, apart; None: the host's, behind the log

    @property
    def head_bytes(self) -> int:
        """Of the header and the log."""
        return (HEADER_INTS + self.max_events * len(Event._fields)) * INT_BYTES

    @property
    def num_bytes(self) -> int:
        """Of the largest message, without rows that lie apart."""
        rows = self.max_rows * self.row_bytes if self.rows_on is None else 0
        return self.head_bytes + max(rows, self.extra_bytes)


class Message:
    """One buffer, and views of its parts."""

    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        self.buffer = torch.zeros(shape.num_bytes, dtype=torch.uint8)
        self._shape = shape
        self._dtype = dtype
        ints: NDArray[np.int64] = self.buffer.numpy()[: shape.head_bytes].view(np.int64)
        self.header = ints[:HEADER_INTS]
        self._log = ints[HEADER_INTS:].reshape(shape.max_events, len(Event._fields))
        self._body = self.buffer[shape.head_bytes :]
        self._apart: torch.Tensor | None = None
        if shape.rows_on is not None:
            width = shape.row_bytes // torch.empty((), dtype=dtype).element_size()
            self._apart = torch.empty(1, shape.max_rows, width, dtype=dtype, device=shape.rows_on)

    @property
    def kind(self) -> Kind:
        """What it is for."""
        return Kind(int(self.header[Field.KIND]))

    @property
    def num_rows(self) -> int:
        """Rows of hidden states in it."""
        return int(self.header[Field.NUM_ROWS])

    def get(self, field: Field) -> int:
        """One integer of the header."""
        return int(self.header[field])

    def begin(self, kind: Kind, **fields: int) -> Message:
        """Empties it, for a new message."""
        self.header[:] = 0
        self.header[Field.KIND] = kind
        for name, value in fields.items():
            self.header[Field[name.upper()]] = value
        return self

    @property
    def coin(self) -> float:
        """What the last stage draws with."""
        return float(self.header[Field.COIN : Field.COIN + 1].view(np.float64)[0])

    @coin.setter
    def coin(self, value: float) -> None:
        self.header[Field.COIN : Field.COIN + 1].view(np.float64)[0] = value

    def rows(self) -> torch.Tensor:
        """(1, P, H) of the hidden states, as a view."""
        if self._apart is not None:
            return self._apart[:, : self.num_rows]
        size = self.num_rows * self._shape.row_bytes
        return self._body[:size].view(self._dtype).view(1, self.num_rows, -1)

    def put_rows(self, hidden: torch.Tensor) -> None:
        """Copies ``hidden`` (1, P, H) in."""
        self.header[Field.NUM_ROWS] = hidden.shape[1]
        self.rows().copy_(hidden)

    def extra(self) -> NDArray[np.float64]:
        """What a result says besides the token, as a view."""
        values: NDArray[np.float64] = self._body[: self._shape.extra_bytes].numpy().view(np.float64)
        return values

    def content(self) -> torch.Tensor:
        """The bytes that have to travel, without rows that travel apart."""
        if self.kind == Kind.RESULT:
            body = self._shape.extra_bytes
        else:
            body = self.num_rows * self._shape.row_bytes if self._apart is None else 0
        return self.buffer[: self._shape.head_bytes + body]

    def rows_apart(self) -> torch.Tensor | None:
        """(1, P, H) that travel by themselves; None where they do not, or there are none."""
        return self.rows() if self._apart is not None and self.num_rows else None

    def events(self) -> list[Event]:
        """The log."""
        entries = self._log[: self.get(Field.NUM_EVENTS)].tolist()
        return [Event(stage, EventKind(kind), *rest) for stage, kind, *rest in entries]

    def log(self, events: list[Event]) -> list[Event]:
        """Adds as many of ``events`` as there is room for; returns those that are left."""
        start = self.get(Field.NUM_EVENTS)
        fitting = events[: len(self._log) - start]
        if fitting:
            self._log[start : start + len(fitting)] = fitting
            self.header[Field.NUM_EVENTS] += len(fitting)
        left = events[len(fitting) :]
        self.header[Field.UNLOGGED] += len(left)
        return left

    def pass_log(self, source: Message) -> None:
        """Takes over the log of ``source``."""
        count = source.get(Field.NUM_EVENTS)
        self._log[:count] = source._log[:count]
        self.header[Field.NUM_EVENTS] = count
        self.header[Field.UNLOGGED] = source.get(Field.UNLOGGED)

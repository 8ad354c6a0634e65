"""The options that say what computes: mode, attention, device, dtype, and how. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from specscope.engine.backends.kernels import BUILT_IN, check_kernel_name
from specscope.engine.settings import DTYPE_NAMES, MODES, PRODUCTS, check_device_name

Command = TypeVar("Command", bound=Callable[..., Any])
#: The paper's words for the modes, as synonyms.
SYNONYMS = {"reference": "eager", "performance": "fused"}


def all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """A decorator that gives a command all of ``options``."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class DeviceName(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """A device by its name; whether it is there is found out where torch is loaded."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, refused where it can be none."""
        check_device_name(str(value))
        return str(value)


class AttentionName(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # as above
    """``eager``, ``fused``, or the name of a kernel."""

    name = "attention"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, refused where there can be no such kernel."""
        if value not in BUILT_IN:
            check_kernel_name(str(value))
        return str(value)


DEVICE = DeviceName()
ATTENTION_NAME = AttentionName()
device_option = click.option(
    "--device",
    type=DEVICE,
    metavar="NAME",
    default="auto",
    show_default=True,
    envvar="SPECSCOPE_DEVICE",
    show_envvar=True,
    help="cpu, cuda, cuda:1, npu, mps, or another device that torch knows by name.",
)
self_check_option = click.option(
    "--no-self-check",
    "self_check",
    flag_value=False,
    default=True,
    help="Run the kernel without comparing it with the eager attention first.",
)

computing_options = all_of(
    click.option(
        "--mode",
        type=click.Choice([*MODES, *SYNONYMS]),
        envvar="SPECSCOPE_MODE",
        show_envvar=True,
        help="fused (performance), eager (reference), or baseline: no drafts, only the teacher. Default: fused.",
    ),
    click.option(
        "--attention",
        type=ATTENTION_NAME,
        metavar="NAME",
        envvar="SPECSCOPE_ATTENTION",
        show_envvar=True,
        help="eager, fused, or a kernel of your own: MODULE:FUNCTION, or an installed name. Without --mode it chooses "
        "the mode. Default: fused.",
    ),
    self_check_option,
    click.option(
        "--graph/--no-graph",
        "graph",
        default=None,
        help="Capture the verify forward in a graph and replay it. On a CPU the graph is emulated, slowly.  "
        "[default: on cuda]",
    ),
    click.option(
        "--products",
        type=click.Choice(PRODUCTS),
        default="auto",
        show_default=True,
        help="On a CPU, matrix products by torch (plain), by oneDNN on weights packed for it (packed), or as is faster "
        "(auto). The eager path has plain ones.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(DTYPE_NAMES),
        default="float32",
        show_default=True,
        envvar="SPECSCOPE_DTYPE",
        show_envvar=True,
    ),
    device_option,
)

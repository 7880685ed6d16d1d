"""A contender in a process of its own, which trains when it is told to."""

from __future__ import annotations

import logging
import multiprocessing
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from contenders import CONTENDERS, ours
from contenders.pace import Over, Pace, Turns, waiting_for
from contenders.setting import Setting
from tutelage.evaluation.scores import measure_network
from tutelage.system.memory import kept_memory


def _settle(setting: Setting) -> None:
    warnings.simplefilter("ignore")
    # Warnings stay: a failed compilation is told by one.
    logging.disable(logging.INFO)
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    torch.manual_seed(setting.seed)
    # Workers begin as they do in any other program: only this process had to be a fresh one.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)


def trainer(who: str) -> Callable[[Setting, Pace], nn.Module]:
    """Return the function that trains: a contender's, or that of any method of Tutelage."""
    if who not in CONTENDERS:
        return partial(ours.method_by_name, who)

    def train(setting: Setting, pace: Pace) -> nn.Module:
        with kept_memory(CONTENDERS[who].keeps_memory):
            return CONTENDERS[who].train()(setting, pace)

    return train


def take_turns(pipe: Connection, who: str, setting: Setting, lead: int, steps: int) -> None:
    """Train a contender, a turn for each prompt from the pipe, and tell what each took.

    Args:
        pipe: To whoever gives the turns.
        who: A contender, or a method of Tutelage as it is chosen on the command line.
        setting: What is shared.
        lead: Steps of a turn before the timed ones.
        steps: Timed steps of a turn.
    """
    _settle(setting)

    def tell(what: dict[str, Any]) -> None:
        pipe.send({**what, "threads": torch.get_num_threads()})

    try:
        total = setting.total_steps(setting.load())
        turns = Turns(setting.lr, total, tell=tell, wait=waiting_for(pipe), lead=lead, steps=steps)
        trainer(who)(setting, turns)
        pipe.send({"error": f"the schedule of {total} steps was over before the turns were: ask for more epochs"})
    except Over:
        return
    except Exception as error:  # Whatever breaks in one contender must not end the others.
        pipe.send({"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})


def train_whole(pipe: Connection, name: str, setting: Setting) -> None:
    """Train a contender from beginning to end, and tell how good its student is on the test images."""
    _settle(setting)
    try:
        data = setting.load()
        started = time.perf_counter()
        network = trainer(name)(setting, Pace(setting.lr, setting.total_steps(data)))
        seconds = time.perf_counter() - started
        scores = measure_network(network, data, "test", device=setting.device.type).compute()
        pipe.send({**scores, "seconds": seconds})
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})

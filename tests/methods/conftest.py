"""A network that answers with its inputs, slow arithmetic, and a run that trains nothing."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output


class Slow:
    """The equations of the papers in plain Python, one number at a time."""

    @staticmethod
    def softmax(row, temperature=1.0):
        top = max(row)
        weights = [math.exp((value - top) / temperature) for value in row]
        return [weight / math.fsum(weights) for weight in weights]

    @staticmethod
    def entropy(p):
        return -math.fsum(x * math.log(x) for x in p if x > 0)

    @staticmethod
    def cross_entropy(target, p):
        return -math.fsum(t * math.log(x) for t, x in zip(target, p, strict=True) if t > 0)

    @classmethod
    def kl(cls, target, p):
        return cls.cross_entropy(target, p) - cls.entropy(target)

    @staticmethod
    def one_hot(label, classes):
        return [float(k == label) for k in range(classes)]

    @classmethod
    def mean(cls, values):
        values = list(values)
        return math.fsum(values) / len(values)

    @classmethod
    def label_loss(cls, logits, labels):
        return cls.mean(-math.log(cls.softmax(row)[y]) for row, y in zip(logits, labels, strict=True))

    @classmethod
    def target_loss(cls, logits, targets):
        return cls.mean(cls.cross_entropy(t, cls.softmax(row)) for row, t in zip(logits, targets, strict=True))

    @classmethod
    def soft_loss(cls, student, teacher, temperature):
        """The mean over the batch of KL(teacher || student), both softened; no square of the temperature."""
        pairs = zip(student, teacher, strict=True)
        return cls.mean(cls.kl(cls.softmax(t, temperature), cls.softmax(s, temperature)) for s, t in pairs)


class Parrot(Teacher):
    """A teacher that says the same whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, batch):
        return Output(logits=self.logits)


class IdleRun:
    """A run whose stages train nothing; it remembers what it was asked for."""

    def __init__(self):
        self.fits, self.notes, self.evaluated = [], {}, []

    def fit(self, name, method, data, **options):
        self.fits.append(SimpleNamespace(name=name, method=method, data=data, options=options))
        return method.export()

    def evaluate(self, name, network, data):
        self.evaluated.append((name, network))
        return {"accuracy": 0.25, "nll": 1.0, "ece": 0.5}

    def note(self, **facts):
        self.notes |= facts


def _indices(args):
    return args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else []


class Waits(TorchDispatchMode):
    """Notes the operations for whose result the host would wait on an accelerator."""

    NAMES = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"})

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        moves = name == "_to_copy" and (kwargs or {}).get("device") is not None
        # A mask is counted before it picks; indices pick at once.
        masks = name.startswith("index") and any(i is not None and i.dtype == torch.bool for i in _indices(args))
        if name in self.NAMES or name.startswith(("unique", "_unique")) or moves or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def slow():
    return Slow


@pytest.fixture
def parrot():
    return Parrot


@pytest.fixture
def waits():
    """Returns the operations of a function for whose result the host would wait on an accelerator."""

    def waits(function):
        with Waits() as mode:
            function()
        return mode.found

    return waits


@pytest.fixture
def echo():
    """A network whose logits are its inputs."""
    return nn.Identity()


@pytest.fixture
def run():
    return IdleRun()


@pytest.fixture
def make():
    """Makes networks, and remembers for which part."""

    def build(part):
        build.parts.append(part)
        network = nn.Linear(4, 3)
        build.networks.append(network)
        return network

    build.parts, build.networks = [], []
    return build


@pytest.fixture
def with_test():
    return SimpleNamespace(test="test images")


@pytest.fixture
def without_test():
    return SimpleNamespace(test=None)


@pytest.fixture
def measure():
    """Returns a method's weighted loss on logits, the gradient for them, and the named losses."""

    def measure(method, logits, labels):
        from tutelage.core.method import Progress, Update

        logits = logits.detach().clone().requires_grad_(True)
        losses = method.losses(Batch(inputs=logits, targets=labels))
        total = method.total(Update(losses), Progress())
        (gradient,) = torch.autograd.grad(total, logits)
        return SimpleNamespace(total=total.item(), gradient=gradient, losses={k: v.item() for k, v in losses.items()})

    return measure

"""PyTorch step of MoCo-LoGo as in the released code, with three passes."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from logo_jax.methods.base import Batch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Block(nn.Module):
    """Residual block of two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.short = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's output."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.short(x))


def encoder(width: int, dim: int) -> nn.Module:
    """Returns a ResNet-18 with the CIFAR stem and MoCo's projection head."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for i in range(4):
        for j in range(2):
            layers.append(Block(inputs, width * 2**i, 2 if i and not j else 1))
            inputs = width * 2**i
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = [nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, dim)]
    return nn.Sequential(*layers, *head)


class ReleasedStep:
    """Regressor step, clipped repulsion step, main step; keys of all four crops.

    Source: follows the order of ztt1024/LoGo-SSL@trainers.py, rewritten.

    Args:
        width: channels of the first stage.
        dim: size of the embedding.
        queue_size: number of keys in the queue.
        compiled: whether the encoders are compiled by `torch.compile`.
        half: whether the encoders run under autocast to bfloat16.
    """

    def __init__(
        self,
        width: int,
        dim: int = 128,
        queue_size: int = 4096,
        *,
        compiled: bool = False,
        half: bool = False,
    ):
        self.half = half
        self.query = encoder(width, dim).to(memory_format=torch.channels_last)
        self.key = copy.deepcopy(self.query)
        hidden = 256
        self.regressor = nn.Sequential(
            nn.Linear(2 * dim, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

        def sgd(net: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(
                net.parameters(), 0.03, momentum=0.9, weight_decay=1e-4
            )

        self.main, self.repel = sgd(self.query), sgd(self.query)
        self.regress = sgd(self.regressor)
        for net in (self.query, self.key, self.regressor):
            net.to(DEVICE)
        if compiled:
            self.query.compile()
            self.key.compile()
        self.queue = F.normalize(torch.randn(queue_size, dim, device=DEVICE), dim=1)
        self.cursor, self.norm = 0, 0.0

    def __call__(self, crops: list[torch.Tensor]) -> float:
        """Runs one step on the crops [g1, g2, l1, l2]; returns the main loss."""
        self._move_key()
        first, second = (self._embed(self.query, x) for x in crops[2:])
        self._train_regressor(first.detach(), second.detach())
        repulsion = F.softplus(self.regressor(torch.cat([first, second], 1))).mean()
        self.repel.zero_grad()
        repulsion.backward()
        nn.utils.clip_grad_norm_(self.query.parameters(), 0.015 * self.norm)
        self.repel.step()
        queries = [self._embed(self.query, x) for x in crops]
        with torch.no_grad():
            self._move_key()
            keys = [self._embed(self.key, x) for x in crops][:2]
        loss = self._contrast(queries, keys)
        self.main.zero_grad()
        loss.backward()
        grads = [p.grad.norm() for p in self.query.parameters() if p.grad is not None]
        self.norm = torch.stack(grads).norm().item()
        self.main.step()
        self._enqueue(torch.cat(keys))
        return loss.item()

    def _embed(self, net, crops):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.half):
            embeddings = net(crops)
        return F.normalize(embeddings.float(), dim=1)

    def _move_key(self):
        with torch.no_grad():
            pairs = zip(self.key.parameters(), self.query.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 0.001)

    def _train_regressor(self, first, second):
        noise = [0.3 / first.shape[1] ** 0.5 * torch.randn_like(first) for _ in "ab"]
        loss = torch.zeros((), device=DEVICE)
        for a, b in ((first, second), (second, first)):
            same = self.regressor(torch.cat([a + noise[0], b + noise[1]], 1))
            other = self.regressor(torch.cat([a, b.flip(0)], 1))
            loss = loss + 0.5 * (F.softplus(-same).mean() + F.softplus(other).mean())
        self.regress.zero_grad()
        loss.backward()
        self.regress.step()

    def _contrast(self, queries, keys):
        pairs = [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
        negatives = self.queue.clone()
        losses = []
        for s, t in pairs:
            positive = (queries[s] * keys[t]).sum(1, keepdim=True)
            logits = torch.cat([positive, queries[s] @ negatives.T], 1) / 0.07
            target = torch.zeros(len(logits), dtype=torch.long, device=DEVICE)
            losses.append(F.cross_entropy(logits, target))
        return torch.stack(losses).mean()

    def _enqueue(self, keys):
        self.queue[self.cursor : self.cursor + len(keys)] = keys
        self.cursor = (self.cursor + len(keys)) % len(self.queue)


def contenders(
    width: int, batch: Batch, *, compiled: bool
) -> dict[str, Callable[[], None]]:
    """Returns functions that run a step, and one for its convolutions alone, by name.

    On a GPU there is also a step in bfloat16.

    Args:
        width: channels of the first stage.
        batch: two global and two local crops of one size.
        compiled: whether to add a step of `torch.compile`, in bfloat16 on a GPU.
    """
    crops = [
        torch.from_numpy(np.ascontiguousarray(group[:, i].transpose(0, 3, 1, 2)))
        for group in batch[:2]
        for i in range(2)
    ]
    crops = [x.to(DEVICE, memory_format=torch.channels_last) for x in crops]
    fast = DEVICE == "cuda"
    kinds = {"torch released": {}}
    kinds |= {"torch released bfloat16": {"half": True}} if fast else {}
    kinds |= {"torch compiled": {"compiled": True, "half": fast}} if compiled else {}
    runs = {}
    for name, options in kinds.items():
        torch.manual_seed(0)
        runs[name] = _step(ReleasedStep(width, **options), crops)
    return runs | {"torch convolutions": _convolutions(width, crops[0])}


def _step(released: ReleasedStep, crops: list[torch.Tensor]) -> Callable[[], None]:
    return lambda: released(crops) and None  # reading the loss waits for the step


def _convolutions(width: int, crop: torch.Tensor) -> Callable[[], None]:
    """Returns the convolutions of a step: six crops with gradients, four keys."""
    calls = _convolutions_of(encoder(width, 128), crop)

    def run() -> None:
        for _ in range(6):
            for conv, x in calls:
                y = conv(x)
                wanted = [t for t in (x, conv.weight) if t.requires_grad]
                torch.autograd.grad(y, wanted, y.detach())
        with torch.no_grad():
            for conv, x in 4 * calls:
                conv(x)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run


def _convolutions_of(net: nn.Module, crop: torch.Tensor) -> list[tuple]:
    """Returns each convolution and its input; all but the first need its gradient."""
    net.to(DEVICE, memory_format=torch.channels_last)
    inputs: list[tuple[nn.Module, torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(
            lambda conv, x, y: inputs.append((conv, x[0].detach()))
        )
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    net(crop)
    for hook in hooks:
        hook.remove()
    return [(conv, x.requires_grad_(i > 0)) for i, (conv, x) in enumerate(inputs)]

"""A plain PyTorch MoCo-LoGo step as released, for comparison: three passes, float32."""

import copy

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

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
        """The block's output."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.short(x))


def encoder(width: int, dim: int) -> nn.Module:
    """ResNet-18 with the CIFAR stem and MoCo's head."""
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

    Source: the order of ztt1024/LoGo-SSL@trainers.py, written anew.

    Args:
        width: channels of the first stage.
        dim: of the embedding.
        queue_size: keys remembered.
    """

    def __init__(self, width: int, dim: int = 128, queue_size: int = 4096):
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
        self.queue = F.normalize(torch.randn(queue_size, dim), dim=1)
        self.cursor, self.norm = 0, 0.0

    def __call__(self, crops: list[torch.Tensor]) -> float:
        """One step on [g1, g2, l1, l2]; returns the main loss."""
        self._move_key()
        first, second = (F.normalize(self.query(x), dim=1) for x in crops[2:])
        self._train_regressor(first.detach(), second.detach())
        repulsion = F.softplus(self.regressor(torch.cat([first, second], 1))).mean()
        self.repel.zero_grad()
        repulsion.backward()
        nn.utils.clip_grad_norm_(self.query.parameters(), 0.015 * self.norm)
        self.repel.step()
        queries = [F.normalize(self.query(x), dim=1) for x in crops]
        with torch.no_grad():
            self._move_key()
            keys = [F.normalize(self.key(x), dim=1) for x in crops][:2]
        loss = self._contrast(queries, keys)
        self.main.zero_grad()
        loss.backward()
        grads = [p.grad.norm() for p in self.query.parameters() if p.grad is not None]
        self.norm = torch.stack(grads).norm().item()
        self.main.step()
        self._enqueue(torch.cat(keys))
        return loss.item()

    def _move_key(self):
        with torch.no_grad():
            pairs = zip(self.key.parameters(), self.query.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 0.001)

    def _train_regressor(self, first, second):
        noise = [0.3 / first.shape[1] ** 0.5 * torch.randn_like(first) for _ in "ab"]
        loss = torch.zeros(())
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
            target = torch.zeros(len(logits), dtype=torch.long)
            losses.append(F.cross_entropy(logits, target))
        return torch.stack(losses).mean()

    def _enqueue(self, keys):
        self.queue[self.cursor : self.cursor + len(keys)] = keys
        self.cursor = (self.cursor + len(keys)) % len(self.queue)

"""MoCo, SimSiam and LoGo's joint update in PyTorch and torchvision, from a config.

`benchmarks.torch_curves` compares them with this library. Only the values of the config
are shared: crops, augmentation, blocks, initialization, losses, optimizer and random
numbers are those of PyTorch and torchvision, or are written here.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3

Config = Mapping[str, Any]
Encode = Callable[[np.ndarray], np.ndarray]

BLOCKS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)}


class Crops(Dataset):
    """Augmented crops of images.

    Args:
        images: uint8 [n, h, w, 3].
        config: the config of a run.
    """

    def __init__(self, images: np.ndarray, config: Config):
        self.images, crops = images, config["crops"]
        self.transforms = [
            transform(side, area, crops["aspect_ratio"], config["augment"])
            for count, side, area in (crops["global_crops"], crops["local_crops"])
            for _ in range(count)
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> list[torch.Tensor]:
        """Returns the crops of an image, each uint8 [3, s, s], global crops first."""
        image = Image.fromarray(self.images[i])
        return [augment(image) for augment in self.transforms]


def transform(
    side: int, area: Sequence[float], aspect_ratio: Sequence[float], augment: Config
) -> transforms.Compose:
    """Returns the augmentation of a Pillow image to uint8, in the order of MoCo v2."""
    jitter = transforms.ColorJitter(*augment["jitter"])
    steps = [
        transforms.RandomResizedCrop(side, scale=area, ratio=aspect_ratio),
        transforms.RandomApply([jitter], augment["jitter_prob"]),
        transforms.RandomGrayscale(augment["grayscale_prob"]),
    ]
    if augment["blur_prob"]:
        blur = transforms.GaussianBlur(23, augment["blur_sigma"])
        steps.append(transforms.RandomApply([blur], augment["blur_prob"]))
    return transforms.Compose(
        [
            *steps,
            transforms.RandomHorizontalFlip(augment["flip_prob"]),
            transforms.PILToTensor(),
        ]
    )


def normalization(augment: Config) -> transforms.Compose:
    """Returns the normalization of a batch of uint8 images [b, 3, h, w]."""
    return transforms.Compose(
        [
            transforms.ConvertImageDtype(torch.float32),
            transforms.Normalize(augment["mean"], augment["std"]),
        ]
    )


class SplitBatchNorm(nn.BatchNorm2d):
    """Batch norm with statistics of `groups` parts of the batch.

    Works on [b, c] and on [b, c, h, w]. Image i is in group i modulo `groups`. The
    running statistics move by the mean over the groups.

    Source: facebookresearch/moco's CIFAR-10 notebook, SplitBatchNorm.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__(channels)
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x, normalized."""
        mean, var = self.running_mean, self.running_var
        if not self.training:
            return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        means, variances, scale, bias = (
            vector.expand(self.groups, -1).reshape(-1)  # faster than repeat
            for vector in (mean, var, self.weight, self.bias)
        )
        grouped = x.reshape(-1, self.groups * x.shape[1], *x.shape[2:])
        normalized = F.batch_norm(
            grouped, means, variances, scale, bias, True, self.momentum, self.eps
        )
        with torch.no_grad():
            mean.copy_(means.view(self.groups, -1).mean(0))
            var.copy_(variances.view(self.groups, -1).mean(0))
        return normalized.reshape(x.shape)


def norms(batch_norm: str) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """Returns constructors of batch norms of images and of vectors."""
    kind, _, groups = batch_norm.partition(":")
    if kind == "split":

        def split(channels: int) -> SplitBatchNorm:
            return SplitBatchNorm(channels, int(groups))

        return split, split
    return nn.BatchNorm2d, nn.BatchNorm1d


def backbone(config: Config, norm: Callable[..., nn.Module]) -> nn.Sequential:
    """Returns a ResNet of torchvision's blocks, with CIFAR's stem and no classifier.

    Args:
        config: the encoder group of a config.
        norm: constructor of the batch norms.
    """
    width = inputs = config["width"]
    layers: list[nn.Module] = [conv3x3(3, width), norm(width), nn.ReLU()]
    for i, count in enumerate(BLOCKS[config["backbone"]]):
        for j in range(count):
            outputs, stride = width * 2**i, 2 if i and not j else 1
            shortcut = None
            if inputs != outputs:
                shortcut = nn.Sequential(
                    conv1x1(inputs, outputs, stride), norm(outputs)
                )
            layers.append(
                BasicBlock(inputs, outputs, stride, shortcut, norm_layer=norm)
            )
            inputs = outputs
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in network.modules():  # as in torchvision.models.resnet.ResNet
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, BasicBlock) and config["zero_init_residual"]:
            nn.init.zeros_(module.bn2.weight)
    return network


def encoder(config: Config) -> nn.Sequential:
    """Returns the backbone and the projection head of a config."""
    of_images, of_vectors = norms(config["batch_norm"])
    group = config["encoder"]
    features = 8 * group["width"]
    hidden, dim = group["head_hidden"], group["embedding_dim"]
    if group["head"] == "moco":
        head = [nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, dim)]
    else:
        head, inputs = [], features
        for _ in range(group["head_layers"] - 1):
            head += [nn.Linear(inputs, hidden, bias=False), of_vectors(hidden)]
            head.append(nn.ReLU())
            inputs = hidden
        head += [nn.Linear(inputs, dim, bias=False), nn.BatchNorm1d(dim, affine=False)]
    return nn.Sequential(backbone(group, of_images), nn.Sequential(*head))


def directed_pairs(
    pairing: str, num_global: int, num_local: int
) -> list[tuple[int, int]]:
    """Returns (predicting view, target view) of each pair; global views come first."""
    if pairing == "one_way":
        return [(0, 1)]
    sources = num_global if pairing == "symmetric" else num_global + num_local
    views = itertools.product(range(sources), range(num_global))
    return [(source, target) for source, target in views if source != target]


class Method:
    """A method: its networks, and the loss of a batch.

    Attributes:
        networks: all trained networks by name; "encoder" is evaluated.
        decays: whether the learning rate of a network decays, for the networks that the
            loss trains.
    """

    def __init__(self, config: Config):
        crops = config["crops"]
        self.num_global = crops["global_crops"][0]
        self.pairs = directed_pairs(
            config["pairing"], self.num_global, crops["local_crops"][0]
        )
        self.encoder = encoder(config)
        self.networks: dict[str, nn.Module] = {"encoder": self.encoder}
        self.decays = {"encoder": True}

    def loss(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns the loss of the views of a batch, each [b, 3, s, s]."""
        raise NotImplementedError


class SimSiam(Method):
    """SimSiam, with a predictor whose learning rate may be constant.

    Source: facebookresearch/simsiam@simsiam/builder.py, rewritten.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        group, dim = config["method"], config["encoder"]["embedding_dim"]
        hidden, (_, norm) = group["predictor_hidden"], norms(config["batch_norm"])
        self.predictor = nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            norm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
        )
        self.networks["predictor"] = self.predictor
        self.decays["predictor"] = not group["predictor_fixed_rate"]

    def loss(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns the mean negative cosine of predictions and targets."""
        embeddings = [self.encoder(view) for view in views]
        predictions = {s: self.predictor(embeddings[s]) for s, _ in self.pairs}
        cosines = [
            F.cosine_similarity(predictions[s], embeddings[t].detach()).mean()
            for s, t in self.pairs
        ]
        return -torch.stack(cosines).mean()


class MoCo(Method):
    """MoCo with shuffled batch norm and, if the config has it, LoGo's repulsion.

    Source: facebookresearch/moco's CIFAR-10 notebook, rewritten.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        group, dim = config["method"], config["encoder"]["embedding_dim"]
        self.momentum, self.temperature = group["momentum"], group["temperature"]
        self.key_encoder = copy.deepcopy(self.encoder)
        self.key_encoder.requires_grad_(False)
        self.queue = F.normalize(torch.randn(group["queue_size"], dim), dim=1)
        self.cursor = 0
        self.repulsion = None
        if config["logo"]["update_kind"] == "joint":
            self.repulsion = Repulsion(config)
            self.networks["regressor"] = self.repulsion.regressor

    def loss(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns the mean InfoNCE of the pairs, with LoGo's repulsion if there is one.

        The key encoder is updated before, and the queue after the keys are used.
        """
        self._move_key_encoder()
        keys = {t: self._key(views[t]) for t in sorted({t for _, t in self.pairs})}
        queries = {
            s: self.encoder(views[s]) for s in sorted({s for s, _ in self.pairs})
        }
        losses = [self._info_nce(queries[s], keys[t]) for s, t in self.pairs]
        loss = torch.stack(losses).mean()
        if self.repulsion is not None:
            first, second = (queries[s] for s in range(self.num_global, len(views)))
            loss = loss + self.repulsion(first, second)
        self._enqueue(torch.cat(list(keys.values())))
        return loss

    @torch.no_grad()
    def _move_key_encoder(self):
        both = self.key_encoder.parameters(), self.encoder.parameters()
        for slow, fast in zip(*both, strict=True):
            slow.mul_(self.momentum).add_(fast, alpha=1 - self.momentum)

    @torch.no_grad()
    def _key(self, view):
        """Returns the keys of a view, which is shuffled between groups of a norm."""
        order = torch.randperm(len(view))
        keys = F.normalize(self.key_encoder(view[order]), dim=1)
        return keys[torch.argsort(order)]

    def _info_nce(self, embeddings, keys):
        queries = F.normalize(embeddings, dim=1)
        positive = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat([positive, queries @ self.queue.T], dim=1)
        first = torch.zeros(len(queries), dtype=torch.long)
        return F.cross_entropy(logits / self.temperature, first)

    def _enqueue(self, keys):
        """Replaces the oldest keys, in a new tensor: the gradient needs the old one."""
        self.queue = self.queue.clone()
        self.queue[self.cursor : self.cursor + len(keys)] = keys
        self.cursor = (self.cursor + len(keys)) % len(self.queue)


class Repulsion:
    """LoGo's regressor: learns from two local crops of an image, then repels them.

    Each kind of pairs has a batch of its own for the batch norm, and only pairs of one
    image have noise.

    Source: ztt1024/LoGo-SSL@trainers.py, rewritten.

    Args:
        config: the config of a run.
    """

    def __init__(self, config: Config):
        group, dim = config["logo"], config["encoder"]["embedding_dim"]
        inputs, width = 2 * dim, group["regressor_width"]
        _, norm = norms(config["batch_norm"])
        layers = []
        for _ in range(group["regressor_depth"]):
            layers += [nn.Linear(inputs, width), norm(width), nn.ReLU()]
            inputs = width
        self.regressor = nn.Sequential(*layers, nn.Linear(inputs, 1))
        rate = scaled(group["regressor_learning_rate"], config)
        self.optimizer = sgd([(self.regressor, rate)], config)
        self.noise, self.weight = group["noise"] / dim**0.5, group["weight"]

    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Takes a step of the regressor; returns the term of the encoder's loss.

        Args:
            first: embeddings of a local crop of each image, [b, d].
            second: embeddings of the other local crop, [b, d].
        """
        first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
        self._learn(first.detach(), second.detach())
        return self.weight * F.softplus(self._score(first, second)).mean()

    def _score(self, first, second):
        return self.regressor(torch.cat([first, second], dim=1))

    def _learn(self, a, b):
        at_first, at_second = (self.noise * torch.randn_like(a) for _ in range(2))
        others = b.flip(0)
        same = (
            self._score(a + at_first, b + at_second),
            self._score(b + at_first, a + at_second),
        )
        different = self._score(a, others), self._score(others, a)
        loss = F.softplus(-torch.cat(same)).mean()
        loss = loss + F.softplus(torch.cat(different)).mean()
        self.optimizer.zero_grad()  # also drops what the repulsion left in them
        loss.backward()
        self.optimizer.step()


METHODS = {"moco": MoCo, "simsiam": SimSiam}


def scaled(rate: float, config: Config) -> float:
    """Converts a learning rate for a batch of 256 images to the config's batch."""
    return rate * config["data"]["batch_size"] / 256


def sgd(
    networks: Sequence[tuple[nn.Module, float]], config: Config
) -> torch.optim.Optimizer:
    """Returns SGD of networks, each with its learning rate."""
    groups = [
        {"params": network.parameters(), "lr": rate} for network, rate in networks
    ]
    group = config["optimizer"]
    return torch.optim.SGD(
        groups, momentum=group["momentum"], weight_decay=group["weight_decay"]
    )


def make_method(config: Config) -> Method:
    """Returns the method of a config, with the random numbers of its seed."""
    torch.manual_seed(config["seed"])
    return METHODS[config["method"]["name"]](config)


def train(
    method: Method, config: Config, images: np.ndarray, every: int
) -> Iterator[tuple[int, float, Encode]]:
    """Trains a method on one thread.

    Args:
        method: the method, which is changed.
        config: the config of a run.
        images: training images, uint8 [n, h, w, 3].
        every: number of steps between two evaluations.

    Yields:
        After each multiple of `every`, and at the end: the number of steps, the mean
        loss since the last time, and a function from uint8 images to features of the
        backbone in evaluation mode.
    """
    torch.set_num_threads(1)
    steps, peak = config["train"]["num_steps"], config["optimizer"]["learning_rate"]
    rate = scaled(peak, config)
    optimizer = sgd([(method.networks[name], rate) for name in method.decays], config)

    def cosine(step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / steps))

    factors = [cosine if decays else lambda _: 1.0 for decays in method.decays.values()]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    size = config["data"]["batch_size"]
    loader = DataLoader(Crops(images, config), size, shuffle=True, drop_last=True)
    normalize = normalization(config["augment"])
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    losses = []
    for step, views in enumerate(itertools.islice(epochs, steps), 1):
        loss = method.loss([normalize(view) for view in views])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % every == 0 or step == steps:
            yield step, float(np.mean(losses)), encode_with(method.encoder, config)
            losses.clear()


def encode_with(network: nn.Sequential, config: Config) -> Encode:
    """Returns a function from uint8 [b, h, w, 3] to features of the backbone [b, f]."""
    normalize = normalization(config["augment"])

    @torch.no_grad()
    def encode(images: np.ndarray) -> np.ndarray:
        planes = torch.from_numpy(images).permute(0, 3, 1, 2)
        network.eval()
        features = network[0](normalize(planes))
        network.train()
        return features.numpy()

    return encode

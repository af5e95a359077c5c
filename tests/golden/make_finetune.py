"""Writes tests/golden/data/finetune.npz: a ResNet that PyTorch fine-tunes for 5 steps.

    python -m tests.golden.make_finetune

It needs torch and torchvision, which the tests do not. Weights, images and labels are
drawn from NumPy's RandomState, whose streams are the same in all versions, so the file
contains only the losses and the weights after the last step. The file of this
repository is of torch 2.14.1, torchvision 0.29.1.
"""

import numpy as np

from tests.golden.torch_names import DATA

SIDE, WIDTH, CLASSES, BATCH, STEPS = 16, 8, 5, 12, 5
RATE, DECAY, MOMENTUM = 0.1, 0.01, 0.9


def draw(number, shape):
    """Returns normal numbers; the stream is that of the tensor with this number."""
    return np.random.RandomState(number).standard_normal(shape).astype(np.float32)


def shapes():
    """Returns the shapes of the state_dict, without counters, in its order."""

    def norm(name, channels):
        kinds = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{kind}": (channels,) for kind in kinds}

    def block(name, narrow, wide):
        found = {f"{name}.conv1.weight": (wide, narrow, 3, 3)}
        found |= norm(f"{name}.bn1", wide)
        found |= {f"{name}.conv2.weight": (wide, wide, 3, 3)}
        found |= norm(f"{name}.bn2", wide)
        if narrow != wide:
            found |= {f"{name}.downsample.0.weight": (wide, narrow, 1, 1)}
            found |= norm(f"{name}.downsample.1", wide)
        return found

    wide = 2 * WIDTH
    found = {"conv1.weight": (WIDTH, 3, 3, 3), **norm("bn1", WIDTH)}
    found |= block("layer1.0", WIDTH, WIDTH) | block("layer2.0", WIDTH, wide)
    return found | {"fc.weight": (CLASSES, wide), "fc.bias": (CLASSES,)}


def weights():
    """Returns the tensors of the network before the first step, by name."""
    drawn = {}
    for number, (name, shape) in enumerate(shapes().items()):
        x = draw(number, shape)
        if len(shape) > 1:
            drawn[name] = x * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        elif name.endswith("running_var"):
            drawn[name] = 1 + np.abs(x)
        else:
            is_scale = "weight" in name
            drawn[name] = np.float32(is_scale) + np.float32(0.2) * x
    return drawn


def images(step):
    """Returns the normalized crops of a step, [b, h, w, 3]."""
    return draw(1000 + step, (BATCH, SIDE, SIDE, 3))


def labels(step):
    return np.random.RandomState(2000 + step).randint(0, CLASSES, BATCH)


def main():
    import torch
    from torchvision.models.resnet import BasicBlock, ResNet

    class Tiny(ResNet):
        """Two stages of one block each, and the stem for small images."""

        def __init__(self):
            super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
            self.inplanes = WIDTH
            self.conv1 = torch.nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(WIDTH)
            self.maxpool = torch.nn.Identity()
            self.layer1 = self._make_layer(BasicBlock, WIDTH, 1)
            self.layer2 = self._make_layer(BasicBlock, 2 * WIDTH, 1, stride=2)
            self.layer3 = self.layer4 = torch.nn.Identity()
            self.fc = torch.nn.Linear(2 * WIDTH, CLASSES)

    model = Tiny()
    counters = "num_batches_tracked"
    theirs = {
        name: tuple(x.shape)
        for name, x in model.state_dict().items()
        if not name.endswith(counters)
    }
    assert list(theirs.items()) == list(shapes().items())
    drawn = {name: torch.from_numpy(x) for name, x in weights().items()}
    model.load_state_dict(drawn, strict=False)
    model.train()
    how = {"momentum": MOMENTUM, "weight_decay": DECAY, "nesterov": True}
    optimizer = torch.optim.SGD(model.parameters(), RATE, **how)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    losses = []
    for step in range(STEPS):
        nchw = torch.from_numpy(images(step).transpose(0, 3, 1, 2).copy())
        target = torch.from_numpy(labels(step))
        loss = torch.nn.functional.cross_entropy(model(nchw), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    arrays = {
        name: x.numpy()
        for name, x in model.state_dict().items()
        if not name.endswith(counters)
    }
    losses = np.array(losses, np.float32)
    np.savez_compressed(DATA / "finetune.npz", losses=losses, **arrays)


if __name__ == "__main__":
    main()
